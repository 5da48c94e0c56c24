"""Models that Sketchfab gives for download, by its Data API v3: found by a search, or by their uids.

Searching needs no account, downloading does: its API token is read from the environment variable `SKETCHFAB_TOKEN` when
it is sent, and is nowhere else, in no setting, table, log or error.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from ingest.archive import unpack_zip
from ingest.fetch import Fetched, Fetcher, FetchSettings
from ingest.refused import Refused
from ingest.sources.lists import Only, Sites
from ingest.sources.objaverse import model_item, uid_of
from ingest.sources.source import Source, make_item, printable
from pipeline.records import SourceItem

TOKEN = "SKETCHFAB_TOKEN"
MAX_ANSWER_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Sketchfab(Source):
    """Lists downloadable models as the search gives them, page after page; or the models of an id list.

    What is listed with `noai` among its tags counts as reserved from generative AI.
    """

    sites: Sites = field(default_factory=Sites)
    only: Only = field(default_factory=Only)
    fetch: FetchSettings = field(default_factory=FetchSettings)

    @property
    def name(self) -> str:
        """Always `sketchfab`."""
        return "sketchfab"

    def items(self) -> Iterator[SourceItem]:
        """The models.

        Raises:
            ValueError: The site does not answer as it should.
        """
        with closing(Fetcher(self.fetch)) as fetcher:
            found = self._searched(fetcher) if self.only.wanted_ids is None else self._named(fetcher)
            for listed, item in enumerate(found, start=1):
                yield item
                if listed == self.only.max_items:
                    return

    def _searched(self, fetcher: Fetcher) -> Iterator[SourceItem]:
        asked = {"type": "models", "downloadable": "true", "count": "24", "q": self.only.query}
        asked |= {"animated": "true"} if self.only.animated else {}
        asked |= {"tags": self.only.tags.replace(" ", ""), "categories": self.only.categories.replace(" ", "")}
        url = f"{self.sites.sketchfab}/search?{urlencode({key: value for key, value in asked.items() if value})}"
        while url:
            try:
                page = _json(fetcher, url)
                models = [model for model in page["results"] if model.get("uid")]
            except (Refused, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{url} is not answered as expected: {error!r}") from None
            yield from (self._item(model, url) for model in models if self._is_chosen(model))
            url = str(page.get("next") or "")
            if url and not url.startswith(f"{self.sites.sketchfab}/"):
                raise ValueError(f"the next page of the search is at another site: {url[:200]}")

    def _named(self, fetcher: Fetcher) -> Iterator[SourceItem]:
        for text in self.only.wanted_ids or ():
            uid = uid_of(text)
            try:
                model = _json(fetcher, f"{self.sites.sketchfab}/models/{quote(uid, safe='')}")
            except Refused as refused:
                if refused.reason != "not_found":
                    raise ValueError(f"{self.sites.sketchfab} does not tell of {uid}: {refused.detail}") from None
                yield make_item(source=self.name, uri="", name=printable(text))
                continue
            if isinstance(model, dict) and self._is_chosen(model):
                yield self._item({**model, "uid": uid})

    def _is_chosen(self, model: Mapping[str, Any]) -> bool:
        return bool(model.get("animationCount")) or not self.only.animated

    def _item(self, model: Mapping[str, Any], read_at: str = "") -> SourceItem:
        licence = model.get("license") or {}
        return model_item(
            model,
            source=self.name,
            uri=f"{self.sites.sketchfab}/models/{model['uid']}/download",
            spdx=str(licence.get("slug") or licence.get("label") or licence.get("fullName") or ""),
            noai_unless_tagged=False,
            evidence=read_at or f"{self.sites.sketchfab}/models/{model['uid']}",
            archive="gltf",
        )


def model_of(fetcher: Fetcher, sites: Sites, uid: str) -> tuple[Mapping[str, Any], SourceItem]:
    """What the site says of a model now, and the item that it would be.

    Raises:
        Refused: As `Fetcher.fetch`; `fetch_failed` too if the answer is none of the API's.
    """
    model = _json(fetcher, f"{sites.sketchfab}/models/{quote(uid, safe='')}")
    if not isinstance(model, dict) or not isinstance(model.get("license") or {}, dict):
        raise Refused("fetch_failed", "the site's answer describes no model")
    return model, Sketchfab(sites=sites)._item({**model, "uid": uid})


def is_download(uri: str, sites: Sites) -> bool:
    """Whether a URI is what `Sketchfab` gives its items."""
    return uri.startswith(f"{sites.sketchfab}/models/") and uri.endswith("/download")


def download(fetcher: Fetcher, uri: str, folder: Path, *, max_bytes: int) -> Fetched:
    """Download a model's glTF archive and unpack it; gives the .gltf, with its other files beside it.

    Args:
        fetcher: With what.
        uri: Of an item of `Sketchfab`.
        folder: An empty folder.
        max_bytes: Of the archive, and of what it unpacks to.

    Raises:
        Refused: As `Fetcher.fetch`, with `login_needed` if there is no token or it is not accepted; and `malformed`,
            `unsafe_uri` or `too_large` of the archive.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise Refused("login_needed", f"the environment variable {TOKEN} is not set")
    if not (token.isascii() and token.isprintable()):
        # Else the error of whoever refuses to send it would quote it.
        raise Refused("login_needed", f"the environment variable {TOKEN} holds what cannot be a token")
    answer = _json(fetcher, uri, {"Authorization": f"Token {token}"})
    try:
        url = str(answer["gltf"]["url"])
    except (KeyError, TypeError):
        raise Refused("unsupported_format", "Sketchfab offers no glTF of it") from None
    archive = fetcher.fetch(url, folder / "archive", max_bytes=max_bytes)
    (folder / "files").mkdir()
    files = unpack_zip(archive.path, folder / "files", max_bytes=max_bytes)
    main = next((path for path in files if path.suffix.lower() == ".gltf"), None)
    if main is None:
        raise Refused("malformed", "its archive holds no .gltf")
    return fetcher.fetch(str(main), main, max_bytes=max_bytes)


def _json(fetcher: Fetcher, url: str, headers: Mapping[str, str] | None = None) -> Any:
    with tempfile.TemporaryDirectory(prefix="mv4d-api-") as folder:
        answer = fetcher.fetch(url, Path(folder) / "answer", max_bytes=MAX_ANSWER_BYTES, headers=headers)
        try:
            return json.loads(answer.path.read_bytes())
        except ValueError:
            raise Refused("fetch_failed", "the site's answer is no JSON") from None
