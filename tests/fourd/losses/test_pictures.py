import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from fourd.losses.pictures import depth_roughness, psnr_db, shrunk, ssim


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_ssim_is_scikit_images() -> None:
    picture = noise(2, 3, 24, 30)
    other = (picture + 0.2 * noise(2, 3, 24, 30).flip(0)).clamp(0, 1)
    wanted = [
        structural_similarity(
            a.numpy(), b.numpy(), channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(picture, other, strict=True)
    ]  # fmt: skip
    # Scikit-image crops the rim that a window of 11 does not fit into, as no padding does.
    assert ssim(picture, other).tolist() == pytest.approx(wanted, abs=1e-6)
    assert ssim(picture, picture).tolist() == pytest.approx([1.0, 1.0])


def test_psnr_of_a_known_difference() -> None:
    assert float(psnr_db(torch.full((4, 4), 0.6), torch.full((4, 4), 0.5))) == pytest.approx(20.0, abs=1e-4)
    assert float(psnr_db(torch.ones(2), torch.ones(2))) == pytest.approx(100.0)


def test_shrinking_averages() -> None:
    pictures = noise(3, 2, 8, 8, 4)
    wanted = pictures.reshape(3, 2, 4, 2, 4, 2, 4).mean(dim=(3, 5))
    assert torch.allclose(shrunk(pictures, 4), wanted)
    assert shrunk(pictures, 8) is pictures


def test_depth_may_jump_at_colour_edges_and_at_the_rim() -> None:
    depth = torch.ones(1, 8, 8)
    depth[..., 4:] = 2.0
    alpha, colors = torch.ones(1, 8, 8), torch.zeros(1, 8, 8, 3)
    plain = float(depth_roughness(depth, alpha, colors))
    assert plain == pytest.approx(8 / 56)
    edged = colors.clone()
    edged[..., 4:, :] = 1.0
    assert float(depth_roughness(depth, alpha, edged)) == pytest.approx(plain * np.exp(-10), rel=1e-4)
    half = alpha.clone()
    half[..., 4:] = 0.0
    assert float(depth_roughness(depth, half, colors)) == 0.0
