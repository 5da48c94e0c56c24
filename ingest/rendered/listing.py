"""What a rendered data set lists, together with what is known of its models: the inputs of an import."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ingest.fetch import FetchSettings
from ingest.licence_claims import parse_claim
from ingest.register import register
from ingest.rendered.clips import RenderedClip
from ingest.sources.lists import Lists, Only, Sites
from ingest.sources.manifest import Manifest
from ingest.sources.objaverse import Objaverse, uid_of
from ingest.sources.samples import default_cache
from ingest.sources.sketchfab import Sketchfab
from ingest.sources.source import COMMAND_LINE, Source, make_item, path_uri, printable
from pipeline.records import SourceItem
from pipeline.tables import Tables

SKETCHFAB_PAGE = "https://sketchfab.com/3d-models/"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A clip as it lies in a folder, before anybody knows whose model it shows."""

    model_id: str
    action: str
    name: str
    """Its path in the data set, without what is the same for all."""
    place: str
    """Folder of its files, below the root."""
    files: tuple[str, ...]
    entry: str
    url: str = ""
    """The model's page, as the data set names it."""
    refused: tuple[str, str] = ("", "")
    """Reason and detail, if the listing is already at fault: the import turns it away with them."""


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Where the models' licences, authors, titles and tags are read; neither data set carries them."""

    licences: str = ""
    """By commas, the first that knows a model counts: a manifest (.csv, .jsonl, .parquet) with a column `uid`, `sha256`
    or `url` beside the licence; `objaverse` for the published metadata of Objaverse 1.0; `sketchfab` to ask the site
    for each model."""
    licence: str = ""
    """SPDX id for models of which nothing else is said. Claim only what you know."""
    author: str = ""
    """Of models that name nobody."""
    sites: Sites = field(default_factory=Sites)
    fetch: FetchSettings = field(default_factory=FetchSettings)

    def read(self, model_ids: Iterable[str], *, cache: Path | None = None) -> Mapping[str, SourceItem]:
        """What is known of models, by uid and by sha256.

        Args:
            model_ids: Those that are asked for.
            cache: Where published lists are kept; a folder of the user's by default.

        Raises:
            ValueError: A list cannot be had, or is no table of models.
        """
        wanted = list(dict.fromkeys(model_ids))
        known: dict[str, SourceItem] = {}
        for spec in (word for part in self.licences.split(",") if (word := part.strip())):
            asked = [model_id for model_id in wanted if model_id not in known]
            for item in self._items(spec, asked, cache or default_cache()):
                for key in _keys_of(item):
                    known.setdefault(key, item)
        return known

    def _items(self, spec: str, model_ids: list[str], cache: Path) -> Iterator[SourceItem]:
        uids = [model_id for model_id in model_ids if len(model_id) == 32]
        if spec == "objaverse":
            lists = Lists(cache=cache, fetch=self.fetch)
            objaverse = Objaverse(lists=lists, sites=self.sites, only=Only(animated=False))
            yield from (item for item in objaverse.items(uids) if item.uri)
        elif spec == "sketchfab":
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
                file.write("\n".join(uids))
                file.flush()
                only = Only(ids=file.name, animated=False)
                sketchfab = Sketchfab(sites=self.sites, only=only, fetch=self.fetch)
                yield from (item for item in (sketchfab.items() if uids else ()) if item.uri)
        else:
            yield from Manifest(path=Path(spec).expanduser(), of_models=True).items()


@dataclass(frozen=True, kw_only=True)
class RenderedSource(Source):
    """The items of a rendered data set: one a clip."""

    data_set: str
    statement: str
    """What the data set says of its own licence and of opt-outs."""
    noai: bool | None
    """The opt-out of models of which nothing else is said, where the data set's statement covers it."""
    root: Path
    listed: tuple[Listed, ...]
    claims: Claims
    known: Mapping[str, SourceItem]

    @property
    def name(self) -> str:
        """That of the data set."""
        return self.data_set

    def items(self) -> Iterator[SourceItem]:
        """One a clip, in the order of the listing."""
        return (self.item(listed) for listed in self.listed)

    def clips(self, tables: Tables) -> Iterator[RenderedClip]:
        """The clips, their items registered in a data root."""
        by_id = {self.item(listed).item_id: listed for listed in self.listed}
        for item in register(tables, self):
            yield self.clip(item, by_id[item.item_id])

    def clip(self, item: SourceItem, listed: Listed) -> RenderedClip:
        """What an import takes in."""
        return RenderedClip(
            item=item,
            model_id=listed.model_id,
            action=listed.action,
            root=str(self.root),
            files=listed.files,
            entry=listed.entry,
            refused=listed.refused,
        )

    def item(self, listed: Listed) -> SourceItem:
        """The item of a clip: what is known of its model, and what the data set says."""
        about = self.known.get(listed.model_id)
        page = listed.url or (SKETCHFAB_PAGE + listed.model_id if len(listed.model_id) == 32 else "")
        make = partial(
            make_item,
            source=self.data_set,
            uri=path_uri(self.root / listed.place),
            name=printable(listed.name),
            licence_text=self.statement,
        )
        if about is None:
            return make(
                title=listed.model_id,
                spdx=self.claims.licence,
                author=self.claims.author,
                source_url=page,
                noai=self.noai,
                evidence=COMMAND_LINE if self.claims.licence else "",
                expected_sha256=_sha256(listed.model_id),
            )
        stated = about.spdx or parse_claim(about.licence_text)
        says_something = bool(stated or about.licence_url)
        item = make(
            title=about.title,
            spdx=stated if says_something else self.claims.licence,
            licence_url=about.licence_url,
            author=about.author or self.claims.author,
            source_url=about.source_url or page,
            noai=self.noai if about.noai is None else about.noai,
            checked_on=about.checked_on,
            evidence=about.evidence if says_something or not self.claims.licence else COMMAND_LINE,
            noai_checked_on="" if about.noai is None else about.noai_checked_on,
            expected_sha256=_sha256(listed.model_id) or about.expected_sha256,
            tags=about.tags,
        )
        return replace(item, evidence_sha256=about.evidence_sha256 if says_something else "")


def _sha256(model_id: str) -> str:
    return model_id if len(model_id) == 64 else ""


def _keys_of(item: SourceItem) -> set[str]:
    """The ids by which a model may be asked for."""
    return {uid_of(item.name), uid_of(item.source_url), item.expected_sha256} - {""}
