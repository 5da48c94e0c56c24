import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fourd.canonical import of_gaussians
from fourd.gaussians import Gaussians
from fourd.guidance import GuidanceCameras, SdsGuidance, SdsSettings, VideoPrior, sds_loss
from fourd.motion.field import HexplaneMotion, HexplaneSettings
from fourd.moving import MovingGaussians
from pipeline.cameras import look_at_origin
from tests.training.toys import tiny_pipeline
from training.cameras import camera_vectors
from training.objective import NoiseSchedule
from training.sampling.pipeline import MultiViewVideoPipeline
from training.sampling.prior import PipelinePrior

SIZE_PX = 8


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> MultiViewVideoPipeline:
    return tiny_pipeline(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def exact(pipeline: MultiViewVideoPipeline) -> Iterator[MultiViewVideoPipeline]:
    """Network and autoencoder in float64."""
    pipeline.unet.double()
    pipeline.vae.double()
    yield pipeline
    pipeline.unet.float()
    pipeline.vae.float()


def ring(views: int) -> Tensor:
    return torch.from_numpy(np.stack([look_at_origin(20 + 360 * view / views, 10, 3) for view in range(views)]))


def renders(views: int = 2, frames: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(views, frames, 3, SIZE_PX, SIZE_PX, generator=generator, dtype=dtype).requires_grad_()


def transcribed(
    pipeline: MultiViewVideoPipeline, pictures: Tensor, c2w: Tensor, *, timestep: int, noise: Tensor, s: float, r: float
) -> Tensor:
    """The published loss, noise prediction by noise prediction; everything with gradient but ẑ0."""
    views, frames = pictures.shape[:2]
    scale = pipeline.vae.config["scaling_factor"]
    z0 = torch.stack([pipeline.vae.encode(2 * view - 1).latent_dist.mean for view in pictures]) * scale
    with torch.no_grad():
        kept = pipeline.scheduler.alphas_cumprod.double()[timestep]
        z = z0.clone()
        z[:, 1:] = kept.sqrt() * z0[:, 1:] + (1 - kept).sqrt() * noise
        image = pipeline.encode_first_frames(pictures[None, :, 0])
        epsilon = [
            pipeline.unet(
                z[None], torch.tensor([timestep]), pipeline.encode_prompts([text]), embeds,
                camera_vectors(c2w.numpy())[None],
            )[0]
            for text, embeds in (("walks", image), ("", torch.zeros_like(image)))
        ]  # fmt: skip
        eps_c, eps_u = epsilon
        eps = eps_c + s * (eps_c - eps_u)
        hat = (z - (1 - kept).sqrt() * eps) / kept.sqrt()
        hat_c = (z - (1 - kept).sqrt() * eps_c) / kept.sqrt()
        f = hat_c[:, 1:].std() / hat[:, 1:].std()
        hat = r * f * hat + (1 - r) * hat
        hat[:, 0] = z0[:, 0]
    return 0.5 * ((z0 - hat) ** 2).sum() / (views * frames) * frames / (frames - 1)


@pytest.mark.parametrize(("views", "frames", "s", "r"), [(2, 3, 5.0, 0.25), (4, 2, 0.0, 1.0), (1, 5, 7.5, 0.0)])
def test_the_gradient_is_that_of_the_formula(
    exact: MultiViewVideoPipeline, views: int, frames: int, s: float, r: float
) -> None:
    pictures, c2w = renders(views, frames), ring(views)
    options = SdsSettings(guidance=s, rescale=r, encode_at_once=3)
    loss = sds_loss(PipelinePrior(exact, "walks"), pictures, c2w, options, torch.Generator().manual_seed(3))
    (ours,) = torch.autograd.grad(loss, pictures)

    generator = torch.Generator().manual_seed(3)
    timestep = int(torch.randint(20, 201, (), generator=generator))
    noise = torch.randn(views, frames - 1, 4, 4, 4, generator=generator, dtype=torch.float64)
    wanted = transcribed(exact, pictures, c2w, timestep=timestep, noise=noise, s=s, r=r)
    (theirs,) = torch.autograd.grad(wanted, pictures)
    torch.testing.assert_close(loss, wanted, atol=1e-9, rtol=1e-6)
    # The schedule of the pipeline is stored in float32.
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-5)
    assert float(ours[:, 1:].abs().max()) > 1e-4
    assert not ours[:, 0].any()
    assert not theirs[:, 0].any()


def test_the_gradient_does_not_depend_on_how_many_are_encoded_at_once(pipeline: MultiViewVideoPipeline) -> None:
    found = []
    for at_once in (1, 100):
        pictures = renders(dtype=torch.float32)
        options = SdsSettings(encode_at_once=at_once)
        loss = sds_loss(PipelinePrior(pipeline, "walks"), pictures, ring(2), options, torch.Generator().manual_seed(1))
        found.append(torch.autograd.grad(loss, pictures)[0])
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_model_of_any_kind_changes_nothing(tmp_path: Any, prediction: Any) -> None:
    schedule = NoiseSchedule(prediction=prediction)
    pipeline = tiny_pipeline(tmp_path, schedule)
    prior = PipelinePrior(pipeline, "walks")
    pictures = renders(dtype=torch.float32)
    with torch.no_grad():
        truth = prior.encode(pictures.flatten(0, 1)).unflatten(0, (2, 3))

    def knows(_: Any, asked: tuple[Tensor, ...], out: Tensor) -> Tensor:
        kept = pipeline.scheduler.alphas_cumprod[asked[1]].reshape(-1, 1, 1, 1, 1, 1)
        noise = (asked[0] - kept.sqrt() * truth) / (1 - kept).sqrt()
        return schedule.target(truth.expand_as(asked[0]), noise, asked[1])

    pipeline.unet.register_forward_hook(knows)
    loss = sds_loss(prior, pictures, ring(2), SdsSettings(), torch.Generator().manual_seed(0))
    assert float(loss.detach()) < 1e-6


def test_the_same_seed_gives_the_same_loss_and_one_frame_is_refused(pipeline: MultiViewVideoPipeline) -> None:
    prior = PipelinePrior(pipeline, "walks")

    def loss(seed: int, frames: int = 3) -> float:
        pictures = renders(frames=frames, dtype=torch.float32)
        return sds_loss(prior, pictures, ring(2), SdsSettings(), torch.Generator().manual_seed(seed)).item()

    assert loss(1) == loss(1) != loss(2)
    with pytest.raises(ValueError, match="nothing to be guided"):
        loss(1, frames=1)


class Timesteps:
    """A prior that only remembers which timesteps it was asked about."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def encode(self, pictures: Tensor) -> Tensor:
        return pictures

    def signal_and_noise(self, timestep: int) -> tuple[float, float]:
        self.asked.append(timestep)
        return 0.9, 0.1

    def clean(self, noisy: Tensor, timestep: int, first: Tensor, c2w: Tensor) -> tuple[Tensor, Tensor]:
        assert timestep == self.asked[-1]
        return noisy, noisy


def test_timesteps_are_even_from_20_to_200() -> None:
    prior = Timesteps()
    generator = torch.Generator().manual_seed(0)
    for _ in range(1200):
        sds_loss(prior, torch.rand(1, 2, 3, 1, 1), ring(1), SdsSettings(), generator)
    counts = np.bincount(prior.asked, minlength=201)
    assert not counts[:20].any()
    assert counts[20] + counts[21] > 0
    assert counts[199] + counts[200] > 0
    assert np.mean(prior.asked) == pytest.approx(110, abs=5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), views=st.integers(1, 9))
def test_cameras_stand_evenly_in_the_published_ranges(seed: int, views: int) -> None:
    c2w, camera = GuidanceCameras(num_views=views, size_px=64).draw(torch.Generator().manual_seed(seed))
    place = c2w[:, :3, 3].double()
    distance = place.norm(dim=1)
    fov = 2 * math.atan(32 / float(camera[0, 0]))
    assert math.radians(15) - 1e-6 <= fov <= math.radians(60) + 1e-6
    share = distance * math.tan(fov / 2)
    assert bool(((share > 0.8 - 1e-5) & (share < 1.0 + 1e-5)).all())
    assert float(distance.max() - distance.min()) < 1e-4
    elevation = torch.rad2deg(torch.asin(place[:, 2] / distance))
    assert -1e-3 <= float(elevation.min()) <= float(elevation.max()) <= 30 + 1e-3
    assert float(elevation.max() - elevation.min()) < 1e-3
    azimuth = torch.rad2deg(torch.atan2(place[:, 1], place[:, 0]))
    off = (torch.roll(azimuth, -1) - azimuth - 360 / views + 180) % 360 - 180
    assert float(off.abs().max()) < 1e-2
    # Rigid, and looking at the origin.
    rotation = c2w[:, :3, :3].double()
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand_as(rotation), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotation[:, :, 2], -place / distance[:, None], atol=1e-5, rtol=0)


def test_elevations_are_half_even_in_the_angle_and_half_over_the_sphere() -> None:
    cameras = GuidanceCameras(num_views=1, elevation_deg=(0.0, 80.0))
    generator = torch.Generator().manual_seed(0)
    heights = []
    for _ in range(1500):
        c2w, _ = cameras.draw(generator)
        heights.append(float(c2w[0, 2, 3] / c2w[0, :3, 3].norm()))
    elevations = np.degrees(np.arcsin(np.clip(heights, -1, 1)))
    # Shares below 30 degrees: 30/80 of the one half, sin 30 / sin 80 of the other.
    wanted = 0.5 * 30 / 80 + 0.5 * 0.5 / math.sin(math.radians(80))
    assert (elevations < 30).mean() == pytest.approx(wanted, abs=0.04)
    assert (elevations < 60).mean() == pytest.approx(
        0.5 * 0.75 + 0.5 * math.sin(math.radians(60)) / math.sin(math.radians(80)), abs=0.04
    )


def moving(num_frames: int = 3) -> MovingGaussians:
    generator = torch.Generator().manual_seed(0)
    gaussians = Gaussians(
        means=torch.rand(40, 3, generator=generator) - 0.5,
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(40, 1),
        log_scales=torch.full((40, 3), -2.0),
        opacity_logits=torch.full((40,), 2.0),
        sh=torch.randn(40, 1, 3, generator=generator),
    )
    canonical = of_gaussians("toy", gaussians)
    field = HexplaneMotion(canonical.points, num_frames, HexplaneSettings(scales=((4, 2),), num_features=4), generator)
    return MovingGaussians(canonical, field)


def test_it_guides_moving_gaussians_the_same_way_each_time(pipeline: MultiViewVideoPipeline) -> None:
    prior: VideoPrior = PipelinePrior(pipeline, "walks")
    guidance = SdsGuidance(prior, weight=0.01, cameras=GuidanceCameras(num_views=2, size_px=SIZE_PX), seed=1)
    model = moving()

    def gradient(guide: SdsGuidance, step: int) -> Tensor:
        model.zero_grad()
        guide(model, step).backward()
        return torch.cat([part.grad.flatten() for part in model.field.parameters() if part.grad is not None])

    first = gradient(guidance, 7)
    assert bool(torch.isfinite(first).all())
    assert first.any()
    assert torch.equal(gradient(guidance, 7), first)
    assert not torch.equal(gradient(guidance, 8), first)
    ten = SdsGuidance(prior, weight=0.1, cameras=guidance.cameras, seed=1)
    torch.testing.assert_close(gradient(ten, 7), 10 * first, rtol=1e-4, atol=1e-7)
    # The model is a judge and learns nothing.
    assert all(part.grad is None for network in (pipeline.unet, pipeline.vae) for part in network.parameters())


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (SdsSettings, {"min_timestep": 300}),
        (SdsSettings, {"rescale": 2.0}),
        (SdsSettings, {"encode_at_once": 0}),
        (GuidanceCameras, {"num_views": 0}),
        (GuidanceCameras, {"elevation_deg": (30.0, 0.0)}),
        (GuidanceCameras, {"elevation_deg": (0.0, 89.0)}),
        (GuidanceCameras, {"fov_deg": (0.0, 10.0)}),
        (GuidanceCameras, {"distance": (0.0, 1.0)}),
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused(settings: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"need|from low to high|elevations"):
        settings(**options)
