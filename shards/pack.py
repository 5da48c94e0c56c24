"""Kept clips -> WebDataset tars and their index. The same clips give the same bytes, whenever and wherever it is done.

What stands in which shard is planned from the tables alone, so it does not matter in which order clips were rendered,
nor how often packing was cut off. Of the files, only those are written that the plan asks for and that are not there.
"""

import hashlib
import io
import re
import tarfile
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow.parquet as pq

from pipeline.records import (
    Animation,
    Clip,
    Decision,
    ImageMotion,
    Record,
    Rejected,
    Sample,
    StageSettings,
    Truth,
    from_dict,
)
from pipeline.revoked import read_revoked
from pipeline.tables import Tables
from pipeline.tars import HashingWriter, add_member
from shards.captions import best_captions, metadata_caption
from shards.plan import MOVED, READS, REVOKED, STAGE, PackSettings, PlannedClip, PlannedShard, plan
from shards.sample import SampleRecord, sample_record
from shards.truth import PackedClip, TruthPacker, TruthReport
from shards.views import Shard, connect_to, first_assets, select

_TAR = re.compile(r"shards/[a-z0-9-]+/(?:train|val|test)/mv-\d{6}\.tar")
_FRAGMENT = re.compile(rf"tables/(?P<table>samples|shards)/{re.escape(STAGE)}-(?P<id>[0-9a-f]+)-(?P<slug>.+)\.parquet")


class NotCuratedError(ValueError):
    """There are clips, and nobody has decided which to keep."""


@dataclass
class PackReport:
    """What a call of `Packer.pack` did, and what there is after it."""

    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    num_samples: int = 0
    """In the shards that this call wanted, written or not."""
    num_bytes: int = 0
    truth: TruthReport = field(default_factory=TruthReport)
    """Of the tars of ground truth beside the shards."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Clips by reason: `revoked`, `licence_not_allowed`, `noai`. Counted by the last call only."""


@dataclass(frozen=True)
class _Member:
    """A clip that is to be written, with its record."""

    planned: PlannedClip
    clip: Clip
    record: SampleRecord


class Packer:
    """Writes the shards of one data root. Only one process at a time may do so.

    While a run is still rendering, `pack(up_to_seq)` writes the shards that are already certain; `pack()` at the end
    writes the rest, mends what turned out otherwise, and removes what is no longer wanted.
    """

    def __init__(
        self,
        tables: Tables,
        settings: PackSettings | None = None,
        *,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Prepare to pack.

        Args:
            tables: Of the data root.
            settings: The defaults if None.
            on_progress: Called with how many clips a call of `pack` has dealt with, and of how many.
        """
        self._tables, self._store = tables, tables.store
        self._settings = settings or PackSettings()
        self._on_progress = on_progress
        self._certain: dict[str, tuple[str, int]] = {}
        """Shards that this object has written or checked: path to fingerprint and bytes."""
        self._fragments: dict[str, set[str]] = {}
        """Index files by the slug of their shard."""
        self._truth = TruthPacker(tables)
        self._truth_certain: dict[str, str] = {}
        """Shards whose ground truth this object has seen to while the run goes on: path to fingerprint."""

    def pack(self, up_to_seq: int | None = None) -> PackReport:
        """Bring the shards in line with the tables.

        Args:
            up_to_seq: Only assets whose `seq` is below it, all of whose clips should be decided; and only full
                shards. None: everything; stale shards are removed, and clips that are left out are accounted for.

        Raises:
            NotCuratedError: `up_to_seq` is None, and there are clips but no decisions.
            RuntimeError: A clip's file is damaged, or rows that belong to a clip are missing.
        """
        final = up_to_seq is None
        self._find_index()
        with connect_to(self._tables, READS) as con:
            if final:
                self._check_curated(con)
            shards = plan(con, self._settings, read_revoked(self._store, REVOKED), up_to_seq)
        wanted = [shard for shard in shards if shard.packed and (final or shard.closed)]
        report = self._bring_about(wanted, trust_memory=not final)
        self._bring_truth_about(wanted, report, trust_memory=not final)
        if final:
            report.truth.removed = self._truth.remove_all_but(report.truth.written + report.truth.unchanged)
            report.removed = self._remove_all_but({shard.path: shard.slug for shard in wanted})
            left_out = [clip for shard in shards for clip in shard.clips if clip.left_out not in ("", MOVED)]
            report.left_out = self._account_for(left_out)
            self._remember_settings()
        return report

    def _check_curated(self, con: duckdb.DuckDBPyConnection) -> None:
        num_clips = con.execute("SELECT count(*) FROM clips").fetchall()[0][0]
        if num_clips and not self._store.list_files(f"tables/{Decision.table}", ".parquet"):
            raise NotCuratedError(
                f"{self._store.root} holds {num_clips} clips, and nobody has decided which to keep: "
                "run `mv4d curate` first"
            )

    def _bring_about(self, wanted: Sequence[PlannedShard], *, trust_memory: bool) -> PackReport:
        report = PackReport()
        total = sum(len(shard.packed) for shard in wanted)
        left = deque(wanted)
        while left:
            # One connection up to the next shard that must be written: while it is open, nobody can merge tables.
            with connect_to(self._tables, READS) as con:
                members = self._pass_over_current(con, left, report, trust_memory=trust_memory)
            if left:
                shard = left.popleft()
                self._write(shard, members, report.num_samples, total)
                report.written.append(shard.path)
                self._count(shard, report)
            self._on_progress(report.num_samples, total)
        return report

    def _bring_truth_about(self, wanted: Sequence[PlannedShard], report: PackReport, *, trust_memory: bool) -> None:
        if not self._store.list_files(f"tables/{Truth.table}", ".parquet"):
            return
        for shard in wanted:
            if trust_memory and self._truth_certain.get(shard.path) == shard.fingerprint:
                continue
            with connect_to(self._tables, (*READS, Truth)) as con:
                packed = [PackedClip(clip=member.clip, record=member.record) for member in _members(con, shard)]
                self._truth.bring_about(con, shard, packed, report.truth)
            self._truth_certain[shard.path] = shard.fingerprint

    def _pass_over_current(
        self, con: duckdb.DuckDBPyConnection, left: deque[PlannedShard], report: PackReport, *, trust_memory: bool
    ) -> list[_Member]:
        """Take shards off the left end while they are there already; gives the members of the first that is not."""
        while left:
            known = self._certain.get(left[0].path)
            if not trust_memory or known is None or known[0] != left[0].fingerprint:
                members = _members(con, left[0])
                if not self._is_current(left[0], members):
                    return members
            shard = left.popleft()
            report.unchanged.append(shard.path)
            self._count(shard, report)
        return []

    def _count(self, shard: PlannedShard, report: PackReport) -> None:
        known = self._certain.get(shard.path)
        num_bytes = known[1] if known and known[0] == shard.fingerprint else self._store.size(shard.path)
        self._certain[shard.path] = shard.fingerprint, num_bytes
        report.num_samples += len(shard.packed)
        report.num_bytes += num_bytes

    def _is_current(self, shard: PlannedShard, members: Sequence[_Member]) -> bool:
        """True if tar and index hold what is planned; an index of other settings is then written under ours."""
        samples, whole = self._index_of(shard.slug)
        if len(whole) != 1 or not self._store.exists(shard.path):
            return False
        wanted = [
            (
                member.record.key,
                [("json", hashlib.sha256(member.record.to_json()).hexdigest())]
                + [(part.name, part.sha256) for part in member.record.parts],
            )
            for member in members
        ]
        found = [(row.sample_key, [(part.name, part.sha256) for part in row.parts]) for row in samples]
        if found != wanted or self._store.size(shard.path) != whole[0].num_bytes:
            return False
        if self._fragments[shard.slug] != {self._fragment(record, shard.slug) for record in (Sample, Shard)}:
            self._write_index(shard, samples, whole[0])
        return True

    def _index_of(self, slug: str) -> tuple[list[Sample], list[Shard]]:
        """A shard's rows in the index, its samples by offset."""
        by_record: dict[type[Record], list[Any]] = {Sample: [], Shard: []}
        for path in sorted(self._fragments.get(slug, ())):
            record = Sample if path.startswith("tables/samples/") else Shard
            by_record[record] += [from_dict(record, row) for row in _read(self._store.read_bytes(path))]
        return sorted(by_record[Sample], key=lambda row: row.offset), by_record[Shard]

    def _write(self, shard: PlannedShard, members: Sequence[_Member], done: int, total: int) -> None:
        # The index goes first and comes last, so it never speaks of bytes that are not there.
        self._remove_index(shard.slug)
        self._certain.pop(shard.path, None)
        samples: list[Sample] = []
        with self._store.writer(shard.path) as file:
            hashing = HashingWriter(file)
            with tarfile.open(fileobj=hashing, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
                for number, member in enumerate(members):
                    self._on_progress(done + number, total)
                    samples.append(self._add(tar, shard, member))
            num_bytes, sha256 = hashing.num_bytes, hashing.sha256.hexdigest()
        whole = Shard(
            shard=shard.path,
            licence_class=shard.licence_class,
            split=shard.split,
            num_bytes=num_bytes,
            sha256=sha256,
            num_samples=len(samples),
            num_assets=len({sample.asset_id for sample in samples}),
        )
        self._write_index(shard, samples, whole)

    def _add(self, tar: tarfile.TarFile, shard: PlannedShard, member: _Member) -> Sample:
        start = tar.offset
        parts = [add_member(tar, member.record.key, "json", member.record.to_json())]
        for part in member.record.parts:
            path = f"{member.clip.folder}/{part.name}"
            content = self._store.read_bytes(path)
            parts.append(add_member(tar, member.record.key, part.name, content))
            if parts[-1].sha256 != part.sha256:
                raise RuntimeError(
                    f"{path} is damaged: its sha256 is {parts[-1].sha256}, and {part.sha256} was rendered. "
                    "Restore it from a copy, or render the clip again"
                )
        return Sample(
            sample_key=member.record.key,
            clip_id=member.clip.clip_id,
            asset_id=member.clip.asset_id,
            shard=shard.path,
            split=shard.split,
            licence_class=shard.licence_class,
            offset=start,
            num_bytes=tar.offset - start,
            parts=tuple(parts),
        )

    def _fragment(self, record: type[Record], slug: str, settings_id: str = "") -> str:
        return f"tables/{record.table}/{STAGE}-{settings_id or self._settings.settings_id}-{slug}.parquet"

    def _write_index(self, shard: PlannedShard, samples: Sequence[Sample], whole: Shard) -> None:
        name = f"{STAGE}-{self._settings.settings_id}-{shard.slug}"
        made_by = f"{STAGE}@{self._settings.settings_id}"
        self._tables.write(Sample, name, samples, made_by=made_by, made_from=shard.path)
        self._tables.write(Shard, name, [whole], made_by=made_by, made_from=shard.path)
        ours = {self._fragment(record, shard.slug) for record in (Sample, Shard)}
        for path in self._fragments.get(shard.slug, set()) - ours:
            self._store.remove(path)
        self._fragments[shard.slug] = ours

    def _remove_index(self, slug: str) -> None:
        # `shards` before `samples`: what has no row in `shards` is not complete.
        for path in sorted(self._fragments.pop(slug, ()), reverse=True):
            self._store.remove(path)

    def _find_index(self) -> None:
        """Find the index files of each shard."""
        self._fragments = defaultdict(set)
        for record in (Sample, Shard):
            for path in self._store.list_files(f"tables/{record.table}", ".parquet"):
                if match := _FRAGMENT.fullmatch(path):
                    self._fragments[match["slug"]].add(path)

    def _remove_all_but(self, wanted: dict[str, str]) -> list[str]:
        """Remove tars and index files that are not planned, and what a killed process left half written."""
        for slug in set(self._fragments) - set(wanted.values()):
            self._remove_index(slug)
        tars = self._store.list_files("shards", ".tar")
        stale = [path for path in tars if _TAR.fullmatch(path) and path not in wanted]
        for path in stale:
            self._store.remove(path)
        self._store.remove_partial("shards")
        return stale

    def _account_for(self, left_out: Sequence[PlannedClip]) -> Counter[str]:
        """Say in `rejected` why kept clips are in no shard."""
        details = {
            "revoked": "listed in REVOKED.parquet",
            "licence_not_allowed": f"allowed are {', '.join(self._settings.allowed_classes)}",
            "noai": "its author opted out of use by generative AI",
        }
        rejects = [
            Rejected(
                rejected_id=clip.clip_id,
                stage=STAGE,
                reason=clip.left_out,
                detail=details[clip.left_out],
                name=clip.name,
            )
            for clip in left_out
        ]
        if rejects:
            self._tables.write(Rejected, STAGE, rejects, made_by=f"{STAGE}@{self._settings.settings_id}", made_from="")
        else:
            self._store.remove(f"tables/{Rejected.table}/{STAGE}.parquet")
        return Counter(row.reason for row in rejects)

    def _remember_settings(self) -> None:
        settings_id = self._settings.settings_id
        row = StageSettings(stage=STAGE, settings_id=settings_id, settings=self._settings.as_json)
        made_by = f"{STAGE}@{settings_id}"
        self._tables.write(StageSettings, f"{STAGE}-{settings_id}", [row], made_by=made_by, made_from="")


def _members(con: duckdb.DuckDBPyConnection, shard: PlannedShard) -> list[_Member]:
    """The clips of a shard with their records, in order."""
    ids = [planned.clip_id for planned in shard.packed]
    clips = {clip.clip_id: clip for clip in select(con, Clip, "clip_id", ids)}
    animation_ids = sorted({clip.animation_id for clip in clips.values()})
    animations = {row.animation_id: row for row in select(con, Animation, "animation_id", animation_ids)}
    assets = first_assets(con, sorted({clip.asset_id for clip in clips.values()}))
    image_motions = {row.clip_id: row for row in select(con, ImageMotion, "clip_id", ids)}
    captions = best_captions(con, ids)
    members = []
    for planned in shard.packed:
        clip = clips[planned.clip_id]
        animation, asset = animations[clip.animation_id], assets[clip.asset_id]
        made_of_names = metadata_caption(asset.title, animation.action_name, asset.tags)
        record = sample_record(
            clip,
            animation,
            asset,
            image_motions.get(clip.clip_id),
            family_id=planned.family_id,
            split=shard.split,
            caption=captions.get(clip.clip_id, made_of_names),
        )
        members.append(_Member(planned, clip, record))
    return members


def _read(content: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
    return found
