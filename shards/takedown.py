"""Take assets out of a data set: out of sight at once, then out of the tars that hold them, and of nothing else.

First the tombstone: a row in `takedowns`, which ingest heeds, and the ids in `shards/REVOKED.parquet`, which all
readers heed. Then, by one driver at a time: the tars with samples of theirs, those of ground truth too, with their
index; the papers under a new version; pictures and 3D files; and what changed, for those who hold a copy. What stood
where before is written down first, so the same command goes on after any interruption.
"""

import io
import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import Asset, Clip, Probe, Record, Rejected, Sample, TakeDown, content_id
from pipeline.revoked import REVOKED_OF_ROOT, read_revoked, same_page
from pipeline.sole_driver import turn_of
from pipeline.tables import Tables
from shards.cards import last_settings, remove_cards, write_cards
from shards.plan import STAGE
from shards.release import CHANGES_PAGE
from shards.rewrite import Rewritten, rewrite_without
from shards.views import Shard, TruthSample, TruthShard, connect_to, rows

Kind = Literal["auto", "asset", "url", "author"]

JOURNAL = "takedown.json"
"""Below the data root while a take-down is under way."""
CHANGES = "shards/changes"
"""One file a version that came of a take-down."""
EVIDENCE = "evidence"
"""Where 3D files are kept, if they are to be kept: no stage looks there."""
CONTACT_SHEET = "report.html"
_READS: tuple[type[Record], ...] = (Asset, Probe, Sample, Shard, TruthSample, TruthShard)
_SCHEMA = pa.schema([(name, pa.string()) for name in ("asset_id", "clip_id", "revoked_on", "why")])
_THESE = "(SELECT unnest(?::VARCHAR[]))"
_TARS_OF = f"""
SELECT shard, num_bytes FROM shards
WHERE shard IN (SELECT shard FROM samples WHERE asset_id IN {_THESE})
UNION
SELECT shard, num_bytes FROM truth_shards
WHERE shard IN (SELECT shard FROM truth_samples WHERE asset_id IN {_THESE})
ORDER BY shard
"""
_RELATIVES = f"""
SELECT DISTINCT asset_id FROM probes
WHERE family_id IN (SELECT family_id FROM probes WHERE asset_id IN {_THESE} AND family_id <> '')
    AND asset_id NOT IN {_THESE}
ORDER BY asset_id
"""
_GONE = f"""
SELECT sample_key, clip_id, asset_id, shard, made_by FROM samples
WHERE asset_id IN {_THESE} OR clip_id IN {_THESE}
"""
_GONE_TRUTH = f"SELECT DISTINCT shard FROM truth_samples WHERE asset_id IN {_THESE} OR clip_id IN {_THESE}"


@dataclass(frozen=True, kw_only=True)
class Meant:
    """What a request is about, and what it would change."""

    request: TakeDown
    titles: dict[str, str]
    """Of the assets, by id."""
    num_samples: int
    tars: dict[str, int]
    """Tars that would be written again, with their bytes."""
    relatives: tuple[str, ...]
    """Other assets of the same geometry: re-uploads or re-coloured copies, which stay."""


@dataclass
class Journal:
    """How things stood before a take-down was begun, and what is to be done."""

    version: str
    tars: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By path: sha256, num_samples, settings_id of the packing."""
    affected: list[str] = field(default_factory=list)
    samples: dict[str, dict[str, str]] = field(default_factory=dict)
    """By key, of those that go: clip_id, asset_id, shard."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a take-down did."""

    version: str
    """Of the data set now; empty if nothing was published of what went."""
    num_samples: int
    rewritten: tuple[str, ...]
    removed: tuple[str, ...]
    num_unchanged: int
    """Tars."""
    num_files: int
    """Of pictures and 3D files that were removed."""
    changes: str
    """The file that says what changed, below the data root; empty if nothing did."""


def meaning_of(tables: Tables, value: str, *, kind: Kind = "auto", why: str = "", asked_on: str) -> Meant:
    """What a request means: an asset's id or its first 12 digits or a sample's key, a web address, or an author.

    Raises:
        ValueError: The digits fit several assets.
    """
    value = value.strip()
    kind = _kind_of(value) if kind == "auto" else kind
    with connect_to(tables, _READS) as con:
        known = rows(con, "SELECT DISTINCT asset_id, uri, source_url, author, title, name FROM assets")
        if kind == "asset":
            value = _whole_id(value.partition("_")[0], {row["asset_id"] for row in known})
        meant = [row for row in known if _is_meant(row, kind, value)]
        ids = sorted({row["asset_id"] for row in meant} | ({value} if kind == "asset" else set()))
        elsewhere = {row["source_url"] for row in known if row["asset_id"] not in ids}
        # A page of its own is another door to the same asset; one that others share is not.
        doors = {row["uri"] for row in meant} | {row["source_url"] for row in meant} - elsewhere
        request = TakeDown(
            takedown_id=content_id(kind, value),
            kind=kind,
            value=value,
            why=why,
            asked_on=asked_on,
            asset_ids=tuple(ids),
            urls=tuple(sorted(url for url in doors if url.startswith(("http://", "https://")))),
        )
        return Meant(
            request=request,
            titles={row["asset_id"]: row["title"] or row["name"] for row in meant},
            num_samples=len(rows(con, f"SELECT sample_key FROM samples WHERE asset_id IN {_THESE}", [ids])),
            tars={row["shard"]: row["num_bytes"] for row in rows(con, _TARS_OF, [ids, ids])},
            relatives=tuple(row["asset_id"] for row in rows(con, _RELATIVES, [ids, ids])),
        )


def tombstone(tables: Tables, requests: Sequence[TakeDown]) -> None:
    """Put the requests in force: from now on, no reader serves what they mean and no stage takes it in.

    Needs no sole driver, so it can be done while a run is under way.
    """
    with turn_of(tables.store, "takedown.lock"):
        for request in requests:
            name = f"takedown-{request.takedown_id}"
            tables.write(TakeDown, name, [request], made_by="shards.takedown", made_from=request.takedown_id)
        wanted = {asset_id: request for request in tables.rows(TakeDown) for asset_id in request.asset_ids}
        listed = _SCHEMA.empty_table()
        if tables.store.exists(REVOKED_OF_ROOT):
            listed = pq.read_table(io.BytesIO(tables.store.read_bytes(REVOKED_OF_ROOT)))
        there = set(listed["asset_id"].to_pylist()) if "asset_id" in listed.column_names else set()
        new = [
            {"asset_id": asset_id, "clip_id": None, "revoked_on": request.asked_on, "why": request.why}
            for asset_id, request in sorted(wanted.items())
            if asset_id not in there
        ]
        if new:
            whole = pa.concat_tables([listed, pa.Table.from_pylist(new, schema=_SCHEMA)], promote_options="permissive")
            buffer = io.BytesIO()
            pq.write_table(whole, buffer)
            tables.store.write_bytes(REVOKED_OF_ROOT, buffer.getvalue())
        # A run that is under way leaves out what it packs from now on: what was there before is written down first.
        _journal(tables, read_revoked(tables.store, REVOKED_OF_ROOT))


def carry_out(
    tables: Tables,
    *,
    on: str,
    keep_evidence: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Do what the tombstones ask for and is not done yet. Only the sole driver of a data root may.

    Args:
        tables: Of the data root.
        on: The date, ISO 8601, for the list of changes.
        keep_evidence: Move 3D files to `evidence/` instead of removing them.
        on_progress: Called with how many tars have been dealt with, and of how many.

    Raises:
        RuntimeError: A tar that would be copied from is damaged.
    """
    tables.recover()
    revoked = read_revoked(tables.store, REVOKED_OF_ROOT)
    journal = _journal(tables, revoked)
    found: dict[str, Rewritten] = {}
    for number, path in enumerate(journal.affected, start=1):
        before = journal.tars[path]
        found[path] = rewrite_without(tables, path, revoked, sha256=before["sha256"], settings_id=before["settings_id"])
        on_progress(number, len(journal.affected))
    version = ""
    if journal.affected:
        _account_for(tables, journal)
        version = next_version(journal.version)
        _write_changes(tables, journal, version, found, on)
        _renew_cards(tables, version)
    num_files = _remove_files(tables, keep_evidence=keep_evidence)
    tables.store.remove(JOURNAL)
    return Report(
        version=version,
        num_samples=len(journal.samples),
        rewritten=tuple(path for path, after in found.items() if after.sha256),
        removed=tuple(path for path, after in found.items() if not after.sha256),
        num_unchanged=len(journal.tars) - len(journal.affected),
        num_files=num_files,
        changes=f"{CHANGES}/{version}.json" if version else "",
    )


def next_version(version: str) -> str:
    """`1.0.1` after `1.0.0`."""
    last = re.fullmatch(r"(.*?)(\d+)", version)
    return f"{last[1]}{int(last[2]) + 1}" if last else f"{version}.1"


def _kind_of(value: str) -> Kind:
    if "://" in value:
        return "url"
    return "asset" if re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{12,64}(_\d+_\d+_[0-9a-f]{8})?", value) else "author"


def _whole_id(value: str, known: Collection[str]) -> str:
    """The asset's id of which these are the first digits; the digits themselves if there is none."""
    found = sorted(asset_id for asset_id in known if asset_id.startswith(value))
    if len(found) > 1:
        raise ValueError(f"{value} begins the ids of {len(found)} assets, {found[0]} and others: give more digits")
    return found[0] if found else value


def _is_meant(row: dict[str, Any], kind: Kind, value: str) -> bool:
    if kind == "asset":
        return bool(row["asset_id"] == value)
    if kind == "author":
        return bool(row["author"].casefold().strip() == value.casefold())
    return same_page(row["uri"], value) or same_page(row["source_url"], value)


def _journal(tables: Tables, revoked: frozenset[str]) -> Journal:
    """How things stood before, as an earlier try wrote it down, and what is to be done; written down if anything is."""
    store = tables.store
    try:
        journal = Journal(**json.loads(store.read_bytes(JOURNAL)))
    except FileNotFoundError:
        journal = Journal(version=last_settings(store).version)
    ids = sorted(revoked)
    with connect_to(tables, _READS) as con:
        gone = rows(con, _GONE, [ids, ids])
        affected = {row["shard"]: row["made_by"] for row in gone}
        affected |= {row["shard"]: "" for row in rows(con, _GONE_TRUTH, [ids, ids])}
        tars = rows(con, "SELECT shard, sha256, num_samples, made_by FROM shards")
        tars += rows(con, "SELECT shard, sha256, num_samples, made_by FROM truth_shards")
    # One without a row among the shards was never finished: there is nothing to compare its bytes with.
    tars += [{"shard": shard, "sha256": "", "num_samples": 0, "made_by": by} for shard, by in affected.items()]
    for tar in tars:
        about = {
            "sha256": tar["sha256"],
            "num_samples": tar["num_samples"],
            "settings_id": tar["made_by"].partition("@")[2],
        }
        journal.tars.setdefault(tar["shard"], about)
    for row in gone:
        journal.samples[row["sample_key"]] = {name: row[name] for name in ("clip_id", "asset_id", "shard")}
    journal.affected = sorted({*journal.affected, *affected})
    if journal.affected:
        store.write_bytes(JOURNAL, json.dumps(asdict(journal)).encode())
    return journal


def _account_for(tables: Tables, journal: Journal) -> None:
    """Say in `rejected` why kept clips are in no shard, as packing does."""
    with connect_to(tables, (Asset,)) as con:
        found = rows(con, "SELECT asset_id, arg_min(name, seq) AS name FROM assets GROUP BY asset_id")
    names = {row["asset_id"]: row["name"] for row in found}
    rejects = [
        Rejected(
            rejected_id=sample["clip_id"],
            stage=STAGE,
            reason="revoked",
            detail="listed in REVOKED.parquet",
            name=names.get(sample["asset_id"], ""),
        )
        for sample in journal.samples.values()
    ]
    if rejects:
        made_from = content_id(sorted(journal.samples))
        tables.write(Rejected, f"{STAGE}-takedown-{made_from}", rejects, made_by=STAGE, made_from=made_from)


def _renew_cards(tables: Tables, version: str) -> None:
    settings = replace(last_settings(tables.store), version=version)
    if tables.store.list_files(f"tables/{Shard.table}", ".parquet"):
        write_cards(tables, settings)
    else:
        remove_cards(tables.store, settings)


def _write_changes(tables: Tables, journal: Journal, version: str, found: dict[str, Rewritten], on: str) -> None:
    """The difference to the version before, for machines; and the page of all differences."""
    listed = pq.read_table(io.BytesIO(tables.store.read_bytes(REVOKED_OF_ROOT))).to_pylist()
    why = {row.get("asset_id") or row.get("clip_id"): row.get("why") or "" for row in listed}
    asset_ids = sorted({sample["asset_id"] for sample in journal.samples.values()})
    difference = {
        "format": "mv4d-changes/1",
        "version": version,
        "previous": journal.version,
        "on": on,
        "assets": [{"asset_id": asset_id, "why": why.get(asset_id, "")} for asset_id in asset_ids],
        "samples": [
            {"key": key, "clip_id": sample["clip_id"], "shard": _published(sample["shard"])}
            for key, sample in sorted(journal.samples.items())
        ],
        "tars": [
            {
                "tar": _published(path),
                "old_sha256": journal.tars[path]["sha256"],
                "new_sha256": after.sha256,
                "old_num_samples": journal.tars[path]["num_samples"],
                "new_num_samples": after.num_samples,
            }
            for path, after in sorted(found.items())
        ],
        "num_unchanged_tars": len(journal.tars) - len(journal.affected),
    }
    tables.store.write_bytes(f"{CHANGES}/{version}.json", (json.dumps(difference, indent=1) + "\n").encode())
    tables.store.write_bytes(CHANGES_PAGE, _changes_page(tables).encode())


def _changes_page(tables: Tables) -> str:
    files = tables.store.list_files(CHANGES, ".json")
    differences = [json.loads(tables.store.read_bytes(file)) for file in files]
    lines = ["# Changes", "", "What was taken down. The same for machines: `changes/`."]
    for difference in sorted(
        differences, key=lambda one: (one["on"], len(one["version"]), one["version"]), reverse=True
    ):
        lines += [
            "",
            f"## {difference['version']} ({difference['on']}), after {difference['previous']}",
            "",
            f"{len(difference['samples'])} samples of {len(difference['assets'])} assets are gone. "
            f"{difference['num_unchanged_tars']} tars are as they were; fetch these anew, and delete those without a "
            "new sha256:",
            "",
            "| tar | samples | old sha256 | new sha256 |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {tar['tar']} | {tar['old_num_samples']} → {tar['new_num_samples']} | `{tar['old_sha256'][:16]}` "
            f"| {'`' + tar['new_sha256'][:16] + '`' if tar['new_sha256'] else 'gone'} |"
            for tar in difference["tars"]
        ]
    return "\n".join(lines) + "\n"


def _remove_files(tables: Tables, *, keep_evidence: bool) -> int:
    """Remove pictures, ground truth and 3D files of what was asked to be taken down; returns how many files went."""
    ids = sorted({asset_id for request in tables.rows(TakeDown) for asset_id in request.asset_ids})
    these = f"asset_id IN {_THESE}"
    store = tables.store
    removed = 0
    for clip in tables.rows(Clip, these, [ids]):
        removed += store.remove_folder(clip.folder)
    for blob in sorted({asset.blob for asset in tables.rows(Asset, these, [ids])} - {""}):
        if store.exists(blob):
            if keep_evidence:
                store.write_bytes(f"{EVIDENCE}/{blob.removeprefix('blobs/')}", store.read_bytes(blob))
            store.remove(blob)
            removed += 1
    if removed:
        store.remove(CONTACT_SHEET)  # it holds their pictures; `mv4d report` makes it anew
    return removed


def _published(path: str) -> str:
    return path.removeprefix("shards/")
