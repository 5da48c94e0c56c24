"""The CPU rasterizer against the plain one in float64, and what it promises beside."""

import dataclasses
import multiprocessing
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fourd.rendering import plain, rasterization
from tests.fourd.rendering.scenes import Scene, random_scene, stacked

NAMES = ("means", "quats", "scales", "opacities", "colors", "backgrounds")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise(like: Tensor, seed: int) -> Tensor:
    """The same numbers for each floating-point type."""
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)).to(like)


def with_gradients(
    scene: Scene, rasterizer: Any, dtype: torch.dtype, **options: Any
) -> tuple[Tensor, Tensor, list[Tensor]]:
    copy = scene.to(dtype)
    colors, alphas, _ = copy.rendered(rasterizer, **options)
    ((colors * noise(colors, 1)).sum() + (alphas * noise(alphas, 2)).sum()).backward()
    return (
        colors.detach().double(),
        alphas.detach().double(),
        [p.grad.double() for p in copy.parameters if p.grad is not None],
    )


def check_like_plain(scene: Scene, **options: Any) -> None:
    colors, alphas, gradients = with_gradients(scene, rasterization, torch.float32, **options)
    exact, exact_alphas, exact_gradients = with_gradients(scene, plain.rasterization, torch.float64, **options)
    assert float(exact_alphas.detach().max()) > 0.5  # there is something to see
    # Where a Gaussian's alpha is just 1/255, rounding decides whether it counts: a few pixels may differ by that.
    off = (colors - exact).abs().amax(-1) > 1e-4
    assert off.float().mean() < 1e-3, f"{int(off.sum())} pixels differ"
    assert float((colors - exact).abs().max()) < 0.02
    assert float((alphas - exact_alphas).abs().max()) < 0.01
    for name, gradient, wanted in zip(NAMES, gradients, exact_gradients, strict=True):
        # float32 keeps about four digits of the gradients of huge Gaussians.
        assert float((gradient - wanted).norm() / wanted.norm()) < (2e-3 if off.any() else 5e-4), name


@pytest.mark.parametrize("scale", [0.01, 0.08, 0.4])
@pytest.mark.parametrize("seed", range(4))
def test_images_and_gradients_are_those_of_the_plain_rasterizer(seed: int, scale: float) -> None:
    check_like_plain(random_scene(seed, scale=scale))


@pytest.mark.parametrize("degree", range(4))
def test_spherical_harmonics_too(degree: int) -> None:
    check_like_plain(random_scene(10 + degree, sh_degree=degree), sh_degree=degree)


@pytest.mark.parametrize("num_channels", [1, 2, 17])
def test_any_number_of_channels(num_channels: int) -> None:
    check_like_plain(random_scene(20, num_channels=num_channels))


@given(
    seed=st.integers(0, 2**31),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    num_gaussians=st.integers(31, 90),
    log_scale=st.floats(-3, -0.3),
)
@settings(max_examples=25)
def test_pictures_of_any_size(seed: int, size: tuple[int, int], num_gaussians: int, log_scale: float) -> None:
    scene = random_scene(seed, num_gaussians=num_gaussians, size=size, scale=10**log_scale)
    colors, _, _ = scene.rendered(rasterization)
    with torch.no_grad():
        exact, _, _ = scene.to(torch.float64).rendered(plain.rasterization)
    off = (colors - exact).abs().amax(-1) > 1e-4
    assert int(off.sum()) <= 1
    assert float((colors - exact).abs().max()) < 0.02


def test_the_plain_rasterizer_by_tiles_is_the_plain_rasterizer() -> None:
    scene = random_scene(21).to(torch.float64)
    with torch.no_grad():
        whole, tiles = (scene.rendered(plain.rasterization, tile_px=tile_px)[0] for tile_px in (None, 8))
    assert torch.allclose(whole, tiles, atol=1e-12)


def test_a_point_shows_where_the_camera_says() -> None:
    """Against no rasterizer: the centre of mass of a small Gaussian is its projection, its brightness is known."""
    K = torch.tensor([[[40.0, 0, 20], [0, 40.0, 15], [0, 0, 1]]])
    point = torch.tensor([[0.2, -0.1, 2.0]])
    colors, alphas, meta = rasterization(
        point, torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.1), torch.tensor([0.5]), torch.ones(1, 3),
        torch.eye(4)[None], K, 40, 30,
    )  # fmt: skip
    assert torch.allclose(meta["means2d"], torch.tensor([[[24.0, 13.0]]]))
    image = colors[0, ..., 0]
    total = float(image.sum())
    x, y = torch.arange(40) + 0.5, torch.arange(30) + 0.5
    assert float((image.sum(0) * x).sum()) / total == pytest.approx(24.0, abs=0.01)
    assert float((image.sum(1) * y).sum()) / total == pytest.approx(13.0, abs=0.01)
    # 2 pi sigma^2 opacity, with sigma^2 = (40 * 0.1 / 2)^2 + 0.3, but for what lies below 1/255.
    assert total == pytest.approx(2 * torch.pi * 4.3 * 0.5, rel=0.02)
    assert torch.allclose(alphas[..., 0], colors[..., 0], atol=1e-6)


def test_batches_are_the_scenes_one_by_one() -> None:
    scenes = [random_scene(seed, num_cameras=3) for seed in range(4)]
    batch = stacked([stacked(scenes[:2]), stacked(scenes[2:])])
    colors, alphas, meta = batch.rendered(rasterization)
    assert colors.shape == (2, 2, 3, 29, 37, 3)
    assert alphas.shape == (2, 2, 3, 29, 37, 1)
    assert meta["means2d"].shape == (2, 2, 3, 150, 2)
    assert meta["radii"].shape == (2, 2, 3, 150, 2)
    assert meta["radii"].dtype == torch.int32
    assert meta["depths"].shape == (2, 2, 3, 150)
    assert meta["conics"].shape == (2, 2, 3, 150, 3)
    for number, scene in enumerate(scenes):
        assert torch.equal(colors[number // 2, number % 2], scene.rendered(rasterization)[0])


def test_the_number_of_threads_changes_no_bit() -> None:
    scene = stacked([random_scene(seed, num_gaussians=6000, num_cameras=3, scale=0.02) for seed in range(2)])
    one = with_gradients(scene, rasterization, torch.float32)
    torch.set_num_threads(3)
    many = with_gradients(scene, rasterization, torch.float32)
    assert torch.equal(one[0], many[0])
    assert all(torch.equal(a, b) for a, b in zip(one[2], many[2], strict=True))


def test_colors_may_differ_by_camera() -> None:
    scene = random_scene(3)
    colors = torch.stack([scene.colors, 1 - scene.colors])
    each = dataclasses.replace(scene, colors=colors)
    picture = each.rendered(rasterization)[0]
    assert torch.equal(picture[0], scene.rendered(rasterization)[0][0])
    assert torch.equal(picture[1], dataclasses.replace(scene, colors=1 - scene.colors).rendered(rasterization)[0][1])


def test_depth_modes() -> None:
    scene = random_scene(4)
    depth = torch.einsum("cij,nj->cni", scene.viewmats[:, :3, :3], scene.means)[..., 2] + scene.viewmats[:, 2, 3, None]
    as_color = dataclasses.replace(scene, colors=depth[..., None].contiguous(), backgrounds=torch.zeros(2, 1))
    wanted = as_color.rendered(rasterization)[0]
    rgb, alphas, _ = scene.rendered(rasterization)
    picture = scene.rendered(rasterization, render_mode="D")[0]
    assert torch.allclose(picture, wanted, atol=1e-4)
    expected = scene.rendered(rasterization, render_mode="ED")[0]
    assert torch.allclose(expected * alphas, picture, atol=1e-4)
    both = scene.rendered(rasterization, render_mode="RGB+D")[0]
    assert torch.equal(both[..., :3], rgb)
    assert torch.equal(both[..., 3:], picture)
    assert torch.equal(scene.rendered(rasterization, render_mode="RGB+ED")[0][..., 3:], expected)
    copy = scene.to(torch.float32)
    copy.rendered(rasterization, render_mode="ED")[0].sum().backward()
    assert copy.means.grad is not None
    assert float(copy.means.grad.norm()) > 0


def test_means2d_keeps_its_gradient_for_densification() -> None:
    copy = random_scene(5).to(torch.float32)
    colors, _, meta = copy.rendered(rasterization, absgrad=True)
    meta["means2d"].retain_grad()
    (colors * noise(colors, 1)).sum().backward()
    gradient, absolute = meta["means2d"].grad, meta["means2d"].absgrad
    assert gradient.shape == absolute.shape == (2, 150, 2)
    assert float(gradient.abs().max()) > 0
    assert bool((absolute >= gradient.abs() - 1e-4 * absolute.max()).all())
    # Of one pixel, the sum of absolute values is the absolute value of the sum.
    one = dataclasses.replace(random_scene(5), size=(1, 1)).to(torch.float32)
    colors, _, meta = one.rendered(rasterization, absgrad=True)
    meta["means2d"].retain_grad()
    (colors * noise(colors, 1)).sum().backward()
    assert float(meta["means2d"].absgrad.max()) > 0
    assert torch.allclose(meta["means2d"].absgrad, meta["means2d"].grad.abs(), atol=1e-6)


def test_absgrad_is_the_sum_of_absolute_values_over_the_pixels() -> None:
    scene = random_scene(6, num_gaussians=40, num_cameras=1, size=(9, 7)).to(torch.float32)
    colors, _, meta = scene.rendered(rasterization, absgrad=True)
    per_pixel = [
        torch.autograd.grad(pixel, meta["means2d"], retain_graph=True)[0].abs()
        for pixel in (colors * noise(colors, 1)).sum(-1).flatten()
    ]
    (colors * noise(colors, 1)).sum().backward()
    assert torch.allclose(meta["means2d"].absgrad, torch.stack(per_pixel).sum(0), rtol=1e-3, atol=1e-5)


def test_equal_depths_keep_their_order() -> None:
    """Two Gaussians in the same place: the first is in front."""
    colors, _, _ = rasterization(
        torch.tensor([[0.0, 0, 2], [0, 0, 2]]), torch.tensor([[1.0, 0, 0, 0]] * 2), torch.full((2, 3), 0.3),
        torch.tensor([0.9, 0.9]), torch.tensor([[1.0, 0, 0], [0, 1, 0]]), torch.eye(4)[None],
        torch.tensor([[[20.0, 0, 8.5], [0, 20, 8.5], [0, 0, 1]]]), 17, 17,
    )  # fmt: skip
    assert torch.allclose(colors[0, 8, 8], torch.tensor([0.9, 0.09, 0.0]), atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities"])
def test_what_is_not_finite_is_not_drawn(name: str, value: float) -> None:
    scene = random_scene(7)
    broken = dataclasses.replace(scene, **{name: getattr(scene, name).clone()})
    getattr(broken, name)[40:45] = value
    without = dataclasses.replace(scene, opacities=scene.opacities.clone())
    without.opacities[40:45] = 0.0
    colors, alphas, gradients = with_gradients(broken, rasterization, torch.float32)
    assert bool(torch.isfinite(colors).all())
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    # 1e30 as an opacity is finite, and so is a quaternion of any length.
    if not (value == 1e30 and name in ("opacities", "quats")):
        assert torch.equal(colors, with_gradients(without, rasterization, torch.float32)[0])
        assert not gradients[0][40:45].any()
    assert float(alphas.max()) > 0.5


def test_a_quaternion_of_length_zero_is_not_drawn() -> None:
    scene = random_scene(8)
    scene.quats[40:45] = 0.0
    _, _, meta = scene.rendered(rasterization)
    assert not meta["radii"][:, 40:45].any()


def test_nothing_to_see_is_the_background() -> None:
    scene = random_scene(9)
    for nothing in (
        dataclasses.replace(scene, opacities=torch.zeros(150)),
        dataclasses.replace(scene, means=scene.means + 1e4),
        Scene(**{
            **{name: getattr(scene, name)[:0] for name in ("means", "quats", "scales", "opacities", "colors")},
            "viewmats": scene.viewmats, "Ks": scene.Ks, "backgrounds": scene.backgrounds, "size": scene.size,
        }),
    ):  # fmt: skip
        colors, alphas, gradients = with_gradients(nothing, rasterization, torch.float32)
        assert torch.equal(colors.float(), scene.backgrounds[:, None, None].expand_as(colors))
        assert not alphas.any()
        assert not any(gradient.any() for gradient in gradients[:-1])


def test_planes_and_small_radii_clip() -> None:
    scene = random_scene(10)
    depths = scene.rendered(rasterization, near_plane=2.4, far_plane=2.7)[2]["depths"]
    assert bool(((depths == 0) | ((depths >= 2.4) & (depths <= 2.7))).all())
    assert bool((depths > 0).any())
    radii = scene.rendered(rasterization, radius_clip=4.0)[2]["radii"]
    assert bool(((radii == 0).all(-1) | (radii > 4).any(-1)).all())


def test_no_leftover_after_a_second_backward() -> None:
    copy = random_scene(11).to(torch.float32)
    colors, _, _ = copy.rendered(rasterization)
    first = torch.autograd.grad(colors.sum(), copy.means, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(colors.sum(), copy.means)[0])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"camera_model": "fisheye"}, "camera_model='fisheye' works on CUDA only"),
        ({"rasterize_mode": "antialiased"}, "antialiased"),
        ({"packed": True}, "packed"),
        ({"with_ut": True}, "with_ut"),
        ({"rolling_shutter": 1}, "rolling_shutter"),
        ({"colour": 1}, "no argument 'colour'"),
        ({"render_mode": "XYZ"}, "render_mode is one of"),
        ({"sh_degree": 4}, "colors must have shape"),
    ],
)
def test_what_the_cpu_does_not_do_is_said(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_scene(12).rendered(rasterization, **option)


def test_wrong_input_is_said() -> None:
    scene = random_scene(13)
    with pytest.raises(ValueError, match=r"quats must have shape \[150, 4\], got \[149, 4\]"):
        dataclasses.replace(scene, quats=scene.quats[1:]).rendered(rasterization)
    with pytest.raises(ValueError, match=r"opacities must be float32, got torch\.float64"):
        dataclasses.replace(scene, opacities=scene.opacities.double()).rendered(rasterization)
    with pytest.raises(ValueError, match="backgrounds must have shape"):
        dataclasses.replace(scene, backgrounds=torch.zeros(3)).rendered(rasterization)
    with pytest.raises(ValueError, match="at least one pixel"):
        dataclasses.replace(scene, size=(0, 5)).rendered(rasterization)
    with pytest.raises(ValueError, match="detach them"):
        dataclasses.replace(scene, viewmats=scene.viewmats.clone().requires_grad_()).rendered(rasterization)
    with pytest.raises(ValueError, match="no camera"):
        dataclasses.replace(
            scene, viewmats=scene.viewmats[:0], Ks=scene.Ks[:0], backgrounds=scene.backgrounds[:0]
        ).rendered(rasterization)
    with pytest.raises(ValueError, match=r"sh_degree must lie in 0\.\.3 and fit the 4 coefficients"):
        random_scene(13, sh_degree=1).rendered(rasterization, sh_degree=2)


def test_without_gsplat_a_gpu_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    from fourd.rendering.rasterize import _gsplat

    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(ImportError, match=r"pip install 'mv4d\[gpu\]'"):
        _gsplat()


def test_a_forked_process_has_threads_of_its_own() -> None:
    """As the workers of a data loader are: threads do not survive a fork."""
    scene = stacked([random_scene(14, num_cameras=4)])
    torch.set_num_threads(2)
    wanted = scene.rendered(rasterization)[0]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=lambda: queue.put(float((scene.rendered(rasterization)[0] - wanted).abs().max())))
    child.start()
    assert queue.get(timeout=60) == 0.0
    child.join()
