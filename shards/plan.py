"""Which clip stands in which shard: decided from the tables alone, in the order of the input."""

import dataclasses
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

import duckdb

from pipeline import revoked
from pipeline.records import (
    Animation,
    Asset,
    Caption,
    Clip,
    Decision,
    ImageMotion,
    LicenceCheck,
    LicenceClass,
    Probe,
    Record,
    content_id,
)
from shards.sample import FORMAT, sample_key

STAGE = "shards.pack"
REVOKED = f"shards/{revoked.REVOKED}"
"""What was taken down, below the data root."""

READS: tuple[type[Record], ...] = (Decision, Clip, Animation, Asset, LicenceCheck, Probe, ImageMotion, Caption)
"""What planning and packing read."""
MOVED = "moved"
"""`left_out` of a clip whose licence was corrected: it stands at the end of its new class's shards instead."""

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, kw_only=True)
class PackSettings:
    """What decides which clip stands in which shard."""

    shard_mb: float = 1000.0
    """A shard is closed when the next asset would take its pictures over so many million bytes. Their records, one or
    two per cent, are not counted: a corrected credit must not move what follows it into other shards."""
    allowed_classes: tuple[LicenceClass, ...] = ("cc0", "permissive", "by", "by-sa")
    """Licence classes that may be packed, whatever was admitted at ingest."""
    admit_noai: bool = False
    """Pack assets whose authors opted out of use by generative AI."""
    split_seed: int = 0
    """Another seed deals the asset families anew."""
    val_share: float = 0.02
    """Share of asset families in `val`, 0..1."""
    test_share: float = 0.02
    """Share of asset families in `test`, 0..1."""

    def __post_init__(self) -> None:
        if not self.shard_mb > 0:
            raise ValueError(f"shard_mb must be positive, got {self.shard_mb}")
        if not self.allowed_classes:
            raise ValueError("allowed_classes must name at least one licence class")
        if not (self.val_share >= 0 and self.test_share >= 0 and self.val_share + self.test_share < 1):
            raise ValueError(
                "val_share and test_share must not be negative and must add up to less than 1, "
                f"got {self.val_share} and {self.test_share}"
            )

    def split_of(self, family_id: str) -> Split:
        """The split of an asset family: drawn by its id, so that no shape stands on both sides."""
        digest = hashlib.sha256(f"{self.split_seed}:{family_id}".encode()).digest()
        draw = int.from_bytes(digest[:8], "big") / 2**64
        if draw < self.val_share:
            return "val"
        return "test" if draw < self.val_share + self.test_share else "train"

    @property
    def as_json(self) -> str:
        """All fields, and the format's version."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, sort_keys=True)

    @property
    def settings_id(self) -> str:
        """Hash of `as_json`."""
        return content_id(STAGE, self.as_json, length=10)


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """A clip at its place."""

    clip_id: str
    asset_id: str
    family_id: str
    name: str
    """The asset's, for people."""
    key: str
    num_bytes: int
    """Of its pictures in a tar, headers and padding included."""
    fingerprint: str
    """Hash of the pictures' hashes."""
    left_out: str
    """Why it is not written, a key of `pipeline.reasons` or `MOVED`; or nothing. Its place stays empty."""


@dataclass(frozen=True)
class PlannedShard:
    """A tar and what is to stand in it, in order."""

    path: str
    split: Split
    licence_class: str
    clips: tuple[PlannedClip, ...]
    closed: bool
    """Full: whatever comes later goes into the next shard."""

    @property
    def packed(self) -> tuple[PlannedClip, ...]:
        """The clips that are written."""
        return tuple(clip for clip in self.clips if not clip.left_out)

    @property
    def fingerprint(self) -> str:
        """Hash of the pictures that are written, in order."""
        return content_id([(clip.clip_id, clip.fingerprint) for clip in self.packed])

    @property
    def slug(self) -> str:
        """The path as part of a file name."""
        return slug_of(self.path)


def slug_of(path: str) -> str:
    """`by.train.mv-000000` of `shards/by/train/mv-000000.tar`."""
    return path.removeprefix("shards/").removesuffix(".tar").replace("/", ".")


def plan(
    con: duckdb.DuckDBPyConnection, settings: PackSettings, revoked: frozenset[str], up_to_seq: int | None = None
) -> list[PlannedShard]:
    """All shards, by path.

    What is revoked or not allowed keeps its place, empty: so taking an asset down changes one shard and no other. What
    came into another licence class by a correction does, too, and stands behind all others of that class.

    Args:
        con: Has the tables of `READS`.
        settings: Sizes, licences and splits.
        revoked: Ids of assets and clips.
        up_to_seq: Only assets whose first `seq` is below it; None for all.

    Raises:
        RuntimeError: The asset, probe or animation of a kept clip is not in the tables, or two clips have one key.
    """
    streams: dict[tuple[str, Split], list[list[PlannedClip]]] = defaultdict(list)
    sizes: Counter[tuple[str, Split]] = Counter()

    def place(licence_class: str, group: list[PlannedClip]) -> None:
        stream = licence_class, settings.split_of(group[0].family_id)
        num_bytes = sum(clip.num_bytes for clip in group)
        if not streams[stream] or sizes[stream] + num_bytes > settings.shard_mb * 1e6:
            streams[stream].append([])
            sizes[stream] = 0
        streams[stream][-1] += group
        sizes[stream] += num_bytes

    moved = []
    for _, kept in groupby(_kept_clips(con, settings, revoked, up_to_seq), key=lambda entry: entry.clip.asset_id):
        entries = list(kept)
        place(entries[0].first_class, [entry.clip for entry in entries])
        if entries[0].clip.left_out == MOVED and up_to_seq is None:
            moved.append(entries)
    for entries in sorted(moved, key=lambda entries: entries[0].corrected_at):
        place(entries[0].licence_class, [dataclasses.replace(entry.clip, left_out="") for entry in entries])
    everything = (clip for shards in streams.values() for shard in shards for clip in shard)
    _check_keys(clip.key for clip in everything if clip.left_out != MOVED)
    return [
        PlannedShard(
            path=f"shards/{licence_class}/{split}/mv-{number:06d}.tar",
            split=split,
            licence_class=licence_class,
            clips=tuple(shard),
            closed=number + 1 < len(shards),
        )
        for (licence_class, split), shards in sorted(streams.items())
        for number, shard in enumerate(shards)
    ]


_QUERY = """
SELECT
    k.clip_id, c.asset_id, p.family_id, f.name, f.licence_class, f.first_class, f.corrected_at, f.noai,
    a.action_index, a."window",
    list_sum([512 + 512 * ((part.num_bytes + 511) // 512) for part in c.parts]) AS num_bytes,
    md5(array_to_string([part.name || part.sha256 for part in c.parts], ',')) AS fingerprint
FROM (SELECT clip_id FROM decisions WHERE keep) AS k
LEFT JOIN clips AS c ON c.clip_id = k.clip_id
LEFT JOIN animations AS a ON a.animation_id = c.animation_id
LEFT JOIN first_assets AS f ON f.asset_id = c.asset_id
LEFT JOIN probes AS p ON p.asset_id = c.asset_id
WHERE f.seq IS NULL OR f.seq < ?
ORDER BY f.seq NULLS FIRST, c.asset_id, a.action_index, a."window", k.clip_id
"""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A kept clip, with what is known of its asset's licence."""

    clip: PlannedClip
    licence_class: str
    first_class: str
    """Before any correction."""
    corrected_at: str


def _kept_clips(
    con: duckdb.DuckDBPyConnection, settings: PackSettings, revoked: frozenset[str], up_to_seq: int | None
) -> Iterator[_Kept]:
    """Kept clips in the order in which they are packed."""
    result = con.execute(_QUERY, [2**62 if up_to_seq is None else up_to_seq])
    names = [column[0] for column in result.description or ()]
    while batch := result.fetchmany(10_000):
        for values in batch:
            row = dict(zip(names, values, strict=True))
            needed = {"clips": "asset_id", "assets": "licence_class", "probes": "family_id", "animations": "window"}
            missing = [table for table, column in needed.items() if row[column] is None]
            if missing:
                raise RuntimeError(f"clip {row['clip_id']} is kept, but it has no row in the table {missing[0]}")
            left_out = ""
            if row["clip_id"] in revoked or row["asset_id"] in revoked:
                left_out = "revoked"
            elif row["licence_class"] not in settings.allowed_classes:
                left_out = "licence_not_allowed"
            elif row["noai"] and not settings.admit_noai:
                left_out = "noai"
            elif row["licence_class"] != row["first_class"]:
                left_out = MOVED
            clip = PlannedClip(
                clip_id=row["clip_id"],
                asset_id=row["asset_id"],
                family_id=row["family_id"],
                name=row["name"],
                key=sample_key(row["asset_id"], row["action_index"], row["window"], row["clip_id"]),
                num_bytes=int(row["num_bytes"] or 0),
                fingerprint=row["fingerprint"],
                left_out=left_out,
            )
            yield _Kept(clip, row["licence_class"], row["first_class"], row["corrected_at"])


def _check_keys(keys: Iterable[str]) -> None:
    doubled = [key for key, count in Counter(keys).items() if count > 1]
    if doubled:
        raise RuntimeError(f"two clips have one key, which their ids should make impossible: {doubled[0]}")
