"""Light by the direction of the surface: nine numbers a colour hold what falls on a matt one.

After Ramamoorthi and Hanrahan (2001), An Efficient Representation for Irradiance Environment Maps.
"""

import torch
from torch import Tensor

from fourd.rendering.spherical_harmonics import C0, basis

DEGREE = 2
_TOE, _DARK, _BENT = 12.92, 0.0031308, 0.055
"""Of sRGB (IEC 61966-2-1): below the dark level it is a line."""


def even_light(device: torch.device | str = "cpu") -> Tensor:
    """Light that leaves every colour as it is. Shape (9, 3)."""
    light = torch.zeros((DEGREE + 1) ** 2, 3, device=device)
    light[0] = 1 / C0
    return light


def lit(colors: Tensor, light: Tensor, normals: Tensor, towards: Tensor | None = None) -> Tensor:
    """Colours of a matt surface under light: base colour times irradiance, as linear light.

    Args:
        colors: Base colours, shape (N, 3), sRGB.
        light: Irradiance over pi as spherical harmonics of the normal, shape (9, 3).
        normals: Shape (F, N, 3), of length 1.
        towards: From the surface to C cameras, shape (F, C, N, 3), of any length: each sees the side that faces it.
            None shows the side of the normals.

    Returns:
        sRGB, shape (F, C, N, 3), or (F, N, 3) without cameras; not below 0.
    """
    values = basis(DEGREE, normals)
    irradiance = values @ light
    if towards is not None:
        # Turning a normal round changes the sign of the first band alone, of those up to the second.
        turned = (towards * normals[:, None]).sum(dim=-1, keepdim=True) < 0
        irradiance = irradiance[:, None] - 2 * turned * (values[..., 1:4] @ light[1:4])[:, None]
    return to_srgb(to_linear(colors) * irradiance.clamp(min=0))


def to_linear(srgb: Tensor) -> Tensor:
    """sRGB as linear light; what is below 0 is 0."""
    whole = srgb.clamp(min=0)
    return torch.where(whole <= _TOE * _DARK, whole / _TOE, ((whole + _BENT) / (1 + _BENT)) ** 2.4)


def to_srgb(linear: Tensor) -> Tensor:
    """Linear light as sRGB; what is below 0 is 0."""
    whole = linear.clamp(min=0)
    # The power's slope at 0 is infinite: what the line takes must not pass there at all.
    bent = (1 + _BENT) * whole.clamp(min=_DARK) ** (1 / 2.4) - _BENT
    return torch.where(whole <= _DARK, _TOE * whole, bent)
