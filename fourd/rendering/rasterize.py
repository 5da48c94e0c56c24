"""The rasterizer's one entrance: gsplat on a CUDA device, our own twin on the CPU."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from fourd.rendering import cpu
from fourd.rendering.spherical_harmonics import MAX_DEGREE, num_coefficients

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")


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
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    backgrounds: Tensor | None = None,
    render_mode: RenderMode = "RGB",
    absgrad: bool = False,
    **only_on_cuda: Any,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Pictures of N Gaussians from C cameras, with the names, defaults and meaning of gsplat 1.5 (`packed=False`).

    Differentiable by means, quats, scales, opacities, colors and backgrounds; on CUDA also by viewmats. B... are any
    batch dimensions, the same for all: 16 frames by 4 views are one call with B = 16 and C = 4. All tensors are float32
    and on one device. On the CPU, a Gaussian whose projection is not finite is not drawn and gets a gradient of zero.

    Args:
        means: Shape (B..., N, 3).
        quats: Shape (B..., N, 4), w first, of any length but zero.
        scales: Shape (B..., N, 3), standard deviations.
        opacities: Shape (B..., N), 0..1.
        colors: Shape (B..., N, D) or (B..., C, N, D): any number of channels. With `sh_degree`, coefficients of shape
            (B..., N, K, 3) or (B..., C, N, K, 3); the colour is max(0, 0.5 + their sum).
        viewmats: Shape (B..., C, 4, 4), world to camera, OpenCV.
        Ks: Shape (B..., C, 3, 3), pinhole, pixels, (0.5, 0.5) the centre of the top left pixel.
        width: Pixels.
        height: Pixels.
        near_plane: Gaussians with less depth are not drawn.
        far_plane: Nor those with more.
        radius_clip: Nor those with radii up to this many pixels.
        eps2d: Added to the variances on the image, pixels squared.
        sh_degree: Highest band of the coefficients in use, 0 to 3.
        backgrounds: Shape (B..., C, D).
        render_mode: Colours, accumulated depth (D), expected depth (ED: divided by alpha), or both, depth last.
        absgrad: Sum up absolute gradients too: after backward in `meta["means2d"].absgrad` (Ye et al. 2024).
        only_on_cuda: Further arguments of gsplat; what it takes by default is accepted on the CPU.

    Returns:
        Colours (B..., C, height, width, channels); alphas (B..., C, height, width, 1); and a dictionary with `means2d`
        (B..., C, N, 2), which lies between two nodes of the graph, so that `retain_grad` works; `radii`
        (B..., C, N, 2), int32, 0 for what is not seen; `depths` (B..., C, N), `conics` (B..., C, N, 3), `width`,
        `height` and more.

    Raises:
        ValueError: Shapes, types or devices do not fit, or the CPU does not do what is asked.
        ImportError: The tensors are on a CUDA device, and gsplat is not installed.
    """
    _check(means, quats, scales, opacities, colors, viewmats, Ks, width, height, sh_degree, backgrounds, render_mode)
    if means.is_cuda:
        return _gsplat()(
            means, quats, scales, opacities, colors, viewmats, Ks, width, height,
            near_plane=near_plane, far_plane=far_plane, radius_clip=radius_clip, eps2d=eps2d, sh_degree=sh_degree,
            backgrounds=backgrounds, render_mode=render_mode, absgrad=absgrad, packed=False,
            **{name: value for name, value in only_on_cuda.items() if name != "packed"},
        )  # fmt: skip
    for name, value in only_on_cuda.items():
        if name not in _DEFAULTS:
            raise ValueError(f"rasterization has no argument {name!r}")
        if value != _DEFAULTS[name]:
            raise ValueError(f"{name}={value!r} works on CUDA only; move the tensors to a GPU, or leave it out")
    if viewmats.requires_grad or Ks.requires_grad:
        raise ValueError("gradients by viewmats are computed on CUDA only, and by Ks nowhere; detach them")
    return cpu.rasterization(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height,
        near_plane=near_plane, far_plane=far_plane, radius_clip=radius_clip, eps2d=eps2d, sh_degree=sh_degree,
        backgrounds=backgrounds, render_mode=render_mode, absgrad=absgrad,
    )  # fmt: skip


def check_device(name: str) -> None:
    """Refuse a device that nothing can be rasterized on here, before any work.

    Args:
        name: `cpu`, or such as `cuda:0`.

    Raises:
        ValueError: There is no such device, or gsplat is not installed for it.
    """
    if name == "cpu":
        return
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        advice = "leave out --device to use the processor"
        raise ValueError(f"there is no device {name!r} here ({str(error).splitlines()[0]}); {advice}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {name}: Gaussians are drawn on cpu or cuda only")
    if device.type == "cuda":
        try:
            _gsplat()
        except ImportError as error:
            raise ValueError(f"--device {name}: {error}") from error


_DEFAULTS: dict[str, Any] = {
    "packed": False, "tile_size": 16, "sparse_grad": False, "rasterize_mode": "classic", "channel_chunk": 32,
    "distributed": False, "camera_model": "pinhole", "segmented": False, "covars": None, "with_ut": False,
    "with_eval3d": False, "radial_coeffs": None, "tangential_coeffs": None, "thin_prism_coeffs": None,
    "ftheta_coeffs": None, "viewmats_rs": None,
}  # fmt: skip
"""gsplat's further arguments. It packs unless told otherwise; here nothing is packed, so `meta` has one form."""


def _gsplat() -> Any:
    try:
        from gsplat import rasterization as on_cuda
    except ImportError as error:
        raise ImportError(
            "tensors on a CUDA device are rasterized by gsplat, which cannot be imported here: "
            "pip install 'mv4d[gpu]' (it compiles its kernels when first used and needs the CUDA toolkit), "
            "or move the tensors to the CPU"
        ) from error
    return on_cuda


def _check(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    sh_degree: int | None,
    backgrounds: Tensor | None,
    render_mode: str,
) -> None:
    if render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode is one of {', '.join(RENDER_MODES)}, got {render_mode!r}")
    if width < 1 or height < 1:
        raise ValueError(f"an image has at least one pixel, got width {width} and height {height}")
    if means.dim() < 2 or viewmats.dim() < 3:
        raise ValueError(
            "means have shape (..., N, 3) and viewmats (..., C, 4, 4), "
            f"got {list(means.shape)} and {list(viewmats.shape)}"
        )
    batch, num_gaussians, num_cameras = means.shape[:-2], means.shape[-2], viewmats.shape[-3]
    expected: dict[str, tuple[Tensor, list[tuple[int, ...]]]] = {
        "means": (means, [(*batch, num_gaussians, 3)]),
        "quats": (quats, [(*batch, num_gaussians, 4)]),
        "scales": (scales, [(*batch, num_gaussians, 3)]),
        "opacities": (opacities, [(*batch, num_gaussians)]),
        "viewmats": (viewmats, [(*batch, num_cameras, 4, 4)]),
        "Ks": (Ks, [(*batch, num_cameras, 3, 3)]),
    }
    tail = colors.shape[-1:] if sh_degree is None else (colors.shape[-2] if colors.dim() > 2 else 0, 3)
    expected["colors"] = (
        colors, [(*batch, num_gaussians, *tail), (*batch, num_cameras, num_gaussians, *tail)]
    )  # fmt: skip
    if backgrounds is not None:
        # gsplat replaces a background of mode D or ED by zeros, whatever its shape.
        num_channels = 3 if sh_degree is not None else colors.shape[-1]
        if render_mode in ("RGB", "RGB+D", "RGB+ED"):
            expected["backgrounds"] = (backgrounds, [(*batch, num_cameras, num_channels)])
    for name, (tensor, shapes) in expected.items():
        if tuple(tensor.shape) not in shapes:
            wanted = " or ".join(str(list(shape)) for shape in shapes)
            raise ValueError(f"{name} must have shape {wanted}, got {list(tensor.shape)}")
        if tensor.dtype != torch.float32:
            raise ValueError(f"{name} must be float32, got {tensor.dtype}; call .float()")
        if tensor.device != means.device:
            raise ValueError(f"{name} is on {tensor.device}, but means are on {means.device}")
    if means.device.type not in ("cpu", "cuda"):
        raise ValueError(f"tensors on {means.device} cannot be rasterized; move them to the CPU or to a CUDA device")
    if math.prod(batch) * num_cameras == 0:
        raise ValueError("there is no camera, or an empty batch")
    if sh_degree is not None and not (0 <= sh_degree <= MAX_DEGREE and num_coefficients(sh_degree) <= colors.shape[-2]):
        raise ValueError(
            f"sh_degree must lie in 0..{MAX_DEGREE} and fit the {colors.shape[-2]} coefficients, got {sh_degree}"
        )
