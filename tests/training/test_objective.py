import pytest
import torch
from torch import Tensor

from tests.training.toys import inputs, tiny_unet
from training.objective import Batch, Draw, NoiseSchedule, Objective


def batch(items: int = 2, seed: int = 1, **changes: int) -> Batch:
    given = inputs(items, seed=seed, **changes)
    return Batch(
        latents=given["latents"],
        text=given["text"],
        empty_text=torch.full((5, 12), 9.0),
        image_embeds=given["image_embeds"],
        cameras=given["cameras"],
    )


class Recorder:
    """A network that keeps what it was given, and answers with a tensor."""

    def __init__(self, answer: Tensor) -> None:
        self.answer = answer

    def __call__(self, *given: Tensor) -> Tensor:
        self.latents, self.timestep, self.text, self.image_embeds, self.cameras = given
        return self.answer


def test_the_noise_schedule_is_the_published_one() -> None:
    scheduler = NoiseSchedule().scheduler
    torch.testing.assert_close(scheduler.betas, torch.linspace(0.00085, 0.012, 1000))
    sampler = NoiseSchedule().sampler()
    sampler.set_timesteps(25)
    assert sampler.timesteps.tolist() == list(range(961, 0, -40))
    torch.testing.assert_close(sampler.alphas_cumprod, torch.cumprod(1 - torch.linspace(0.00085, 0.012, 1000), 0))


def test_the_network_sees_the_first_frame_clean_and_the_others_noised() -> None:
    objective, given = Objective(text_dropout=0.0), batch()
    draw = objective.draw(given, [3, 4])
    network = Recorder(torch.zeros_like(given.latents))
    objective.loss(network, given, draw)
    assert torch.equal(network.latents[:, :, 0], given.latents[:, :, 0])
    kept = torch.cumprod(1 - torch.linspace(0.00085, 0.012, 1000), 0)[draw.timesteps].reshape(-1, 1, 1, 1, 1, 1)
    wanted = kept.sqrt() * given.latents[:, :, 1:] + (1 - kept).sqrt() * draw.noise
    torch.testing.assert_close(network.latents[:, :, 1:], wanted)
    assert torch.equal(network.timestep, draw.timesteps)
    assert torch.equal(network.text, given.text)
    assert torch.equal(network.cameras, given.cameras)


def test_only_the_later_frames_are_scored() -> None:
    objective, given = Objective(), batch()
    draw = objective.draw(given, [3, 4])
    answer = torch.cat([torch.full_like(given.latents[:, :, :1], 1e6), draw.noise], dim=2)
    assert float(objective.loss(Recorder(answer), given, draw).mean) == 0.0
    answer[1, :, 1:] += 2.0
    loss = objective.loss(Recorder(answer), given, draw)
    torch.testing.assert_close(loss.per_item, torch.tensor([0.0, 4.0]))
    assert float(loss.mean) == pytest.approx(2.0)


def test_the_target_of_v_prediction() -> None:
    objective = Objective(schedule=NoiseSchedule(prediction="v_prediction"))
    given = batch()
    draw = objective.draw(given, [3, 4])
    kept = objective.schedule.scheduler.alphas_cumprod[draw.timesteps].reshape(-1, 1, 1, 1, 1, 1)
    velocity = kept.sqrt() * draw.noise - (1 - kept).sqrt() * given.latents[:, :, 1:]
    answer = torch.cat([given.latents[:, :, :1], velocity], dim=2)
    assert float(objective.loss(Recorder(answer), given, draw).mean) == pytest.approx(0.0, abs=1e-10)


def test_zero_terminal_snr_leaves_nothing_of_the_clip_and_is_sampled_from_there() -> None:
    schedule = NoiseSchedule(prediction="v_prediction", zero_terminal_snr=True)
    assert float(schedule.snr(torch.tensor([999]))) < 1e-6
    assert float(NoiseSchedule().snr(torch.tensor([999]))) > 1e-3
    sampler = schedule.sampler()
    sampler.set_timesteps(25)
    assert int(sampler.timesteps[0]) == 999
    with pytest.raises(ValueError, match="needs v_prediction"):
        NoiseSchedule(zero_terminal_snr=True)


def test_the_target_may_be_the_clip_itself() -> None:
    objective = Objective(schedule=NoiseSchedule(prediction="sample"))
    given = batch()
    assert float(objective.loss(Recorder(given.latents), given, objective.draw(given, [3, 4])).mean) == 0.0


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weights(prediction: str) -> None:
    schedule = NoiseSchedule(prediction=prediction)  # type: ignore[arg-type]
    objective = Objective(schedule=schedule, min_snr_gamma=5.0)
    timesteps = torch.tensor([0, 200, 500, 999])
    snr = schedule.snr(timesteps)
    assert snr[0] > 5 > snr[3]
    wanted = torch.minimum(snr, torch.tensor(5.0)) / {"epsilon": snr, "v_prediction": snr + 1, "sample": 1}[prediction]
    torch.testing.assert_close(objective.weights(timesteps), wanted)
    given = batch(items=1)
    draw = objective.draw(given, [3], timesteps=torch.tensor([200]))
    loss = objective.loss(Recorder(torch.zeros_like(given.latents)), given, draw)
    assert float(loss.mean) == pytest.approx(float(wanted[1] * loss.per_item[0]))
    assert torch.equal(Objective().weights(timesteps), torch.ones(4))


def test_dropped_text_is_the_empty_prompt_and_a_dropped_image_is_zero() -> None:
    objective, given = Objective(text_dropout=1.0, image_dropout=1.0), batch()
    network = Recorder(torch.zeros_like(given.latents))
    objective.loss(network, given, objective.draw(given, [3, 4]))
    assert bool((network.text == 9.0).all())
    assert not network.image_embeds.any()
    assert torch.equal(network.cameras, given.cameras)


def test_the_shares_of_dropped_conditions() -> None:
    objective = Objective(text_dropout=0.1, image_dropout=0.3)
    tiny = batch(items=1, views=1, frames=2)
    draws = [objective.draw(tiny, [seed]) for seed in range(2000)]
    assert sum(bool(draw.drops_text) for draw in draws) == pytest.approx(200, abs=50)
    assert sum(bool(draw.drops_image) for draw in draws) == pytest.approx(600, abs=80)
    assert sum(bool(draw.drops_text) and bool(draw.drops_image) for draw in draws) == pytest.approx(60, abs=30)
    timesteps = torch.cat([draw.timesteps for draw in draws]).float()
    assert float(timesteps.mean()) == pytest.approx(499.5, abs=30)
    assert not any(bool(Objective(text_dropout=0.0).draw(tiny, [seed]).drops_text) for seed in range(50))


def test_an_items_draw_depends_on_its_own_seed_alone() -> None:
    objective = Objective()
    together = objective.draw(batch(items=3), [5, 6, 7])
    alone = objective.draw(batch(items=1), [6])
    for name in ("timesteps", "noise", "drops_text", "drops_image"):
        assert torch.equal(getattr(together, name)[1:2], getattr(alone, name)), name
    assert not torch.equal(together.noise[0], together.noise[1])


def test_validation_can_fix_the_timesteps_and_keep_the_noise() -> None:
    objective, given = Objective(), batch()
    fixed = objective.draw(given, [5, 6], timesteps=torch.tensor([100, 900]))
    assert fixed.timesteps.tolist() == [100, 900]
    assert torch.equal(fixed.noise, objective.draw(given, [5, 6]).noise)


def test_half_precision_latents_are_noised_in_full_precision() -> None:
    objective, given = Objective(), batch()
    draw = objective.draw(given, [3, 4])
    half = Batch(**{**vars(given), "latents": given.latents.to(torch.bfloat16)})
    network = Recorder(torch.zeros_like(given.latents))
    loss = objective.loss(network, half, objective.draw(half, [3, 4]))
    assert network.latents.dtype == loss.mean.dtype == torch.float32
    assert torch.equal(objective.draw(half, [3, 4]).noise, draw.noise)


def test_one_clip_can_be_learnt() -> None:
    """A few steps on one noised clip; the adapters start without effect."""
    model = tiny_unet()
    model.start_adapters()
    objective, given = Objective(text_dropout=0.0), batch(items=1, views=2, frames=3)
    draw: Draw = objective.draw(given, [3], timesteps=torch.tensor([500]))
    optimizer = torch.optim.AdamW(model.train_only("animate3d"), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective.loss(model, given, draw).mean
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoiseSchedule(beta_start=0.1, beta_end=0.01),
        lambda: NoiseSchedule(num_timesteps=1),
        lambda: Objective(text_dropout=1.5),
        lambda: Objective(min_snr_gamma=0.0),
        lambda: Objective().draw(batch(), [1]),
        lambda: Objective().draw(batch(frames=1), [1, 2]),
    ],
)
def test_bad_settings_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        make()  # type: ignore[operator]
