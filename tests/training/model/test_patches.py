import pytest
import torch

from training.model.patches import CosinePatches, cosines


def pictures(size: int = 16) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_all_frequencies_lose_nothing() -> None:
    patches = CosinePatches(patch_px=4, num_frequencies=16)
    latents = patches.encode(pictures()).latent_dist.mode()
    assert latents.shape == (2, 48, 4, 4)
    torch.testing.assert_close(patches.decode(latents).sample, pictures(), atol=1e-5, rtol=0)


def test_the_lowest_frequencies_are_the_nearest_picture_that_has_no_others() -> None:
    patches = CosinePatches(patch_px=4, num_frequencies=6)
    blurred = patches.decode(patches.encode(pictures()).latent_dist.mode()).sample
    again = patches.decode(patches.encode(blurred).latent_dist.mode()).sample
    torch.testing.assert_close(again, blurred, atol=1e-5, rtol=0)
    # What is lost stands at a right angle to what is kept.
    assert float(((pictures() - blurred) * blurred).mean()) == pytest.approx(0.0, abs=1e-6)


def test_one_frequency_is_the_mean_of_each_patch() -> None:
    patches = CosinePatches(patch_px=8, num_frequencies=1)
    shown = patches.decode(patches.encode(pictures()).latent_dist.mode()).sample
    means = torch.nn.functional.avg_pool2d(pictures(), 8).repeat_interleave(8, -1).repeat_interleave(8, -2)
    torch.testing.assert_close(shown, means, atol=1e-6, rtol=0)


def test_higher_frequencies_are_enlarged_by_how_high_they_are() -> None:
    _, gains = cosines(8, 6)
    assert gains.flatten().tolist() == [1, 2, 2, 3, 3, 3] * 3


@pytest.mark.parametrize("settings", [{"patch_px": 0}, {"patch_px": 2, "num_frequencies": 5}, {"scaling_factor": 0.0}])
def test_bad_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="need a pixel"):
        CosinePatches(**settings)  # type: ignore[arg-type]
