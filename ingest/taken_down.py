"""Keeps out what somebody asked to be taken down: by address, by author, and by the bytes themselves."""

import time

from ingest.refused import Refused
from pipeline.records import SourceItem, TakeDown
from pipeline.revoked import deny_list, same_page
from pipeline.tables import Tables

_READ_AGAIN_S = 30.0


class TakenDown:
    """What may not come in again. Requests that come during a run are heard after half a minute."""

    def __init__(self, tables: Tables) -> None:
        """Nothing is read yet.

        Args:
            tables: Of the data root.
        """
        self._tables = tables
        self._read_at = float("-inf")
        self._requests: list[TakeDown] = []

    def check_item(self, item: SourceItem) -> None:
        """Refuse an item by its address or author.

        Raises:
            Refused: `revoked`.
        """
        if time.monotonic() - self._read_at > _READ_AGAIN_S:
            self._read_at = time.monotonic()
            self._requests = self._tables.rows(TakeDown)
        for request in self._requests:
            if means_item(request, item):
                raise Refused("revoked", f"its {request.kind} was taken down on {request.asked_on}")

    def check_bytes(self, sha256: str) -> None:
        """Refuse bytes, whatever they are called and wherever they come from.

        Raises:
            Refused: `revoked`.
        """
        if deny_list(self._tables.store.root).has(sha256):
            raise Refused("revoked", f"the asset {sha256} was taken down")


def means_item(request: TakeDown, item: SourceItem) -> bool:
    """Whether a request is about an item that a source lists."""
    if any(same_page(page, url) for page in (item.uri, item.source_url) for url in request.urls):
        return True
    if request.kind == "author":
        return item.author.casefold().strip() == request.value.casefold().strip()
    return request.kind == "url" and any(same_page(request.value, url) for url in (item.uri, item.source_url))
