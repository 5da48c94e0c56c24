"""The rasterizer's CPU twin: the kernels as two nodes of the graph, and what lies around them.

Images are divided among `torch.get_num_threads()` threads; the result is the same, bit for bit, for any number of them.
"""

import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from fourd.rendering.spherical_harmonics import basis, num_coefficients

GAUSSIANS_PER_TASK = 4096


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
    near_plane: float,
    far_plane: float,
    radius_clip: float,
    eps2d: float,
    sh_degree: int | None,
    backgrounds: Tensor | None,
    render_mode: str,
    absgrad: bool,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """As `fourd.rendering.rasterization`, for arguments that it has checked."""
    batch, num_gaussians, num_cameras = means.shape[:-2], means.shape[-2], viewmats.shape[-3]
    images, per_image = (*batch, num_cameras), (*batch, num_cameras, num_gaussians)
    num_batches = math.prod(batch)
    if sh_degree is not None:
        colors = sh_colors(sh_degree, means, viewmats, colors)
    if colors.dim() == means.dim():
        colors = colors.unsqueeze(-3).expand(*per_image, -1)
    radii, means2d, depths, conics = _Project.apply(
        means.reshape(num_batches, num_gaussians, 3),
        quats.reshape(num_batches, num_gaussians, 4),
        scales.reshape(num_batches, num_gaussians, 3),
        opacities.detach().reshape(num_batches, num_gaussians),
        viewmats.reshape(num_batches, num_cameras, 4, 4),
        Ks.reshape(num_batches, num_cameras, 3, 3),
        (width, height, eps2d, near_plane, far_plane, radius_clip),
    )
    radii, means2d = radii.reshape(*per_image, 2), means2d.reshape(*per_image, 2)
    depths, conics = depths.reshape(per_image), conics.reshape(*per_image, 3)
    opacities = opacities.unsqueeze(-2).expand(per_image)
    if render_mode in ("D", "ED"):
        colors, backgrounds = depths.unsqueeze(-1), None
    elif render_mode != "RGB":
        colors = torch.cat([colors, depths.unsqueeze(-1)], dim=-1)
        backgrounds = None if backgrounds is None else functional.pad(backgrounds, (0, 1))
    if backgrounds is None:
        backgrounds = means.new_zeros(*images, colors.shape[-1])
    rendered, alphas = _Splat.apply(
        means2d, conics, colors, opacities, backgrounds, depths.detach(), radii, width, height, absgrad
    )
    if render_mode in ("ED", "RGB+ED"):
        depth = rendered[..., -1:] / alphas.clamp(min=1e-10)
        rendered = torch.cat([rendered[..., :-1], depth], dim=-1)
    meta = {
        "means2d": means2d, "radii": radii, "depths": depths, "conics": conics, "opacities": opacities, "width": width,
        "height": height, "n_batches": num_batches, "n_cameras": num_cameras,
        "batch_ids": None, "camera_ids": None, "gaussian_ids": None,
    }  # fmt: skip
    return rendered, alphas, meta


def sh_colors(degree: int, means: Tensor, viewmats: Tensor, coefficients: Tensor) -> Tensor:
    """Colours of Gaussians as the cameras see them: max(0, 0.5 + sum).

    Args:
        degree: Highest band in use, 0 to 3.
        means: Shape (B..., N, 3).
        viewmats: Shape (B..., C, 4, 4).
        coefficients: Shape (B..., N, K, 3) or (B..., C, N, K, 3).

    Returns:
        Shape (B..., C, N, 3); for degree 0 and coefficients for all cameras (B..., N, 3).
    """
    used = coefficients[..., : num_coefficients(degree), :]
    if degree == 0:
        sums = used[..., 0, :] * basis(0, used.new_zeros(3))
    else:
        places = -(viewmats[..., :3, :3].mT @ viewmats[..., :3, 3:]).squeeze(-1)
        directions = functional.normalize(means.unsqueeze(-3) - places.unsqueeze(-2), dim=-1)
        if coefficients.dim() == means.dim() + 1:
            used = used.unsqueeze(-4)
        sums = (basis(degree, directions).unsqueeze(-1) * used).sum(dim=-2)
    return (sums + 0.5).clamp(min=0.0)


class _Project(torch.autograd.Function):
    """Gaussians (B, N) on the planes of cameras (B, C)."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        settings: tuple[Any, ...],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        from fourd.rendering import kernels

        per_image = (means.shape[0], viewmats.shape[1], means.shape[1])
        radii, depths = means.new_zeros(*per_image, 2, dtype=torch.int32), means.new_zeros(per_image)
        means2d, conics = means.new_zeros(*per_image, 2), means.new_zeros(*per_image, 3)
        inputs = _arrays(means, quats, scales, opacities, viewmats, Ks)
        outputs = _arrays(radii, means2d, depths, conics)
        _share(
            lambda first, past: kernels.project(first, past, *inputs, *settings, *outputs),
            per_image[0] * per_image[2],
            GAUSSIANS_PER_TASK,
        )
        ctx.save_for_backward(means, quats, scales, viewmats, Ks, radii, conics)
        ctx.size = settings[:2]
        ctx.mark_non_differentiable(radii)
        return radii, means2d, depths, conics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, of_means2d: Tensor, of_depths: Tensor, of_conics: Tensor) -> Any:
        from fourd.rendering import kernels

        means, quats, scales, viewmats, Ks, radii, conics = ctx.saved_tensors
        gradients = [torch.zeros(tensor.shape) for tensor in (means, quats, scales)]
        inputs = _arrays(means, quats, scales, viewmats, Ks)
        outputs = _arrays(radii, conics, of_means2d, of_depths, of_conics, *gradients)
        _share(
            lambda first, past: kernels.project_backward(first, past, *inputs, *ctx.size, *outputs),
            means.shape[0] * means.shape[1],
            GAUSSIANS_PER_TASK,
        )
        return *gradients, None, None, None, None


class _Splat(torch.autograd.Function):
    """Images (I...) of projected Gaussians."""

    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        colors: Tensor,
        opacities: Tensor,
        backgrounds: Tensor,
        depths: Tensor,
        radii: Tensor,
        width: int,
        height: int,
        absgrad: bool,
    ) -> tuple[Tensor, Tensor]:
        from fourd.rendering import kernels

        images, num_gaussians, num_channels = colors.shape[:-2], colors.shape[-2], colors.shape[-1]
        num_images = math.prod(images)
        seen = (radii > 0).all(dim=-1).reshape(num_images, num_gaussians)
        # Equal depths keep the order of the Gaussians, as in gsplat.
        depths = depths.reshape(num_images, num_gaussians).masked_fill(~seen, math.inf)
        order = depths.argsort(dim=-1, stable=True)
        flat = [
            means2d.reshape(num_images, num_gaussians, 2),
            conics.reshape(num_images, num_gaussians, 3),
            colors.reshape(num_images, num_gaussians, num_channels),
            opacities.reshape(num_images, num_gaussians),
            order,
            seen.sum(dim=-1),
        ]
        out = torch.zeros(num_images, num_channels, height, width)
        transmittance = torch.ones(num_images, height, width)
        last = torch.full((num_images, height, width), -1, dtype=torch.int32)
        arrays = _arrays(*flat, out, transmittance, last)
        _share(lambda first, past: kernels.splat(first, past, *arrays), num_images)
        rendered = out + transmittance.unsqueeze(1) * backgrounds.reshape(num_images, num_channels, 1, 1)
        ctx.save_for_backward(*flat, backgrounds, transmittance, last)
        ctx.means2d = means2d if absgrad else None
        return (
            rendered.permute(0, 2, 3, 1).reshape(*images, height, width, num_channels),
            (1 - transmittance).reshape(*images, height, width, 1),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_rendered: Tensor, of_alphas: Tensor) -> Any:
        from fourd.rendering import kernels

        *flat, backgrounds, transmittance, last = ctx.saved_tensors
        num_images, height, width = transmittance.shape
        num_channels = backgrounds.shape[-1]
        grad_out = of_rendered.reshape(num_images, height, width, num_channels).permute(0, 3, 1, 2).contiguous()
        of_backgrounds = torch.einsum("ichw,ihw->ic", grad_out, transmittance)
        # What is let through meets the background and lowers alpha.
        of_light = torch.einsum("ichw,ic->ihw", grad_out, backgrounds.reshape(num_images, num_channels))
        of_light -= of_alphas.reshape(num_images, height, width)
        behind = of_light * transmittance
        of_means2d, of_conics, of_colors, of_opacities = (torch.zeros(tensor.shape) for tensor in flat[:4])
        absolute = torch.zeros(num_images if ctx.means2d is not None else 0, *flat[0].shape[1:])
        gradients = (of_means2d, absolute, of_conics, of_colors, of_opacities)
        arrays = _arrays(*flat, transmittance.clone(), last, grad_out, behind, *gradients)
        _share(lambda first, past: kernels.splat_backward(first, past, *arrays), num_images)
        images = backgrounds.shape[:-1]
        if ctx.means2d is not None:
            ctx.means2d.absgrad = absolute.reshape(ctx.means2d.shape)
        return (
            of_means2d.reshape(*images, -1, 2),
            of_conics.reshape(*images, -1, 3),
            of_colors.reshape(*images, -1, num_channels),
            of_opacities.reshape(*images, -1),
            of_backgrounds.reshape(backgrounds.shape),
            None, None, None, None, None,
        )  # fmt: skip


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _share(work: Callable[[int, int], None], total: int, size: int = 1) -> None:
    """Call `work(first, past)` for ranges that cover `total`, on as many threads as torch would use."""
    num_threads = torch.get_num_threads()
    if num_threads == 1 or total <= size:
        work(0, total)
        return
    size = max(size, math.ceil(total / (4 * num_threads)))
    firsts = range(0, total, size)
    list(_threads(num_threads, os.getpid()).map(lambda first: work(first, min(first + size, total)), firsts))


@functools.lru_cache(maxsize=1)
def _threads(number: int, process: int) -> ThreadPoolExecutor:
    """The threads of this process: a forked child has none of its parent's."""
    return ThreadPoolExecutor(number, thread_name_prefix="rasterize")
