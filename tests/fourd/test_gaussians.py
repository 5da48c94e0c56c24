import math

import pytest
import torch
from torch import Tensor

from fourd.gaussians import Gaussians, concatenate
from fourd.motion.rotations import matrix_of_quaternion
from fourd.rendering import rasterization
from fourd.rendering.spherical_harmonics import basis, rotation_matrix
from tests.fourd.rendering.scenes import Scene, random_scene


def random_gaussians(seed: int, degree: int, count: int = 120) -> tuple[Gaussians, Scene]:
    scene = random_scene(seed, num_gaussians=count, sh_degree=degree)
    gaussians = Gaussians(
        means=scene.means,
        quats=scene.quats,
        log_scales=scene.scales.log(),
        opacity_logits=scene.opacities.clamp(0.01, 0.99).logit(),
        sh=scene.colors,
    )
    return gaussians, scene


def picture(gaussians: Gaussians, viewmats: Tensor, scene: Scene) -> Tensor:
    return rasterization(
        gaussians.means, gaussians.quats, gaussians.log_scales.exp(), gaussians.opacity_logits.sigmoid(), gaussians.sh,
        viewmats, scene.Ks, *scene.size, sh_degree=gaussians.sh_degree,
    )[0]  # fmt: skip


def random_rotation(seed: int) -> Tensor:
    quat = torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return matrix_of_quaternion(quat)


@pytest.mark.parametrize("degree", range(4))
def test_a_camera_that_moves_along_sees_no_change(degree: int) -> None:
    gaussians, scene = random_gaussians(degree, degree)
    similarity = torch.eye(4, dtype=torch.float64)
    similarity[:3, :3] = 1.7 * random_rotation(degree)
    similarity[:3, 3] = torch.tensor([0.4, -2.0, 1.1])
    # The camera's space grows too: scale it back, which changes no picture.
    viewmats = (scene.viewmats.double() @ similarity.inverse()) * torch.tensor([1.7, 1.7, 1.7, 1.0]).double()[:, None]
    viewmats[:, :3, :3] = torch.nn.functional.normalize(viewmats[:, :3, :3], dim=-1)
    moved = gaussians.transformed(similarity)
    # Cameras see the larger object from 1.7 times as far.
    after = picture(moved, viewmats.float(), scene)
    before = picture(gaussians, scene.viewmats, scene)
    # The blur is in pixels and the shapes are the same; a pixel may fall to the other side of 1/255.
    assert float(((after - before).abs() > 1e-3).float().mean()) < 2e-3
    if degree:
        unturned = Gaussians(**{**vars(moved), "sh": gaussians.sh})
        assert float((picture(unturned, viewmats.float(), scene) - before).abs().max()) > 0.05


@pytest.mark.parametrize("degree", range(4))
def test_turned_harmonics_are_the_harmonics_seen_from_the_turned_direction(degree: int) -> None:
    generator = torch.Generator().manual_seed(degree)
    rotation = random_rotation(degree)
    coefficients = torch.randn((degree + 1) ** 2, 3, generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=generator, dtype=torch.float64), dim=-1)
    turned = basis(degree, directions) @ (rotation_matrix(degree, rotation) @ coefficients)
    assert torch.allclose(turned, basis(degree, directions @ rotation) @ coefficients, atol=1e-12)


def test_rotations_of_harmonics_multiply_and_keep_lengths() -> None:
    first, second = random_rotation(1), random_rotation(2)
    both = rotation_matrix(3, second) @ rotation_matrix(3, first)
    assert torch.allclose(rotation_matrix(3, second @ first), both, atol=1e-12)
    assert torch.allclose(both @ both.mT, torch.eye(16, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(rotation_matrix(3, torch.eye(3)), torch.eye(16, dtype=torch.float64), atol=1e-12)


def test_harmonics_are_orthonormal() -> None:
    """Over the sphere, by a rule that is exact for polynomials of degree 6."""
    heights, weights = (torch.from_numpy(part) for part in __import__("numpy").polynomial.legendre.leggauss(8))
    angles = torch.arange(16, dtype=torch.float64) * (2 * math.pi / 16)
    radius = (1 - heights**2).sqrt()
    directions = torch.stack(
        [radius[:, None] * angles.cos(), radius[:, None] * angles.sin(), heights[:, None].expand(8, 16)], dim=-1
    )
    values = basis(3, directions)
    products = torch.einsum("haj,hak,h->jk", values, values, weights) * (2 * math.pi / 16)
    assert torch.allclose(products, torch.eye(16, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize(
    "linear", [torch.diag(torch.tensor([1.0, 1, 2])), torch.diag(torch.tensor([1.0, 1, -1])), torch.zeros(3, 3)]
)
def test_what_is_no_similarity_is_refused(linear: Tensor) -> None:
    similarity = torch.eye(4)
    similarity[:3, :3] = linear
    with pytest.raises(ValueError, match="turned, scaled equally and moved"):
        random_gaussians(0, 1)[0].transformed(similarity)


def test_select_and_concatenate() -> None:
    simple, rich = random_gaussians(0, 0)[0], random_gaussians(1, 2)[0]
    some = rich.select(rich.means[:, 0] > 0)
    assert 0 < len(some) < len(rich)
    both = concatenate([simple, some])
    assert len(both) == len(simple) + len(some)
    assert both.sh_degree == 2
    assert torch.equal(both.sh[: len(simple), :1], simple.sh)
    assert not both.sh[: len(simple), 1:].any()
    again = both.select(torch.arange(len(simple), len(both)))
    assert all(torch.equal(a, b) for a, b in zip(vars(again).values(), vars(some).values(), strict=True))
    assert all(value.device.type == "meta" for value in vars(both.to("meta")).values())
