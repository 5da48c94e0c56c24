"""A rasterizer in plain PyTorch: gradients by autograd, any floating-point type.

It is what the fast ones are compared with, in the tests (float64, every Gaussian at every pixel) and in the benchmark
(by tiles), and uses nothing of theirs. Its memory grows with Gaussians x pixels.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fourd.rendering.spherical_harmonics import basis, num_coefficients


def rasterization(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    backgrounds: Tensor | None = None,
    tile_px: int | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """As `fourd.rendering.rasterization` in mode RGB, for one batch: (N, ...) Gaussians, (C, ...) cameras.

    With `tile_px`, a Gaussian is looked at only in the square tiles that it can reach with alpha >= 1/255.
    """
    centres, covariances = _in_cameras(means, _covariances(quats, scales), viewmats)
    means2d, covariances2d = _on_images(centres, covariances, Ks, width, height)
    covariances2d = covariances2d + eps2d * torch.eye(2, dtype=means.dtype)
    depths = centres[..., 2]
    drawn = (depths >= near_plane) & (depths <= far_plane)
    if sh_degree is not None:
        places = torch.linalg.inv(viewmats)[:, :3, 3]
        directions = functional.normalize(means - places[:, None], dim=-1)
        used = colors[..., : num_coefficients(sh_degree), :]
        colors = (torch.einsum("cnk,...nkd->cnd", basis(sh_degree, directions), used) + 0.5).clamp(min=0)
    images, alphas = [], []
    for camera in range(len(viewmats)):
        seen = drawn[camera].nonzero().squeeze(-1)
        order = seen[depths[camera, seen].argsort(stable=True)]
        picture = _picture(
            means2d[camera, order],
            covariances2d[camera, order],
            opacities[order],
            (colors if colors.dim() == 2 else colors[camera])[order],
            (width, height),
            tile_px or max(width, height),
            all_everywhere=tile_px is None,
        )
        image, light = picture[..., :-1], picture[..., -1:]
        images.append(image if backgrounds is None else image + light * backgrounds[camera])
        alphas.append(1 - light)
    return torch.stack(images), torch.stack(alphas), {"means2d": means2d, "depths": depths}


def _covariances(quats: Tensor, scales: Tensor) -> Tensor:
    """Shape (N, 3, 3), R S S R^T (Kerbl et al. 2023, eq. 6)."""
    w, x, y, z = functional.normalize(quats, dim=-1).unbind(-1)
    rotation = torch.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ], dim=-1).reshape(-1, 3, 3)  # fmt: skip
    root = rotation * scales[:, None]
    return root @ root.mT


def _in_cameras(means: Tensor, covariances: Tensor, viewmats: Tensor) -> tuple[Tensor, Tensor]:
    """Means (C, N, 3) and covariances (C, N, 3, 3) in the cameras' space."""
    turn = viewmats[:, None, :3, :3]
    return means @ viewmats[:, :3, :3].mT + viewmats[:, None, :3, 3], turn @ covariances @ turn.mT


def _on_images(centres: Tensor, covariances: Tensor, Ks: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Pixels (C, N, 2) and covariances J V J^T (C, N, 2, 2) (Zwicker et al. 2001; Kerbl et al. 2023, eq. 5).

    J is taken where the centre is, or where it would be at 15 % of the image's size outside of it.
    """
    size = torch.tensor([width, height], dtype=centres.dtype)
    focal, middle = Ks[:, None].diagonal(dim1=-2, dim2=-1)[..., :2], Ks[:, None, :2, 2]
    depth = centres[..., 2:]
    slope = centres[..., :2] / depth
    margin = 0.15 * size / focal
    held = slope.clamp(min=-middle / focal - margin, max=(size - middle) / focal + margin)
    jacobian = torch.cat([torch.diag_embed(focal / depth), (-focal * held / depth)[..., None]], dim=-1)
    return focal * slope + middle, jacobian @ covariances @ jacobian.mT


def _picture(
    means2d: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    colors: Tensor,
    size: tuple[int, int],
    tile_px: int,
    *,
    all_everywhere: bool,
) -> Tensor:
    """Colours without background, and what is let through as last channel, of Gaussians sorted by depth."""
    x, y = (torch.arange(length, dtype=means2d.dtype) + 0.5 for length in size)
    with torch.no_grad():
        reach = (2 * (255 * opacities).clamp(min=1).log()[:, None] * covariances.diagonal(dim1=-2, dim2=-1)).sqrt()
    rows = []
    for tile_y in y.split(tile_px):
        row = []
        for tile_x in x.split(tile_px):
            first, last = torch.stack([tile_x[0], tile_y[0]]), torch.stack([tile_x[-1], tile_y[-1]])
            near = ((means2d + reach >= first) & (means2d - reach <= last)).all(dim=-1) | all_everywhere
            which = near.nonzero().squeeze(-1)
            weights, light = _blend(means2d[which], covariances[which].inverse(), opacities[which], tile_x, tile_y)
            row.append(torch.cat([torch.einsum("nhw,nd->hwd", weights, colors[which]), light[..., None]], dim=-1))
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows)


def _blend(means2d: Tensor, conics: Tensor, opacities: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weight of each Gaussian in each pixel, (N, height, width), and what is let through, (height, width)."""
    dx, dy = x - means2d[:, 0, None, None], y[:, None] - means2d[:, 1, None, None]
    conic = conics[..., None, None]
    exponent = 0.5 * (conic[:, 0, 0] * dx**2 + conic[:, 1, 1] * dy**2) + conic[:, 0, 1] * dx * dy
    alpha = (opacities[:, None, None] * torch.exp(-exponent)).clamp(max=0.999)
    alpha = torch.where(alpha >= 1 / 255, alpha, 0)
    after = torch.cumprod(1 - alpha, dim=0)
    # Done pixels take no more, and not the one that would finish them.
    goes_on = after > 1e-4
    alpha = torch.where(goes_on, alpha, 0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    return alpha * before, torch.prod(1 - alpha, dim=0)
