"""Small builds as processes of their own, under harm or not, and what must be equal in the end."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.records import RECORDS, Record, Rejected
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.chaos.doomed import Moment, blender_children
from tests.conftest import REPOSITORY

SMALL = [
    "--rig", "front", "--quality", "preview", "--size_px", "32", "--windows.num_frames", "4", "--workers", "2",
    "--max_animations", "1", "--shard_mb", "0.01", "--attempts", "5", "--quiet", "true",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "SOURCE_DATE_EPOCH": "1750000000", "OMP_NUM_THREADS": "1"}
LEFTOVERS = (".partial", ".merging")


def start(
    manifest: Path, data: Path, *more: str, moments: Sequence[Moment] = (), log: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a build; with moments, one that comes to harm."""
    module = ["pipeline"]
    if moments:
        module = ["tests.chaos.doomed", json.dumps([asdict(moment) for moment in moments]), str(log)]
    return subprocess.Popen(
        [sys.executable, "-m", *module, "build", str(manifest), "--data", str(data), *SMALL, *more],
        cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[bytes], *, timeout_s: float = 400) -> str:
    """Wait for a build that must succeed; gives what it said."""
    _, errors = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, errors.decode()[-3000:]
    return errors.decode()


def assert_no_orphans(driver: int) -> None:
    """No Blender outlives its driver by more than a few seconds."""
    deadline = time.monotonic() + 10
    while (orphans := blender_children(driver)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not orphans


def rows(data: Path) -> dict[str, list[Record]]:
    """All tables."""
    tables = Tables(Store(str(data)))
    return {record.table: tables.rows(record) for record in RECORDS}


def shard_bytes(data: Path) -> dict[str, bytes]:
    """Every file below `shards/`."""
    return {
        str(path.relative_to(data)): path.read_bytes() for path in sorted(data.glob("shards/**/*")) if path.is_file()
    }


def assert_equal_builds(calm: Path, rough: Path) -> None:
    """The tables, shards and clips of two data roots are the same, and nothing half-written lies about."""
    expected, found = rows(calm), rows(rough)
    for table, wanted in expected.items():
        assert found[table] == wanted, table
    assert "machine_fault" not in {row.reason for row in found["rejected"] if isinstance(row, Rejected)}
    assert shard_bytes(rough) == shard_bytes(calm)
    assert len([name for name in shard_bytes(calm) if name.endswith(".tar")]) >= 2
    pictures = {str(path.relative_to(calm)): path.read_bytes() for path in calm.glob("clips/**/*.webp")}
    assert {name: (rough / name).read_bytes() for name in pictures} == pictures
    assert [path for path in rough.rglob("*") if path.name.endswith(LEFTOVERS)] == []
