"""What a run was shown, for those who must name whose work is in a model: `mv4d attribution --run FOLDER` reads it.

A run writes one file each time that it begins or goes on, from the place of the stream at which it did so, and writes
it again with each checkpoint. The rows carry the credits, so that they are there after an asset has been taken down.
"""

import dataclasses
import io
import json
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage import Store
from pipeline.tables import check_columns
from training.data.index import Selection, selected_rows
from training.data.order import Stream

COLUMNS = ("key", "clip_id", "asset_id", "shard", "title", "spdx", "licence_class", "attribution", "source_url")


def credited_rows(root: str, selection: Selection) -> pa.Table:
    """What is written of each sample, in the order of `SampleIndex`; to be read when a run begins.

    Arguments and errors as of `SampleIndex.open`.
    """
    root, rows = selected_rows(root, selection)
    check_columns(f"the index in {root}", rows, [pa.field(name, pa.string()) for name in COLUMNS])
    return rows.select(list(COLUMNS))


def times_shown(stream: Stream, start: int, end: int) -> np.ndarray:
    """How often each sample stands in places `start` to `end` - 1 of a stream. Shape (sample,), int64."""
    if not 0 <= start <= end:
        raise ValueError(f"need 0 <= start <= end, got {start} and {end}")
    times = np.zeros(stream.num_samples, dtype=np.int64)
    for passes in range(start // stream.num_samples, -(-end // stream.num_samples)):
        first = passes * stream.num_samples
        order = stream.permutation(passes)
        times[order[max(0, start - first) : end - first]] += 1
    return times


def write_seen(
    folder: str, rows: pa.Table, stream: Stream, *, start: int, end: int, stand_ins: Collection[str] = ()
) -> str:
    """Write what was shown at some places of a stream; returns the file's name.

    Samples that were broken or taken down in the meantime are named too: they stand in the order.

    Args:
        folder: Of the run; a path or an fsspec URL.
        rows: Of `credited_rows`, for the same selection as the stream's samples.
        stream: The order.
        start: The place at which this process began.
        end: The place up to which examples were used.
        stand_ins: Keys of examples that were shown in the place of others: those whose `num_broken` is not 0.

    Raises:
        ValueError: The rows are not those of the stream.
    """
    if rows.num_rows != stream.num_samples:
        raise ValueError(f"{rows.num_rows} rows for a stream of {stream.num_samples} samples")
    times = times_shown(stream, start, end)
    if stand_ins:
        keys = np.asarray(rows["key"].to_pylist())
        times += np.isin(keys, list(stand_ins)) & (times == 0)
    about = {"start": start, "end": end, "stream": dataclasses.asdict(stream)}
    seen = rows.append_column("times", pa.array(times)).filter(pa.array(times > 0))
    seen = seen.replace_schema_metadata({"mv4d_seen": json.dumps(about)})
    buffer = io.BytesIO()
    pq.write_table(seen, buffer, compression="zstd")
    name = f"seen-{start:012d}.parquet"
    Store(folder).write_bytes(name, buffer.getvalue())
    return name
