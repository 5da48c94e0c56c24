"""What was taken down: a Parquet file beside the shards, which every stage, packing and reading honour."""

import io
import re
import time
from functools import lru_cache
from urllib.parse import urlsplit

import pyarrow.parquet as pq

from pipeline.storage import Store

REVOKED = "REVOKED.parquet"
"""In the folder of the shards: a table with a column `asset_id` or `clip_id`, or both."""
REVOKED_OF_ROOT = f"shards/{REVOKED}"
"""The same file, below the data root."""


def read_revoked(store: Store, path: str) -> frozenset[str]:
    """Ids of assets and clips that were taken down; none if there is no such file.

    Args:
        store: Of the data root or of the shards.
        path: The file in it.

    Raises:
        ValueError: The list has neither a column `asset_id` nor `clip_id`: nothing would be taken down by it.
    """
    try:
        content = store.read_bytes(path)
    except FileNotFoundError:
        return frozenset()
    table = pq.read_table(io.BytesIO(content))
    columns = [name for name in ("asset_id", "clip_id") if name in table.column_names]
    if not columns:
        raise ValueError(f"{path} has neither a column asset_id nor clip_id, but {table.column_names}")
    return frozenset(value for name in columns for value in table[name].to_pylist() if value)


class DenyList:
    """What is taken down at this moment: the file is looked at with every question, and read again when it changed."""

    def __init__(self, store: Store, path: str = REVOKED, *, remote_every_s: float = 30.0) -> None:
        """Nothing is read yet.

        Args:
            store: Of the shards, or of the data root.
            path: Of the list in it.
            remote_every_s: An object store is asked at most so often.
        """
        self._store, self._path = store, path
        self._every_s = 0.0 if store.is_local else remote_every_s
        self._looked_at = float("-inf")
        self._version = ""
        self._ids: frozenset[str] = frozenset()

    def has(self, *ids: str) -> bool:
        """Whether one of them, of an asset or a clip, was taken down."""
        now = time.monotonic()
        if now - self._looked_at >= self._every_s:
            # The version first: what is written in between is seen the next time.
            version = self._store.version(self._path)
            if version != self._version:
                self._ids = read_revoked(self._store, self._path)
                self._version = version
            self._looked_at = now
        return not self._ids.isdisjoint(ids)


@lru_cache(maxsize=16)
def deny_list(root: str) -> DenyList:
    """The list of a data root, one for all who ask in this process."""
    return DenyList(Store(root), REVOKED_OF_ROOT)


def same_page(one: str, other: str) -> bool:
    """Whether two addresses lead to the same thing.

    Scheme, `www.`, capitals in the host, a fragment and a slash at the end make no difference; and a page of Sketchfab
    is known by the 32 digits of its uid, for its name may change.
    """
    return bool(one and other) and _known_by(one) == _known_by(other)


@lru_cache(maxsize=65_536)
def _known_by(url: str) -> str:
    parts = urlsplit(url.strip())
    host = parts.netloc.lower().removeprefix("www.")
    uid = re.search(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", parts.path)
    if uid and host.endswith("sketchfab.com"):
        return f"sketchfab {uid[0]}"
    return f"{host}{parts.path.rstrip('/')}?{parts.query}"
