import numpy as np
import pytest
import torch

from pipeline.cameras import look_at_origin
from training.cameras import camera_vectors, ring, rings


def test_the_first_camera_of_the_published_sampler() -> None:
    wanted = [0, -0.2588, 0.9659, 0.9659, 1, 0, 0, 0, 0, 0.9659, 0.2588, 0.2588, 0, 0, 0, 1]
    torch.testing.assert_close(ring(4, elevation_deg=15, azimuth_deg=0)[0], torch.tensor(wanted), atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_views", [1, 3, 4, 16])
def test_views_stand_at_equal_steps_round_the_whole_circle(num_views: int) -> None:
    positions = ring(num_views, 20.0, 33.0).reshape(-1, 4, 4)[:, :3, 3].numpy()
    azimuths = np.radians(33.0 + 360.0 / num_views * np.arange(num_views))
    elevation = np.radians(20.0)
    wanted = np.stack(
        [np.cos(elevation) * np.cos(azimuths), np.cos(elevation) * np.sin(azimuths), 0 * azimuths + np.sin(elevation)]
    )
    np.testing.assert_allclose(positions.T, wanted, atol=1e-6)


def test_our_front_is_the_azimuth_that_the_weights_expect_it_at() -> None:
    """The pipeline's azimuth 0 looks at the front; so does the network's."""
    c2w = look_at_origin(azimuth_deg=50.0, elevation_deg=10.0, radius=3.0)
    torch.testing.assert_close(camera_vectors(c2w), ring(1, 10.0, 50.0)[0])


def test_more_objects_do_not_narrow_the_steps() -> None:
    """Animate3D divides the circle by prompts times views."""
    both = rings(2, 4, [15.0, 30.0], 0.0)
    assert torch.equal(both[0], ring(4, 15.0))
    assert torch.equal(both[1], ring(4, 30.0))


def test_angles_are_one_or_one_each() -> None:
    with pytest.raises(ValueError, match="3 elevations and 2 azimuths for 2 items"):
        rings(2, 4, [1.0, 2.0, 3.0], 0.0)
    with pytest.raises(ValueError, match="num_views"):
        ring(0)
