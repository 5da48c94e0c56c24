"""Kill the pipeline at random moments, driver and Blender alike; the result is that of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.records import RECORDS, Clip, Record, Rejected
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.blender, pytest.mark.slow]


def start(manifest: Path, data: Path) -> subprocess.Popen[bytes]:
    arguments = ["build", str(manifest), "--data", str(data), "--rig", "front", "--quality", "preview"]
    arguments += ["--size_px", "48", "--workers", "2", "--max_animations", "2", "--shard_mb", "0.03"]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1750000000", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors.decode()[-3000:]


def rows(data: Path) -> dict[str, list[Record]]:
    tables = Tables(Store(str(data)))
    return {record.table: tables.rows(record) for record in RECORDS}


def shard_bytes(data: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(data)): path.read_bytes() for path in sorted(data.glob("shards/**/*")) if path.is_file()
    }


def blender_children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return [child for child in psutil.Process(process.pid).children(recursive=True) if child.is_running()]
    except psutil.NoSuchProcess:
        return []


def test_killed_again_and_again_it_ends_like_an_undisturbed_run(few_samples: Path, tmp_path: Path) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    finish(start(few_samples, calm))
    rng = random.Random(7)
    killed = {"driver": 0, "child": 0}
    for attempt in range(6):
        process = start(few_samples, rough)
        time.sleep(rng.uniform(2.0, 9.0))
        children = blender_children(process)
        if attempt % 2 and children:
            os.kill(rng.choice(children).pid, signal.SIGKILL)
            killed["child"] += 1
            time.sleep(rng.uniform(0.5, 3.0))
            children = blender_children(process)
        if process.poll() is None:
            process.kill()
            killed["driver"] += 1
        process.communicate()
        # No orphan outlives the driver.
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
    assert killed["driver"] >= 3
    finish(start(few_samples, rough))

    expected, found = rows(calm), rows(rough)
    for table, wanted in expected.items():
        assert found[table] == wanted, table
    assert "machine_fault" not in {row.reason for row in found["rejected"] if isinstance(row, Rejected)}
    assert len(found["clips"]) >= 6
    assert all(isinstance(row, Clip) for row in found["clips"])
    assert shard_bytes(rough) == shard_bytes(calm)
    assert len([name for name in shard_bytes(calm) if name.endswith(".tar")]) >= 2
    assert not list(rough.rglob("*.partial"))
