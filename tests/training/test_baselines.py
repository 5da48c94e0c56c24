import pytest
import torch

from training.baselines import LatentMoments, linear_error
from training.objective import Batch, NoiseSchedule, Objective

TIMESTEPS = (20, 300, 900)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_no_linear_predictor_is_better_and_the_best_one_is_as_good(prediction: str) -> None:
    schedule = NoiseSchedule(prediction=prediction)  # type: ignore[arg-type]
    variance = 0.49
    generator = torch.Generator().manual_seed(0)
    clean = variance**0.5 * torch.randn(1, 1, 60000, 1, 1, 1, generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    for timestep in TIMESTEPS:
        at = torch.tensor([timestep])
        noisy = schedule.scheduler.add_noise(clean, noise, at)  # type: ignore[arg-type]
        target = schedule.target(clean, noise, at)
        slope = (noisy * target).sum() / noisy.square().sum()
        best = (slope * noisy - target).square().mean()
        (claimed,) = linear_error(torch.tensor(variance), schedule, at)
        assert float(claimed) == pytest.approx(float(best), rel=0.03)


def test_moments_are_those_of_all_predicted_frames_at_once() -> None:
    latents = torch.randn(6, 4, 5, 3, 2, 2, generator=torch.Generator().manual_seed(1)) + 2
    moments = LatentMoments.zero((3, 2, 2), torch.device("cpu"))
    for part in latents.split(2):
        moments.add(part)
    schedule, at = NoiseSchedule(), torch.tensor(TIMESTEPS)
    later = latents[:, :, 1:].flatten(0, 2)
    losses = moments.losses(schedule, at)
    torch.testing.assert_close(
        losses["blind"].float(), linear_error(later.var(dim=0, correction=0), schedule, at), atol=1e-5, rtol=0
    )
    step = (latents[:, :, 1:] - latents[:, :, :1]).square().flatten(0, 2).mean(dim=0)
    torch.testing.assert_close(losses["still"].float(), linear_error(step, schedule, at), atol=1e-5, rtol=0)


def test_clips_that_stand_still_leave_nothing_to_a_network_that_knows_the_first_frame() -> None:
    latents = torch.randn(3, 2, 1, 3, 2, 2).expand(-1, -1, 4, -1, -1, -1)
    moments = LatentMoments.zero((3, 2, 2), torch.device("cpu"))
    moments.add(latents)
    losses = moments.losses(NoiseSchedule(), torch.tensor(TIMESTEPS))
    assert float(losses["still"].max()) == 0.0
    assert float(losses["blind"].min()) > 0.001


def test_a_network_that_says_nothing_is_worse_than_blind() -> None:
    """Zero is the guess of who does not even look at the noisy clip: a loss of 1."""
    latents = 0.3 * torch.randn(4, 2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    clips = Batch(
        latents=latents,
        text=torch.zeros(4, 1, 1),
        empty_text=torch.zeros(1, 1),
        image_embeds=torch.zeros(4, 2, 1),
        cameras=torch.zeros(4, 2, 16),
    )
    objective = Objective()
    at = torch.full((4,), 500)
    draw = objective.draw(clips, [1, 2, 3, 4], timesteps=at)
    silent = objective.loss(lambda latents, *_: torch.zeros_like(latents), clips, draw).per_item.mean()
    moments = LatentMoments.zero((3, 2, 2), torch.device("cpu"))
    moments.add(latents)
    assert float(moments.losses(objective.schedule, at[:1])["blind"]) < 0.5 * float(silent)
