"""Objaverse-XL (arXiv:2307.05663): files on GitHub, Sketchfab, at the Smithsonian and on Thingiverse, by sha256."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.sources.lists import Lists, Only, Sites
from ingest.sources.objaverse import Objaverse, uid_of
from ingest.sources.source import Source, as_read, make_item, printable
from pipeline.records import SourceItem

Part = Literal["github", "sketchfab", "smithsonian", "thingiverse"]
PARTS: tuple[Part, ...] = get_args(Part)
CHECKED_ON = "2023-07-11"
"""The day on which the data set's paper appeared: its licences were read no later."""
CAN_BE_ANIMATED = frozenset({"glb", "gltf", "fbx", "blend", "usd", "usda", "usdc", "usdz", "abc"})
COLUMNS = ("fileIdentifier", "license", "fileType", "sha256", "metadata")
GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+)/blob/([0-9a-f]{7,40})/(.+)")


@dataclass(frozen=True, kw_only=True)
class ObjaverseXl(Source):
    """Lists the collection by its annotation Parquets.

    Ids are its `fileIdentifier`s or the files' sha256. A GitHub object is one file at the commit that the annotations
    name, never a clone. What is found with another content than annotated becomes `checksum_mismatch`, what is gone
    `not_found`. Models of Sketchfab come from Objaverse 1.0, with its metadata and the sha256 from here.
    Thingiverse's are files for printers, of which none moves: they are listed only if all are wanted.
    """

    lists: Lists
    sites: Sites = field(default_factory=Sites)
    only: Only = field(default_factory=Only)
    parts: tuple[Part, ...] = PARTS

    @property
    def name(self) -> str:
        """Always `objaverse-xl`."""
        return "objaverse-xl"

    def items(self) -> Iterator[SourceItem]:
        """The chosen objects, part by part, in the order of the annotations; then wanted ids that are in no part.

        Raises:
            ValueError: The annotations cannot be had or read.
        """
        wanted = None if self.only.wanted_ids is None else dict.fromkeys(self.only.wanted_ids, False)
        listed = 0
        for part in self.parts:
            if part == "thingiverse" and self.only.animated:
                continue
            for item in self._sketchfab(wanted) if part == "sketchfab" else self._files(part, wanted):
                yield item
                listed += 1
                if listed == self.only.max_items:
                    return
        for text, seen in (wanted or {}).items():
            if not seen:
                yield make_item(source=self.name, uri="", name=printable(text), checked_on=CHECKED_ON)

    def _files(self, part: Part, wanted: dict[str, bool] | None) -> Iterator[SourceItem]:
        for row in self._rows(part):
            if not _take(row, wanted):
                continue
            suffix = str(row.get("fileType") or "").lower().lstrip(".")
            if self.only.animated and suffix not in CAN_BE_ANIMATED:
                continue
            metadata = _metadata(row)
            if self.only.has_words(_words(metadata, "tags"), _words(metadata, "categories")):
                yield self._item(part, row, metadata)

    def _item(self, part: Part, row: Mapping[str, Any], metadata: Mapping[str, Any]) -> SourceItem:
        page = str(row["fileIdentifier"])
        uri, author = page, ""
        if part == "github" and (match := GITHUB.fullmatch(page)):
            owner, repo, commit, path = match.groups()
            uri, author = f"{self.sites.github_raw}/{owner}/{repo}/{commit}/{quote(path, safe='/%')}", owner
        if part == "thingiverse" and (match := re.search(r"fileId=(\d+)", page)):
            uri = f"{self.sites.thingiverse}/download:{match[1]}"
        return make_item(
            source=self.name,
            uri=uri,
            name=printable(page),
            title=printable(str(metadata.get("title") or metadata.get("name") or "")),
            spdx=str(row.get("license") or ""),
            author=printable(str(metadata.get("author") or author)),
            source_url=page,
            checked_on=CHECKED_ON,
            evidence=f"{self.sites.objaverse_xl}/{part}/{part}.parquet",
            evidence_text=as_read(row),
            expected_sha256=str(row.get("sha256") or "").lower(),
        )

    def _sketchfab(self, wanted: dict[str, bool] | None) -> Iterator[SourceItem]:
        rows = [row for row in self._rows("sketchfab") if _take(row, wanted)]
        sha256 = {uid_of(str(row["fileIdentifier"])): str(row.get("sha256") or "").lower() for row in rows}
        objaverse = Objaverse(
            lists=self.lists, sites=self.sites, only=replace(self.only, ids="", max_items=0), sha256=sha256
        )
        for item in objaverse.items(among=sha256):
            yield replace(item, source=self.name)

    def _rows(self, part: Part) -> Iterator[dict[str, Any]]:
        url = f"{self.sites.objaverse_xl}/{part}/{part}.parquet"
        (path,) = self.lists.paths([url])
        try:
            with pq.ParquetFile(path) as file:
                columns = [name for name in COLUMNS if name in file.schema_arrow.names]
                if "fileIdentifier" not in columns:
                    raise ValueError(f"{url} has no column fileIdentifier, but {file.schema_arrow.names}")
                for batch in file.iter_batches(batch_size=10_000, columns=columns):
                    yield from (row for row in batch.to_pylist() if row["fileIdentifier"])
        except (pa.ArrowException, OSError) as error:
            path.unlink(missing_ok=True)
            raise ValueError(f"{url} is no Parquet file: {error}") from None


def _take(row: Mapping[str, Any], wanted: dict[str, bool] | None) -> bool:
    """Whether a row is wanted; if so, its id is marked as seen."""
    if wanted is None:
        return True
    page = str(row["fileIdentifier"])
    keys = {page, str(row.get("sha256") or ""), uid_of(page)} & wanted.keys()
    wanted.update(dict.fromkeys(keys, True))
    return bool(keys)


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    found = row.get("metadata")
    try:
        found = json.loads(found) if isinstance(found, str) else found
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _words(metadata: Mapping[str, Any], name: str) -> list[str]:
    found = metadata.get(name)
    return [str(word) for word in found] if isinstance(found, list) else []
