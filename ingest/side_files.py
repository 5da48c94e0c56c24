"""The files that an asset names beside itself: which names are safe, and what an OBJ refers to."""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from ingest.refused import Refused

_LONGEST_LINE = 1 << 16
_MOST_FILES = 1000

# Options of a texture statement in a .mtl file, with how many values follow; numbers may be left out at the end.
_MTL_OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-boost": 1, "-bm": 1, "-cc": 1, "-clamp": 1, "-colorspace": 1, "-imfchan": 1, "-mm": 2,
    "-o": 3, "-s": 3, "-t": 3, "-texres": 1, "-type": 1,
}  # fmt: skip
_MTL_TEXTURES = re.compile(r"(map_\w+|bump|disp|decal|refl|norm)$", re.IGNORECASE)


def relative_path(uri: str) -> str:
    """A relative URI as a path below the asset's folder, resolved as Blender does.

    Raises:
        Refused: `unsafe_uri`: absolute, of another scheme, or leaving the folder.
    """
    path = unquote(uri.replace("\\", "/")).replace("\\", "/")
    parts = path.split("/")
    bad = (
        path.startswith("/")
        or ".." in parts
        or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", uri)
        or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path)
        or any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) <= 0xDFFF for letter in path)
        or len(path.encode("utf-8", "replace")) > 1024
        or any(len(part.encode("utf-8", "replace")) > 255 for part in parts)
    )
    normal = posixpath.normpath(path)
    if bad or normal == ".":
        shown = ascii(uri[:100])
        raise Refused("unsafe_uri", f"it refers to {shown}, which is not a file below its own folder")
    return normal


def material_files(obj: Path) -> list[str]:
    """The material libraries that an OBJ names, as relative paths.

    Raises:
        Refused: `unsafe_uri` or `too_complex`.
    """
    return _paths(name for keyword, name in _statements(obj) if keyword == "mtllib" for name in _library_names(name))


def texture_files(mtl: Path) -> list[str]:
    """The textures that a material library names, as relative paths.

    Raises:
        Refused: `unsafe_uri` or `too_complex`.
    """
    return _paths(_without_options(rest) for keyword, rest in _statements(mtl) if _MTL_TEXTURES.match(keyword))


def _paths(names: Iterator[str]) -> list[str]:
    found: dict[str, None] = {}
    for name in names:
        if name:
            # `%` is a letter here: only glTF's names are URIs.
            found[relative_path(name.replace("%", "%25"))] = None
        if len(found) > _MOST_FILES:
            raise Refused("too_complex", f"it refers to more than {_MOST_FILES} files")
    return list(found)


def _statements(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            # A scan of a large OBJ spends its time here: v and f lines go by undecoded.
            if line[:1] in (b"v", b"f", b"#", b"\n"):
                continue
            keyword, *rest = line.decode("utf-8", "replace").strip().split(maxsplit=1) or [""]
            yield keyword.lower(), "".join(rest)


def _library_names(rest: str) -> list[str]:
    """`mtllib a.mtl b.mtl`, but also `mtllib my file.mtl`: names end in .mtl."""
    names = [name.strip() for name in re.findall(r".+?\.mtl(?=\s|$)", rest, re.IGNORECASE)]
    return names or [rest]


def _without_options(rest: str) -> str:
    words = rest.split()
    while words and words[0].lower() in _MTL_OPTIONS:
        values = _MTL_OPTIONS[words[0].lower()]
        option = words.pop(0).lower()
        while values and len(words) > 1 and (option not in ("-o", "-s", "-t") or _is_number(words[0])):
            words.pop(0)
            values -= 1
    return " ".join(words)


def _is_number(word: str) -> bool:
    return bool(re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", word))
