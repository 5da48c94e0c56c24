"""What a command says and returns when the machine cannot go on."""

import errno
import sys
import types

import pytest

from pipeline.cli import COMMANDS, EXIT_MACHINE, run_command


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A command that raises what it is given."""
    module = types.ModuleType("failing_command")
    monkeypatch.setitem(sys.modules, "failing_command", module)
    monkeypatch.setitem(COMMANDS, "fail", ("failing_command:main", ""))
    return module


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_anywhere_in_the_driver_is_told_in_a_line(
    failing: types.ModuleType, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(arguments: list[str]) -> int:
        raise OSError(number, "no room", "/data/x")

    failing.__dict__["main"] = main
    assert run_command("fail", []) == EXIT_MACHINE
    assert "no space left on the disk" in capsys.readouterr().err


def test_other_errors_of_the_system_are_not_hidden(failing: types.ModuleType) -> None:
    def main(arguments: list[str]) -> int:
        raise PermissionError(errno.EACCES, "not yours", "/data/x")

    failing.__dict__["main"] = main
    with pytest.raises(PermissionError):
        run_command("fail", [])
