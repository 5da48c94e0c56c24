"""A child, or everything, stands still for a while: nobody's asset is to blame."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.storage import Store
from render import scratch
from render.scratch import Scratch
from render.supervisor import BlenderChild, BlenderSettings, MachineFault
from tests.conftest import REPOSITORY
from tests.render.test_supervisor import asset

FAKE_CHILD = REPOSITORY / "tests" / "render"
PATIENT = """
import sys
from pathlib import Path
from pipeline.storage import Store
from render import process
from render.supervisor import BlenderChild, BlenderSettings
from tests.render.test_supervisor import asset

process.STANDSTILL_S = 0.5
child = BlenderChild(BlenderSettings(load_s=1.0), module="fake_child", readable=(Path(sys.argv[2]),))
child.load(asset(Store(sys.argv[1])), Store(sys.argv[1]))
print(child.pid, flush=True)
child.load(asset(Store(sys.argv[1]), "be_slow"), Store(sys.argv[1]))
print("loaded", flush=True)
child.close()
"""


@pytest.fixture
def child() -> Iterator[BlenderChild]:
    child = BlenderChild(BlenderSettings(load_s=1.0), module="fake_child", readable=(FAKE_CHILD,))
    yield child
    child.close()


def test_a_child_that_somebody_stopped_is_no_fault_of_its_asset(child: BlenderChild, store: Store) -> None:
    child.load(asset(store), store)
    pid = child.pid
    assert pid
    timer = threading.Timer(0.3, os.kill, (pid, signal.SIGSTOP))
    timer.start()
    with pytest.raises(MachineFault, match="somebody stopped"):
        child.load(asset(store, "be_slow"), store)
    assert not psutil.pid_exists(pid)
    child.load(asset(store, "be_slow"), store)


def test_while_everything_stands_still_no_deadline_passes(store: Store) -> None:
    arguments = [sys.executable, "-c", PATIENT, store.root, str(FAKE_CHILD)]
    with subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as driver:
        assert driver.stdout
        assert driver.stderr
        child = int(driver.stdout.readline())
        time.sleep(0.4)
        os.kill(child, signal.SIGSTOP)
        os.kill(driver.pid, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(driver.pid, signal.SIGCONT)
        time.sleep(0.2)
        os.kill(child, signal.SIGCONT)
        said = driver.stdout.read()
        assert said == b"loaded\n", driver.stderr.read().decode()[-2000:]


@pytest.mark.parametrize("year_s", [-40 * 365 * 86400, 40 * 365 * 86400])
def test_what_a_dead_driver_left_is_swept_whatever_the_clock_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, year_s: float
) -> None:
    monkeypatch.setattr(scratch, "_roomy_folder", lambda: str(tmp_path))
    left = tmp_path / f"{scratch.PREFIX}left"
    (left / "inbox").mkdir(parents=True)
    os.utime(left, (time.time() + year_s, time.time() + year_s))
    young = tmp_path / f"{scratch.PREFIX}young"
    young.mkdir()
    made = Scratch.make()
    assert sorted(tmp_path.iterdir()) == sorted([young, made.folder])
    made.remove()
