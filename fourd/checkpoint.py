"""Where a fit stands, in a file that is whole whenever the process was killed."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from fourd.files import written_beside


class CheckpointError(ValueError):
    """A checkpoint that cannot be gone on from: the message names it and what to do."""

    def __init__(self, path: Path, reason: str, detail: str) -> None:
        super().__init__(f"{path}: {detail}; delete it to begin anew [{reason}]")
        self.path, self.reason = path, reason


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, beside first."""
    with written_beside(path) as beside:
        torch.save(state, beside)


def read_checkpoint(path: Path, *, map_location: str = "cpu") -> dict[str, Any]:
    """Read what `write_checkpoint` wrote; no code of the file runs, and every checksum is looked at.

    Raises:
        CheckpointError: It is damaged, or holds more than tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise CheckpointError(path, "damaged", f"the checksum of {broken} is wrong")
        state = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(path, "unsafe", "holds more than tensors and plain values") from error
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(path, "damaged", f"is not whole ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise CheckpointError(path, "damaged", "is no checkpoint of a reconstruction")
    return state
