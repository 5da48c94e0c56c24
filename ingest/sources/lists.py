"""What the published collections have in common: where they are, which of their objects are wanted, and their lists."""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ingest.fetch import Fetcher, FetchSettings
from ingest.refused import Refused

MAX_LIST_BYTES = 4 << 30
"""Of a list, as downloaded and as unpacked."""
ID_COLUMNS = ("uid", "fileidentifier", "file_identifier", "id", "sha256", "url")
"""Names of the column of an id list, in any case; the first that is there counts, else the first column."""


@dataclass(frozen=True, kw_only=True)
class Sites:
    """Base addresses of the collections; change them to read from a mirror."""

    objaverse: str = "https://huggingface.co/datasets/allenai/objaverse/resolve/main"
    objaverse_xl: str = "https://huggingface.co/datasets/allenai/objaverse-xl/resolve/main"
    sketchfab: str = "https://api.sketchfab.com/v3"
    github_raw: str = "https://raw.githubusercontent.com"
    github_media: str = "https://media.githubusercontent.com/media"
    """Where GitHub serves what a repository keeps in Git LFS."""
    thingiverse: str = "https://www.thingiverse.com"


@dataclass(frozen=True, kw_only=True)
class Only:
    """Which objects of a published collection are listed. The licence policy judges them afterwards."""

    animated: bool = True
    """Only those that the collection knows to be animated or, where it does not say, whose format can be."""
    ids: str = ""
    """File of ids: plain text, one a line, a JSON list, or a CSV whose column is called uid, fileIdentifier, sha256 or
    url. Ids that the collection lacks become rows, too."""
    tags: str = ""
    """By commas; an object needs one of them."""
    categories: str = ""
    """By commas; an object needs one of them."""
    query: str = ""
    """Words to search for, where the site has a search: Sketchfab."""
    max_items: int = 0
    """The first so many; 0 is all."""

    def __post_init__(self) -> None:
        if self.max_items < 0:
            raise ValueError(f"only.max_items must not be negative, got {self.max_items}")
        if self.ids and not Path(self.ids).expanduser().is_file():
            raise ValueError(f"only.ids: {self.ids} is not there: check the path")

    @cached_property
    def wanted_ids(self) -> tuple[str, ...] | None:
        """The ids in their file's order, each once; None for all.

        Raises:
            ValueError: The file holds none.
        """
        if not self.ids:
            return None
        ids = tuple(dict.fromkeys(_read_ids(Path(self.ids).expanduser())))
        if not ids:
            raise ValueError(f"only.ids: {self.ids} holds no id: write one a line")
        return ids

    def has_words(self, tags: Iterable[str], categories: Iterable[str]) -> bool:
        """Whether an object has one of the wanted tags and one of the wanted categories."""
        return _matches(self.tags, tags) and _matches(self.categories, categories)


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Downloads lists into a cache, once. A list that changed at its source is fetched anew after it is deleted."""

    cache: Path
    fetch: FetchSettings = field(default_factory=FetchSettings)

    def paths(self, urls: Iterable[str]) -> list[Path]:
        """The lists as files of this machine, in the given order.

        Raises:
            ValueError: One of them cannot be had; says why and what to do.
        """
        fetcher = Fetcher(self.fetch)
        with contextlib.closing(fetcher), ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda url: self._path(fetcher, url), urls))

    def json(self, urls: Iterable[str]) -> list[Any]:
        """The content of lists of gzipped JSON.

        Raises:
            ValueError: As `paths`; or one is no gzipped JSON.
        """
        urls = list(urls)
        return [_read_json(url, path) for url, path in zip(urls, self.paths(urls), strict=True)]

    def _path(self, fetcher: Fetcher, url: str) -> Path:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", url.rpartition("/")[2])[-80:]
        path = self.cache / "lists" / hashlib.sha256(url.encode()).hexdigest()[:16] / name
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            try:
                fetched = fetcher.fetch(url, Path(scratch) / "list", max_bytes=MAX_LIST_BYTES)
            except Refused as refused:
                raise ValueError(f"the list {url} cannot be had: {refused.detail}") from None
            os.replace(fetched.path, path)
        return path


def _read_json(url: str, path: Path) -> Any:
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_LIST_BYTES + 1)
        if len(content) > MAX_LIST_BYTES:
            raise ValueError(f"it unpacks to more than {MAX_LIST_BYTES} bytes")
        return json.loads(content)
    except (OSError, EOFError, ValueError) as error:
        path.unlink(missing_ok=True)
        raise ValueError(f"the list {url} is no gzipped JSON: {error}") from None


def _read_ids(path: Path) -> list[str]:
    text = path.read_text("utf-8-sig", errors="replace")
    if text.lstrip().startswith("["):
        return [str(entry).strip() for entry in json.loads(text) if str(entry).strip()]
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    header = [name.strip().lower() for name in rows[0]] if rows else []
    column = next((header.index(name) for name in ID_COLUMNS if name in header), None)
    cells = [row[column or 0].strip() for row in rows[column is not None :] if len(row) > (column or 0)]
    return [cell for cell in cells if cell]


def _matches(wanted: str, found: Iterable[str]) -> bool:
    words = {word.strip().lower() for word in wanted.split(",") if word.strip()}
    return not words or bool(words & {word.lower() for word in found})
