import numpy as np
import pytest

from curate.visibility import coverage, touches_border, visibility
from tests.curate.toys import square


def test_coverage_is_the_share_of_the_picture() -> None:
    assert coverage(square([0, 1], side_px=16, size_px=64)) == pytest.approx([1 / 16, 1 / 16])


def test_half_transparent_pixels_cover_half() -> None:
    frames = square([0], side_px=16, size_px=64)
    frames[..., 3] //= 2
    assert coverage(frames)[0] == pytest.approx(1 / 32, rel=0.01)


@pytest.mark.parametrize("edge", [(0, 20), (63, 20), (20, 0), (20, 63)])
def test_any_edge_is_touched_by_one_pixel(edge: tuple[int, int]) -> None:
    frames = square([0, 0, 0])
    frames[1, edge[0], edge[1], 3] = 255
    assert touches_border(frames).tolist() == [False, True, False]


def test_an_object_one_pixel_inside_and_a_soft_rim_do_not_touch() -> None:
    frames = np.zeros((2, 16, 16, 4), np.uint8)
    frames[0, 1:-1, 1:-1, 3] = 255
    frames[1, :, 0, 3] = 100
    assert not touches_border(frames).any()


def test_a_clip_is_judged_over_all_views_and_frames() -> None:
    row = visibility(
        "id",
        [np.array([0.1, 0.2]), np.array([0.3, 0.6])],
        [np.array([False, False]), np.array([False, True])],
    )
    assert (row.coverage_min, row.coverage_mean, row.coverage_max) == pytest.approx((0.1, 0.3, 0.6))
    assert row.border_touch == 0.25
