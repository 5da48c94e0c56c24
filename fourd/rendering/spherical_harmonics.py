"""Real spherical harmonics of degree 0 to 3, with the signs and the order that splatting uses."""

import torch
from torch import Tensor

MAX_DEGREE = 3
C0 = 0.28209479177387814
_C1 = 0.4886025119029199
_C2 = (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, -1.0925484305920792, 0.5462742152960396)
_C3 = (
    -0.5900435899266435, 2.890611442640554, -0.4570457994644658, 0.3731763325901154,
    -0.4570457994644658, 1.445305721320277, -0.5900435899266435,
)  # fmt: skip


def num_coefficients(degree: int) -> int:
    """Of all bands up to a degree: 1, 4, 9 or 16."""
    return (degree + 1) ** 2


def basis(degree: int, directions: Tensor) -> Tensor:
    """The functions' values.

    Args:
        degree: 0 to 3.
        directions: Shape (..., 3), from the camera to the Gaussian; of length 1.

    Returns:
        Shape (..., (degree + 1)^2).
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"spherical harmonics have degree 0 to {MAX_DEGREE} here, got {degree}")
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, C0)]
    if degree > 0:
        values += [-_C1 * y, _C1 * z, -_C1 * x]
    if degree > 1:
        xx, yy, zz = x * x, y * y, z * z
        polynomials = (x * y, y * z, 2 * zz - xx - yy, x * z, xx - yy)
        values += [factor * value for factor, value in zip(_C2, polynomials, strict=True)]
    if degree > 2:
        polynomials3 = (
            y * (3 * xx - yy), x * y * z, y * (4 * zz - xx - yy), z * (2 * zz - 3 * xx - 3 * yy),
            x * (4 * zz - xx - yy), z * (xx - yy), x * (xx - 3 * yy),
        )  # fmt: skip
        values += [factor * value for factor, value in zip(_C3, polynomials3, strict=True)]
    return torch.stack(values, dim=-1)


def rotation_matrix(degree: int, rotation: Tensor) -> Tensor:
    """How a rotation of the object acts on coefficients: `turned = matrix @ coefficients`.

    A band's functions turn into each other. The matrix is solved for at directions enough to fix it, in float64, so it
    is exact to rounding.

    Args:
        degree: 0 to 3.
        rotation: Shape (3, 3).

    Returns:
        Shape ((degree + 1)^2, (degree + 1)^2), block-diagonal, float64.
    """
    rotation = rotation.double()
    # Points of a spiral: evenly spread, none opposite another.
    count = 4 * num_coefficients(degree)
    height = 1 - (2 * torch.arange(count, dtype=torch.float64, device=rotation.device) + 1) / count
    angle = torch.arange(count, dtype=torch.float64, device=rotation.device) * 2.399963229728653
    radius = (1 - height**2).sqrt()
    directions = torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=-1)
    # The turned object seen along d is the object seen along R^T d: basis(d) @ turned = basis(R^T d) @ coefficients.
    matrix = torch.linalg.lstsq(basis(degree, directions), basis(degree, directions @ rotation)).solution
    bands = torch.tensor([band for band in range(degree + 1) for _ in range(2 * band + 1)], device=rotation.device)
    return matrix * (bands[:, None] == bands)
