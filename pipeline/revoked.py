"""What was taken down: a Parquet file beside the shards, which packing and reading honour."""

import io

import pyarrow.parquet as pq

from pipeline.storage import Store

REVOKED = "REVOKED.parquet"
"""In the folder of the shards: a table with a column `asset_id` or `clip_id`, or both."""


def read_revoked(store: Store, path: str) -> frozenset[str]:
    """Ids of assets and clips that were taken down; none if there is no such file.

    Args:
        store: Of the data root or of the shards.
        path: The file in it.

    Raises:
        ValueError: The list has neither a column `asset_id` nor `clip_id`: nothing would be taken down by it.
    """
    if not store.exists(path):
        return frozenset()
    table = pq.read_table(io.BytesIO(store.read_bytes(path)))
    columns = [name for name in ("asset_id", "clip_id") if name in table.column_names]
    if not columns:
        raise ValueError(f"{path} has neither a column asset_id nor clip_id, but {table.column_names}")
    return frozenset(value for name in columns for value in table[name].to_pylist() if value)
