"""Jobs on a real Ray cluster of two nodes, started here: each stage, the whole build, and a node that goes away."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.records import Clip, Decision, Rejected, Sample
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.conftest import REPOSITORY
from tests.ray_cluster import ENVIRONMENT, Cluster, two_nodes

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.blender]
LOOK = ["--rig", "front", "--quality", "preview", "--size_px", "48", "--max_animations", "1"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with two_nodes() as cluster:
        yield cluster


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
    command = cluster.submission("pipeline", "build", str(few_samples), "--data", data, "--workers", "2", *LOOK)
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
