"""What a source is, and how an item is made."""

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.dates import today
from pipeline.records import SourceItem, content_id

COMMAND_LINE = "command line"
"""`evidence` of a licence that nobody but the caller claims."""
NOT_REGISTERED = -1
"""`seq` of an item as a source lists it; `register` gives it its place."""


class Source(ABC):
    """Lists items, lazily and always in the same order."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As it stands in `SourceItem.source`."""

    @abstractmethod
    def items(self) -> Iterator[SourceItem]:
        """The items.

        Raises:
            ValueError: The source cannot be read; says what to do.
        """


def make_item(
    *,
    source: str,
    uri: str,
    name: str,
    title: str = "",
    spdx: str = "",
    licence_text: str = "",
    licence_url: str = "",
    author: str = "",
    source_url: str = "",
    noai: bool | None = None,
    checked_on: str = "",
    evidence: str = "",
    evidence_text: str = "",
    noai_checked_on: str = "",
    expected_sha256: str = "",
    num_bytes: int | None = None,
    tags: Sequence[str] = (),
) -> SourceItem:
    """An item with its id. Of `evidence_text`, what was read at `evidence`, the hash is kept.

    What decides the item's fate is part of the id: after a licence or a checksum is corrected in its source, the same
    file is a new item, and is looked at again.
    """
    decisive = [uri, name, spdx, licence_url, noai, expected_sha256]
    if not spdx:
        decisive.append(licence_text)
    return SourceItem(
        item_id=content_id(*decisive),
        seq=NOT_REGISTERED,
        source=source,
        uri=uri,
        name=name,
        title=title or re.split(r"[\\/]", name)[-1].partition(".")[0],
        spdx=spdx,
        licence_text=licence_text,
        licence_url=licence_url,
        author=author,
        source_url=source_url,
        noai=noai,
        checked_on=checked_on or today(),
        evidence=evidence,
        evidence_sha256=hashlib.sha256(evidence_text.encode()).hexdigest() if evidence_text else "",
        noai_checked_on=noai_checked_on or (checked_on or today() if noai is not None else ""),
        expected_sha256=expected_sha256,
        num_bytes=num_bytes,
        tags=tuple(tags),
    )


def as_read(row: Mapping[str, Any]) -> str:
    """A row or answer as text to be hashed: equal content, equal text."""
    return json.dumps(row, sort_keys=True, default=str)


def path_uri(path: Path) -> str:
    """The absolute path as text; a `file:` URL where its name is not text."""
    absolute = os.path.abspath(path)
    try:
        absolute.encode("utf-8")
    except UnicodeEncodeError:
        return Path(absolute).as_uri()
    return absolute


def printable(name: str) -> str:
    """A file's name as text that can be stored."""
    return name.encode("utf-8", "replace").decode("utf-8")
