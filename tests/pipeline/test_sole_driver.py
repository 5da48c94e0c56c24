"""The lock on a data root, between real processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.sole_driver import LOCK, sole_driver
from pipeline.storage import Store
from tests.conftest import REPOSITORY

HOLD = """
import sys
from pipeline.sole_driver import sole_driver
from pipeline.storage import Store
with sole_driver(Store(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_who_is_at_work(store: Store) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, store.root], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RuntimeError, match=rf"process {other.pid} on .* is at work"), sole_driver(store):
            pass
        other.kill()
    with sole_driver(store):
        pass


def test_what_a_killed_driver_left_half_written_is_swept_and_nothing_else(store: Store) -> None:
    store.write_bytes("tables/clips/a.parquet", b"whole")
    for leftover in ("tables/clips/.b.parquet.0123abcd.partial", "blobs/ab/.c.glb.0123abcd.partial"):
        path = Path(store.path(leftover))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"ha")
    with sole_driver(store):
        assert sorted(path.name for path in Path(store.root).rglob("*") if path.is_file()) == ["a.parquet", LOCK]


def _refuse_after(store: Store, names: tuple[str, ...]) -> None:
    for name in names:
        store.write_bytes(name, b"work")
    raise ValueError("refused")


def test_a_folder_that_nothing_came_into_goes_again(tmp_path: Path) -> None:
    for content in ((), ("a.parquet",)):
        store = Store(str(tmp_path / "out" / "data"))
        with pytest.raises(ValueError, match="refused"), sole_driver(store):
            _refuse_after(store, content)
        assert (tmp_path / "out").exists() == bool(content)
    # What was there before stays, empty or not.
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="refused"), sole_driver(Store(str(tmp_path / "mine"))):
        raise ValueError("refused")
    assert (tmp_path / "mine").is_dir()


def test_an_object_store_has_no_lock() -> None:
    with sole_driver(Store("memory://lock-test")):
        assert not Store("memory://lock-test").exists(LOCK)
