"""A child's end when it was started by a Ray actor."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import REPOSITORY
from tests.render.test_supervisor import HERE, group_is_gone

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY)}},
    )
    yield ray
    ray.shutdown()


class Renderer:
    """An actor with a child."""

    def start(self, folder: str) -> tuple[int, int]:
        """The ids of the actor's process and of its child's."""
        from render.supervisor import BlenderChild, BlenderSettings

        self.child = BlenderChild(BlenderSettings(), module="fake_child", readable=(Path(folder),))
        assert self.child.out.exists()
        return os.getpid(), self.child.pid or 0


@pytest.mark.parametrize("how", ["killed", "by ray", "with the cluster"])  # the last one ends it
def test_a_child_ends_with_its_actor(ray_here: Any, how: str) -> None:
    actor = ray_here.remote(Renderer).remote()
    pid, child_pid = ray_here.get(actor.start.remote(str(HERE)))
    assert psutil.pid_exists(child_pid)
    if how == "killed":
        os.kill(pid, signal.SIGKILL)
    elif how == "by ray":
        ray_here.kill(actor, no_restart=True)
    else:
        ray_here.shutdown()
    assert group_is_gone(child_pid)
