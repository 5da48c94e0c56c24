"""How readers and users of objects say that one cannot be moved."""

from pathlib import Path
from typing import Literal

from fourd.export.errors import ExportError

Reason = Literal[
    "not_found",
    "unsupported",
    "malformed",
    "too_large",
    "too_many_vertices",
    "empty_mesh",
    "non_finite",
    "bad_faces",
    "outside",
    "mismatch",
]


class ObjectError(ValueError):
    """An object that cannot be moved, or a file that none can be read from."""

    def __init__(self, named: Path | str, reason: Reason, detail: str) -> None:
        """Refuse.

        Args:
            named: The file, or the clip whose mesh it is.
            reason: Countable kind of fault.
            detail: What is wrong, and what to do.
        """
        super().__init__(f"{named}: {detail} [{reason}]")
        self.reason = reason

    @classmethod
    def of_gltf(cls, path: Path, error: ExportError) -> "ObjectError":
        """What the reader of GLBs said, with the file named once."""
        kinds: dict[str, Reason] = {"too_large": "too_large", "unsupported": "unsupported"}
        detail = error.message.removeprefix(str(path)).lstrip(": ")
        return cls(path, kinds.get(error.reason, "malformed"), detail)
