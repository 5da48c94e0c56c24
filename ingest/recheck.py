"""Read the sources of assets once more: what is still there, under which licence, and who has opted out since.

Asset rows stay as they are. What is found becomes rows of `licence_checks`, of which the newest with changes counts
before the asset's own: at the next packing, an asset moves to its new licence class, or is left out.
"""

import dataclasses
import datetime
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pyarrow as pa

from ingest.fetch import Fetcher, FetchSettings, local_path
from ingest.licence import Licence, attribution, claimed, class_of, note_of, url_of
from ingest.refused import Refused
from ingest.register import register
from ingest.sources.folder import Folder
from ingest.sources.lists import Sites
from ingest.sources.manifest import SUFFIXES, Manifest
from ingest.sources.sketchfab import model_of
from ingest.sources.source import COMMAND_LINE, Source
from pipeline import dates
from pipeline.records import Asset, LicenceCheck, SourceItem, content_id, from_dict
from pipeline.tables import Tables

Status = Literal["live", "gone", "private", "unlisted", "unreachable"]
BATCH_SIZE = 500
CORRECTIONS = ("licence", "noai", "noai_lifted")
"""Changes by which a check counts before the asset's row."""
_STATUS_OF: dict[str, Status] = {
    "not_found": "gone",
    "login_needed": "private",
    "not_an_asset": "private",  # a page stands in its place: a login wall, as a rule
    "too_large": "live",  # no more than its first byte is asked for
    "noai": "live",
}
_UID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


@dataclass(frozen=True)
class Found:
    """What a source says of an item now."""

    status: Status
    item: SourceItem | None = None
    """As it would be listed now; None if nothing is stated."""
    noai: bool = False
    """The server itself reserves the file from AI."""
    detail: str = ""


@dataclass
class RecheckReport:
    """What a recheck found."""

    checked: Counter[str] = field(default_factory=Counter)
    """By source status."""
    changed: list[LicenceCheck] = field(default_factory=list)
    not_checkable: int = 0
    """Assets whose source cannot be read: made by mv4d itself, or imported without an address."""


class Recheck:
    """Reads sources again. Safe to kill: what is checked is stored by the batch."""

    def __init__(self, tables: Tables, *, sites: Sites | None = None, fetch: FetchSettings | None = None) -> None:
        """Nothing is read yet.

        Args:
            tables: Of the data root.
            sites: Where collections are.
            fetch: How patient to be.
        """
        self._tables, self._sites = tables, sites or Sites()
        self._fetch = fetch or FetchSettings()
        self._lists: dict[str, Mapping[tuple[str, str], SourceItem] | None] = {}

    def run(
        self,
        *,
        older_than_days: int = 0,
        store: bool = True,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> RecheckReport:
        """Check every asset's source.

        Args:
            older_than_days: Only what was not checked within so many days.
            store: Write what is found.
            on_progress: Called with how many assets have been checked, and of how many.

        Raises:
            ValueError: A manifest cannot be read.
        """
        report = RecheckReport()
        pairs = list(_assets(self._tables, older_than_days))
        with closing(Fetcher(self._fetch)) as fetcher, ThreadPoolExecutor(self._fetch.per_host) as pool:
            for start in range(0, len(pairs), BATCH_SIZE):
                batch = pairs[start : start + BATCH_SIZE]
                for item, _ in batch:
                    self._list_of(item.source)
                found = pool.map(lambda pair: self._look(fetcher, pair[0]), batch)
                checks = []
                for (item, before), now in zip(batch, found, strict=True):
                    if now is None:
                        report.not_checkable += 1
                        continue
                    check = compare(item, before, now)
                    checks.append(check)
                    report.checked[check.source_status] += 1
                    if check.changes:
                        report.changed.append(check)
                if store:
                    _write(self._tables, checks)
                on_progress(start + len(batch), len(pairs))
        return report

    def _look(self, fetcher: Fetcher, item: SourceItem) -> Found | None:
        if item.source == "samples":
            return None
        listed = self._list_of(item.source)
        if listed is None and (uid := _uid(item)):
            return self._model(fetcher, uid)
        if not item.uri:
            return None
        there = _file(fetcher, item.uri)
        if listed is None:
            return there
        now = listed.get((item.uri, item.name))
        if now is None:
            return Found(
                "unlisted" if there.status == "live" else there.status, detail=f"not in {item.source} any more"
            )
        return dataclasses.replace(there, item=now)

    def _model(self, fetcher: Fetcher, uid: str) -> Found:
        """A model of Sketchfab, by its page's data, also where Objaverse copied it from there."""
        try:
            model, item = model_of(fetcher, self._sites, uid)
        except Refused as refused:
            return Found(_STATUS_OF.get(refused.reason, "unreachable"), detail=refused.detail)
        if model.get("isDownloadable") is False:
            return Found("private", item, detail="no longer for download")
        return Found("live", item)

    def _list_of(self, source: str) -> Mapping[tuple[str, str], SourceItem] | None:
        """What a manifest or folder lists now; None where the source is no list of ours, or is gone itself."""
        if source not in self._lists:
            path = Path(source)
            listed: Manifest | Folder | None = None
            if path.suffix.lower() in SUFFIXES and path.is_file():
                listed = Manifest(path=path)
            elif os.path.isabs(source) and path.is_dir():
                listed = Folder(path=path)
            self._lists[source] = {(item.uri, item.name): item for item in listed.items()} if listed else None
        return self._lists[source]


def compare(item: SourceItem, before: LicenceCheck, now: Found) -> LicenceCheck:
    """The row of a check.

    Args:
        item: As it was listed.
        before: What was known.
        now: What the source says.
    """
    changes = ["status"] if now.status != before.source_status else []
    after = dataclasses.replace(
        before, checked_at=dates.now().isoformat(), source_status=now.status, detail=now.detail[:2000]
    )
    stated = now.item
    if stated is not None and not (item.evidence == COMMAND_LINE and not (stated.spdx or stated.licence_text)):
        after = _restated(after, stated)
        if (after.spdx, after.licence_class) != (before.spdx, before.licence_class):
            changes.append("licence")
    noai = True if now.noai else (stated.noai if stated is not None else None)
    if noai is not None:
        after = dataclasses.replace(after, noai=noai, noai_checked_on=after.checked_at[:10])
        if bool(noai) != bool(before.noai):
            changes.append("noai" if noai else "noai_lifted")
    return dataclasses.replace(after, changes=tuple(changes))


def list_items(tables: Tables, sources: Sequence[Source]) -> list[SourceItem]:
    """All items of some sources, registered, in the order that decides ties; corrected claims are noted."""
    items = []
    for source in sources:
        listed = list(register(tables, source))
        note_corrections(tables, source.name, listed)
        items += listed
    return sorted(items, key=lambda item: item.seq)


def note_corrections(tables: Tables, source: str, listed: Sequence[SourceItem]) -> list[LicenceCheck]:
    """Rows for assets whose claim in their list is another now than when they were taken in; stored.

    A corrected claim makes a new item of the same file: here the old one learns of it.

    Args:
        tables: Of the data root.
        source: The list's name.
        listed: All of its items.
    """
    place_of = {(item.uri, item.name): item for item in reversed(listed)}
    ids = {item.item_id for item in listed}
    with tables.connect([Asset, LicenceCheck]) as con:
        con.register("listed", pa.table({"uri": [uri for uri, _ in place_of], "name": [name for _, name in place_of]}))
        # Those that are listed as they were are of interest only if something else was noted in between.
        candidates = con.execute(
            "SELECT DISTINCT item_id, uri, name, item_id IN (SELECT item_id FROM licence_checks) "
            "FROM assets SEMI JOIN listed USING (uri, name) WHERE source = ?",
            [source],
        ).fetchall()
    wanted = [item_id for item_id, _, _, is_checked in candidates if is_checked or item_id not in ids]
    noted = []
    for item, before in _assets(tables, 0, wanted):
        now = item if item.item_id in ids else place_of[item.uri, item.name]
        check = compare(item, before, Found(before.source_status, now, detail="as its list says now"))  # type: ignore[arg-type]
        if check.changes:
            noted.append(check)
    _write(tables, noted)
    return noted


def _restated(check: LicenceCheck, item: SourceItem) -> LicenceCheck:
    """With the licence that the item states; one that we do not know is admitted by no policy."""
    try:
        spdx = claimed(item)
    except Refused:
        spdx = ""
    licence_class = class_of(spdx) or ""
    shown = Licence(
        spdx=spdx or item.spdx or "NOASSERTION",
        licence_class=licence_class or "other",
        url=item.licence_url or (url_of(spdx) if licence_class else ""),
        note=note_of(spdx) if licence_class else "",
    )
    return dataclasses.replace(
        check,
        spdx=shown.spdx,
        licence_class=licence_class,
        licence_text=item.licence_text,
        licence_url=shown.url,
        attribution=attribution(item, shown),
        evidence=item.evidence,
        evidence_sha256=item.evidence_sha256,
    )


def _assets(
    tables: Tables, older_than_days: int, among: Sequence[str] | None = None
) -> Iterator[tuple[SourceItem, LicenceCheck]]:
    """Ingested items with what is known of them now, in the order of the input."""
    with tables.connect([Asset, LicenceCheck]) as con:
        rows = con.sql("SELECT * FROM licence_checks ORDER BY checked_at").to_arrow_table().to_pylist()
    newest: dict[str, LicenceCheck] = {row["item_id"]: from_dict(LicenceCheck, row) for row in rows}
    where: str = "true"
    parameters: list[Any] = []
    if among is not None:
        where, parameters = "item_id IN (SELECT unnest(?::VARCHAR[]))", [list(among)]
    assets = sorted(tables.rows(Asset, where, parameters), key=lambda row: row.seq)
    items = {row.item_id: row for row in tables.rows(SourceItem, where, parameters)}
    today = dates.now().date()
    for asset in assets:
        known = newest.get(asset.item_id)
        if known and older_than_days and (today - _date(known.checked_at)).days < older_than_days:
            continue
        if asset.item_id in items:
            yield items[asset.item_id], known or _as_taken_in(asset)


def _as_taken_in(asset: Asset) -> LicenceCheck:
    names = {f.name for f in dataclasses.fields(LicenceCheck)} & {f.name for f in dataclasses.fields(Asset)}
    same = {name: getattr(asset, name) for name in names}
    return LicenceCheck(**same, checked_at=asset.checked_on, source_status="live", changes=(), detail="")


def _uid(item: SourceItem) -> str:
    """Of a model of Sketchfab, by its page, or by the name that collections of them give it; empty for other items."""
    page = urlsplit(item.source_url)
    uid = _UID.search(page.path) if (page.hostname or "").endswith("sketchfab.com") else None
    if uid is None and item.source in ("sketchfab", "objaverse", "objaverse-xl"):
        uid = _UID.fullmatch(item.name)
    return uid[0] if uid else ""


def _file(fetcher: Fetcher, uri: str) -> Found:
    """Whether a file is still there, without fetching more of it than it takes to know."""
    local = local_path(uri)
    if local is not None:
        # A sequence of files is listed under a pattern, which its list has looked up.
        is_there = local.exists() or "#" in local.name
        return Found("live" if is_there else "gone", detail="" if is_there else f"{local} is not there")
    with tempfile.TemporaryDirectory(prefix="mv4d-recheck-") as folder:
        try:
            fetcher.fetch(uri, Path(folder) / "first", max_bytes=1)
        except Refused as refused:
            status = _STATUS_OF.get(refused.reason, "unreachable")
            return Found(status, noai=refused.reason == "noai", detail="" if status == "live" else refused.detail)
    return Found("live")


def _write(tables: Tables, checks: Iterable[LicenceCheck]) -> None:
    checks = list(checks)
    if checks:
        name = content_id([(check.item_id, check.checked_at) for check in checks], length=20)
        tables.write(LicenceCheck, f"recheck-{name}", checks, made_by="ingest.recheck", made_from=name)


def _date(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text[:10])
