"""Cameras as the network is told them: sixteen numbers, camera-to-world row by row, position on the unit sphere.

World z up; columns right, up, backward, position. Azimuth 0 stands on +x and is where the published weights expect the
front of the object; it grows counter-clockwise seen from above.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.cameras import look_at_origin, to_mv_video


def camera_vectors(c2w: np.ndarray) -> Float[Tensor, "*views 16"]:
    """The network's cameras of OpenCV camera-to-world matrices, turned so that our front is its azimuth 0.

    Args:
        c2w: Shape (..., 4, 4), cameras that look at the origin: `pipeline.cameras`.
    """
    return torch.from_numpy(to_mv_video(c2w).astype(np.float32))


def ring(num_views: int, elevation_deg: float = 15.0, azimuth_deg: float = 0.0) -> Float[Tensor, "v 16"]:
    """Cameras at equal steps of azimuth: 360 degrees over the number of views of one object.

    Args:
        num_views: At least 1.
        elevation_deg: Of all cameras, above the horizon, between -90 and 90.
        azimuth_deg: Of the first camera; 0 faces the front.
    """
    if num_views < 1:
        raise ValueError(f"num_views must be at least 1, got {num_views}")
    azimuths = [azimuth_deg + 360.0 * view / num_views for view in range(num_views)]
    return camera_vectors(np.stack([look_at_origin(azimuth, elevation_deg, 1.0) for azimuth in azimuths]))


def rings(
    num_items: int, num_views: int, elevation_deg: float | Sequence[float], azimuth_deg: float | Sequence[float]
) -> Float[Tensor, "b v 16"]:
    """A ring an item; one number stands for all items.

    Raises:
        ValueError: Lists that do not have one number an item.
    """
    elevations, azimuths = (
        [float(angles)] * num_items if isinstance(angles, int | float) else [float(angle) for angle in angles]
        for angles in (elevation_deg, azimuth_deg)
    )
    if len(elevations) != num_items or len(azimuths) != num_items:
        raise ValueError(f"{len(elevations)} elevations and {len(azimuths)} azimuths for {num_items} items")
    return torch.stack([ring(num_views, e, a) for e, a in zip(elevations, azimuths, strict=True)])
