"""How a fit says that it cannot begin, or go on."""

from typing import Literal

Reason = Literal["cameras", "no_motion", "memory", "other_run", "diverged"]


class ReconstructionError(ValueError):
    """An object and a video that cannot be fitted to each other.

    Args:
        name: Of the clip, for the message.
        reason: Countable kind of fault.
        detail: What is wrong, and what to do.
    """

    def __init__(self, name: str, reason: Reason, detail: str) -> None:
        super().__init__(f"{name}: {detail} [{reason}]")
        self.reason = reason
