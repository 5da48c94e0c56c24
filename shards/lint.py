"""Check shards against their index: every byte, every camera, every picture; and what stands where."""

import hashlib
import json
import os
import re
import tarfile
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pipeline.cameras import project
from pipeline.media import decode_strip
from pipeline.records import LicenceClass, Sample
from pipeline.revoked import read_revoked
from pipeline.tables import Tables
from pipeline.truth_media import FORMAT as TRUTH_FORMAT
from pipeline.truth_media import PASSES, decode_map, decode_tracks
from shards.plan import REVOKED, SPLITS
from shards.sample import FORMAT
from shards.views import Shard, TruthSample, TruthShard, connect_to, rows, select

Kind = Literal[
    "unreadable",  # the tar cannot be read to its end
    "no_index",  # a file or sample that the index does not know
    "no_file",  # the index knows what is not there
    "bytes",  # sizes, offsets or hashes differ from the index
    "key",  # a key that is not unique, or breaks the rules for keys
    "member",  # a member that is no plain file, or carries a date or an owner
    "record",  # KEY.json is not what it should be
    "camera",  # a pose or intrinsics that cannot be
    "picture",  # a strip that does not decode to the size it should have
    "purity",  # a sample in a folder of another licence class or split
    "leak",  # an asset family in two splits
    "truth",  # ground truth that does not go with the shard beside it
    "revoked",  # a sample of what was taken down
]

KEY = re.compile(r"[A-Za-z0-9_-]+")
PATH = re.compile(
    rf"shards/(?P<licence>{'|'.join(get_args(LicenceClass))})/(?P<split>{'|'.join(SPLITS)})/mv-\d{{6}}\.tar"
)

TRUTH_PATH = re.compile(
    rf"(?P<folder>shards/(?P<licence>{'|'.join(get_args(LicenceClass))})/(?P<split>{'|'.join(SPLITS)})/)truth/"
    rf"(?P<file>mv-\d{{6}})\.(?P<name>{'|'.join(PASSES)})\.tar"
)

ROTATION_TOLERANCE = 1e-6
AIM_TOLERANCE = 1e-3
"""By how much a camera may look past the origin, as a share of its distance."""


@dataclass(frozen=True, kw_only=True)
class LintSettings:
    """How thorough to be."""

    decode: bool = True
    """Decode every picture. Most of the time goes into this; hashes and cameras are checked anyway."""
    workers: int = 0
    """Shards at once; 0 is one a core."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers must not be negative, got {self.workers}")


@dataclass(frozen=True, order=True)
class Finding:
    """Something that is wrong."""

    shard: str
    """Path below the data root; for findings about several, the first."""
    key: str
    """The sample; empty for the shard as a whole."""
    kind: Kind
    detail: str


@dataclass
class LintReport:
    """What was looked at and what is wrong."""

    findings: list[Finding] = field(default_factory=list)
    num_shards: int = 0
    num_samples: int = 0
    num_truth_shards: int = 0
    num_bytes: int = 0


def lint(
    tables: Tables,
    settings: LintSettings | None = None,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LintReport:
    """Read all shards of a data root and check them.

    Args:
        tables: Of the data root.
        settings: The defaults if None.
        on_progress: Called with the bytes read and the bytes of all shards.

    Returns:
        The findings, sorted by shard.
    """
    settings = settings or LintSettings()
    store = tables.store
    paths = store.list_files("shards", ".tar")
    total = sum(store.size(path) for path in paths)
    progress = _Progress(on_progress, total)
    revoked = read_revoked(store, REVOKED)
    with connect_to(tables, (Sample, Shard, TruthSample, TruthShard)) as con:
        known = ("samples", "shards", "truth_samples", "truth_shards")
        indexed = {row["shard"] for row in rows(con, " UNION ".join(f"SELECT shard FROM {table}" for table in known))}

        def look(path: str) -> _ShardCheck:
            with con.cursor() as cursor:
                check: _ShardCheck
                if match := TRUTH_PATH.fullmatch(path):
                    own = select(cursor, TruthSample, "shard", [path])
                    of_truth = select(cursor, TruthShard, "shard", [path])
                    beside = select(cursor, Sample, "shard", [f"{match['folder']}{match['file']}.tar"])
                    check = _TruthCheck(path, own, of_truth, beside, decode=settings.decode, revoked=revoked)
                else:
                    samples = select(cursor, Sample, "shard", [path])
                    whole = select(cursor, Shard, "shard", [path])
                    check = _ShardCheck(path, samples, whole, decode=settings.decode, revoked=revoked)
            with store.open(path) as file:
                check.run(_HashingReader(file, progress))
            return check

        with ThreadPoolExecutor(settings.workers or os.cpu_count() or 1) as threads:
            checks = list(threads.map(look, paths))
    findings = [Finding(path, "", "no_file", "is in the index only") for path in indexed.difference(paths)]
    findings += [finding for check in checks for finding in check.findings]
    main_checks = [check for check in checks if not isinstance(check, _TruthCheck)]
    findings += _across(main_checks)
    return LintReport(
        findings=sorted(findings),
        num_shards=len(main_checks),
        num_samples=sum(len(check.keys) for check in main_checks),
        num_truth_shards=len(checks) - len(main_checks),
        num_bytes=total,
    )


def _across(checks: Sequence["_ShardCheck"]) -> Iterator[Finding]:
    """Keys must be unique, and families on one side, over all shards."""
    first_shard: dict[str, str] = {}
    splits: dict[str, dict[str, str]] = defaultdict(dict)
    for check in checks:
        for key in check.keys:
            if key in first_shard:
                yield Finding(check.path, key, "key", f"stands in {first_shard[key]} as well")
            first_shard.setdefault(key, check.path)
        for family_id, split in check.families:
            splits[family_id].setdefault(split, check.path)
    for family_id, by_split in splits.items():
        if len(by_split) > 1:
            places = ", ".join(f"{split} ({path})" for split, path in sorted(by_split.items()))
            yield Finding(min(by_split.values()), "", "leak", f"the asset family {family_id} is in {places}")


@dataclass(frozen=True)
class _Member:
    name: str
    """Without the key."""
    offset: int
    content: bytes


class _ShardCheck:
    """Checks one tar against its rows in the index."""

    def __init__(
        self,
        path: str,
        samples: Sequence[Sample | TruthSample],
        whole: Sequence[Shard | TruthShard],
        *,
        decode: bool,
        revoked: frozenset[str] = frozenset(),
        place: re.Pattern[str] = PATH,
    ) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self.keys: list[str] = []
        self.families: set[tuple[str, str]] = set()
        """(asset family, split) of the samples."""
        self._index: dict[str, Sample | TruthSample] = {sample.sample_key: sample for sample in samples}
        self._whole = whole
        self._decode = decode
        self._revoked = revoked
        self._place = place.fullmatch(path)

    def run(self, reader: "_HashingReader") -> None:
        """Read the tar to its end."""
        if not self._place:
            self._find(
                "", "purity", "is named neither shards/<licence class>/<split>/mv-000000.tar nor as its ground truth"
            )
        if not self._index and not self._whole:
            self._find("", "no_index", "no table knows this file")
        for key, members in self._samples(reader):
            self._check(key, members)
            self.keys.append(key)
        reader.drain()
        for key in self._index.keys() - set(self.keys):
            self._find(key, "no_file", "is in the index and not in the tar")
        sha256 = reader.sha256.hexdigest()
        for row in self._whole:
            if (row.num_bytes, row.sha256) != (reader.num_bytes, sha256):
                ours, wanted = f"{reader.num_bytes} bytes, {sha256[:12]}…", f"{row.num_bytes} bytes, {row.sha256[:12]}…"
                self._find("", "bytes", f"the tar has {ours} as sha256; the index has {wanted}")

    def _find(self, key: str, kind: Kind, detail: str) -> None:
        self.findings.append(Finding(self.path, key, kind, detail))

    def _samples(self, reader: "_HashingReader") -> Iterator[tuple[str, list[_Member]]]:
        """Runs of members with one key, as WebDataset sees them."""
        key = ""
        members: list[_Member] = []
        names: set[str] = set()
        try:
            with tarfile.open(fileobj=reader, mode="r|", bufsize=1 << 20) as tar:  # type: ignore[call-overload]
                for info in tar:
                    member_key, _, name = info.name.partition(".")
                    for finding in _check_member(info, names):
                        self._find(member_key, *finding)
                    names.add(info.name)
                    opened = tar.extractfile(info)
                    if opened is None:
                        continue
                    if member_key != key and members:
                        yield key, members
                        members = []
                    key = member_key
                    members.append(_Member(name, info.offset_data, opened.read()))
        except (tarfile.TarError, EOFError) as error:
            self._find(key, "unreadable", f"the tar breaks off: {error}")
        if members:
            yield key, members

    def _check(self, key: str, members: Sequence[_Member]) -> None:
        row = self._index.get(key)
        if row is None:
            self._find(key, "no_index", "is in the tar and not in the index")
        else:
            for finding in _check_bytes(members, row):
                self._find(key, *finding)
        if members[0].name != "json":
            self._find(key, "record", f"begins with {members[0].name} and not with json")
            return
        try:
            record = json.loads(members[0].content)
            place = record["licence"]["licence_class"], record["split"]
            if self._place and place != self._place.group("licence", "split"):
                self._find(key, "purity", f"is {place[0]}, {place[1]} by its record")
            if row and place != (row.licence_class, row.split):
                self._find(key, "purity", f"is {row.licence_class}, {row.split} in the index")
            if self._revoked & {record["asset_id"], record["clip_id"]}:
                self._find(key, "revoked", "was taken down: run `mv4d takedown`")
            for finding in self._check_content(key, record, members[1:], row):
                self._find(key, *finding)
        except (ValueError, KeyError, TypeError) as error:
            self._find(key, "record", f"json cannot be understood: {type(error).__name__}: {error}")

    def _check_content(
        self, key: str, record: dict[str, Any], files: Sequence[_Member], row: Sample | TruthSample | None
    ) -> Iterator[tuple[Kind, str]]:
        """Check the record and what it speaks of."""
        self.families.add((record["family_id"], record["split"]))
        yield from _check_record(key, record, files, row)
        yield from _check_cameras(record)
        if self._decode:
            yield from _check_pictures(record, files)


class _TruthCheck(_ShardCheck):
    """Checks a tar of ground truth against its index, and against the shard that it goes with."""

    def __init__(
        self,
        path: str,
        samples: Sequence[TruthSample],
        whole: Sequence[TruthShard],
        beside: Sequence[Sample],
        *,
        decode: bool,
        revoked: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(path, samples, whole, decode=decode, revoked=revoked, place=TRUTH_PATH)
        self._beside = sorted(beside, key=lambda row: row.offset)

    def run(self, reader: "_HashingReader") -> None:
        """Read the tar to its end."""
        super().run(reader)
        if self.keys != [row.sample_key for row in self._beside]:
            self._find("", "truth", "its keys are not those of the shard that it goes with, in their order")

    def _check_content(
        self, key: str, record: dict[str, Any], files: Sequence[_Member], row: Sample | TruthSample | None
    ) -> Iterator[tuple[Kind, str]]:
        name = self._place.group("name") if self._place else record["name"]
        if record["format"] != TRUTH_FORMAT or record["name"] != name:
            yield "record", f"is {record['name']!r} in the format {record['format']!r}"
        if record["key"] != key or (row and (record["clip_id"], record["asset_id"]) != (row.clip_id, row.asset_id)):
            yield "record", f"speaks of {record['key']}, clip {record['clip_id']}"
        found = [(file.name, len(file.content), hashlib.sha256(file.content).hexdigest()) for file in files]
        if found != [(part["name"], part["num_bytes"], part["sha256"]) for part in record["parts"]]:
            yield "bytes", "the files are not those that its record names"
        if files and len(files) != (1 if name == "tracks" else record["num_views"]):
            yield "record", f"has {len(files)} files for {record['num_views']} views"
        if self._decode:
            yield from _check_truth(record, files)


def _check_truth(record: dict[str, Any], files: Sequence[_Member]) -> Iterator[tuple[Kind, str]]:
    wanted = (record["num_frames"], record["height"], record["width"])
    for file in files:
        try:
            if record["name"] == "tracks":
                shape: tuple[int, ...] = decode_tracks(file.content).positions.shape[:1]
            else:
                shape = decode_map(file.content, record["num_frames"]).shape[:3]
        except ValueError as error:
            yield "picture", f"{file.name}: {error}"
            continue
        if shape != wanted[: len(shape)]:
            yield "picture", f"{file.name} decodes to {shape} and not to {wanted}"


def _check_member(info: tarfile.TarInfo, names: set[str]) -> Iterator[tuple[Kind, str]]:
    key, dot, _ = info.name.partition(".")
    if not dot or not KEY.fullmatch(key):
        yield "key", f"the member {info.name!r} has no key of letters, digits, - and _ before its first dot"
    if info.name in names:
        yield "key", f"the member {info.name} stands twice in the tar"
    if not info.isreg():
        yield "member", f"{info.name} is no plain file"
    elif (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) != (0, 0, 0, "", "", 0o644):
        yield "member", f"{info.name} carries a date, an owner or permissions, so its bytes tell who packed it"


def _check_bytes(members: Sequence[_Member], row: Sample | TruthSample) -> Iterator[tuple[Kind, str]]:
    if [member.name for member in members] != [part.name for part in row.parts]:
        yield "bytes", f"holds {[m.name for m in members]}, and the index has {[part.name for part in row.parts]}"
    wanted = {part.name: part for part in row.parts}
    for member in members:
        part = wanted.get(member.name)
        if part is None:
            continue
        found = f"{len(member.content)} bytes at {member.offset}"
        if found != f"{part.num_bytes} bytes at {part.offset}":
            yield "bytes", f"{member.name} is {found}; the index has {part.num_bytes} bytes at {part.offset}"
        elif zlib.crc32(member.content) != part.crc32 or hashlib.sha256(member.content).hexdigest() != part.sha256:
            yield "bytes", f"{member.name} was changed: its hash is not that of the index"
    last = members[-1]
    start, end = members[0].offset - tarfile.BLOCKSIZE, last.offset + len(last.content)
    end += -end % tarfile.BLOCKSIZE
    if (row.offset, row.num_bytes) != (start, end - start):
        yield "bytes", f"spans {end - start} bytes at {start}; the index has {row.num_bytes} at {row.offset}"


def _check_record(
    key: str, record: dict[str, Any], strips: Sequence[_Member], row: Sample | TruthSample | None
) -> Iterator[tuple[Kind, str]]:
    if record["format"] != FORMAT:
        yield "record", f"its format is {record['format']!r} and not {FORMAT!r}"
    if record["key"] != key or (row and (record["clip_id"], record["asset_id"]) != (row.clip_id, row.asset_id)):
        yield "record", f"speaks of {record['key']}, clip {record['clip_id']}"
    found = [(strip.name, len(strip.content), hashlib.sha256(strip.content).hexdigest()) for strip in strips]
    if found != [(part["name"], part["num_bytes"], part["sha256"]) for part in record["parts"]]:
        yield "bytes", "the strips are not those that its record names"
    if len(strips) != record["num_views"]:
        yield "record", f"has {len(strips)} strips for {record['num_views']} views"
    if not record["licence"]["spdx"]:
        yield "record", "states no licence"


def _check_cameras(record: dict[str, Any]) -> Iterator[tuple[Kind, str]]:
    cameras = record["cameras"]
    c2w = np.asarray(cameras["c2w"], dtype=np.float64)
    fx, fy, cx, cy = (float(value) for value in cameras["intrinsics"])
    views, frames = record["num_views"], record["num_frames"]
    if c2w.shape not in ((views, 1, 4, 4), (views, frames, 4, 4)) or len(cameras["view_names"]) != views:
        yield "camera", f"c2w has shape {c2w.shape} for {views} views of {frames} frames"
        return
    if not (np.isfinite(c2w).all() and np.isfinite([fx, fy, cx, cy]).all() and fx > 0 and fy > 0):
        yield "camera", "a camera is not finite, or has no focal length"
        return
    for view, frame in np.ndindex(c2w.shape[:2]):
        if wrong := _what_is_wrong(c2w[view, frame], (fx, fy, cx, cy), record["width"], record["height"]):
            yield "camera", f"view {view}, camera frame {frame}: {wrong}"
            return


def _what_is_wrong(
    c2w: npt.NDArray[np.float64], intrinsics: tuple[float, float, float, float], width: int, height: int
) -> str:
    rotation, position = c2w[:3, :3], c2w[:3, 3]
    if not np.array_equal(c2w[3], [0.0, 0.0, 0.0, 1.0]):
        return "the last row of c2w is not 0 0 0 1"
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
        return "c2w does not hold a rotation"
    x, y, depth = project(np.zeros((1, 3)), c2w, intrinsics)[0]
    past = np.linalg.norm(position - rotation[:, 2] * (rotation[:, 2] @ position))
    if depth <= 0 or past > AIM_TOLERANCE * np.linalg.norm(position):
        return "it does not look at the origin"
    if not (0 <= x <= width and 0 <= y <= height):
        return f"the origin is at pixel ({x:.1f}, {y:.1f}), outside the picture"
    return ""


def _check_pictures(record: dict[str, Any], strips: Sequence[_Member]) -> Iterator[tuple[Kind, str]]:
    wanted = (record["num_frames"], record["height"], record["width"], 4)
    for strip in strips:
        try:
            shape = decode_strip(strip.content, record["num_frames"]).shape
        except ValueError as error:
            yield "picture", f"{strip.name}: {error}"
            continue
        if shape != wanted:
            yield "picture", f"{strip.name} decodes to {shape} and not to {wanted}"


class _Progress:
    """Adds up bytes over threads."""

    def __init__(self, on_progress: Callable[[int, int], None], total: int) -> None:
        self._on_progress, self._total, self._done = on_progress, total, 0
        self._lock = threading.Lock()

    def add(self, num_bytes: int) -> None:
        with self._lock:
            self._done += num_bytes
            self._on_progress(self._done, self._total)


class _HashingReader:
    """Hashes what is read through it from a file."""

    def __init__(self, file: IO[bytes], progress: _Progress) -> None:
        self._file, self._progress = file, progress
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.sha256.update(content)
        self.num_bytes += len(content)
        self._progress.add(len(content))
        return content

    def drain(self) -> None:
        """Read to the end of the file."""
        while self.read(1 << 20):
            pass
