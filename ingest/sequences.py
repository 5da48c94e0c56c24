"""Numbered .obj files that are the frames of one animation.

A sequence is named by a pattern, `walk_####.obj`: as many `#` as the number has digits at least, zeros in front.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ingest.refused import Refused

FEWEST_FRAMES = 3
"""Of a sequence that a folder source finds by itself."""
MOST_FRAMES = 5000
FACTS = "sequence.json"
"""In the tar of a sequence, beside its frames: frames per second."""

_NUMBERED = re.compile(r"(.*?)(\d+)(\.obj)", re.IGNORECASE | re.DOTALL)
_PATTERN = re.compile(r"([^#]*)(#+)([^#]*\.obj)", re.IGNORECASE | re.DOTALL)
_LONGEST_LINE = 1 << 20


def is_pattern(path: Path) -> bool:
    """The name of a sequence, and not of a file that happens to be called so."""
    return bool(_PATTERN.fullmatch(path.name)) and not os.path.exists(path)


def is_sequence(path: Path) -> bool:
    """A pattern, or a folder."""
    return is_pattern(path) or os.path.isdir(path)


def frames_of(path: Path) -> list[Path]:
    """The files of a sequence, in order.

    Args:
        path: A pattern, or a folder that holds one sequence and no other .obj file.

    Raises:
        Refused: `not_found`, `missing_file` or `too_complex`.
    """
    if os.path.isdir(path):
        found = [entry for entry in _names(path) if _NUMBERED.fullmatch(entry)]
        patterns = {pattern for name in found if (pattern := _pattern_of([name]))}
        whole = _pattern_of(found)
        if not whole:
            seen = f"{len(patterns)} kinds of numbered .obj files" if patterns else "no numbered .obj files"
            raise Refused("not_found", f"it is a folder with {seen}, not one", "name the sequence, as in walk_####.obj")
        path = path / whole
    frames = _matching(path)
    if len(frames) < 2:
        raise Refused("not_found", f"fewer than two files are called {path.name}")
    if len(frames) > MOST_FRAMES:
        raise Refused("too_complex", f"the sequence has {len(frames)} frames; the limit is {MOST_FRAMES}")
    first = frames[0][0]
    gap = next((first + place for place, (number, _) in enumerate(frames) if number != first + place), None)
    if gap is not None:
        raise Refused("missing_file", f"frame {gap} of the sequence is not there", "number the frames without gaps")
    return [file for _, file in frames]


def grouped(files: Sequence[Path]) -> Iterator[Path]:
    """The files of one folder; frames of one sequence are its pattern, in the first one's place.

    Frames have one name but for the number, and the same faces over as many vertices.
    """
    alike: dict[tuple[str, str], list[Path]] = {}
    for file in files:
        if key := _key(_NUMBERED.fullmatch(file.name)):
            alike.setdefault(key, []).append(file)
    stands_for: dict[Path, Path | None] = {}
    for frames in alike.values():
        pattern = _pattern_of([file.name for file in frames]) if len(frames) >= FEWEST_FRAMES else ""
        if pattern and len({topology_of(file) for file in frames}) == 1:
            stands_for |= dict.fromkeys(frames) | {frames[0]: frames[0].parent / pattern}
    for file in files:
        listed = stands_for.get(file, file)
        if listed:
            yield listed


def topology_of(path: Path) -> tuple[int, str]:
    """How many vertices there are, and a hash of the lines that say which of them make faces and objects."""
    num_vertices, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            if line.startswith(b"v "):
                num_vertices += 1
            elif line[:1] in (b"f", b"o", b"l"):
                digest.update(line.strip() + b"\n")
    return num_vertices, digest.hexdigest()


def members(frames: Sequence[Path], fps: float, folder: Path) -> dict[str, Path]:
    """What the tar of a sequence holds, the first frame apart: always the same names.

    Args:
        frames: Copies of its files on this machine.
        fps: Frames per second.
        folder: For the file with the facts.

    Raises:
        Refused: `malformed`: the frames are not of the same faces.
    """
    first = topology_of(frames[0])
    for place, frame in enumerate(frames):
        if topology_of(frame) != first:
            found = f"frame {place} of the sequence ({frame.name}) has other vertices or faces than the first"
            raise Refused("malformed", found, "export the frames with the same topology and vertex order")
    facts = folder / FACTS
    facts.write_text(json.dumps({"fps": fps}))
    return {FACTS: facts} | {frame_name(place): frame for place, frame in enumerate(frames) if place}


def frame_name(place: int) -> str:
    """The name of a frame in the tar."""
    return f"asset_{place:06d}.obj"


def _names(folder: Path) -> list[str]:
    return sorted(entry for entry in os.listdir(folder) if not entry.startswith("."))


def _key(found: re.Match[str] | None) -> tuple[str, str] | None:
    return (found[1], found[3]) if found else None


def _pattern_of(names: Sequence[str]) -> str:
    """The pattern that all the names fit; empty if there is none."""
    found = [match for name in names if (match := _NUMBERED.fullmatch(name))]
    if not found or len(found) < len(names) or len({_key(match) for match in found}) > 1 or "#" in found[0][1]:
        return ""
    width = min(len(match[2]) for match in found)
    fit = all(match[2] == f"{int(match[2]):0{width}d}" for match in found)
    return f"{found[0][1]}{'#' * width}{found[0][3]}" if fit else ""


def _matching(pattern: Path) -> list[tuple[int, Path]]:
    """Number and path of each file of a pattern, sorted by number."""
    parts = _PATTERN.fullmatch(pattern.name)
    if not parts or not os.path.isdir(pattern.parent):
        return []
    wanted = re.compile(re.escape(parts[1]) + r"(\d+)" + re.escape(parts[3]), re.IGNORECASE)
    matches = [match for name in _names(pattern.parent) if (match := wanted.fullmatch(name))]
    return sorted(
        (int(match[1]), pattern.parent / match[0])
        for match in matches
        if match[1] == f"{int(match[1]):0{len(parts[2])}d}"
    )
