import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from curate.motion import flow_px, front_view, frozen_views, image_motion, ssim_still, view_motion
from pipeline.cameras import look_at_origin
from pipeline.media import compose
from pipeline.records import ImageMotion
from tests.curate.toys import NUM_FRAMES, clip_of, square

SLIDE = tuple(range(NUM_FRAMES))
STILL = (0,) * NUM_FRAMES


def measured(frames: np.ndarray, frozen: np.ndarray | None = None, background: float = 0.5) -> ImageMotion:
    views = [view_motion(frames, frames[:1] if frozen is None else frozen, background)]
    return image_motion("id", background, views, ssim=float("nan"), flows_px=[])


def test_a_still_clip_does_not_move() -> None:
    frames = square(STILL)
    motion = measured(frames)
    assert (motion.m, motion.m_floor, motion.m_object) == (0.0, 0.0, 0.0)
    assert ssim_still(frames, frames[:1], 0.5) == pytest.approx(1.0)
    assert flow_px(frames, None, 0.5) == pytest.approx(0.0, abs=0.05)


def test_more_motion_scores_higher() -> None:
    scores = [measured(square([step * frame for frame in SLIDE])).m for step in (0, 1, 2)]
    assert scores == sorted(set(scores))


def test_m_is_equation_1_over_the_whole_picture() -> None:
    frames = square(SLIDE)
    pictures = compose(frames, 0.3).astype(np.float64)
    expected = np.mean([np.mean((picture - pictures[0]) ** 2) for picture in pictures])
    assert measured(frames, background=0.3).m == pytest.approx(expected, rel=1e-6)


def test_background_does_not_dilute_the_score_on_the_object() -> None:
    small = square(SLIDE)
    large = np.pad(small, ((0, 0), (32, 32), (32, 32), (0, 0)))
    assert measured(large).m_object == pytest.approx(measured(small).m_object)
    assert measured(large).m == pytest.approx(measured(small).m / 4)


def test_the_object_is_where_it_was_and_where_it_is() -> None:
    white = square([0, 30], colour=(255, 255, 255), side_px=16)
    # Frame 0 differs nowhere on 256 pixels, frame 1 by a half everywhere on 512.
    assert measured(white).m_object == pytest.approx(0.25 * 512 / (256 + 512), rel=1e-4)


def test_the_score_on_the_object_is_the_same_at_twice_the_resolution() -> None:
    frames = square(SLIDE, colour=(200, 40, 40))
    doubled = frames.repeat(2, axis=1).repeat(2, axis=2)
    assert measured(doubled).m_object == pytest.approx(measured(frames).m_object)


def test_which_of_two_assets_moves_more_depends_on_the_background() -> None:
    """Why the background is part of the score's meaning and is stored with it."""
    white, black = square(SLIDE, colour=(255, 255, 255)), square(SLIDE, colour=(0, 0, 0))
    assert measured(white, background=0.2).m > measured(black, background=0.2).m
    assert measured(white, background=0.8).m < measured(black, background=0.8).m
    assert measured(white, background=0.2).background == "grey 0.2"


def test_colour_under_zero_alpha_does_not_count() -> None:
    frames = square(SLIDE)
    dirty = frames.copy()
    dirty[..., :3] = np.where(frames[..., 3:] == 0, np.arange(NUM_FRAMES, dtype=np.uint8)[:, None, None, None] * 30, 0)
    dirty[..., :3] += frames[..., :3]
    assert measured(dirty).m == measured(frames).m


def test_an_object_that_is_never_seen_does_not_move() -> None:
    nothing = np.zeros((NUM_FRAMES, 16, 16, 4), np.uint8)
    assert (measured(nothing).m, measured(nothing).m_object) == (0.0, 0.0)
    assert np.isnan(flow_px(nothing, None, 0.5))


def test_an_orbit_round_a_still_object_does_not_move() -> None:
    """The pictures change from frame to frame, but each equals its frozen twin."""
    seen_from_all_sides = square(SLIDE)
    assert measured(seen_from_all_sides, seen_from_all_sides).m == 0.0
    assert ssim_still(seen_from_all_sides, seen_from_all_sides, 0.5) == pytest.approx(1.0)
    assert flow_px(seen_from_all_sides, seen_from_all_sides, 0.5) == pytest.approx(0.0, abs=0.05)


def test_the_floor_of_an_orbit_is_the_noise_of_its_first_frame() -> None:
    frozen = square(SLIDE, colour=(100, 100, 100))
    moving = frozen.copy()
    moving[0, ..., :3] += np.uint8(51) * (moving[0, ..., 3:] > 0)
    motion = measured(moving, frozen)
    assert motion.m_floor == pytest.approx(0.2**2 * 24**2 / 64**2, rel=1e-4)
    assert motion.m == pytest.approx(motion.m_floor / NUM_FRAMES)


def test_views_are_paired_with_what_shows_them_frozen() -> None:
    assert frozen_views(clip_of(num_views=3)) == {0: None, 1: None, 2: None}
    assert frozen_views(clip_of(orbit=True)) == {0: 1}


def test_a_camera_that_stands_still_beside_an_orbit_is_its_own_twin_and_the_front() -> None:
    """As in the rig `diffusion4d`: the orbit's twin is frozen, but seen from elsewhere."""
    orbit = np.reshape(clip_of(orbit=True).c2w, (2, NUM_FRAMES, 4, 4))
    still = np.stack([np.repeat(look_at_origin(angle, 15.0, 3.0)[None], NUM_FRAMES, axis=0) for angle in (0, 90)])
    c2w = tuple(np.concatenate([orbit, still]).ravel())
    clip = clip_of(orbit=True, num_views=4, view_names=("orbit", "static", "front", "left"), c2w=c2w)
    clip = dataclasses.replace(clip, num_views=4)
    assert frozen_views(clip) == {0: 1, 2: None, 3: None}
    assert front_view(clip, [0, 2, 3]) == 2


def test_an_orbit_without_its_frozen_twin_has_no_motion_score() -> None:
    assert frozen_views(clip_of(orbit=True, view_names=("orbit", "detail"))) == {}
    motion = image_motion("id", 0.5, [], ssim=float("nan"), flows_px=[])
    assert np.isnan([motion.m, motion.m_floor, motion.m_object, motion.ssim_still, motion.flow_px]).all()


@pytest.mark.parametrize(("azimuths_deg", "front"), [((10.0, 100.0, -8.0), 2), ((355.0, 90.0), 0), ((-11.0, 11.0), 0)])
def test_the_front_view_is_nearest_to_azimuth_0(azimuths_deg: Sequence[float], front: int) -> None:
    c2w = np.stack([look_at_origin(azimuth, 20.0, 3.0) for azimuth in azimuths_deg])
    clip = clip_of(num_views=len(azimuths_deg), c2w=tuple(c2w.ravel()))
    assert front_view(clip, range(len(azimuths_deg))) == front


def test_ssim_is_the_smaller_of_a_quarter_and_a_half() -> None:
    moves_late = square([0, 0, 0, 0, 12, 12, 12, 12])
    moves_early = square([0, 0, 12, 12, 0, 0, 0, 0])
    assert ssim_still(moves_late, moves_late[:1], 0.5) < 0.9
    assert ssim_still(moves_early, moves_early[:1], 0.5) == pytest.approx(ssim_still(moves_late, moves_late[:1], 0.5))


def test_ssim_takes_a_loop_of_a_quarter_for_still_and_m_does_not() -> None:
    """The paper looks at three frames; a wing that beats four times a clip is at the same place in all of them."""
    flapping = square([0, 12] * 8)
    assert ssim_still(flapping, flapping[:1], 0.5) == pytest.approx(1.0)
    assert measured(flapping).m_object > 0.01


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_flow_is_in_pixels_a_frame_at_256_px(scale: int) -> None:
    frames = square([3 * frame for frame in range(5)], side_px=64, size_px=128, left_px=16)
    if scale > 1:
        frames = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    assert flow_px(frames, None, 0.5) == pytest.approx(6.0, rel=0.1)


def test_flow_of_an_orbit_is_the_way_from_the_frozen_pose() -> None:
    frozen = square([0, 0, 0], side_px=96, size_px=256, left_px=64)
    moved = square([0, 4, 4], side_px=96, size_px=256, left_px=64)
    assert flow_px(moved, frozen, 0.5) == pytest.approx(4.0, rel=0.1)


def test_a_single_frame_has_no_flow() -> None:
    assert np.isnan(flow_px(square([0]), None, 0.5))


@settings(max_examples=50, deadline=None)
@given(frames=arrays(np.uint8, (3, 8, 8, 4)), background=st.floats(0.0, 1.0))
def test_scores_of_any_pixels_lie_in_their_range(frames: np.ndarray, background: float) -> None:
    motion = measured(frames, background=background)
    assert 0.0 <= motion.m <= motion.m_object <= 1.0 + 1e-6
    assert motion.m_floor == 0.0
