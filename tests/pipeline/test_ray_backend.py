"""The Ray backend on a real Ray, with small stages. The data pipeline on a cluster: tests/test_ray_jobs.py."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from pipeline.backends import RayBackend, RetryPolicy
from pipeline.events import EventLog
from pipeline.records import Appearance, Rejected, SourceItem
from pipeline.runner import Runner, RunState
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.conftest import REPOSITORY
from tests.pipeline.toys import Halve, Name, item

pytestmark = pytest.mark.ray
POLICY = RetryPolicy(attempts=2, first_wait_s=0.01)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    for attempts_left in (3, 2, 1, 0):
        try:
            ray.init(
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=100 * 2**20,
                log_to_driver=False,
                _node_ip_address="127.0.0.1",
                runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY)}},
            )
            break
        except Exception:  # on a busy machine a node may not be up within the half minute that Ray grants it
            ray.shutdown()
            if not attempts_left:
                raise
    yield
    ray.shutdown()


@pytest.fixture
def run(ray_here: None, tmp_path: Path) -> Callable[[list[SourceItem]], tuple[Tables, RunState]]:
    (tmp_path / "scratch").mkdir()

    def run_items(items: list[SourceItem]) -> tuple[Tables, RunState]:
        store = Store(str(tmp_path / "data"))
        stages = (Halve(data=store.root, scratch=str(tmp_path / "scratch")), Name(data=store.root))
        backend = RayBackend(store, stages, 2, POLICY)
        runner = Runner(Tables(store), stages, backend, policy=POLICY, events=EventLog(store), deadline_s=60.0)
        try:
            return Tables(store), runner.run(iter(items))
        finally:
            backend.close()

    return run_items


def test_actors_do_the_same_as_threads(run: Callable[[list[SourceItem]], tuple[Tables, RunState]]) -> None:
    tables, state = run([item(number) for number in range(8)] + [item(8, name="bad"), item(9, name="flaky")])
    assert len(tables.rows(Appearance)) == 13
    assert [row.reason for row in tables.rows(Rejected)] == ["malformed"]
    assert state.num_finished == 10


def test_an_input_that_kills_its_worker_is_blamed_alone(
    run: Callable[[list[SourceItem]], tuple[Tables, RunState]], tmp_path: Path
) -> None:
    tables, _ = run([item(1), item(3, name="die"), item(5), item(7)])
    found = tables.rows(Rejected)
    assert [(row.rejected_id, row.reason) for row in found] == [("item003", "machine_fault")]
    assert {row.clip_id for row in tables.rows(Appearance)} == {"item001-0", "item005-0", "item007-0"}
    # At first it took others with it, which were tried again; it was blamed after two deaths of a worker of its own.
    assert (tmp_path / "scratch" / "calls").read_text().split().count("item003") >= 2


def test_many_wait_at_once_in_one_process(
    run: Callable[[list[SourceItem]], tuple[Tables, RunState]], tmp_path: Path
) -> None:
    _, state = run([item(number, name="slow") for number in range(32)])
    assert state.num_finished == 32
    (events,) = (tmp_path / "data" / "runs").glob("*/events.jsonl")
    spans = []
    for event in map(json.loads, events.read_text().splitlines()):
        end = datetime.fromisoformat(event["time"]).timestamp()
        spans.append((end - event["seconds"], end))
    assert max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans) >= 8
    assert len(set((tmp_path / "scratch" / "processes").read_text().split())) == 1
