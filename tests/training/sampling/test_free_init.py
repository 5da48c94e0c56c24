import pytest
import torch
from diffusers.pipelines.free_init_utils import FreeInitMixin

from training.objective import NoiseSchedule
from training.sampling.free_init import FreeInit


@pytest.mark.parametrize("shape", [(15, 8, 8), (4, 5, 7)])
@pytest.mark.parametrize(("order", "spatial", "temporal"), [(4, 0.25, 0.25), (2, 0.5, 0.125)])
def test_it_is_diffusers_free_init(shape: tuple[int, int, int], order: int, spatial: float, temporal: float) -> None:
    """One later round of diffusers' mixin, from the same result, first noise and fresh noise."""
    time, height, width = shape
    clips, first = torch.randn(2, 3, time, 4, height, width), torch.randn(2, 3, time, 4, height, width)

    theirs = FreeInitMixin()
    theirs.scheduler = NoiseSchedule().sampler()
    theirs.enable_free_init(3, order=order, spatial_stop_frequency=spatial, temporal_stop_frequency=temporal)
    theirs._free_init_initial_noise = first.transpose(2, 3).flatten(0, 1)
    wanted, _ = theirs._apply_free_init(
        clips.transpose(2, 3).flatten(0, 1), 1, 2, torch.device("cpu"), torch.float32, torch.Generator().manual_seed(9)
    )

    fresh = torch.randn(6, 4, time, height, width, generator=torch.Generator().manual_seed(9))
    fresh = fresh.unflatten(0, (2, 3)).transpose(2, 3)
    noised = NoiseSchedule().sampler().add_noise(clips, first, torch.tensor([999, 999]))
    ours = FreeInit(order=order, spatial_stop=spatial, temporal_stop=temporal).mix(noised, fresh)
    torch.testing.assert_close(ours.transpose(2, 3).flatten(0, 1), wanted, atol=1e-5, rtol=1e-5)


def test_the_filter_passes_what_is_slow_and_stops_what_is_fast() -> None:
    gain = FreeInit().low_pass(16, 8, 8)[:, 0]
    assert float(gain[8, 4, 4]) == 1.0
    # Two of eight steps from the middle is the stop frequency along each axis.
    assert float(gain[8, 4, 5]) == pytest.approx(0.5)
    assert float(gain[10, 4, 4]) == pytest.approx(0.5)
    assert float(gain[0, 0, 0]) < 1e-3


def test_mixing_a_clip_with_itself_changes_nothing() -> None:
    clips = torch.randn(1, 2, 15, 4, 6, 6)
    torch.testing.assert_close(FreeInit().mix(clips, clips), clips, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bad", [{"num_rounds": 0}, {"order": 0}, {"spatial_stop": 0.0}, {"temporal_stop": 1.5}])
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        FreeInit(**bad)  # type: ignore[arg-type]
