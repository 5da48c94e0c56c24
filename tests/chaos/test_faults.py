"""Faults of the machine around a build: a full disk, a second driver, a stopped child, damage, a wrong clock."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.cli import EXIT_MACHINE
from tests.chaos.builds import assert_equal_builds, finish, start
from tests.chaos.doomed import blender_children

pytestmark = pytest.mark.blender


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, "the build ended before it came to that"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_driver_on_the_same_data_root_is_sent_away(few: Path, calm: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = start(few, data)
    wait_for(lambda: list(data.glob("tables/assets/*")), first)
    second = start(few, data)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == EXIT_MACHINE
    assert f"process {first.pid} on" in " ".join(errors.decode().split())
    finish(first)
    assert_equal_builds(calm, data)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False).returncode
    ):
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_with_room_it_goes_on(few: Path, calm: Path, small_disk: Path) -> None:
    data = small_disk / "data"
    process = start(few, data)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == EXIT_MACHINE, errors.decode()[-2000:]
    assert "No space left" in errors.decode()
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    finish(start(few, data))
    assert_equal_builds(calm, data)


@pytest.mark.slow
def test_a_child_that_somebody_stopped_is_replaced(few: Path, calm: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    limits = [f"--blender.{name}={seconds}" for name, seconds in (("load_s", 15), ("measure_s", 15), ("image_s", 15))]
    process = start(few, data, *limits)
    wait_for(lambda: list(data.glob("tables/plans/*")), process)
    for child in blender_children(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGSTOP)
    finish(process)
    assert_equal_builds(calm, data)


@pytest.mark.slow
def test_damage_is_named_and_what_is_deleted_is_made_again_whatever_the_clock_says(
    few: Path, calm: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(calm, data)
    (damaged,) = (data / "tables" / "clips").glob("merged-*")
    damaged.write_bytes(damaged.read_bytes()[:-100])
    process = start(few, data)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == EXIT_MACHINE
    said = "".join(errors.decode().split())
    assert f"tables/clips/{damaged.name}" in said
    assert "deleteitandtables/done" in said
    damaged.unlink()
    shutil.rmtree(data / "tables" / "done")
    shutil.rmtree(data / "shards" / "cc0")
    in_2040 = 70 * 365 * 86400
    for path in data.rglob("*"):
        os.utime(path, (in_2040, in_2040))
    finish(start(few, data))
    assert_equal_builds(calm, data)
