"""Rotations as matrices, quaternions (w first) and angles, for tensors of any leading shape."""

import torch
from torch import Tensor
from torch.nn import functional


def matrix_of_quaternion(quats: Tensor) -> Tensor:
    """Rotation matrices, shape (..., 3, 3), of quaternions (..., 4) of any length but zero."""
    w, x, y, z = functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quaternion_of_matrix(rotations: Tensor) -> Tensor:
    """Unit quaternions, shape (..., 4), of rotation matrices (..., 3, 3); w or the largest part is not negative.

    Of the four ways to divide, each matrix takes the one with the largest divisor (Shepperd 1978), so that half turns
    are as exact as any other, and have finite gradients.
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = rotations.flatten(-2).unbind(-1)
    squares = torch.stack([1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22], dim=-1)
    ways = torch.stack(
        [
            torch.stack([squares[..., 0], m21 - m12, m02 - m20, m10 - m01], dim=-1),
            torch.stack([m21 - m12, squares[..., 1], m10 + m01, m02 + m20], dim=-1),
            torch.stack([m02 - m20, m10 + m01, squares[..., 2], m12 + m21], dim=-1),
            torch.stack([m10 - m01, m20 + m02, m21 + m12, squares[..., 3]], dim=-1),
        ],
        dim=-2,
    )
    best = squares.argmax(dim=-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    return functional.normalize(ways.gather(-2, best).squeeze(-2), dim=-1)


def multiply_quaternions(left: Tensor, right: Tensor) -> Tensor:
    """The quaternion of first `right`, then `left`. Shape (..., 4)."""
    lw, lx, ly, lz = left.unbind(-1)
    rw, rx, ry, rz = right.unbind(-1)
    parts = [
        lw * rw - lx * rx - ly * ry - lz * rz,
        lw * rx + lx * rw + ly * rz - lz * ry,
        lw * ry - lx * rz + ly * rw + lz * rx,
        lw * rz + lx * ry - ly * rx + lz * rw,
    ]
    return torch.stack(parts, dim=-1)


def matrix_of_euler(angles: Tensor) -> Tensor:
    """R = Rz Ry Rx, shape (..., 3, 3), of angles about x, y and z, shape (..., 3), radians."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = [
        cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz,
        cy * sz, sx * sy * sz + cx * cz, cx * sy * sz - sx * cz,
        -sy, sx * cy, cx * cy,
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def best_rotation(covariance: Tensor) -> Tensor:
    """The rotations R that make the trace of R S largest (Kabsch 1976; Sorkine and Alexa 2007, eq. 6). No gradient.

    Args:
        covariance: S = sum of a bᵀ over the pairs that R a ≈ b should bring together, shape (..., 3, 3). It may have
            any rank: of flat patches and lines one of the best rotations comes back, never a reflection.
    """
    with torch.no_grad():
        # In float64: float32 leaves 1e-7 of a turn, which is more than the energy of a rigid turn should be.
        u, _, vh = torch.linalg.svd(covariance.double())
        proper = torch.linalg.det(u) * torch.linalg.det(vh)
        # The last column belongs to the smallest singular value: flipping it costs least.
        flip = torch.ones_like(u[..., 0, :])
        flip[..., 2] = torch.where(proper < 0, -1.0, 1.0)
        rotation = vh.mT @ (flip.unsqueeze(-1) * u.mT)
    return rotation.to(covariance.dtype)
