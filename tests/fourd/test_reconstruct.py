from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fourd import checks
from fourd.canonical import Canonical, of_gaussians, of_mesh
from fourd.checkpoint import CheckpointError
from fourd.errors import ReconstructionError
from fourd.motion.field import Motion
from fourd.moving import MovingGaussians, read_moving, save_moving
from fourd.reconstruct import CHECKPOINT, LEAST_PACE, PREVIEW, Reconstruction, Step, build_field
from fourd.scoring import score_tracks, score_views
from fourd.settings import ReconstructionSettings, Stage, load_settings
from fourd.video import MultiViewVideo
from tests.fourd import bending_bar


@pytest.fixture(scope="module")
def video() -> MultiViewVideo:
    return bending_bar.video()


def short(settings: ReconstructionSettings, *stages: Stage, **changes: object) -> ReconstructionSettings:
    return replace(settings, stages=stages, static=replace(settings.static, steps=15), **changes)  # type: ignore[arg-type]


def true_tracks(canonical: Canonical) -> np.ndarray:
    rest = canonical.points.positions
    return np.stack([bending_bar.bent(rest, frame).numpy() for frame in range(bending_bar.NUM_FRAMES)])


def test_the_cpu_preset_finds_how_a_bar_bends(tmp_path: Path) -> None:
    preset = load_settings("cpu")
    track, together = preset.stages
    # A small way needs few steps.
    preset = replace(preset, stages=(replace(track, steps_per_frame=30), replace(together, steps=20)))
    canonical = bending_bar.canonical(colored=False)
    assert canonical.faces is not None
    lit = bending_bar.lit_model(preset.drawing)
    steps: list[Step] = []
    fit = Reconstruction(bending_bar.video(model=lit), canonical, preset, tmp_path)
    model = fit.run(steps.append)
    held_out = score_views(model, bending_bar.video(2, first_deg=45.0, model=lit))
    tracks = score_tracks(model.tracks().numpy(), true_tracks(canonical), canonical.faces)
    assert held_out.psnr_db > 33
    assert tracks.still_error > 0.08
    assert tracks.mean_error < 0.035
    assert tracks.share_near > 0.4
    assert torch.equal(model.tracks()[0], canonical.points.positions)
    assert [step.step for step in steps] == list(range(1, 4 * (2 * 13 + 17) + 20 + 1))
    assert {step.stage for step in steps} == {"track", "together"}
    with Image.open(tmp_path / PREVIEW) as picture:
        assert picture.size == (5 * 48, 2 * 48)
    events = (tmp_path / "runs" / "reconstruct" / "events.jsonl").read_text()
    assert '"stage_done"' in events


def test_a_fit_that_was_killed_goes_on_exactly(video: MultiViewVideo, tmp_path: Path) -> None:
    settings = short(
        load_settings("cpu"),
        Stage(
            name="track", frames="newest", steps_per_frame=3, num_earlier=0, coarse_share=0.7, stiffness=(1.0, 9.0),
            full_rate_at=0.5,
        ),
        Stage(name="together", steps=8, frames_per_step=2, fits_looks=True),
    )  # fmt: skip
    canonical = bending_bar.canonical(200)
    whole = Reconstruction(video, canonical, settings, tmp_path / "whole").run(save_every_s=0)

    class Killed(Exception):
        pass

    # In the second try of a frame, at its end, between the two tries of another, at the start of the second stage, and
    # within it.
    for last in (3, 9, 12, 21, 24):

        def kill(step: Step, last: int = last) -> None:
            if step.step > last:
                raise Killed

        with pytest.raises(Killed):
            Reconstruction(video, canonical, settings, tmp_path / "killed").run(kill, save_every_s=0)
    fit = Reconstruction(video, canonical, settings, tmp_path / "killed")
    assert fit.is_resumed
    assert fit.step == 24
    resumed = fit.run(save_every_s=0)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    done: list[Step] = []
    Reconstruction(video, canonical, settings, tmp_path / "killed").run(done.append)
    assert not done


def jumping_stick(jump: torch.Tensor) -> tuple[Canonical, MultiViewVideo]:
    """A thin bar, and two frames of it: at the second it is elsewhere."""
    vertices, faces, colors = bending_bar.bar()
    stick = of_mesh("stick", vertices * [1, 0.15, 0.3], faces, num_gaussians=400, colors=colors)

    class Jumping(bending_bar.Bending):
        def moved(self, frames: torch.Tensor) -> Motion:
            at_rest = Motion(positions=self.positions + jump, quats=self.quats, log_scales=self.log_scales)
            return Motion(**{name: value.expand(len(frames), -1, -1) for name, value in vars(at_rest).items()})

    true = MovingGaussians(stick, Jumping(stick.points, bending_bar.NUM_FRAMES))
    seen = bending_bar.video(size_px=64, model=true)
    return stick, replace(seen, rgba=seen.rgba[:2], c2w=seen.c2w[:2])


def test_what_jumps_by_many_times_its_width_is_found_by_matches_alone() -> None:
    jump = torch.tensor([0.0, 0.66, 0.0])
    stick, seen = jumping_stick(jump)
    preset = load_settings("cpu")
    track = replace(preset.stages[0], steps_per_frame=60, stiffness=(1.0,))
    errors = []
    for weight in (preset.weights.matches, 0.0):
        settings = short(preset, track, weights=replace(preset.weights, matches=weight))
        found = Reconstruction(seen, stick, settings).run().tracks()[1]
        errors.append(float((found - stick.points.positions - jump).norm(dim=-1).mean()))
    assert errors[0] < 0.15
    assert errors[1] > 0.66, "lost: farther off than if it had stayed"


def test_what_hardly_moves_gets_a_share_of_the_rates() -> None:
    preset = load_settings("cpu")
    track = replace(preset.stages[0], steps_per_frame=4)
    paces, rates = [], []
    for jump, full_rate_at in ((0.0, 0.1), (0.5, 0.1), (0.5, 5.0), (0.0, 0.0)):
        stick, seen = jumping_stick(torch.tensor([0.0, jump, 0.0]))
        fit = Reconstruction(seen, stick, short(preset, replace(track, full_rate_at=full_rate_at)))
        fit.run()
        paces.append(fit.pace)
        rates.append(fit.optimizer.param_groups[0]["lr"])
    assert paces == [LEAST_PACE, 1.0, LEAST_PACE, 1.0]
    assert rates == pytest.approx([pace * rates[-1] for pace in paces])
    with pytest.raises(ValueError, match="full_rate_at"):
        replace(track, full_rate_at=-1.0)


def test_another_fit_in_the_folder_is_not_overwritten(video: MultiViewVideo, tmp_path: Path) -> None:
    settings = short(load_settings("cpu"), Stage(name="track", steps=2))
    canonical = bending_bar.canonical(100)
    Reconstruction(video, canonical, settings, tmp_path).run()
    with pytest.raises(ReconstructionError, match="other_run"):
        Reconstruction(video, canonical, replace(settings, seed=1), tmp_path)
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="damaged"):
        Reconstruction(video, canonical, settings, tmp_path)


@pytest.mark.parametrize("preset", ["animate3d", "4dgaussians", "diffusion4d"])
def test_each_preset_brings_the_pictures_nearer(preset: str, video: MultiViewVideo) -> None:
    full = load_settings(preset)
    stages = tuple(replace(stage, steps=10, steps_per_frame=2, patience=0, gradient_share=1.0) for stage in full.stages)
    # Ten steps at the published rates move nothing that can be measured.
    field = replace(full.field, scales=((10, 4),), grid_rate=0.05, head_rate=0.01)
    settings = short(full, *stages, field=field, arap_points=50)
    canonical = bending_bar.canonical(300)
    static = replace(video, rgba=video.rgba[:1].expand(5, -1, -1, -1, -1).clone()) if preset == "diffusion4d" else None
    still = score_views(MovingGaussians(canonical, build_field(canonical, 5, settings)), video)
    steps: list[Step] = []
    model = Reconstruction(video, canonical, settings, static=static).run(steps.append)
    assert score_views(model, video).psnr_db > still.psnr_db + 0.3
    wanted = {
        "animate3d": {"rgb", "mask", "arap"},
        "4dgaussians": {"l1", "plane_tv", "time_smoothness", "time_l1"},
        "diffusion4d": {"l1", "depth", "plane_tv", "time_smoothness", "time_l1", "static_l1", "static_depth"},
    }
    assert set(steps[0].losses) == wanted[preset]


def test_frames_come_one_by_one(video: MultiViewVideo) -> None:
    fit = Reconstruction(video, bending_bar.canonical(60), load_settings("cpu"))
    generator = torch.Generator().manual_seed(0)
    progressive = Stage(name="s", steps=100, frames="progressive", steps_per_frame=10)
    newest = replace(progressive, frames="newest", num_earlier=1)
    seen = {}
    for step in (0, 9, 10, 39, 99):
        fit.stage_step = step
        seen[step] = fit._frames_of(progressive, generator).tolist()
        assert fit._frames_of(newest, generator).tolist()[-1] == seen[step][-1]
        assert len(fit._frames_of(newest, generator)) == min(2, len(seen[step]))
    assert seen == {0: [1], 9: [1], 10: [1, 2], 39: [1, 2, 3, 4], 99: [1, 2, 3, 4]}


def test_a_stage_without_progress_ends_early(video: MultiViewVideo) -> None:
    settings = short(load_settings("cpu"), Stage(name="s", steps=500, rate_factor=0.0, patience=4))
    fit = Reconstruction(video, bending_bar.canonical(60), settings)
    fit.run()
    assert fit.step < 20


def test_guidance_is_added_to_what_is_kept_small(video: MultiViewVideo) -> None:
    settings = short(load_settings("cpu"), Stage(name="s", steps=3))
    steps: list[Step] = []

    def sideways(model: MovingGaussians, step: int) -> torch.Tensor:
        return 1e3 * model.motion(torch.tensor([1]))[0].positions[..., 1].mean()

    canonical = bending_bar.canonical(60)
    model = Reconstruction(video, canonical, settings, guidance=sideways).run(steps.append)
    assert "guidance" in steps[0].losses
    assert float((model.tracks()[1] - model.tracks()[0])[:, 1].mean()) < -0.005


def test_what_does_not_belong_together_is_refused_before_work(
    video: MultiViewVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    canonical = bending_bar.canonical(100)
    settings = load_settings("cpu")
    elsewhere = replace(video, c2w=video.c2w.clone())
    elsewhere.c2w[..., :3, 3] += torch.tensor([0.0, 0.0, 1.2])
    with pytest.raises(ReconstructionError, match=r"outline.*cameras"):
        Reconstruction(elsewhere, canonical, settings)
    with pytest.raises(ReconstructionError, match="no_motion"):
        Reconstruction(replace(video, rgba=video.rgba[:1], c2w=video.c2w[:1]), canonical, settings)
    monkeypatch.setattr(checks, "free_memory_mb", lambda: 1.0)
    with pytest.raises(ReconstructionError, match=r"MB are free.*memory"):
        Reconstruction(video, canonical, settings)


def test_gaussians_without_a_mesh_move_too(video: MultiViewVideo) -> None:
    gaussians = bending_bar.canonical(300).gaussians
    stage = Stage(name="s", steps=40, frames="newest", steps_per_frame=10)
    settings = short(load_settings("cpu"), stage)
    canonical = of_gaussians("bar", gaussians)
    fit = Reconstruction(video, canonical, settings)
    still = score_views(fit.model, video).psnr_db
    assert score_views(fit.run(), video).psnr_db > still + 3
    at_rest = fit.model.at_frame(0)
    assert torch.equal(at_rest.means, gaussians.means)


def test_moving_gaussians_are_read_as_they_were_written(tmp_path: Path) -> None:
    model = bending_bar.true_model(50)
    save_moving(model, tmp_path / "g.safetensors", fps=12.5)
    frames, fps = read_moving(tmp_path / "g.safetensors")
    assert fps == 12.5
    assert len(frames) == bending_bar.NUM_FRAMES
    assert torch.equal(frames[3].means, model.at_frame(3).means)
    assert torch.equal(frames[0].means, model.canonical.gaussians.means)
    (tmp_path / "g.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match="damaged"):
        read_moving(tmp_path / "g.safetensors")
