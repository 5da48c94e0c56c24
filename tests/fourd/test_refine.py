import copy
from pathlib import Path

import pytest
import torch

from fourd.errors import ReconstructionError
from fourd.guidance import GuidanceCameras, SdsGuidance
from fourd.motion.field import HexplaneSettings
from fourd.moving import MovingGaussians
from fourd.reconstruct import build_field
from fourd.refine import RefineSettings, own_renders, refinement
from fourd.settings import ReconstructionSettings, Stage, StaticSettings, Weights
from fourd.video import MultiViewVideo
from pipeline.cameras import look_at_origin, pinhole
from tests.fourd.test_guidance import moving
from tests.training.toys import tiny_pipeline
from training.sampling.prior import PipelinePrior

SETTINGS = ReconstructionSettings(
    name="toy",
    field=HexplaneSettings(scales=((4, 2),), num_features=4, head_rate=1e-3),
    stages=(Stage(name="reconstruct", steps=5, frames="progressive", steps_per_frame=1, gradient_share=0.1),),
    weights=Weights(arap=0.0),
    static=StaticSettings(steps=3, always=True),
)
FOUR = RefineSettings(steps=4, size_px=24)


@pytest.fixture(scope="module")
def model() -> MovingGaussians:
    """As a reconstruction leaves it: in motion."""
    found = moving(num_frames=3)
    found.field = build_field(found.canonical, 3, SETTINGS)
    with torch.no_grad():
        for parameter in found.field.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return found


@pytest.fixture(scope="module")
def video() -> MultiViewVideo:
    """Its pictures do not count: only cameras and size."""
    c2w = torch.stack([torch.from_numpy(look_at_origin(180.0 * view, 15, 3)).float() for view in range(2)])
    return MultiViewVideo(
        clip_id="toy",
        views=(0, 1),
        rgba=torch.zeros(3, 2, 16, 16, 4, dtype=torch.uint8),
        c2w=c2w.expand(3, 2, 4, 4),
        intrinsics=pinhole(40, 16),
        fps=8.0,
    )


@pytest.fixture(scope="module")
def guidance(tmp_path_factory: pytest.TempPathFactory) -> SdsGuidance:
    prior = PipelinePrior(tiny_pipeline(tmp_path_factory.mktemp("tokenizer")), "walks")
    return SdsGuidance(prior, cameras=GuidanceCameras(num_views=2, size_px=8))


def test_own_renders_are_what_the_cameras_see(model: MovingGaussians, video: MultiViewVideo) -> None:
    shown = own_renders(model, video, 32)
    assert shown.size_px == (32, 32)
    assert shown.intrinsics == pytest.approx(pinhole(40, 32))
    frames, views = torch.arange(3), torch.arange(2)
    with torch.no_grad():
        _, moved = model.motion(frames)
        colors, alpha, _ = model.pictures(
            moved, video.w2c(frames, views), video.camera_matrix(32), 32, 32, background=0.5
        )
    composed, mask = shown.colors(frames, views)
    assert float((composed - colors.clamp(0, 1)).abs().mean()) < 0.01
    assert float((mask - alpha).abs().max()) < 0.01
    assert float(alpha.max()) > 0.5


def test_it_begins_where_the_reconstruction_ended(
    model: MovingGaussians, video: MultiViewVideo, guidance: SdsGuidance
) -> None:
    before = copy.deepcopy(model.state_dict())
    fit = refinement(model, video, SETTINGS, guidance, FOUR)
    assert torch.equal(fit.model.tracks(), model.tracks())
    told: list[dict[str, float]] = []
    fit.run(lambda step: told.append(step.losses))
    # Nothing to be mended in the first step: targets are its own renders. What moves it is the model.
    assert told[0]["rgb"] < 0.01
    assert told[0]["guidance"] > 0
    assert len(told) == 4
    assert not torch.equal(fit.model.tracks()[1:], model.tracks()[1:])
    assert torch.equal(fit.model.tracks()[0], model.canonical.points.positions)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # Sizes may change now, and colours stay.
    assert fit.settings.field.moves_scales  # type: ignore[union-attr]
    assert torch.equal(fit.model.sh, model.sh)


def test_a_refinement_that_was_cut_off_ends_as_an_unbroken_one(
    model: MovingGaussians, video: MultiViewVideo, guidance: SdsGuidance, tmp_path: Path
) -> None:
    whole = refinement(model, video, SETTINGS, guidance, FOUR, folder=tmp_path / "whole").run()

    class CutOffError(Exception):
        pass

    def cut_off(step: object) -> None:
        if len(seen) == 2:
            raise CutOffError
        seen.append(step)

    seen: list[object] = []
    first = refinement(model, video, SETTINGS, guidance, FOUR, folder=tmp_path / "cut")
    with pytest.raises(CutOffError):
        first.run(cut_off, save_every_s=0.0)
    again = refinement(model, video, SETTINGS, guidance, FOUR, folder=tmp_path / "cut")
    assert again.is_resumed
    assert again.step == 2
    assert torch.equal(again.run().tracks(), whole.tracks())


def test_another_prompt_or_seed_does_not_go_on_with_the_folder(
    model: MovingGaussians, video: MultiViewVideo, guidance: SdsGuidance, tmp_path: Path
) -> None:
    refinement(model, video, SETTINGS, guidance, FOUR, folder=tmp_path, prior="a walks").save()
    with pytest.raises(ReconstructionError, match="other_run"):
        refinement(model, video, SETTINGS, guidance, FOUR, folder=tmp_path, prior="a jumps")
    other = SdsGuidance(guidance.prior, cameras=guidance.cameras, seed=5)
    with pytest.raises(ReconstructionError, match="other_run"):
        refinement(model, video, SETTINGS, other, FOUR, folder=tmp_path, prior="a walks")


@pytest.mark.parametrize("bad", [{"steps": 0}, {"size_px": 0}, {"frames_per_step": -1}], ids=str)
def test_settings_that_mean_nothing_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="need a step"):
        RefineSettings(**bad)
