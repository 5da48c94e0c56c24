"""Which samples of a data set are trained on, and where their bytes lie: rows of `samples.parquet`, chosen by SQL."""

import io
import os
import re
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.revoked import REVOKED, read_revoked
from pipeline.storage import Store
from pipeline.tables import check_columns

INDEX = "samples.parquet"
PIECE = re.compile(r"-\d{4}(?=\.tar$)")
"""What `training.latents` adds to the name of a shard."""
SIDE_BY_SIDE = ("mv16", "ortho4")
"""Rigs whose cameras stand still, evenly spaced round the object: what MV-VDM is trained on."""


_TEXTS = ("key", "shard", "clip_id", "asset_id", "title", "action", "caption")
"""Columns of the index that a reader needs beside the parts."""
_PART = pa.struct([("name", pa.string()), ("offset", pa.int64()), ("num_bytes", pa.int64()), ("crc32", pa.int64())])
_COLUMNS = (
    *(pa.field(name, pa.string()) for name in (*_TEXTS, "split", "rig", "licence_class")),
    *(pa.field(name, pa.int64()) for name in ("num_views", "num_frames", "offset")),
    pa.field("parts", pa.list_(_PART)),
)
"""What is read of the index here; an index of an older version has less."""


class BrokenSample(Exception):
    """The bytes of a sample are not those that were packed."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which samples are used."""

    split: str = "train"
    rigs: tuple[str, ...] = SIDE_BY_SIDE
    """Names of rigs; empty for all."""
    licence_classes: tuple[str, ...] = ()
    """`cc0`, `permissive`, `by`, …; empty for all that were packed."""
    num_views: int = 4
    """Views of an example: samples whose ring does not give so many, evenly spaced, are left out."""
    num_frames: int = 16
    """Frames of an example: shorter samples are left out."""
    where: str = ""
    """SQL over the columns of `samples.parquet`, such as `motion_mean > 0.01 AND rigid_share < 0.9`."""


@dataclass(frozen=True)
class Part:
    """A member of a tar."""

    offset: int
    num_bytes: int
    crc32: int


@dataclass(frozen=True)
class Row:
    """A sample of the index."""

    key: str
    shard: str
    clip_id: str
    asset_id: str
    title: str
    action: str
    caption: str
    parts: dict[str, Part]
    """By name: `json`, `v00.webp`, …"""


class SampleIndex:
    """The selected samples in the order of the shards; cheap to send to worker processes."""

    def __init__(self, root: str, table: pa.Table) -> None:
        self.root = root
        """The folder or URL of the shards."""
        self._table = table

    @classmethod
    def open(cls, root: str, selection: Selection) -> "SampleIndex":
        """Read the index of a data set.

        Args:
            root: Folder or fsspec URL of the shards, or of the data root that holds `shards/`.
            selection: Which of its samples.

        Raises:
            FileNotFoundError: There is no index.
            ValueError: The selection is no SQL, or selects nothing; or an older version packed the data set
                (`OldTable`).
        """
        root, rows = selected_rows(root, selection)
        return cls(root, rows.select([*_TEXTS, "parts"]))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, place: int) -> Row:
        row = self._table.slice(place, 1).to_pylist()[0]
        parts = {part["name"]: Part(part["offset"], part["num_bytes"], part["crc32"]) for part in row["parts"]}
        return Row(**{name: row[name] for name in _TEXTS}, parts=parts)

    def moved(self) -> "SampleIndex":
        """The same samples in the same order, where they lie now that tars were written again.

        What is in the index no more stays as it was.
        """
        now = _read_index(Store(self.root)).select([*_TEXTS, "parts"])
        both = pa.concat_tables([self._table, now.cast(self._table.schema)])
        place_of = {key: len(self) + place for place, key in enumerate(now["key"].to_pylist())}
        places = [place_of.get(key, place) for place, key in enumerate(self._table["key"].to_pylist())]
        return SampleIndex(self.root, both.take(pa.array(places)).combine_chunks())

    @cached_property
    def shard_starts(self) -> tuple[int, ...]:
        """The place of each shard's first sample; latents stand in several tars a shard, which count as one."""
        shards = [PIECE.sub("", shard) for shard in self._table["shard"].to_pylist()]
        return tuple(place for place, shard in enumerate(shards) if place == 0 or shard != shards[place - 1])


def folder_of(root: str) -> str:
    """The folder of the shards, given it or the data root that holds it."""
    return root if Store(root).exists(INDEX) else f"{root.rstrip('/')}/shards"


def selected_rows(root: str, selection: Selection) -> tuple[str, pa.Table]:
    """The folder of the shards, and the selected rows of its index with all columns, in the order of the shards.

    Arguments and errors as of `SampleIndex.open`.
    """
    root = folder_of(root)
    store = Store(root)
    if not store.exists(INDEX):
        raise FileNotFoundError(f"no {INDEX} in {root}: run `mv4d pack`, or give the folder of the shards")
    rows = _select(_read_index(store), read_revoked(store, REVOKED), selection)
    if rows.num_rows == 0:
        raise ValueError(f"no sample of {root} is in the selection {selection}")
    return root, rows


def _read_index(store: Store) -> pa.Table:
    table = pq.read_table(io.BytesIO(store.read_bytes(INDEX)))
    check_columns(f"{INDEX} in {store.root}", table, _COLUMNS)
    return table


def _select(samples: pa.Table, revoked: frozenset[str], selection: Selection) -> pa.Table:
    conditions = [
        "split = $split",
        "num_views % $num_views = 0",
        "num_frames >= $num_frames",
        "(len($rigs::VARCHAR[]) = 0 OR list_contains($rigs::VARCHAR[], rig))",
        "(len($licences::VARCHAR[]) = 0 OR list_contains($licences::VARCHAR[], licence_class))",
        "asset_id NOT IN (SELECT id FROM revoked)",
        "clip_id NOT IN (SELECT id FROM revoked)",
    ]
    if selection.where:
        conditions.append(f"({selection.where})")
    with duckdb.connect() as con:
        con.register("samples", samples)
        con.register("revoked", pa.table({"id": pa.array(sorted(revoked), pa.string())}))
        con.execute("SET enable_external_access = false")
        try:
            found = con.sql(
                f'SELECT * FROM samples WHERE {" AND ".join(conditions)} ORDER BY shard, "offset"',
                params={
                    "split": selection.split,
                    "num_views": selection.num_views,
                    "num_frames": selection.num_frames,
                    "rigs": list(selection.rigs),
                    "licences": list(selection.licence_classes),
                },
            )
        except duckdb.Error as error:
            raise ValueError(f"the condition {selection.where!r} is not understood: {error}") from error
        table: pa.Table = found.to_arrow_table()
        return table.combine_chunks()


@dataclass
class ShardReader:
    """Exact reads out of tars: one `pread` a part on a local disk, one range request elsewhere."""

    root: str
    _open: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By path: file descriptor, and the process that opened it."""
    max_open: int = 256

    def read(self, shard: str, part: Part) -> bytes:
        """The bytes of a part.

        Raises:
            BrokenSample: They are not the bytes that were packed.
            FileNotFoundError: The shard is not there.
        """
        content = self._read(shard, part)
        if len(content) != part.num_bytes or zlib.crc32(content) != part.crc32:
            raise BrokenSample(f"{shard} at {part.offset}: {len(content)} bytes with another checksum than the index's")
        return content

    def _read(self, shard: str, part: Part) -> bytes:
        if not self._store.is_local:
            end = part.offset + part.num_bytes
            return bytes(self._store.fs.cat_file(self._store.path(shard), start=part.offset, end=end))
        return os.pread(self._descriptor(shard), part.num_bytes, part.offset)

    def _descriptor(self, shard: str) -> int:
        found = self._open.get(shard)
        if found and found[1] == os.getpid():
            return found[0]
        if len(self._open) >= self.max_open:
            _, (descriptor, owner) = self._open.popitem()
            if owner == os.getpid():
                os.close(descriptor)
        descriptor = os.open(self._store.path(shard), os.O_RDONLY | os.O_CLOEXEC)
        self._open[shard] = (descriptor, os.getpid())
        return descriptor

    @cached_property
    def _store(self) -> Store:
        return Store(self.root)

    def close(self) -> None:
        """Close the files: they are opened anew when they are needed."""
        for descriptor, owner in self._open.values():
            if owner == os.getpid():
                os.close(descriptor)
        self._open.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "_open": {}, "max_open": self.max_open}
