"""Against gsplat: its names, its reference maths on the CPU, and its kernels where there is a GPU."""

import dataclasses
import inspect

import gsplat
import pytest
import torch
from gsplat.cuda import _torch_impl as reference
from torch import Tensor

from fourd.rendering import rasterization
from fourd.rendering.rasterize import _DEFAULTS
from fourd.rendering.spherical_harmonics import basis
from tests.fourd.rendering.scenes import Scene, random_scene, stacked


def test_names_and_defaults_are_those_of_gsplat() -> None:
    theirs = inspect.signature(gsplat.rasterization).parameters
    ours = inspect.signature(rasterization).parameters
    for name, parameter in ours.items():
        if name != "only_on_cuda":
            assert parameter.default == theirs[name].default, name
    rest = {name: parameter.default for name, parameter in theirs.items() if name not in ours}
    # Nothing is packed here, and rolling shutters are an enum of gsplat's own.
    assert rest.pop("packed") is True
    assert rest.pop("rolling_shutter").name == "GLOBAL"
    assert {name: value for name, value in _DEFAULTS.items() if name != "packed"} == rest


def test_harmonics_are_those_of_gsplat() -> None:
    directions = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double())
    coefficients = torch.randn(50, 16, 3, generator=torch.Generator().manual_seed(1)).double()
    for degree in range(4):
        theirs = reference._spherical_harmonics(degree, directions, coefficients)
        used = coefficients[:, : (degree + 1) ** 2]
        assert torch.allclose((basis(degree, directions)[..., None] * used).sum(1), theirs, atol=1e-12)


def drawn_by_reference(scene: Scene) -> Tensor:
    """gsplat's projection in float64, then its blending written as a loop over Gaussians."""
    covariances, _ = reference._quat_scale_to_covar_preci(scene.quats, scene.scales, compute_preci=False)
    _, means2d, depths, conics, _ = reference._fully_fused_projection(
        scene.means, covariances, scene.viewmats, scene.Ks, *scene.size
    )
    width, height = scene.size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    images = []
    for camera in range(len(scene.viewmats)):
        light, done = torch.ones(height, width).double(), torch.zeros(height, width, dtype=torch.bool)
        image = torch.zeros(height, width, 3).double()
        for which in depths[camera].argsort(stable=True):
            if not 0.01 < depths[camera, which] < 1e10:
                continue
            dx, dy = means2d[camera, which, 0] - x, means2d[camera, which, 1] - y
            a, b, c = conics[camera, which]
            alpha = (scene.opacities[which] * torch.exp(-0.5 * (a * dx**2 + c * dy**2) - b * dx * dy)).clamp(max=0.999)
            counts = (alpha >= 1 / 255) & ~done
            done |= counts & (light * (1 - alpha) <= 1e-4)
            counts &= ~done
            image += torch.where(counts, alpha * light, 0)[..., None] * scene.colors[which]
            light = torch.where(counts, light * (1 - alpha), light)
        images.append(image + light[..., None] * scene.backgrounds[camera])
    return torch.stack(images)


@pytest.mark.parametrize("seed", range(3))
def test_pictures_are_those_of_its_reference(seed: int) -> None:
    scene = random_scene(seed, scale=0.05)
    colors = scene.rendered(rasterization)[0]
    with torch.no_grad():
        exact = drawn_by_reference(scene.to(torch.float64))
    off = (colors - exact).abs().amax(-1) > 1e-4
    assert int(off.sum()) <= 1
    assert float((colors - exact).abs().max()) < 0.02


def test_projection_is_that_of_its_reference() -> None:
    scene = random_scene(5)
    meta = scene.rendered(rasterization)[2]
    double = scene.to(torch.float64)
    covariances, _ = reference._quat_scale_to_covar_preci(double.quats, double.scales, compute_preci=False)
    radii, means2d, depths, conics, _ = reference._fully_fused_projection(
        double.means, covariances, double.viewmats, double.Ks, *scene.size
    )
    seen = (meta["radii"] > 0).all(-1)
    assert int(seen.sum()) > 200
    assert torch.allclose(meta["means2d"][seen].double(), means2d[seen], rtol=1e-5, atol=1e-4)
    assert torch.allclose(meta["depths"][seen].double(), depths[seen], rtol=1e-5)
    assert torch.allclose(meta["conics"][seen].double(), conics[seen], rtol=1e-3, atol=1e-6)
    # The reference has no tighter bound for faint Gaussians.
    assert bool((meta["radii"] <= radii).all())
    opaque = seen & (scene.opacities == 1.0)
    assert torch.equal(meta["radii"][opaque], radii[opaque])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_draws_the_same() -> None:
    scene = stacked([random_scene(seed, sh_degree=2) for seed in range(2)])
    there = Scene(**{
        field.name: value.cuda() if isinstance(value := getattr(scene, field.name), Tensor) else value
        for field in dataclasses.fields(scene)
    })  # fmt: skip
    gradients = []
    for place in (scene, there):
        copy = place.to(torch.float32)
        colors, alphas, meta = copy.rendered(rasterization, sh_degree=2, render_mode="RGB+ED", absgrad=True)
        meta["means2d"].retain_grad()
        ((colors[..., :3] ** 2).sum() + alphas.sum()).backward()
        gradients.append([p.grad.cpu() for p in copy.parameters if p.grad is not None])
        gradients[-1] += [colors[..., :3].detach().cpu(), alphas.detach().cpu(), meta["means2d"].absgrad.cpu()]
    for ours, theirs in zip(*gradients, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-2
