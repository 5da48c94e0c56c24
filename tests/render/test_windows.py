import dataclasses

import pytest

from render.protocol import Action, Measured
from render.windows import Window, WindowSettings, frame_times, looped, windows_of

SETTINGS = WindowSettings()
MEASURED = Measured(
    motion_mean=0.1, motion_p95=0.2, path_length=0.3, rigid_share=0.1, loop_gap=0.0, moving_start_s=0, moving_end_s=1,
    travel=1, max_jump=0, jump_ratio=1, max_stretch=1, rest_diagonal=1, box_min=[0, 0, 0], box_max=[1, 1, 1],
    finite=True, motion_id="m",
)  # fmt: skip


def lasting(seconds: float, start_s: float = 10.0) -> Action:
    return Action(index=0, name="a", start_s=start_s, end_s=start_s + seconds)


def times_of(window: Window, action: Action, num_frames: int = 16) -> list[float]:
    return frame_times(
        start_s=window.start_s,
        duration_s=window.duration_s,
        num_frames=num_frames,
        action_duration_s=action.end_s - action.start_s,
        looped=window.looped,
    )


def test_a_window_is_every_third_frame_of_two_seconds_at_24() -> None:
    action = lasting(3.0, start_s=0.0)
    (window,) = windows_of(action, SETTINGS)
    assert [round(time * 24, 6) for time in times_of(window, action)] == [3 * index for index in range(16)]


def test_24_frames_of_the_same_window_are_every_second_one() -> None:
    action = lasting(3.0, start_s=0.0)
    (window,) = windows_of(action, SETTINGS)
    found = [time * 24 for time in times_of(window, action, num_frames=24)]
    assert found == pytest.approx([2 * index for index in range(24)], abs=1e-4)


@pytest.mark.parametrize(("seconds", "starts"), [(2.0, [10.0]), (4.0, [10.0]), (4.5, [10.0, 12.5]), (60, [10.0, 68])])
def test_only_actions_over_four_seconds_have_a_second_window_at_their_end(seconds: float, starts: list[float]) -> None:
    windows = windows_of(lasting(seconds), SETTINGS)
    assert [window.start_s for window in windows] == starts
    assert [window.index for window in windows] == list(range(len(starts)))
    assert all(window.duration_s == 2.0 and not window.looped for window in windows)


def test_48_frames_are_long_enough_for_a_whole_window() -> None:
    (window,) = windows_of(lasting(47 / 24), SETTINGS)
    assert window.duration_s == 2.0


@pytest.mark.parametrize("seconds", [0.1, 0.6, 1.0, 1.8, 1.9, 2.0, 3.3, 4.1, 9.0])
@pytest.mark.parametrize("num_frames", [16, 24])
def test_no_frame_lies_outside_of_its_action(seconds: float, num_frames: int) -> None:
    settings = WindowSettings(num_frames=num_frames)
    action = lasting(seconds)
    for window in windows_of(action, settings):
        for one in (window, looped(window, MEASURED, settings) or window):
            times = times_of(one, action, num_frames)
            assert len(times) == num_frames
            assert min(times) >= action.start_s - 1e-6
            assert max(times) <= action.end_s + 1e-6


def test_a_short_action_is_spread_over_its_own_length() -> None:
    action = lasting(0.8)
    (window,) = windows_of(action, SETTINGS)
    assert window.duration_s == pytest.approx(0.8)
    assert times_of(window, action) == pytest.approx([10.0 + 0.05 * index for index in range(16)])


def test_a_short_loop_is_repeated_at_its_own_speed() -> None:
    action = lasting(1.0)
    window = looped(windows_of(action, SETTINGS)[0], MEASURED, SETTINGS)
    assert window == Window(index=0, start_s=10.0, duration_s=2.0, looped=True)
    times = times_of(window, action)
    assert times[:8] == pytest.approx([10.0 + 0.125 * index for index in range(8)])
    assert times[8:] == times[:8]


def test_the_end_of_a_period_is_its_start() -> None:
    action = lasting(0.6)  # ten steps of 0.12 s are two periods, but for the last bit
    settings = WindowSettings(window_s=1.92)
    window = looped(windows_of(action, settings)[0], MEASURED, settings)
    assert window is not None
    assert times_of(window, action)[5] == times_of(window, action)[10] == 10.0


def test_whether_an_action_loops_is_judged_by_its_own_speed() -> None:
    (window,) = windows_of(lasting(1.0), SETTINGS)
    step = 0.3 / (15 / 16) * 0.125  # the way between two frames of the clip
    for share, repeated in ((0.49, True), (0.51, False)):
        measured = dataclasses.replace(MEASURED, loop_gap=share * step)
        assert (looped(window, measured, SETTINGS) is not None) == repeated


def test_a_loop_of_few_frames_is_spread_rather_than_repeated() -> None:
    """Three frames a turn would show a wheel turning backwards."""
    assert looped(windows_of(lasting(0.45), SETTINGS)[0], MEASURED, SETTINGS) is None


def test_a_long_action_is_never_repeated() -> None:
    assert looped(windows_of(lasting(3.0), SETTINGS)[0], MEASURED, SETTINGS) is None


def test_what_is_not_finite_is_not_repeated() -> None:
    measured = dataclasses.replace(MEASURED, finite=False, path_length=0.0)
    assert looped(windows_of(lasting(1.0), SETTINGS)[0], measured, SETTINGS) is None


@pytest.mark.parametrize("bad", [{"window_s": 0.0}, {"num_frames": 1}, {"long_s": 1.0}, {"loop_gap_max": -1.0}])
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="need"):
        WindowSettings(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(("start_s", "length_s"), [(0.0, 5.0), (0.0, 0.3), (10.0, 3.0)])
def test_the_timeline_is_shown_from_0_for_one_second_whatever_the_actions_range(
    start_s: float, length_s: float
) -> None:
    """As Diffusion4D does: frames 0 to 23 of the scene at 24 a second."""
    settings = WindowSettings(take="timeline", window_s=1.0, long_s=1.0, num_frames=24)
    action = lasting(length_s, start_s=start_s)
    (window,) = windows_of(action, settings)
    assert looped(window, MEASURED, settings) is None
    frames = [time * 24 for time in times_of(window, action, num_frames=24)]
    assert frames == pytest.approx(list(range(24)), abs=1e-4)
