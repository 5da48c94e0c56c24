"""Bars for people at a terminal, lines for logs."""

import io

import pytest
from rich.console import Console

from pipeline import progress_bar as module
from pipeline.progress_bar import duration, progress_bar


class Clock:
    """Stands still unless it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    with progress_bar("encoding", "samples") as on_progress:
        for done in range(11):
            clock.now = 10.0 * done
            on_progress(100 + done, 110, "27.1 dB")
        on_progress(110, 110)
    assert capsys.readouterr().err.splitlines() == [
        "encoding: 104/110 samples, 27.1 dB, 40 s so far, about 60 s left",
        "encoding: 108/110 samples, 27.1 dB, 80 s so far, about 20 s left",
        "encoding: 110/110 samples, 27.1 dB, 2 min so far",
    ]


def test_a_terminal_gets_a_bar_with_what_else_there_is_to_say() -> None:
    shown = io.StringIO()
    with progress_bar("fitting", "steps", console=Console(file=shown, force_terminal=True, width=120)) as on_progress:
        on_progress(0, 40)
        on_progress(30, 40, "[frame 3]")
    last = shown.getvalue().rsplit("\r", 1)[-1]
    assert "fitting" in last
    assert "30/40" in last
    assert "steps, [frame 3]" in last


@pytest.mark.parametrize("is_terminal", [False, True])
def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str], *, is_terminal: bool) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=is_terminal)
    with progress_bar("encoding", "samples", console=console, quiet=True) as on_progress:
        on_progress(10, 10)
    assert (shown.getvalue(), capsys.readouterr().err) == ("", "")


def test_how_long_it_takes_is_said_as_people_say_it() -> None:
    assert [duration(seconds) for seconds in (12.4, 89.0, 600.0, 7200.0)] == ["12 s", "89 s", "10 min", "2.0 h"]
