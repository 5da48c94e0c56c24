from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fourd.canonical import of_gaussians, of_mesh
from fourd.moving import Drawing, MovingGaussians, averaged
from pipeline.cameras import look_at_origin
from tests.fourd import bending_bar


def pictures(model: MovingGaussians, size_px: int) -> tuple[Tensor, Tensor]:
    video, frames, views = bending_bar.video(2), torch.tensor([0, 3]), torch.arange(2)
    _, moved = model.motion(frames)
    colors, alpha, _ = model.pictures(
        moved, video.w2c(frames, views), video.camera_matrix(size_px), size_px, size_px, background=0.5
    )
    return colors, alpha


def test_means_of_squares_of_pixels() -> None:
    rows = torch.arange(2 * 4 * 6 * 1, dtype=torch.float64).reshape(2, 4, 6, 1)
    found = averaged(rows, 2)
    assert found.shape == (2, 2, 3, 1)
    assert found[1, 1, 2, 0] == rows[1, 2:4, 4:6, 0].mean()
    assert averaged(rows, 1) is rows


@pytest.mark.parametrize("count", [2, 3, 8])
def test_each_of_a_square_s_pixels_has_the_same_share(count: int) -> None:
    pictures = torch.randn(2, 1, 3 * count, 2 * count, 3, generator=torch.manual_seed(0), requires_grad=True)
    found = averaged(pictures, count)
    pooled = torch.nn.functional.avg_pool2d(pictures.detach().flatten(0, 1).movedim(-1, 1), count).movedim(1, -1)
    torch.testing.assert_close(found.flatten(0, 1), pooled)
    found.sum().backward()
    torch.testing.assert_close(pictures.grad, torch.full_like(pictures, 1 / count**2))


def test_supersampled_pictures_are_means_of_finer_ones() -> None:
    plain = bending_bar.true_model(300)
    finer = MovingGaussians(plain.canonical, plain.field, Drawing(supersampling=3))
    (colors, alpha), (fine_colors, fine_alpha) = pictures(finer, 20), pictures(plain, 60)
    torch.testing.assert_close(colors, averaged(fine_colors, 3))
    torch.testing.assert_close(alpha, averaged(fine_alpha[..., None], 3)[..., 0])


def test_less_is_added_to_outlines() -> None:
    plain = bending_bar.true_model(300)
    sharp = MovingGaussians(plain.canonical, plain.field, replace(Drawing(), supersampling=2, eps2d=0.1))
    assert pictures(sharp, 32)[1].sum() < 0.97 * pictures(plain, 32)[1].sum()


@pytest.mark.parametrize("is_lit", [True, False])
def test_a_surface_with_one_side_is_not_seen_from_behind(is_lit: bool) -> None:
    corners = np.array([[-0.5, 0.0, -0.5], [0.5, 0.0, -0.5], [0.5, 0.0, 0.5], [-0.5, 0.0, 0.5]])
    square = of_mesh(
        "square", corners, np.array([[0, 1, 2], [0, 2, 3]]), num_gaussians=300, colors=np.full((4, 3), 0.8)
    )
    shown = {}
    for hides in (None, torch.ones(300, dtype=torch.bool)):
        canonical = replace(square, hides_its_back=hides)
        model = MovingGaussians(canonical, bending_bar.Bending(canonical.points, 5), Drawing(is_lit=is_lit))
        # From -y, which its face looks to, and from behind.
        c2w = np.stack([look_at_origin(azimuth, 0.0, 3.0) for azimuth in (0.0, 180.0)]).astype(np.float32)
        w2c = torch.linalg.inv(torch.from_numpy(c2w))[None].expand(2, -1, -1, -1)
        _, moved = model.motion(torch.tensor([0, 0]))
        shown[hides is None] = model.pictures(
            moved, w2c, bending_bar.video(1).camera_matrix(32), 32, 32, background=0.5, with_depth=True
        )
    (both, both_alpha, both_depth), (one, one_alpha, one_depth) = shown[True], shown[False]
    assert one.shape == both.shape
    assert both_depth is not None
    assert one_depth is not None
    assert float(both_alpha[:, 0].detach().mean()) > 0.05
    assert torch.equal(one[:, 0], both[:, 0])
    assert torch.equal(one_alpha[:, 0], both_alpha[:, 0])
    assert torch.equal(one_depth[:, 0], both_depth[:, 0])
    assert float(both_alpha[:, 1].detach().mean()) > 0.05
    assert not bool(one_alpha[:, 1].any())
    one[:, 1].sum().backward()
    assert not bool(model.sh.grad.any())  # type: ignore[union-attr]


@pytest.mark.parametrize("wrong", [{"supersampling": 0}, {"supersampling": 9}, {"eps2d": -0.1}])
def test_drawings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="supersampling must be 1 to 8"):
        Drawing(**wrong)  # type: ignore[arg-type]


def test_colors_follow_the_light_but_for_exported_ones_which_have_that_of_frame_0() -> None:
    model = bending_bar.lit_model(Drawing(is_lit=True))
    first, last = model.at_frame(0), model.at_frame(4)
    assert torch.equal(first.sh, last.sh)
    assert not torch.equal(first.means, last.means)
    plain = MovingGaussians(replace(model.canonical, gaussians=first), model.field)
    with torch.no_grad():
        (own, alpha), (exported, _) = pictures(model, 48), pictures(plain, 48)
    # Inside the outline: on the rim a Gaussian may show either side.
    changed = [float((exported - own).abs()[frame][alpha[frame] > 0.98].mean()) for frame in (0, 1)]
    assert changed[0] < 0.004
    assert changed[1] > 0.01


def test_gaussians_without_a_mesh_are_not_lit() -> None:
    gaussians = bending_bar.canonical(50).gaussians
    canonical = of_gaussians("bar", gaussians)
    model = MovingGaussians(canonical, bending_bar.Bending(canonical.points, 5), Drawing(is_lit=True))
    assert model.light is None
    assert torch.equal(model.at_frame(3).sh, gaussians.sh)
