"""Jobs on a real Ray cluster of two nodes, started here: each stage, the whole build, and a node that goes away."""

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pipeline.records import Clip, Decision, Rejected, Sample
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.conftest import REPOSITORY

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.blender, pytest.mark.slow]
BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": uuid.uuid4().hex,
}
LOOK = ["--rig", "front", "--quality", "preview", "--size_px", "48", "--max_animations", "1"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Cluster:
    address: str
    dashboard: str
    temp: Path
    second: subprocess.Popen[bytes]

    def submit(self, *command: str, timeout_s: float = 500) -> str:
        submit = [BIN / "ray", "job", "submit", "--address", self.dashboard, "--working-dir", "."]
        done = subprocess.run(
            [*submit, "--", sys.executable, "-m", *command],
            cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout


def start_node(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [BIN / "ray", "start", "--block", "--node-ip-address", "127.0.0.1", *arguments],
        env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # Sockets have short names only: pytest's own folders are too deep.
    temp = Path(f"/tmp/mv4d-ray-{os.getpid()}")
    port, dashboard = free_port(), free_port()
    head = start_node(
        "--head", f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", "--num-cpus=1",
        f"--temp-dir={temp}", "--object-store-memory=100000000",
    )  # fmt: skip
    wait_for_port(dashboard)
    # Nodes of one machine would share the unpacked working directory, and one would delete it under the other's job.
    second = start_node(
        f"--address=127.0.0.1:{port}", "--num-cpus=2", "--object-store-memory=100000000", f"--temp-dir={temp}-2"
    )  # fmt: skip
    yield Cluster(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", temp, second)
    for node in (second, head):
        node.terminate()
    for node in (second, head):
        try:
            node.wait(timeout=30)
        except subprocess.TimeoutExpired:
            node.kill()


def wait_for_port(port: int) -> None:
    for _ in range(240):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise TimeoutError(f"nothing listens on {port}")


def test_each_stage_and_the_whole_build_run_as_jobs(cluster: Cluster, few_samples: Path, tmp_path: Path) -> None:
    data = str(tmp_path / "stages")
    cluster.submit("ingest", str(few_samples), "--data", data, "--workers", "1")
    cluster.submit("render", "probe", "--data", data, "--workers", "2")
    cluster.submit("render", "--data", data, "--workers", "2", *LOOK)
    cluster.submit("curate", "--data", data, "--workers", "1")
    cluster.submit("shards", "--data", data)
    whole = str(tmp_path / "whole")
    output = cluster.submit("pipeline", "build", str(few_samples), "--data", whole, "--workers", "2", *LOOK)
    assert "succeeded" in output

    by_stage, at_once = Tables(Store(data)), Tables(Store(whole))
    for record in (Clip, Decision, Rejected, Sample):
        assert by_stage.rows(record) == at_once.rows(record), record.table
    assert len(at_once.rows(Sample)) >= 4
    tars = {path.relative_to(whole): path.read_bytes() for path in Path(whole).glob("shards/**/*.tar")}
    assert tars == {path.relative_to(data): path.read_bytes() for path in Path(data).glob("shards/**/*.tar")}


def test_the_work_of_a_node_that_dies_moves_over(cluster: Cluster, few_samples: Path, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    command = [BIN / "ray", "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--", sys.executable]
    command += ["-m", "pipeline", "build", str(few_samples), "--data", data, "--workers", "2", *LOOK]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as job:
        deadline = time.monotonic() + 200
        while not list(Path(data).glob("clips/*/*")) and time.monotonic() < deadline:
            time.sleep(0.3)
        cluster.second.terminate()
        cluster.second.wait(timeout=30)
        output, _ = job.communicate(timeout=500)
    assert job.returncode == 0, output[-4000:]
    tables = Tables(Store(data))
    assert "machine_fault" not in {row.reason for row in tables.rows(Rejected)}
    assert len(tables.rows(Sample)) >= 4


def test_the_cluster_file_fits_rays_own_schema() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((REPOSITORY / "ray_cluster.yaml").read_text())
    validate_config(prepare_config(config))
    assert {"cpu_render", "gpu_render"} <= set(config["available_node_types"])
    broken = prepare_config(yaml.safe_load((REPOSITORY / "ray_cluster.yaml").read_text()))
    broken["max_workerz"] = 3
    with pytest.raises(Exception, match="max_workerz"):
        validate_config(broken)
