"""Training runs as jobs of a real SLURM: stopped, killed, on other nodes, and no different for it."""

import contextlib
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from pipeline.storage import Store
from pipeline.tables import Tables
from shards.cards import write_cards
from shards.pack import Packer
from shards.plan import PackSettings
from tests.conftest import REPOSITORY
from tests.shards.toys import Toy, commit
from tests.slurm_cluster import Slurm, missing_programs, slurm
from training.slurm.__main__ import Job, job_script, main

MAX_STEPS, SAVE_EVERY = 40, 4
pytestmark = pytest.mark.timeout(2400)
needs_slurm = pytest.mark.skipif(
    bool(missing_programs()), reason=f"no SLURM: {missing_programs()} (apt-get install slurm-wlm munge)"
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of some seconds on packed clips."""
    folder = tmp_path_factory.mktemp("data")
    tables = Tables(Store(str(folder)))
    commit(tables, [Toy(seq=seq, licence_class="cc0", num_views=4) for seq in range(5)])
    Packer(tables, PackSettings(val_share=0.0, test_share=0.0)).pack()
    write_cards(tables)
    scratch = {"block_out_channels": [8, 16], "attention_levels": [0], "norm_num_groups": 4, "num_frequencies": 4}
    settings: dict[str, Any] = {
        "seed_everything": 3,
        "trainer": {"accelerator": "cpu", "max_steps": MAX_STEPS, "limit_val_batches": 0},
        "model": {"start": {"scratch": scratch}, "train": "all", "optimizer": {"lr": 0.001, "warmup_steps": 5}},
        "data": {
            "shards": str(folder),
            "global_batch": 4,
            "rigs": [],
            "num_workers": 0,
            "val_split": "train",
            "clips": {"num_views": 2, "num_frames": 3, "size_px": 16},
        },
        "checkpoints": {"every_n_steps": SAVE_EVERY},
        "progress": {"every_n_steps": 1},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    pytest.importorskip("lightning")
    with slurm(num_nodes=2) as cluster:
        cluster.environment |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        yield cluster


@pytest.fixture(scope="module")
def unbroken(cluster: Slurm, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happens to."""
    run = tmp_path_factory.mktemp("unbroken")
    job = submit(cluster, config, run, nodes=2)
    assert cluster.wait_for(job) == "COMPLETED", log_of(run)
    return run


def submit(cluster: Slurm, config: Path, run: Path, *, nodes: int) -> str:
    """The number of a job that trains with one rank a node."""
    command = [sys.executable, "-m", "training.slurm", f"--run={run}", f"--nodes={nodes}", "--gpus=false"]
    done = subprocess.run(
        [*command, "--time=60", "--", f"--config={config}"],
        cwd=REPOSITORY, env=cluster.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[1].rstrip(";")


def wait_until(true: Callable[[], bool], what: str, run: Path, timeout_s: float = 600) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"waited for {what}\n{log_of(run)}"
        time.sleep(0.05)


def log_of(run: Path) -> str:
    return "".join(path.read_text() for path in sorted(run.glob("slurm-*.log")))


def saved(run: Path) -> list[int]:
    return sorted(int(path.stem.split("-")[1]) for path in run.glob("checkpoints/step-*.ckpt"))


def saved_later(run: Path) -> Callable[[], bool]:
    """True once the run has saved a step that it had not yet."""
    newest = max(saved(run), default=0)
    return lambda: max(saved(run), default=0) > newest


def ranks_of(job: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if "training" in (process.info["cmdline"] or []) and process.environ().get("SLURM_JOB_ID") == job:
                found.append(process)
    return found


def losses(run: Path) -> dict[int, set[float]]:
    """All that was logged of each step, by all starts of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curve = defaultdict(set)
    for path in run.glob("logs/events.*"):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        if "train/loss" in events.Tags()["scalars"]:
            for event in events.Scalars("train/loss"):
                curve[event.step].add(event.value)
    return dict(curve)


def final_state(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "checkpoints" / f"step-{MAX_STEPS:08d}.ckpt", weights_only=True)
    return state


def assert_equal(mine: Any, other: Any, place: str = "") -> None:
    """Bit for bit, at any depth."""
    assert type(mine) is type(other), place
    if isinstance(mine, dict):
        assert mine.keys() == other.keys(), place
        for name in mine:
            assert_equal(mine[name], other[name], f"{place}.{name}")
    elif isinstance(mine, list | tuple):
        assert len(mine) == len(other), place
        for number, (a, b) in enumerate(zip(mine, other, strict=True)):
            assert_equal(a, b, f"{place}.{number}")
    elif isinstance(mine, torch.Tensor):
        assert torch.equal(mine, other), place
    else:
        assert mine == other, place


@needs_slurm
def test_a_job_that_is_stopped_killed_and_loses_a_node_ends_as_if_nothing_had_been(
    cluster: Slurm, config: Path, unbroken: Path, tmp_path: Path
) -> None:
    job = submit(cluster, config, tmp_path, nodes=2)
    restarts = 0

    def started_again() -> bool:
        of_job = cluster.of_job(job)
        assert of_job["JobState"] not in ("COMPLETED", "FAILED", "CANCELLED"), log_of(tmp_path)
        return int(of_job["Restarts"]) == restarts

    def stop() -> None:
        """As SLURM does before the time limit."""
        cluster.run("scancel", "--signal=USR1", job)

    def kill() -> None:
        ranks_of(job)[-1].kill()

    def lose_a_node() -> None:
        cluster.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
        cluster.run("scontrol", "update", "NodeName=n2", "State=RESUME")

    for happens in (stop, kill, lose_a_node):
        wait_until(saved_later(tmp_path), f"a checkpoint, before {happens.__name__}", tmp_path)
        assert max(saved(tmp_path)) < MAX_STEPS
        happens()
        restarts += 1
        wait_until(started_again, f"start {restarts}", tmp_path)
    assert cluster.wait_for(job) == "COMPLETED", log_of(tmp_path)

    said = log_of(tmp_path)
    assert "stopped with a checkpoint: queued again" in said
    assert "fault 1 of at most 3: queued again" in said
    curve, expected = losses(tmp_path), losses(unbroken)
    assert sorted(expected) == list(range(1, MAX_STEPS + 1))
    assert all(len(of_step) == 1 for of_step in expected.values())
    assert curve == expected  # also of steps that were taken twice
    mine, other = final_state(tmp_path), final_state(unbroken)
    for part in ("state_dict", "ema", "optimizer_states", "lr_schedulers"):
        assert_equal(mine[part], other[part], part)
    assert len(ranks_of(job)) == 0


@needs_slurm
def test_a_cancelled_job_stays_so_and_another_number_of_nodes_goes_on(
    cluster: Slurm, config: Path, unbroken: Path, tmp_path: Path
) -> None:
    job = submit(cluster, config, tmp_path, nodes=2)
    wait_until(saved_later(tmp_path), "a checkpoint", tmp_path)
    cluster.run("scancel", job)
    assert cluster.wait_for(job) == "CANCELLED"
    wait_until(lambda: not ranks_of(job), "the ranks to end", tmp_path)
    stopped_at = max(saved(tmp_path))
    assert stopped_at < MAX_STEPS
    time.sleep(7)  # a job that is queued again begins within six seconds here
    assert cluster.state(job) == "CANCELLED"

    job = submit(cluster, config, tmp_path, nodes=1)
    assert cluster.wait_for(job) == "COMPLETED", log_of(tmp_path)
    curve, expected = losses(tmp_path), losses(unbroken)
    assert sorted(curve) == sorted(expected)
    for step in expected:
        assert list(curve[step]) == pytest.approx([*expected[step]] * len(curve[step]), rel=1e-3), step


@needs_slurm
def test_wrong_usage_is_not_tried_again(cluster: Slurm, config: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(config.read_text().replace("global_batch", "globel_batch"))
    job = submit(cluster, broken, tmp_path, nodes=1)
    assert cluster.wait_for(job) == "FAILED"
    assert cluster.of_job(job)["Restarts"] == "0"
    assert "globel_batch" in log_of(tmp_path)


def test_the_job_asks_for_what_was_asked_for(tmp_path: Path) -> None:
    job = Job(nodes=4, ranks=8, cpus=12, time="2-0", partition="gpu", setup="module load cuda", save_s=120)
    script = job_script(job, tmp_path, ["--config", "a b.yaml", "--data.where=motion > 0"])
    path = tmp_path / "job.sh"
    path.write_text(script)
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    asked = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH ")]
    assert {"nodes=4", "ntasks-per-node=8", "gpus-per-node=8", "cpus-per-task=12", "time=2-0"} <= set(asked)
    assert {"partition=gpu", "signal=SIGUSR1@120", "requeue", "open-mode=append"} <= set(asked)
    names = [line.partition("=")[0] for line in asked]
    assert len(names) == len(set(names))
    head, arguments = script.split("set -- ")[0], script.split("set -- ")[1].splitlines()[0]
    assert arguments == "--config 'a b.yaml' '--data.where=motion > 0'"
    assert head.index("#SBATCH --open-mode") < head.index("module load cuda")


@pytest.mark.parametrize(
    "change",
    [{"nodes": 0}, {"time": "soon"}, {"time": "1:2:3:4"}, {"name": "bash"}, {"partition": "a b"}, {"max_faults": -1}],
)
def test_impossible_jobs_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change)) if "name" not in change else "interactive"):
        Job(**change)


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"--run={tmp_path}", "--dry_run"])
    assert ended.value.code == 2
    assert "behind `--`" in capsys.readouterr().err
    assert main([f"--run={tmp_path}", "--dry-run", "--nodes=3", "--", "--config=a.yaml"]) == 0
    assert "--nodes=3" in (tmp_path / "train.sbatch").read_text()
    if shutil.which("sbatch") is None:
        with pytest.raises(SystemExit):
            main([f"--run={tmp_path}", "--", "--config=a.yaml"])
