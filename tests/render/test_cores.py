import os
import subprocess
import sys
from pathlib import Path

import pytest

from render import cores
from render.cores import Cores
from render.supervisor import BlenderChild, BlenderSettings
from tests.conftest import REPOSITORY
from tests.render.test_supervisor import HERE


@pytest.fixture(autouse=True)
def machine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cores, none of which is taken."""
    monkeypatch.setattr(cores, "FOLDER", tmp_path / "cores")
    monkeypatch.setattr(cores, "CPU_QUOTAS", (tmp_path / "quota",))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 5, 7})


def test_nobody_gets_a_core_that_somebody_has() -> None:
    first, second = Cores.take(1), Cores.take(2)
    assert (first.numbers, second.numbers) == ((2,), (3, 5))
    assert Cores.take(2).numbers == (), "one is left"
    assert Cores.take(1).numbers == (7,)
    first.release()
    assert Cores.take(1).numbers == (2,)
    second.release()


def test_the_cores_of_another_process_are_taken_until_it_is_killed(tmp_path: Path) -> None:
    script = (
        "import time; from pathlib import Path; from render import cores\n"
        f"cores.FOLDER = Path({str(tmp_path / 'cores')!r}); cores.CPU_QUOTAS = ()\n"
        "cores.os.sched_getaffinity = lambda pid: {2, 3}\n"
        "mine = cores.Cores.take(1); print(mine.numbers, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "(2,)\n"
        mine = Cores.take(1)
        other.kill()
        other.wait()
    assert mine.numbers == (3,)
    assert Cores.take(1).numbers == (2,)


@pytest.mark.parametrize(
    ("quota", "numbers"), [("max 100000", (2,)), ("400000 100000", ()), ("-1", (2,)), ("50000", ())]
)
def test_rationed_cores_are_nobodys(tmp_path: Path, quota: str, numbers: tuple[int, ...]) -> None:
    (tmp_path / "quota").write_text(f"{quota}\n")
    assert Cores.take(1).numbers == numbers


@pytest.mark.parametrize("settings", [BlenderSettings(), BlenderSettings(pin=False), BlenderSettings(threads=0)])
def test_a_child_stays_on_its_core_and_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: BlenderSettings
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(cores, "_rationed", lambda: False)
    monkeypatch.setattr(cores, "FOLDER", tmp_path / "real cores")
    allowed = os.sched_getaffinity(0)
    pinned = settings.pin and settings.threads == 1
    child = BlenderChild(settings, module="fake_child", readable=(HERE,))
    try:
        assert child.out.exists()
        found = os.sched_getaffinity(child.pid or 0)
        assert found <= allowed
        assert (found == allowed) == (not pinned or len(allowed) == 1)
        others = Cores.take(len(allowed))
        assert (others.numbers == ()) == pinned
        others.release()
    finally:
        child.close()
    whole = Cores.take(len(allowed))
    assert set(whole.numbers) == allowed
    whole.release()
