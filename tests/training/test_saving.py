import contextlib
import multiprocessing
import os
import random
import signal
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from tests.training.runs import Run, assert_near_training, assert_same_training
from training.checkpoints import CheckpointError, read_torch_file
from training.module import MultiViewVideoTraining
from training.saving import CheckpointFiles, newest_whole, saved_steps


def stop_in_step(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """A signal comes while a step is computed."""
    compute = MultiViewVideoTraining.training_step

    def interrupted(self: MultiViewVideoTraining, batch: Any, batch_idx: int) -> Tensor:
        if self.trainer.global_step + 1 == step:
            os.kill(os.getpid(), number)
        return compute(self, batch, batch_idx)

    monkeypatch.setattr(MultiViewVideoTraining, "training_step", interrupted)


def flip_a_bit(path: Path) -> None:
    """In the middle of the largest tensor."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 128 + largest.file_size // 2] ^= 1
    path.write_bytes(content)


def shown(folder: Path) -> Counter[str]:
    """How often each sample was shown, as the run has written it down."""
    counts: Counter[str] = Counter()
    for path in folder.glob("seen-*.parquet"):
        table = pq.read_table(path)
        counts.update(dict(zip(table["key"].to_pylist(), table["times"].to_pylist(), strict=True)))
    return counts


@pytest.mark.parametrize("asked", [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)], ids=str)
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    asked: tuple[signal.Signals, int], unbroken: Run, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, code = asked
    run = Run(tmp_path, shards)
    handlers = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)]
    with monkeypatch.context() as patch:
        stop_in_step(patch, 4, number)
        assert run() == code
    assert [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)] == handlers
    assert list(saved_steps(tmp_path / "checkpoints")) == [4, 3]
    assert run() == 0
    assert list(saved_steps(tmp_path / "checkpoints")) == [6, 4]
    assert_same_training(run, unbroken)
    assert sorted(path.name for path in tmp_path.glob("seen-*")) == [
        "seen-000000000000.parquet",
        "seen-000000000008.parquet",
    ]
    assert shown(tmp_path) == shown(unbroken.folder)
    assert {step: run.logged("train/loss")[step] for step in (5, 6)} == {
        step: unbroken.logged("train/loss")[step] for step in (5, 6)
    }


def test_a_run_may_go_on_with_other_batches_and_workers(
    unbroken: Run, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, shards)
    with monkeypatch.context() as patch:
        stop_in_step(patch, 4, signal.SIGTERM)
        assert run(data__batch_size=1) == 75
    assert run(data__num_workers=2) == 0
    assert_near_training(run, unbroken)
    assert run.state()["ClipBatches"]["place"] == 12


def test_a_finished_run_has_nothing_left_to_do(unbroken: Run) -> None:
    before = [path.stat().st_mtime_ns for path in unbroken.checkpoints]
    assert unbroken() == 0
    assert [path.stat().st_mtime_ns for path in unbroken.checkpoints] == before


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    unbroken: Run, shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, shards)
    assert run() == 0
    last, before = run.checkpoints
    flip_a_bit(last)
    assert newest_whole(tmp_path / "checkpoints") == before
    assert last.name in caplog.text
    assert run() == 0
    assert "step 3 of 6" in capsys.readouterr().out
    assert_same_training(run, unbroken)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, shards)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "step-00000003.ckpt").write_bytes(b"PK\x03\x04 half a file")
    assert run() == 2
    assert "damaged" in capsys.readouterr().err
    assert run(ckpt_path="none") == 0


def test_a_checkpoint_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, path = CheckpointFiles(), tmp_path / "step-00000001.ckpt"

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space"):
            files.save_checkpoint({"weights": torch.ones(3)}, path)
    assert list(tmp_path.iterdir()) == []
    files.save_checkpoint({"weights": torch.ones(3)}, path)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert torch.equal(files.load_checkpoint(path, weights_only=False)["weights"], torch.ones(3))


def test_no_code_of_a_checkpoint_runs(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.ckpt"
    torch.save({"state_dict": {}, "callbacks": Run}, path)
    with pytest.raises(CheckpointError, match="would have to run code"):
        CheckpointFiles().load_checkpoint(path, weights_only=False)


def test_weights_that_are_not_finite_are_not_saved(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = MultiViewVideoTraining.training_step

    def breaks(self: MultiViewVideoTraining, batch: Any, batch_idx: int) -> Tensor:
        return compute(self, batch, batch_idx) * (float("nan") if self.trainer.global_step >= 4 else 1.0)

    monkeypatch.setattr(MultiViewVideoTraining, "training_step", breaks)
    run = Run(tmp_path, shards, progress__every_n_steps=100, trainer__max_steps=7)
    with pytest.raises(RuntimeError, match="no longer finite at step 6"):
        run()
    assert list(saved_steps(tmp_path / "checkpoints")) == [3]


def test_milestones_are_kept(shards: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, shards, checkpoints__every_n_steps=1, checkpoints__keep=1, checkpoints__keep_every_n_steps=2)
    assert run(trainer__max_steps=5) == 0
    assert list(saved_steps(tmp_path / "checkpoints")) == [5, 4, 2]


def train_on_one_thread(run: Run) -> None:
    """As this process trains: sums over two threads are rounded otherwise."""
    torch.set_num_threads(1)
    run(checkpoints__every_n_steps=1)


def kill_at_random(run: Run, rng: random.Random, num_kills: int) -> int:
    """Start the run again and again and kill it at any moment; returns how many checkpoints it was killed with."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.cli"])
    found = set()
    for _ in range(num_kills):
        process = context.Process(target=train_on_one_thread, args=(run,))
        process.start()
        assert process.pid is not None
        begun = time.monotonic()
        newest = max(saved_steps(run.folder / "checkpoints"), default=0)
        while process.is_alive() and time.monotonic() - begun < 60 and rng.random() < 0.9:
            if max(saved_steps(run.folder / "checkpoints"), default=0) >= newest + 2:
                break
            time.sleep(rng.uniform(0.05, 0.5))
        time.sleep(rng.uniform(0, 0.3))
        with contextlib.suppress(ProcessLookupError):  # it has come to its end
            os.kill(process.pid, rng.choice([signal.SIGTERM, signal.SIGKILL]))
        process.join(timeout=60)
        # Whenever it was: what bears the name of a checkpoint is one.
        for path in saved_steps(run.folder / "checkpoints").values():
            assert read_torch_file(path)["global_step"] == int(path.stem[5:])
            found.add(path.name)
        assert max(saved_steps(run.folder / "checkpoints"), default=0) >= newest
    return len(found)


@pytest.mark.parametrize("num_kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_at_any_moment_lose_no_checkpoint_and_change_nothing(
    num_kills: int, shards: Path, tmp_path: Path
) -> None:
    length = {"trainer__max_steps": 6 if num_kills < 10 else 400}
    run = Run(tmp_path / "killed", shards, **length)
    assert kill_at_random(run, random.Random(num_kills), num_kills) >= num_kills // 10
    assert run() == 0
    whole = Run(tmp_path / "whole", shards, **length)
    assert whole() == 0
    assert_same_training(run, whole)
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*"))
