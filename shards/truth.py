"""Ground truth beside the shards: for each pass and shard a tar with the same keys in the same order.

`shards/<licence class>/<split>/truth/mv-000000.<pass>.tar` goes with `…/mv-000000.tar`, and is pure, revoked and
checked as that is. It stands in a folder below, so that whoever takes all tars of a split has the pictures alone.
Every key has its `KEY.json`; where a clip lacks the pass, it is all there is, so that readers may walk side by side.
"""

import dataclasses
import hashlib
import io
import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow.parquet as pq

from pipeline.records import Clip, Truth, from_dict
from pipeline.tables import Tables
from pipeline.tars import HashingWriter, add_member
from pipeline.truth_media import FORMAT, MEANINGS
from shards.plan import STAGE, PlannedShard, slug_of
from shards.sample import Credit, SampleRecord, Strip
from shards.views import TruthSample, TruthShard, select

_TAR = re.compile(r"shards/[a-z0-9-]+/(?:train|val|test)/truth/mv-\d{6}\.[a-z_]+\.tar")


@dataclass(frozen=True, kw_only=True)
class TruthRecord:
    """`KEY.json` in a tar of ground truth: how to read what follows it."""

    format: str
    """`mv4d-truth/1`."""
    key: str
    """Of the sample in the shard that this goes with."""
    clip_id: str
    """As in the sample's record."""
    asset_id: str
    """As in the sample's record."""
    split: str
    """`train`, `val` or `test`."""
    name: str
    """The pass: depth, normal, ..."""
    meaning: str
    """What the values are, in words."""
    num_views: int
    """Of the clip."""
    num_frames: int
    """Frames of each strip, stacked top to bottom."""
    width: int
    """Of a frame, pixels."""
    height: int
    """Of a frame, pixels."""
    offset: float
    """value = offset + step * stored; where all channels are 0, there is none. Not for tracks."""
    step: float
    """As above."""
    names: tuple[str, ...]
    """Of objects or materials, by their number; empty for other passes."""
    mask_iou: float
    """Agreement of the surface with the pictures' alpha, 0..1; 0 if the pass is missing."""
    licence: Credit
    """That of the pictures."""
    parts: tuple[Strip, ...]
    """The other members; none if the clip lacks this pass."""

    def to_json(self) -> bytes:
        """The bytes of `KEY.json`: the same record, the same bytes."""
        text = json.dumps(dataclasses.asdict(self), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        return text.encode() + b"\n"


@dataclass(frozen=True, kw_only=True)
class PackedClip:
    """A clip of a shard, with its record there."""

    clip: Clip
    record: SampleRecord


@dataclass
class TruthReport:
    """What packing ground truth did."""

    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Member:
    packed: PackedClip
    record: TruthRecord
    truth: Truth | None


def truth_path(shard: str, name: str) -> str:
    """Path of the tar that holds a pass of a shard's samples."""
    folder, _, file = shard.rpartition("/")
    return f"{folder}/truth/{file.removesuffix('.tar')}.{name}.tar"


class TruthPacker:
    """Writes the tars of ground truth of one data root, and their index."""

    def __init__(self, tables: Tables) -> None:
        self._tables, self._store = tables, tables.store

    def bring_about(
        self, con: duckdb.DuckDBPyConnection, shard: PlannedShard, packed: Sequence[PackedClip], report: TruthReport
    ) -> None:
        """Write what a shard's tars of ground truth lack.

        Args:
            con: Has the table of `Truth`.
            shard: As it was packed.
            packed: Its clips, in order.
            report: Is added to.

        Raises:
            RuntimeError: A file is damaged.
        """
        found: dict[str, dict[str, Truth]] = defaultdict(dict)
        for row in select(con, Truth, "clip_id", [entry.clip.clip_id for entry in packed]):
            found[row.name][row.clip_id] = row
        for name in sorted(found):
            members = [_member(entry, name, found[name].get(entry.clip.clip_id)) for entry in packed]
            path = truth_path(shard.path, name)
            if self._is_current(path, members):
                report.unchanged.append(path)
            else:
                self._write(shard, path, name, members)
                report.written.append(path)

    def remove_all_but(self, wanted: Sequence[str]) -> list[str]:
        """Remove tars and index files that no shard asks for; gives the tars."""
        keep = {fragment for path in wanted for fragment in _fragments(path)}
        for record in (TruthShard, TruthSample):  # what has no row in the former is not complete
            for path in self._store.list_files(f"tables/{record.table}", ".parquet"):
                if path not in keep:
                    self._store.remove(path)
        stale = [path for path in self._store.list_files("shards", ".tar") if _TAR.fullmatch(path)]
        stale = sorted(set(stale) - set(wanted))
        for path in stale:
            self._store.remove(path)
        return stale

    def _is_current(self, path: str, members: Sequence[_Member]) -> bool:
        """True if tar and index hold what they should."""
        samples_file, shards_file = _fragments(path)
        if not (self._store.exists(samples_file) and self._store.exists(shards_file) and self._store.exists(path)):
            return False
        samples = [from_dict(TruthSample, row) for row in self._read(samples_file)]
        (whole,) = [from_dict(TruthShard, row) for row in self._read(shards_file)]
        wanted = [
            (member.record.key, [_sha256(member.record.to_json()), *(part.sha256 for part in member.record.parts)])
            for member in members
        ]
        found = [(row.sample_key, [part.sha256 for part in row.parts]) for row in sorted(samples, key=_offset)]
        return found == wanted and self._store.size(path) == whole.num_bytes

    def _read(self, path: str) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = pq.read_table(io.BytesIO(self._store.read_bytes(path))).to_pylist()
        return rows

    def _write(self, shard: PlannedShard, path: str, name: str, members: Sequence[_Member]) -> None:
        # The index goes first and comes last, so it never speaks of bytes that are not there.
        for fragment in reversed(_fragments(path)):
            self._store.remove(fragment)
        samples = []
        with self._store.writer(path) as file:
            hashing = HashingWriter(file)
            with tarfile.open(fileobj=hashing, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
                for member in members:
                    samples.append(self._add(tar, shard, path, member))
            num_bytes, sha256 = hashing.num_bytes, hashing.sha256.hexdigest()
        whole = TruthShard(
            shard=path,
            of_shard=shard.path,
            name=name,
            licence_class=shard.licence_class,
            split=shard.split,
            num_bytes=num_bytes,
            sha256=sha256,
            num_samples=len(samples),
            num_missing=sum(1 for member in members if member.truth is None),
        )
        fragment = f"{STAGE}-{slug_of(path)}"
        self._tables.write(TruthSample, fragment, samples, made_by=STAGE, made_from=path)
        self._tables.write(TruthShard, fragment, [whole], made_by=STAGE, made_from=path)

    def _add(self, tar: tarfile.TarFile, shard: PlannedShard, path: str, member: _Member) -> TruthSample:
        start, key, clip = tar.offset, member.record.key, member.packed.clip
        parts = [add_member(tar, key, "json", member.record.to_json())]
        for part in member.record.parts:
            file = f"{clip.folder}/{part.name}"
            parts.append(add_member(tar, key, part.name, self._store.read_bytes(file)))
            if parts[-1].sha256 != part.sha256:
                raise RuntimeError(
                    f"{file} is damaged: its sha256 is {parts[-1].sha256}, and {part.sha256} was made. "
                    "Restore it from a copy, or remove the clip's rows of render.truth and make it again"
                )
        return TruthSample(
            sample_key=key,
            name=member.record.name,
            clip_id=clip.clip_id,
            asset_id=clip.asset_id,
            shard=path,
            split=shard.split,
            licence_class=shard.licence_class,
            offset=start,
            num_bytes=tar.offset - start,
            parts=tuple(parts),
        )


def _member(packed: PackedClip, name: str, truth: Truth | None) -> _Member:
    clip, record = packed.clip, packed.record
    own = TruthRecord(
        format=truth.format if truth else FORMAT,
        key=record.key,
        clip_id=clip.clip_id,
        asset_id=clip.asset_id,
        split=record.split,
        name=name,
        meaning=MEANINGS.get(name, ""),
        num_views=clip.num_views,
        num_frames=clip.num_frames,
        width=clip.width,
        height=clip.height,
        offset=truth.offset if truth else 0.0,
        step=truth.step if truth else 0.0,
        names=truth.names if truth else (),
        mask_iou=truth.mask_iou if truth else 0.0,
        licence=record.licence,
        parts=tuple(
            Strip(name=part.name, num_bytes=part.num_bytes, sha256=part.sha256)
            for part in sorted(truth.parts if truth else (), key=lambda part: part.name)
        ),
    )
    return _Member(packed, own, truth)


def _fragments(path: str) -> tuple[str, str]:
    """The files of the index that speak of a tar: its samples and itself."""
    file = f"{STAGE}-{slug_of(path)}.parquet"
    return f"tables/{TruthSample.table}/{file}", f"tables/{TruthShard.table}/{file}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _offset(row: TruthSample) -> int:
    return row.offset
