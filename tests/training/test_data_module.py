from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from training.data.clips import ClipSettings
from training.data_module import ClipBatches
from training.saving import begin_at_step


@pytest.fixture(autouse=True)
def own_rank() -> Iterator[None]:
    """Lightning keeps the rank of this process in a global variable, which `trainer` sets."""
    function: Any = rank_zero_only
    rank = function.rank
    yield
    function.rank = rank


def trainer(*, rank: int = 0, ranks: int = 1, step: int = 0, max_steps: int = 5) -> Trainer:
    """Lightning's, as one of several ranks that was not started."""
    found = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        plugins=[LightningEnvironment()],
        max_steps=max_steps,
        val_check_interval=10,
        check_val_every_n_epoch=None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if ranks > 1:
        environment: Any = found.strategy.cluster_environment  # type: ignore[attr-defined]
        environment.set_world_size(ranks)
        environment.set_global_rank(rank)
    begin_at_step(found, step)
    return found


def batches(shards: Path, own_trainer: Trainer, **options: Any) -> ClipBatches:
    settings = {"global_batch": 8, "val_split": "train", "rigs": (), "num_workers": 0, "seed": 3, **options}
    data = ClipBatches(str(shards), clips=ClipSettings(num_frames=3, size_px=8), **settings)
    data.trainer = own_trainer
    data.setup("fit")
    return data


def shown(shards: Path, ranks: int, batch_size: int, *, step: int = 0, workers: int = 0) -> list[list[tuple[int, str]]]:
    """Of each step, the places and keys that all ranks together are shown."""
    steps: list[list[tuple[int, str]]] = [[] for _ in range(5 - step)]
    for rank in range(ranks):
        data = batches(shards, trainer(rank=rank, ranks=ranks), batch_size=batch_size, num_workers=workers)
        data.load_state_dict({"place": 8 * step, "step": step, "num_samples": 8, "seed": 3})
        begin_at_step(data.trainer, step)
        accumulated = data.trainer.accumulate_grad_batches
        loader = list(data.train_dataloader())
        assert len(loader) == accumulated * (5 - step)
        for number, batch in enumerate(loader):
            steps[number // accumulated] += zip(batch["place"].tolist(), batch["key"], strict=True)
    return [sorted(found) for found in steps]


@pytest.mark.parametrize(("ranks", "batch_size", "workers"), [(2, 4, 0), (4, 2, 0), (4, 1, 0), (1, 1, 2), (2, 1, 0)])
def test_a_step_shows_the_same_samples_on_any_number_of_ranks_and_workers(
    ranks: int, batch_size: int, workers: int, shards: Path
) -> None:
    alone = shown(shards, 1, 8)
    assert [place for step in alone for place, _ in step] == list(range(40))
    assert shown(shards, ranks, batch_size, workers=workers) == alone
    assert shown(shards, ranks, batch_size, step=3, workers=workers) == alone[3:]


def test_every_pass_shows_every_sample_in_another_order(shards: Path) -> None:
    orders = [[key for _, key in step] for step in shown(shards, 1, 8)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len({tuple(order) for order in orders}) == len(orders)


def test_the_place_is_counted_by_steps_across_runs(shards: Path) -> None:
    data = batches(shards, trainer(step=2))
    assert data.state_dict()["place"] == 16
    data.load_state_dict({"place": 100, "step": 2, "num_samples": 8, "seed": 3})
    begin_at_step(data.trainer, 4)
    assert data.state_dict() == {"place": 116, "step": 4, "num_samples": 8, "seed": 3}


def test_a_changed_data_set_is_said(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = batches(shards, trainer())
    data.load_state_dict({"place": 8, "step": 1, "num_samples": 9, "seed": 3})
    assert "num_samples of the data changed" in caplog.text


def test_accumulation_and_length_follow_from_the_global_batch(shards: Path) -> None:
    data = batches(shards, trainer(ranks=2, max_steps=-1), batch_size=2, passes=2.5)
    assert data.trainer.accumulate_grad_batches == 2
    # 20 samples are 2.5 steps.
    assert data.trainer.max_steps == 3
    assert data.trainer.val_check_interval == 20


@pytest.mark.parametrize(
    ("options", "given", "complaint"),
    [
        ({"batch_size": 2}, {"ranks": 3}, "cannot be divided"),
        ({}, {"max_steps": -1}, "how long is the run"),
        ({"passes": 1.0}, {}, "either as data.passes or"),
        ({"val_split": "val"}, {}, "val_split train"),
        ({"where": "no such column"}, {}, "not understood"),
    ],
)
def test_what_cannot_be_is_said_before_the_first_step(
    options: dict[str, Any], given: dict[str, Any], complaint: str, shards: Path
) -> None:
    with pytest.raises(MisconfigurationException, match=complaint):
        batches(shards, trainer(**given), **options)


@pytest.mark.parametrize("options", [{"global_batch": 6, "batch_size": 4}, {"num_val": -1}, {"passes": 0.0}])
def test_bad_settings_are_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|multiple"):
        ClipBatches("shards", **{"global_batch": 8, **options})


def test_evaluation_shows_the_first_samples_and_marks_what_fills_the_last_batch(shards: Path) -> None:
    places = []
    for rank in range(2):
        data = batches(shards, trainer(rank=rank, ranks=2), batch_size=2, num_val=5)
        places += [batch["place"] for batch in data.val_dataloader()]
        assert data.num_evaluated("val") == 5
    assert sorted(torch.cat(places).tolist()) == list(range(8))


def test_waiting_is_counted(shards: Path) -> None:
    data = batches(shards, trainer())
    next(iter(data.train_dataloader()))
    assert data.waited_s > 0
