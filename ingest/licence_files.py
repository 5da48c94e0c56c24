"""What is said of a local asset beside it and inside it: licence files, REUSE sidecars, a glTF's `asset` object."""

import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ingest.gltf import read_gltf
from ingest.licence_claims import find_claim, parse_claim
from ingest.refused import Refused

_MOST_TEXT_BYTES = 64 << 10
_MOST_JSON_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Statement:
    """Claims of licence and origin; empty strings where nothing is said."""

    spdx: str = ""
    licence_text: str = ""
    author: str = ""
    title: str = ""
    source_url: str = ""
    found_in: str = ""
    """Name of the file that states the licence."""


def statement_of(path: Path) -> Statement:
    """What is said of an asset. Its own sidecar counts before what stands in the file, and that before its folder's."""
    inside = _inside(path)
    stem = re.escape(path.stem)
    own = _text_of(path.parent, rf"{re.escape(path.name)}\.license|{stem}\.licen[sc]e(\.\w+)?")
    found_in, text = own if own[1] else (path.name, inside.licence_text)
    if not text:
        found_in, text = _text_of(path.parent, r"(licen[sc]e|copying).*")
    # REUSE-IgnoreStart
    holder = re.search(r"SPDX-FileCopyrightText:\s*(?:©|\(c\)|Copyright)?\s*(?:[\d-]+,?\s+)?([^\n<]+)", text, re.I)
    # REUSE-IgnoreEnd
    return Statement(
        spdx=parse_claim(text) or find_claim(text),
        licence_text=text.strip()[:2000],
        author=inside.author or (holder[1].strip() if holder else ""),
        title=inside.title,
        source_url=inside.source_url,
        found_in=_clean(found_in) if text else "",
    )


def _text_of(folder: Path, pattern: str) -> tuple[str, str]:
    """Name and text of the one file of such a name; nothing if there are several, as they may contradict each other."""
    names = [name for name in _names(folder, folder.stat().st_mtime_ns) if re.fullmatch(pattern, name, re.IGNORECASE)]
    if len(names) != 1 or not (folder / names[0]).is_file():
        return "", ""
    with (folder / names[0]).open("rb") as file:
        return names[0], file.read(_MOST_TEXT_BYTES).decode("utf-8", "replace")


@functools.lru_cache(maxsize=4)
def _names(folder: Path, changed_ns: int) -> list[str]:
    """What is in a folder, read once for all its assets."""
    return sorted(os.listdir(folder))


def _inside(path: Path) -> Statement:
    """What a glTF says in `asset.copyright`, and in `asset.extras` where Sketchfab writes it."""
    if path.suffix.lower() not in (".glb", ".gltf"):
        return Statement()
    try:
        asset = read_gltf(path, max_json_bytes=_MOST_JSON_BYTES).root["asset"]
    except (Refused, OSError):
        return Statement()
    extras = asset.get("extras")
    extras = extras if isinstance(extras, dict) else {}
    said = {key: _clean(value) for key, value in {**asset, **extras}.items() if isinstance(value, str)}
    # A copyright line may say no more than who made it.
    rights = said.get("copyright", "")
    if not (find_claim(rights) or "all rights reserved" in rights.lower()):
        rights = ""
    return Statement(
        licence_text=said.get("license") or said.get("licence") or rights,
        author=said.get("author", ""),
        title=said.get("title", ""),
        source_url=said.get("source", ""),
    )


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")[:2000]
