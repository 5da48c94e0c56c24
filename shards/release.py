"""The index that goes out with the shards, so that they can be used without the tables they came from."""

import io
from dataclasses import dataclass
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from shards.captions import best_captions, metadata_caption

INDEX = "shards/samples.parquet"
CHANGES_PAGE = "shards/CHANGES.md"
"""What was taken down, version by version."""
ROW_GROUP = 16_384


@dataclass(frozen=True)
class Column:
    """A column of `samples.parquet`."""

    name: str
    kind: Literal["string", "integer", "number", "boolean", "list"]
    source: str
    """SQL, over the views s (samples), c (clips_full) and w (captions)."""
    meaning: str


_KNOWN = "known"
"""What was not measured is NaN in the tables, and greater than every number to DuckDB; in the index it is null."""
COLUMNS: tuple[Column, ...] = (
    Column("key", "string", "s.sample_key", "Name of the sample's members up to the first dot."),
    Column("shard", "string", "s.shard[8:]", "The tar, relative to this folder."),
    Column("split", "string", "s.split", "train, val or test."),
    Column("licence_class", "string", "s.licence_class", "cc0, permissive, by, by-sa, ..."),
    Column("offset", "integer", 's."offset"', "Of the sample's first tar header, bytes."),
    Column("num_bytes", "integer", "s.num_bytes", "To the end of its last member, padding included."),
    Column("clip_id", "string", "s.clip_id", "animation + rig + render settings + seed."),
    Column("animation_id", "string", "c.animation_id", "asset + action + window."),
    Column("asset_id", "string", "s.asset_id", "sha256 of the asset's file."),
    Column("family_id", "string", "c.family_id", "Hash of the rest geometry; splits are drawn by it."),
    Column("caption", "string", "w.text", "The best there is: stored ones first, else made of title, action and tags."),
    Column("caption_source", "string", "w.source", "file:, model: or data_set: with a name, or metadata."),
    Column("title", "string", "c.title", "The asset's title, as its author gave it."),
    Column("action", "string", "c.action_name", "The animation's name in the file."),
    Column("tags", "string", "array_to_string(c.tags, ', ')", "The source's tags."),
    Column("rig", "string", "c.rig", "Name of the set of cameras."),
    Column("num_views", "integer", "c.num_views", "Strips of the sample."),
    Column("num_frames", "integer", "c.num_frames", "Frames of each strip."),
    Column("width", "integer", "c.width", "Of a frame, pixels."),
    Column("height", "integer", "c.height", "Of a frame, pixels."),
    Column("fps", "number", "c.fps", "Frames a second."),
    Column("duration_s", "number", "c.duration_s", "Seconds."),
    Column("backdrop", "string", "c.backdrop", "#rrggbb behind the object where there is no alpha; else empty."),
    Column("motion_mean", "number", f"{_KNOWN}(c.motion_mean)", "Mean vertex displacement, share of the diagonal."),
    Column("rigid_share", "number", f"{_KNOWN}(c.rigid_share)", "Share of the motion that one rigid move explains."),
    Column("image_m", "number", "c.m", "Mean square change of the pictures, 0..1."),
    Column("spdx", "string", "c.spdx", "SPDX id or expression."),
    Column("attribution", "string", "c.attribution", "One line of credit, ready to print."),
    Column("source_url", "string", "c.source_url", "Page where the asset and its licence can be seen."),
    Column("parts", "list", "s.parts", "Of each member: name, offset of its data, num_bytes, crc32, sha256."),
)

TRUTH_COLUMNS: tuple[Column, ...] = (
    Column("key", "string", "sample_key", "Of the sample in `samples.parquet` that it belongs to."),
    Column("name", "string", "name", "The pass: depth, normal, flow_forward, ..."),
    Column("shard", "string", "shard[8:]", "The tar, relative to this folder."),
    Column("split", "string", "split", "train, val or test."),
    Column("licence_class", "string", "licence_class", "As of the sample."),
    Column("offset", "integer", '"offset"', "Of its first tar header, bytes."),
    Column("num_bytes", "integer", "num_bytes", "To the end of its last member, padding included."),
    Column("parts", "list", "parts", "Of each member: name, offset of its data, num_bytes, crc32, sha256."),
)
"""Of `truth.parquet`; the sources are SQL over the view truth_samples."""


def truth_parquet(con: duckdb.DuckDBPyConnection) -> bytes:
    """`truth.parquet`: one row a sample and pass, in the order of the tars; nothing if there are none.

    Args:
        con: From `shards.views.connect`.
    """
    columns = ", ".join(f'{column.source} AS "{column.name}"' for column in TRUTH_COLUMNS)
    query = f'SELECT {columns} FROM truth_samples ORDER BY truth_samples.shard, truth_samples."offset"'
    table: pa.Table = con.sql(query).to_arrow_table().combine_chunks()
    if table.num_rows == 0:
        return b""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=ROW_GROUP)
    return buffer.getvalue()


def index_parquet(con: duckdb.DuckDBPyConnection) -> bytes:
    """`samples.parquet`: one row a sample, in the order of the shards.

    Args:
        con: From `shards.views.connect`.
    """
    columns = ",\n    ".join(f'{column.source} AS "{column.name}"' for column in COLUMNS)
    con.execute(f"CREATE OR REPLACE TEMP MACRO {_KNOWN}(number) AS CASE WHEN isfinite(number) THEN number END")
    con.register("words", _captions(con))
    query = (
        f"SELECT {columns}\nFROM samples AS s JOIN clips_full AS c USING (clip_id) JOIN words AS w USING (clip_id)\n"
        'ORDER BY s.shard, s."offset"'
    )
    table: pa.Table = con.sql(query).to_arrow_table().combine_chunks()
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=ROW_GROUP)
    return buffer.getvalue()


def _captions(con: duckdb.DuckDBPyConnection) -> pa.Table:
    """`clip_id`, `text` and `source` for each packed clip, as its `KEY.json` has them."""
    query = "SELECT clip_id, title, action_name, tags FROM samples JOIN clips_full USING (clip_id)"
    rows = con.execute(query).fetchall()
    stored = best_captions(con, [row[0] for row in rows])
    words = [stored.get(clip_id) or metadata_caption(title, action, tags) for clip_id, title, action, tags in rows]
    columns = {"clip_id": [row[0] for row in rows], "text": [word.text for word in words]}
    columns["source"] = [word.source for word in words]
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
