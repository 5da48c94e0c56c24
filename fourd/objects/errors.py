"""How the readers of static objects say that a file is at fault."""

from pathlib import Path
from typing import Literal

Reason = Literal[
    "not_found", "unsupported", "malformed", "too_large", "too_many_vertices", "empty_mesh", "non_finite", "mismatch"
]


class ObjectFileError(ValueError):
    """A file that no static object can be read from."""

    def __init__(self, path: Path, reason: Reason, detail: str) -> None:
        """Refuse.

        Args:
            path: The file.
            reason: Countable kind of fault.
            detail: What is wrong, and what to do.
        """
        super().__init__(f"{path}: {detail} [{reason}]")
        self.path, self.reason = path, reason
