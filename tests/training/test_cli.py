import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pipeline.cli import main as mv4d
from tests.training.runs import Run, assert_near_training, assert_same_training
from training.checkpoints import read_tensors
from training.module import MultiViewVideoTraining
from training.objective import NoiseSchedule, Objective
from training.sampling.pipeline import MultiViewVideoPipeline
from training.start import Scratch, Start


def test_a_run_learns_reports_and_shows_clips(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path, shards, progress__count_flops=True)
    assert run(trainer__max_steps=30, trainer__val_check_interval=15, checkpoints__every_n_steps=30) == 0
    printed = capsys.readouterr().out
    assert "step 30/30" in printed
    assert "samples/s" in printed
    losses = run.logged("val/loss")
    assert losses[30] < losses[15] < 1.0
    assert set(run.logged("val/loss_t100")) == set(run.logged("val/psnr")) == {15, 30}
    assert 0 < run.logged("val/baseline_still")[30] < run.logged("val/baseline_blind")[30] < 1
    assert all(0 <= share < 1 for share in run.logged("speed/data_wait").values())
    assert run.logged("speed/tflops_a_device")[30] > 0
    assert run.logged("speed/memory_gib")[30] > 0.1
    assert run.pictures() == ["samples/val_0"]
    picture = Image.open(tmp_path / "samples" / "val_0_step-00000030.png")
    # Two rows a view, three frames, and a line between them.
    assert picture.size == (3 * 26, 8 * 26)
    assert (tmp_path / "logs" / "config.yaml").read_text().count("global_batch: 2") == 1


def test_accumulated_batches_are_one_large_batch(unbroken: Run, shards: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, shards, data__batch_size=1)
    assert run() == 0
    assert_near_training(run, unbroken)
    ours, theirs = run.logged("train/loss"), unbroken.logged("train/loss")
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_two_ranks_train_as_one_and_one_goes_on_where_two_stopped(unbroken: Run, shards: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, shards)
    # The schedule is that of the whole run: the second rank falls away after three steps of six.
    done = run.on_two_ranks(trainer__val_check_interval=6)
    assert done.returncode == 0, done.stderr
    assert "2 x 1 x 1 accumulated" in done.stdout
    assert_near_training(run, unbroken)
    assert run.logged("train/loss") == pytest.approx(unbroken.logged("train/loss"), abs=1e-4)
    assert run.logged("val/loss") == pytest.approx(unbroken.logged("val/loss"), abs=1e-3)
    run.checkpoints[0].unlink()
    assert run() == 0
    assert_near_training(run, unbroken)
    assert run.state()["ClipBatches"]["place"] == 12


def test_validation_and_sampling_use_the_average(unbroken: Run, shards: Path, tmp_path: Path) -> None:
    state = unbroken.state()
    trained = [value for name, value in state["state_dict"].items()]
    averages = state["ema"]["shadow_params"]
    assert not all(torch.equal(a, b) for a, b in zip(averages, trained, strict=False))
    before = unbroken.logged("val/loss")[6]
    assert unbroken("validate") == 0
    assert unbroken.logged("val/loss")[6] == pytest.approx(before, rel=1e-6)

    # The trained weights in the place of the average: another loss.
    changed = Run(tmp_path, shards)
    module = built(changed)
    state["ema"]["shadow_params"] = [state["state_dict"][name] for name in trainable_names(module)]
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    torch.save(state, tmp_path / "checkpoints" / "step-00000006.ckpt")
    assert changed("validate") == 0
    assert changed.logged("val/loss")[6] != pytest.approx(before, rel=1e-4)


def built(run: Run) -> MultiViewVideoTraining:
    module = MultiViewVideoTraining(
        Start(
            scratch=Scratch(
                block_out_channels=(8,),
                attention_levels=(0,),
                norm_num_groups=4,
                num_frequencies=2,
                condition_width=8,
                max_letters=8,
            )
        ),
        train="all",
    )
    module.configure_model()
    return module


def trainable_names(module: MultiViewVideoTraining) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def test_the_average_stands_in_and_steps_back() -> None:
    module = built(Run.__new__(Run))
    module.ema.step(module.trained)
    before = [parameter.clone() for parameter in module.trained]
    with torch.no_grad():
        for parameter in module.trained:
            parameter.add_(1)
    module.ema.step(module.trained)
    with module.averaged():
        inside = [parameter.clone() for parameter in module.trained]
    for old, average, now in zip(before, inside, module.trained, strict=True):
        torch.testing.assert_close(now, old + 1)
        # The second step: (1 + 1) / (10 + 1) of the old is kept.
        torch.testing.assert_close(average, old + 9 / 11)


def test_sample_and_export_work_from_the_newest_checkpoint(
    unbroken: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unbroken("sample") == 0
    assert capsys.readouterr().out.count(" dB") == 3
    assert len(list((unbroken.folder / "sampled").glob("*.png"))) == 3
    assert unbroken("export", to=tmp_path / "model") == 0
    pipeline = MultiViewVideoPipeline.from_pretrained(tmp_path / "model")
    exported = dict(pipeline.unet.named_parameters())
    names = [name.removeprefix("network.") for name in trainable_names(built(unbroken))]
    averages = unbroken.state()["ema"]["shadow_params"]
    assert all(torch.equal(exported[name], value) for name, value in zip(names, averages, strict=True))
    published = read_tensors(tmp_path / "model" / "animate3d_motion_modules.ckpt")
    assert all("i2v." in name or "motion_modules." in name for name in published)


def test_a_run_may_begin_from_an_exported_folder(unbroken: Run, shards: Path, tmp_path: Path) -> None:
    assert unbroken("export", to=tmp_path / "model") == 0
    settings = json.dumps({"scratch": None, "published": None, "folder": str(tmp_path / "model")})
    run = Run(tmp_path / "run", shards, model__start=settings)
    assert run(trainer__max_steps=1) == 0
    first = run.logged("train/loss")[1]
    assert first < unbroken.logged("train/loss")[1]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"model__no_such_option": 1}, "no_such_option"),
        ({"model__optimizer__lr": -1}, "lr > 0"),
        ({"model__train": "nothing"}, "animate3d"),
        ({"data__batch_size": 3}, "multiple of batch_size"),
        ({"data__global_batch": 0}, "must be at least 1"),
        ({"data__batch_size": 0}, "must be at least 1"),
        ({"data__val_split": "val"}, "val_split train"),
        ({"trainer__max_steps": -1}, "how long is the run"),
        ({"data__shards": "/no/such/folder"}, "mv4d pack"),
        ({"trainer__accumulate_grad_batches": 4}, "data.global_batch decides"),
        ({"model__start": '{"scratch": null}'}, "exactly one of"),
        ({"model__start__scratch__carries_clip": True}, "needs objective.schedule.prediction sample"),
        ({"ckpt_path": "/no/such/file.ckpt"}, "no such file"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_setting_ends_with_2_and_says_why(
    options: dict[str, Any], complaint: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Run(tmp_path, shards)(**options) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_validation_without_a_checkpoint_says_so(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Run(tmp_path, shards)("validate") == 2
    assert "has no checkpoint" in capsys.readouterr().err


def test_mv4d_train_is_the_same_command(
    unbroken: Run, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, shards)
    assert mv4d(["train", *run.arguments()[1:]]) == 0
    assert_same_training(run, unbroken)
    with pytest.raises(SystemExit, match="0"):
        mv4d(["train", "--help"])
    assert "training/configs/tiny.yaml" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", sorted(Path("training/configs").glob("*.yaml")), ids=lambda path: str(path.stem))
def test_every_recipe_is_complete(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from training.cli import main

    with pytest.raises(SystemExit, match="0"):
        main(["fit", f"--config={recipe}", "--print_config"])
    assert "global_batch:" in capsys.readouterr().out


def test_settings_stay_settings_when_they_have_been_used() -> None:
    assert set(vars(Objective().schedule)) == {field.name for field in dataclasses.fields(NoiseSchedule)}
    assert Objective().schedule.scheduler is Objective().schedule.scheduler
    assert set(vars(Objective().schedule)) == {field.name for field in dataclasses.fields(NoiseSchedule)}
