"""A tar written again without some of its samples: what stays is copied byte for byte, and so is the index of it."""

import hashlib
import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.records import Record, Sample, SamplePart
from pipeline.tables import Tables
from pipeline.tars import HashingWriter, add_member
from shards.plan import STAGE, slug_of
from shards.views import Shard, TruthSample, TruthShard

TRUTH = re.compile(r"(?P<folder>.*)/truth/(?P<shard>mv-\d{6})\.(?P<name>[a-z_]+)\.tar")


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """What became of a tar."""

    sha256: str
    """Of the new one; empty if nothing of it is left, and it is gone."""
    num_samples: int
    num_bytes: int


@dataclass(frozen=True)
class _Entry:
    """A sample of a tar, with where it lies."""

    key: str
    clip_id: str
    asset_id: str
    members: tuple[tarfile.TarInfo, ...]


def rewrite_without(tables: Tables, path: str, revoked: frozenset[str], *, sha256: str, settings_id: str) -> Rewritten:
    """Write a tar of samples or of ground truth again without some samples, and its index after it.

    The result is what packing would have made, had the samples never been there. Doing it again does no harm: whoever
    was killed in the midst of it begins anew.

    Args:
        tables: Of the data root.
        path: Of the tar, below the data root.
        revoked: Ids of assets and clips whose samples are left out.
        sha256: Of the tar as it was packed.
        settings_id: Of the packing that made it.

    Raises:
        RuntimeError: The tar is not the one that was packed: what is copied from it would be damaged.
    """
    truth = TRUTH.fullmatch(path)
    records: tuple[type[Record], type[Record]] = (TruthSample, TruthShard) if truth else (Sample, Shard)
    fragment = f"{STAGE}-{slug_of(path)}" if truth else f"{STAGE}-{settings_id}-{slug_of(path)}"
    if not tables.store.exists(path):
        _remove_index(tables, path, records)
        return Rewritten(sha256="", num_samples=0, num_bytes=0)
    with tables.store.local_copy(path) as local:
        entries = _entries(local)
        kept = [entry for entry in entries if not revoked & {entry.asset_id, entry.clip_id}]
        if len(kept) < len(entries) and _sha256(local) != sha256:
            raise RuntimeError(
                f"{path} is damaged: its sha256 is not the {sha256} that was packed. Restore it from a copy, or run "
                "`mv4d pack`, and then `mv4d takedown` again"
            )
        whole_now = tables.rows(records[1], "shard = ?", [path])
        if len(kept) == len(entries) and whole_now:
            return _as_it_is(whole_now[0])  # somebody else has left them out: packing does, too
        # The index goes first and comes last, so it never speaks of bytes that are not there.
        _remove_index(tables, path, records)
        if not kept:
            tables.store.remove(path)
            return Rewritten(sha256="", num_samples=0, num_bytes=0)
        samples, written = _copy(tables, path, local, kept)
    made_by = STAGE if truth else f"{STAGE}@{settings_id}"
    whole: Record
    if truth:
        rows: list[Any] = [TruthSample(name=truth["name"], **sample) for sample in samples]
        num_missing = sum(1 for row in rows if len(row.parts) == 1)
        of_shard = f"{truth['folder']}/{truth['shard']}.tar"
        whole = TruthShard(of_shard=of_shard, name=truth["name"], num_missing=num_missing, **_facts(path, written))
    else:
        rows = [Sample(**sample) for sample in samples]
        whole = Shard(num_assets=len({row.asset_id for row in rows}), **_facts(path, written))
    tables.write(records[0], fragment, rows, made_by=made_by, made_from=path)
    tables.write(records[1], fragment, [whole], made_by=made_by, made_from=path)
    return written


def _as_it_is(whole: Any) -> Rewritten:
    return Rewritten(sha256=whole.sha256, num_samples=whole.num_samples, num_bytes=whole.num_bytes)


def _entries(local: Path) -> list[_Entry]:
    """The samples of a tar, in order."""
    entries: list[_Entry] = []
    with tarfile.open(local, "r:") as tar:
        by_key: dict[str, list[tarfile.TarInfo]] = {}
        for member in tar:
            by_key.setdefault(member.name.partition(".")[0], []).append(member)
        for key, members in by_key.items():
            opened = tar.extractfile(f"{key}.json")
            record = json.loads(opened.read()) if opened else {}
            entries.append(_Entry(key, record["clip_id"], record["asset_id"], tuple(members)))
    return entries


def _copy(tables: Tables, path: str, local: Path, kept: Sequence[_Entry]) -> tuple[list[dict[str, Any]], Rewritten]:
    """Write the new tar; gives the fields of its samples' rows."""
    licence_class, split = path.split("/")[1:3]
    samples = []
    with tarfile.open(local, "r:") as old, tables.store.writer(path) as file:
        hashing = HashingWriter(file)
        with tarfile.open(fileobj=hashing, mode="w", format=tarfile.USTAR_FORMAT) as new:  # type: ignore[call-overload]
            for entry in kept:
                start = new.offset
                parts = tuple(_add(new, old, entry.key, member) for member in entry.members)
                samples.append(
                    {
                        "sample_key": entry.key, "clip_id": entry.clip_id, "asset_id": entry.asset_id, "shard": path,
                        "split": split, "licence_class": licence_class, "offset": start,
                        "num_bytes": new.offset - start, "parts": parts,
                    }
                )  # fmt: skip
        sha256, num_bytes = hashing.sha256.hexdigest(), hashing.num_bytes
    return samples, Rewritten(sha256=sha256, num_samples=len(kept), num_bytes=num_bytes)


def _add(new: tarfile.TarFile, old: tarfile.TarFile, key: str, member: tarfile.TarInfo) -> SamplePart:
    opened = old.extractfile(member)
    assert opened is not None
    return add_member(new, key, member.name.partition(".")[2], opened.read())


def _facts(path: str, written: Rewritten) -> dict[str, Any]:
    licence_class, split = path.split("/")[1:3]
    return {
        "shard": path, "licence_class": licence_class, "split": split, "num_bytes": written.num_bytes,
        "sha256": written.sha256, "num_samples": written.num_samples,
    }  # fmt: skip


def _remove_index(tables: Tables, path: str, records: tuple[type[Record], type[Record]]) -> None:
    ends = f"-{slug_of(path)}.parquet"
    for record in reversed(records):  # what has no row among the shards is not complete
        for file in tables.store.list_files(f"tables/{record.table}", ends):
            tables.store.remove(file)


def _sha256(local: Path) -> str:
    with local.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
