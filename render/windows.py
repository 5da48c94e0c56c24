"""Which moments of an action a clip shows.

As in MV-Video: 16 frames over 2 s, which is every third frame at 24 frames a second; of actions longer than 4 s the
last 2 s too. An action shorter than the window is repeated if its ends meet, else its frames are spread over its own
length.
"""

from dataclasses import dataclass
from typing import Literal

from render.protocol import Action, Measured

LEAST_PHASES = 4
"""Frames that one turn of a loop needs at least: with fewer, repeating it would show a motion that is not there."""


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """Length and number of a clip's moments."""

    window_s: float = 2.0
    num_frames: int = 16
    long_s: float = 4.0
    """Longer actions have a second window at their end."""
    loop_gap_max: float = 0.5
    """An action loops if the poses at its ends differ by at most this share of the mean way between two frames."""
    take: Literal["action", "timeline"] = "action"
    """action: windows lie in the action, wherever it begins. timeline: one window from time 0 of the file, whatever the
    action's own range, whose first or last pose is held beyond it (Diffusion4D)."""

    def __post_init__(self) -> None:
        if self.window_s <= 0 or self.num_frames < 2 or self.long_s < self.window_s or self.loop_gap_max < 0:
            raise ValueError(
                f"need window_s > 0, num_frames >= 2, long_s >= window_s and loop_gap_max >= 0, got {self}"
            )
        if self.take not in ("action", "timeline"):
            raise ValueError(f"take must be action or timeline, got {self.take!r}")

    @property
    def step_s(self) -> float:
        """Time from one frame to the next."""
        return self.window_s / self.num_frames


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of an action."""

    index: int
    start_s: float
    """On the file's timeline."""
    duration_s: float
    """From the first to the last frame, plus one frame step."""
    looped: bool


def windows_of(action: Action, settings: WindowSettings) -> tuple[Window, ...]:
    """The windows of an action that has a length; for a short one the way it is shown if it does not loop."""
    if settings.take == "timeline":
        return (Window(index=0, start_s=0.0, duration_s=settings.window_s, looped=False),)
    length = action.end_s - action.start_s
    # All frames of a window lie in it if its last one does: 48 frames at 24 a second end at 1.96 s.
    if length < settings.window_s - settings.step_s - 1e-6:
        return (Window(index=0, start_s=action.start_s, duration_s=length, looped=False),)
    first = Window(index=0, start_s=action.start_s, duration_s=settings.window_s, looped=False)
    if length <= settings.long_s + 1e-6:
        return (first,)
    last = Window(index=1, start_s=action.end_s - settings.window_s, duration_s=settings.window_s, looped=False)
    return first, last


def looped(window: Window, measured: Measured, settings: WindowSettings) -> Window | None:
    """The window with a short action repeated, if it may be; None if the window is to stay as it is.

    Args:
        window: Of `windows_of`.
        measured: Over the window's own times.
        settings: As given to `windows_of`.
    """
    is_short = window.duration_s < settings.window_s - settings.step_s - 1e-6
    if not is_short or window.duration_s < LEAST_PHASES * settings.step_s or not measured.finite:
        return None
    measured_s = window.duration_s * (settings.num_frames - 1) / settings.num_frames
    way_between_frames = measured.path_length / measured_s * settings.step_s
    if measured.loop_gap > settings.loop_gap_max * way_between_frames:
        return None
    return Window(index=window.index, start_s=window.start_s, duration_s=settings.window_s, looped=True)


def frame_times(
    *, start_s: float, duration_s: float, num_frames: int, action_duration_s: float, looped: bool
) -> list[float]:
    """When the frames of a clip are, on the file's timeline.

    Args:
        start_s: Of the window; of the action, if it is looped.
        duration_s: Of the window.
        num_frames: Of the clip.
        action_duration_s: After which a looped action starts again.
        looped: The action is shorter than the window and is repeated.
    """
    offsets = [index * duration_s / num_frames for index in range(num_frames)]
    if looped:
        offsets = [_phase(offset, action_duration_s) for offset in offsets]
    # A millionth of a second never shows, and keeps a sum's last bits out of file names and ids.
    return [round(start_s + offset, 6) for offset in offsets]


def _phase(offset_s: float, period_s: float) -> float:
    phase = offset_s % period_s
    return 0.0 if period_s - phase < 1e-6 else phase
