"""Objaverse 1.0 (arXiv:2212.08051): some 800,000 models of Sketchfab as .glb, with their pages' metadata."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest.sources.lists import Lists, Only, Sites
from ingest.sources.source import Source, as_read, make_item, printable
from pipeline.dates import today
from pipeline.records import SourceItem

PATHS = "object-paths.json.gz"
CHECKED_ON = "2022-12-15"
"""The day on which the data set's paper appeared: its licences and tags were read no later."""
NOAI_TAGS = frozenset({"noai", "no-ai"})


@dataclass(frozen=True, kw_only=True)
class Objaverse(Source):
    """Lists the collection by its own metadata files, 160 of them; with an id list, only those that are needed.

    Ids are Sketchfab's uids: 32 hexadecimal digits, alone, or at the end of a URL or a file name.
    """

    lists: Lists
    sites: Sites = field(default_factory=Sites)
    only: Only = field(default_factory=Only)
    sha256: Mapping[str, str] = field(default_factory=dict)
    """By uid, where somebody else knows it: Objaverse-XL does, this collection does not."""

    @property
    def name(self) -> str:
        """Always `objaverse`."""
        return "objaverse"

    def items(self, among: Iterable[str] | None = None) -> Iterator[SourceItem]:
        """The chosen objects, sorted by path; then the wanted ids that are not in the collection.

        Args:
            among: Uids to choose from; those of the id list, or else all, by default.

        Raises:
            ValueError: The lists cannot be had.
        """
        (paths,) = self.lists.json([f"{self.sites.objaverse}/{PATHS}"])
        wanted = self.only.wanted_ids if among is None else tuple(among)
        uids = paths if wanted is None else {uid_of(text): text for text in wanted}
        found = sorted((path, uid) for uid in uids if isinstance(path := paths.get(uid), str))
        listed = 0
        for metadata in self._metadata(sorted({path.split("/")[1] for path, _ in found if path.count("/") == 2})):
            here = [(path, uid) for path, uid in found if uid in metadata]
            for path, uid in here:
                if self._is_chosen(metadata[uid]):
                    yield self._item(uid, path, metadata[uid])
                    listed += 1
                    if listed == self.only.max_items:
                        return
        if wanted is not None:
            yield from (self._missing(text) for uid, text in uids.items() if uid not in paths)

    def _metadata(self, folders: Iterable[str]) -> Iterator[dict[str, Any]]:
        folders = list(folders)
        for start in range(0, len(folders), 8):
            urls = [f"{self.sites.objaverse}/metadata/{folder}.json.gz" for folder in folders[start : start + 8]]
            yield from self.lists.json(urls)

    def _is_chosen(self, about: Mapping[str, Any]) -> bool:
        if self.only.animated and not about.get("animationCount"):
            return False
        return self.only.has_words(names_of(about.get("tags")), names_of(about.get("categories")))

    def _item(self, uid: str, path: str, about: Mapping[str, Any]) -> SourceItem:
        return model_item(
            {**about, "uid": uid},
            source=self.name,
            uri=f"{self.sites.objaverse}/{path}",
            spdx=str(about.get("license") or ""),
            noai_unless_tagged=None,
            checked_on=CHECKED_ON,
            evidence=f"{self.sites.objaverse}/metadata/{path.split('/')[1]}.json.gz",
            archive="glb",
            expected_sha256=self.sha256.get(uid, ""),
        )

    def _missing(self, text: str) -> SourceItem:
        return make_item(source=self.name, uri="", name=printable(text), checked_on=CHECKED_ON)


def model_item(
    about: Mapping[str, Any],
    *,
    source: str,
    uri: str,
    spdx: str,
    noai_unless_tagged: bool | None,
    evidence: str,
    archive: str,
    checked_on: str = "",
    expected_sha256: str = "",
) -> SourceItem:
    """The item of a model of Sketchfab, from the metadata that its API gives and Objaverse has copied.

    Args:
        about: With the keys of the API.
        source: As it stands in the item.
        uri: Where the model is fetched.
        spdx: The licence as stated.
        noai_unless_tagged: The opt-out of a model without such a tag: None where tags may have been added since.
        evidence: Where the metadata were read.
        archive: Which of the model's archives is fetched: `glb` or `gltf`.
        checked_on: When licence and tags were read; today if empty.
        expected_sha256: If it is known.
    """
    uid, user = str(about["uid"]), about.get("user") or {}
    tags = names_of(about.get("tags"))
    return make_item(
        source=source,
        uri=uri,
        name=uid,
        title=printable(str(about.get("name") or "")),
        spdx=spdx,
        author=printable(str(user.get("displayName") or user.get("username") or "")),
        source_url=str(about.get("viewerUrl") or f"https://sketchfab.com/3d-models/{uid}"),
        noai=True if NOAI_TAGS & {tag.lower() for tag in tags} else noai_unless_tagged,
        checked_on=checked_on,
        evidence=evidence,
        evidence_text=as_read(about),
        noai_checked_on=checked_on or today(),
        expected_sha256=expected_sha256,
        num_bytes=_stated_size(about, archive),
        tags=tuple(dict.fromkeys((*tags, *names_of(about.get("categories"))))),
    )


def _stated_size(about: Mapping[str, Any], archive: str) -> int | None:
    found: Any = about
    for key in ("archives", archive, "size"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, int) and 0 < found < 1 << 63 else None


def uid_of(text: str) -> str:
    """Sketchfab's uid at the end of a URL, a path or a page's name."""
    return text.rstrip("/").rpartition("/")[2].removesuffix(".glb").rpartition("-")[2]


def names_of(entries: Any) -> tuple[str, ...]:
    """The names of Sketchfab's tags or categories."""
    if not isinstance(entries, list):
        return ()
    names = (entry.get("name") or entry.get("slug") for entry in entries if isinstance(entry, dict))
    return tuple(printable(str(name)) for name in names if name)
