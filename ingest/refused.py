"""How the code below a stage says that an input is at fault."""

from pipeline.reasons import REASONS


class Refused(Exception):
    """An input is turned away: a reason of `pipeline.reasons`, what was found, and what to do about it."""

    def __init__(self, reason: str, found: str, advice: str = "") -> None:
        """Refuse an input.

        Args:
            reason: A key of `REASONS`.
            found: What is wrong, in words that make sense after the file's name and a colon.
            advice: What to do; if empty, what `REASONS` says.
        """
        super().__init__(f"{reason}: {found}")
        self.reason = reason
        self.found = found
        self.advice = advice or REASONS[reason][1]

    @property
    def detail(self) -> str:
        """What was found and what to do, in one line."""
        return f"{self.found}; {self.advice}"


class Passing(Exception):
    """A fault that may be over on the next attempt."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        """Fail for now.

        Args:
            message: What went wrong.
            wait_s: How long the other side asked us to wait; 0 if it did not.
        """
        super().__init__(message)
        self.wait_s = wait_s
