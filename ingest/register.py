"""Gives listed items their place in the table `items`."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

from ingest.sources.source import Source
from pipeline.records import SourceItem, content_id
from pipeline.tables import Tables

BATCH_SIZE = 1000


def register(tables: Tables, source: Source, *, batch_size: int = BATCH_SIZE) -> Iterator[SourceItem]:
    """List a source, each item once, with `seq` as stored; new items are stored before they are given out.

    An item that is in the table already is given out as it stands there. New ones are written in batches cut by the
    source's own order, so a killed run leaves whole batches, and the next one goes on as the first would have.

    Args:
        tables: Of the data root.
        source: What to list.
        batch_size: Items a fragment.

    Raises:
        ValueError: The source cannot be read.
    """
    known = _known_ids(tables)
    next_seq = _next_seq(tables)
    given: set[str] = set()
    for batch in _batches(source, batch_size):
        listed = {item.item_id: item for item in batch if item.item_id not in given}
        given.update(listed)
        stored = _stored(tables, [item_id for item_id in listed if item_id in known])
        new = []
        for item_id, item in listed.items():
            if item_id not in stored:
                stored[item_id] = replace(item, seq=next_seq)
                new.append(stored[item_id])
                next_seq += 1
        if new:
            fragment = f"register-{content_id([(item.item_id, item.seq) for item in new], length=20)}"
            tables.write(SourceItem, fragment, new, made_by="ingest.register", made_from=source.name)
        yield from (stored[item_id] for item_id in listed)


def _batches(source: Source, size: int) -> Iterator[list[SourceItem]]:
    items = source.items()
    while batch := list(itertools.islice(items, size)):
        yield batch


def _known_ids(tables: Tables) -> set[str]:
    with tables.connect([SourceItem]) as con:
        return {row[0] for row in con.execute("SELECT item_id FROM items").fetchall()}


def _next_seq(tables: Tables) -> int:
    with tables.connect([SourceItem]) as con:
        found = con.execute("SELECT max(seq) FROM items").fetchone()
    return int(found[0]) + 1 if found and found[0] is not None else 0


def _stored(tables: Tables, item_ids: list[str]) -> dict[str, SourceItem]:
    if not item_ids:
        return {}
    rows = tables.rows(SourceItem, "item_id IN (SELECT unnest(?))", [item_ids])
    return {row.item_id: row for row in rows}
