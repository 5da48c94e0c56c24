"""On a Ray cluster, kill actors, drivers and a node: the result is that of an undisturbed run without Ray."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.chaos.builds import SMALL, assert_equal_builds
from tests.conftest import REPOSITORY
from tests.ledger import num_done
from tests.ray_cluster import ENVIRONMENT, Cluster, two_nodes

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.blender, pytest.mark.slow, pytest.mark.timeout(3600)]
RUNTIME_ENV = json.dumps({"env_vars": {"SOURCE_DATE_EPOCH": "1750000000"}})
LIVES = (("actor", "driver"), ("node", "driver"), ("actor", "node", "driver"), ("actor", "driver"), ("node", "actor"))
"""Who is killed in each job, one after the other. But for the last, each job is left unfinished: only a driver's end
ends it."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with two_nodes() as cluster:
        yield cluster


def driver_of(data: Path) -> int | None:
    """The process that drives the build, which Ray has started."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if str(data) in command and "pipeline" in command and "submit" not in command:
            return int(process.pid)
    return None


def strike(who: str, cluster: Cluster, data: Path, rng: random.Random) -> bool:
    """Kill somebody, if there is somebody to kill."""
    if who == "node":
        cluster.kill_second()
        return True
    pids = cluster.workers() if who == "actor" else [pid for pid in (driver_of(data),) if pid]
    if not pids:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(rng.choice(pids), signal.SIGKILL)
        return True
    return False


def test_actors_drivers_and_a_node_die_and_nothing_is_lost(
    cluster: Cluster, real_manifest: Path, calm_real: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    rng = random.Random(3)
    command = cluster.submission(
        "pipeline", "build", str(real_manifest), "--data", str(data), *SMALL, runtime_env=RUNTIME_ENV
    )
    struck: Counter[str] = Counter()
    for victims in (*LIVES, ()):
        with subprocess.Popen(
            command, cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as job:
            for who in victims:
                wanted = num_done(data) + rng.randint(1, 6)
                deadline = time.monotonic() + 120
                while num_done(data) < wanted and job.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.05)
                time.sleep(rng.uniform(0.0, 0.5))
                if job.poll() is None:
                    struck[who] += strike(who, cluster, data, rng)
            output, _ = job.communicate(timeout=900)
        assert job.returncode == 0 or "driver" in victims, output[-4000:]
        if "node" in victims:
            cluster.start_second()
    print(dict(struck))
    assert struck["actor"] >= 3
    assert struck["driver"] >= 2
    assert struck["node"] >= 2
    assert_equal_builds(calm_real, data)
