"""Attribution for what somebody uses of a data set: all of it, some tars, or what a training run was shown.

Reads the papers beside the tars and nothing else, so it works on a downloaded copy as well.
"""

import fnmatch
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage import Store
from shards.attribution import CHANGES, attribution_markdown, attribution_parquet

SEEN = "seen-*.parquet"
"""What a training run leaves in its folder: one row a sample that it was shown (`training.data.seen`)."""


class Incomplete(ValueError):
    """Some asset would go without credit."""


def published(root: str) -> Store:
    """The folder of the tars: as it is, or `shards/` of a data root.

    Raises:
        ValueError: There are no papers in it.
    """
    for folder in (root, f"{root.rstrip('/')}/shards"):
        store = Store(folder)
        if store.exists("samples.parquet") and store.exists("attribution.parquet"):
            return store
    raise ValueError(f"{root} has no samples.parquet and attribution.parquet: run `mv4d pack`, or give another --data")


def credits_of_shards(store: Store, patterns: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The entries of `attribution.parquet` for the assets in some tars, with their samples there.

    Args:
        store: Of the folder of the tars.
        patterns: Paths below it, `by/train/mv-00000?.tar`; with the folder's own path before them, too. None for all.

    Raises:
        ValueError: A pattern fits no tar.
        Incomplete: An asset is in the tars and not in `attribution.parquet`.
    """
    table = pq.read_table(io.BytesIO(store.read_bytes("samples.parquet")), columns=["shard", "asset_id"])
    tars = sorted(set(table["shard"].to_pylist()))
    chosen: set[str] = set()
    for pattern in patterns or ("*",):
        found = [tar for tar in tars if fnmatch.fnmatch(tar, pattern) or pattern.endswith(f"/{tar}")]
        if not found:
            raise ValueError(f"no tar of {store.root} is called {pattern}; they are called {', '.join(tars[:3])}, …")
        chosen.update(found)
    samples = Counter(row["asset_id"] for row in table.to_pylist() if row["shard"] in chosen)
    return _entries(samples, _known(store))


def credits_of_run(run: str, store: Store | None = None) -> list[dict[str, Any]]:
    """The entries for the assets that a training run was shown, those among them that were taken down since as well.

    Args:
        run: The run's folder.
        store: Of the tars' folder, which knows more of each asset than the run does.

    Raises:
        ValueError: The run left no list of what it was shown.
    """
    folder = Store(run)
    files = [file for file in folder.list_files("", ".parquet") if fnmatch.fnmatch(file.rpartition("/")[2], SEEN)]
    if not files:
        raise ValueError(f"no {SEEN} in {run}: give the folder of a training run")
    tables = [pq.read_table(io.BytesIO(folder.read_bytes(file))) for file in files]
    shown = {row["key"]: row for row in pa.concat_tables(tables, promote_options="permissive").to_pylist()}
    empty = dict.fromkeys(("author", "licence_url", "licence_text", "checked_on"), "")
    known = {
        row["asset_id"]: {**empty, **row, "source_status": "not in the data set now", "noai": None, "changes": CHANGES}
        for row in shown.values()
    }
    if store:
        known |= _known(store)
    return _entries(Counter(row["asset_id"] for row in shown.values()), known)


def write_attribution(out: Store, entries: Sequence[dict[str, Any]], where: str) -> list[str]:
    """Write `ATTRIBUTION.md` and `attribution.parquet`; returns their names."""
    papers = {
        "ATTRIBUTION.md": attribution_markdown(entries, where).encode(),
        "attribution.parquet": attribution_parquet(entries),
    }
    for name, content in papers.items():
        out.write_bytes(name, content)
    return list(papers)


def _known(store: Store) -> dict[str, dict[str, Any]]:
    table = pq.read_table(io.BytesIO(store.read_bytes("attribution.parquet")))
    return {row["asset_id"]: row for row in table.to_pylist()}


def _entries(samples: Counter[str], known: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    missing = sorted(asset_id for asset_id in samples if not (known.get(asset_id) or {}).get("attribution"))
    if missing:
        raise Incomplete(
            f"{len(missing)} assets have no line of credit, {missing[0]} the first: run `mv4d pack`, which writes "
            "attribution.parquet anew"
        )
    entries = [{**known[asset_id], "num_samples": number} for asset_id, number in samples.items()]
    return sorted(entries, key=lambda entry: (entry["spdx"], entry["title"], entry["asset_id"]))
