"""Which words stand for a clip: the best of what the table `captions` holds, else words made of names.

The rule: what somebody joined from a list (`file`) before what a model saw (`model`), before the words of the data set
that a clip was imported from (`data_set`); of one kind the first by the name of its source. Where there is none, the
asset's title, its action and some of its tags (`metadata`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from pipeline.records import Caption
from shards.views import select

BEST_FIRST = ("file", "model", "data_set")
METADATA = "metadata"
MAX_TAGS = 5
"""Enough to tell what it is; text encoders read 77 tokens."""


SAY_NOTHING = frozenset({
    "3d", "3dmodel", "ai", "animated", "animation", "animations", "blender", "c4d", "download", "downloadable", "fbx",
    "free", "game", "gameasset", "gameready", "glb", "gltf", "highpoly", "low", "lowpoly", "maya", "model", "models",
    "no", "noai", "obj", "pbr", "poly", "ready", "rig", "rigged", "sketchfab", "substancepainter", "ue4", "ue5",
    "unity", "unity3d", "unreal", "zbrush",
})  # fmt: skip
"""Words of tags about how a model was made or may be used."""
_IS_ID = re.compile(r"[0-9a-fA-F-]{16,}")


@dataclass(frozen=True)
class Words:
    """A caption and where it came from."""

    text: str
    source: str
    """`file:cap3d`, `model:…`, `data_set:mv-video` or `metadata`."""


def best_captions(con: duckdb.DuckDBPyConnection, clip_ids: Sequence[str]) -> dict[str, Words]:
    """The best stored caption of each clip that has one.

    Args:
        con: Has the table `captions`.
        clip_ids: Of the clips.
    """
    found = [row for row in select(con, Caption, "clip_id", clip_ids) if row.kind in BEST_FIRST and row.text.strip()]
    worst_first = sorted(found, key=lambda row: (BEST_FIRST.index(row.kind), row.source), reverse=True)
    return {row.clip_id: Words(row.text.strip(), f"{row.kind}:{row.source}") for row in worst_first}


def metadata_caption(title: str, action: str, tags: Sequence[str]) -> Words:
    """Words from names: `Red Fox, Walk, animal`.

    Left out are a title that is only an id, the armature's name and what counts up behind an action's, and tags that
    say nothing new or nothing about what is seen.
    """
    action = re.sub(r"[._ ]*\d+$", "", action.rpartition("|")[2])
    names = ["" if _IS_ID.fullmatch(title.strip()) else title, action]
    words = [word for name in names if (word := re.sub(r"[_\s]+", " ", name).strip())]
    said = {part.casefold() for word in words for part in re.findall(r"\w+", word)}
    telling: list[str] = []
    for tag in (re.sub(r"[_\s-]+", " ", tag).strip() for tag in tags):
        new = {part.casefold() for part in re.findall(r"\w+", tag)} - said - SAY_NOTHING
        if new and len(telling) < MAX_TAGS:
            telling.append(tag)
            said |= new
    return Words(", ".join([*words, *telling]), METADATA)
