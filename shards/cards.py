"""The data set's papers: card, attribution, licences, Croissant, and the index that goes out with the shards.

All of them are made from the tables and stand beside the tars, so that the folder `shards/` can be published as it is.
The same tables and settings give the same bytes.
"""

import dataclasses
import datetime
import json
import os
from typing import TYPE_CHECKING

import duckdb

from pipeline.records import from_dict
from pipeline.storage import Store
from pipeline.tables import Tables
from shards.attribution import (
    attribution_markdown,
    attribution_parquet,
    credit_rows,
    licence_index,
    licences,
)
from shards.readme import LIMITS, PERSONAL, USES, CardSettings, Facts, data_card
from shards.release import index_parquet, truth_parquet
from shards.sample import CONVENTION
from shards.views import Shard, TruthShard, connect, rows

if TYPE_CHECKING:
    from shards.croissant import About

__all__ = ["CardSettings", "last_settings", "remove_cards", "write_cards"]

CARD = "shards/card.json"
"""What the cards were last told that the tables do not know."""
PAPERS = (
    "README.md", "ATTRIBUTION.md", "attribution.parquet", "LICENSES/README.md", "samples.parquet", "croissant.json",
    "truth.parquet",
)  # fmt: skip


def write_cards(tables: Tables, settings: CardSettings | None = None) -> list[str]:
    """Write all papers below `shards/`; returns their paths.

    Settings that are left at their defaults are those of the last time, the version above all. The date of publication
    is that of the environment variable SOURCE_DATE_EPOCH, or is left out.

    Raises:
        ValueError: Nothing is packed yet.
    """
    # Slow to import: pandas, rdflib.
    from shards.croissant import TruthFiles, croissant_json

    settings = _settled(settings or CardSettings(), last_settings(tables.store))
    with connect(tables) as con:
        shards = _shards(con)
        if not shards:
            raise ValueError(f"{tables.store.root} has no shards to describe; run `mv4d pack` first")
        entries = credit_rows(con)
        index = index_parquet(con)
        truth = truth_parquet(con)
        beside = TruthFiles(shards=_truth_shards(con), index=truth) if truth else None
        facts = Facts.read(con, licences(entries), tables.store)
        papers = {
            "README.md": data_card(settings, facts).encode(),
            "ATTRIBUTION.md": attribution_markdown(entries).encode(),
            "attribution.parquet": attribution_parquet(entries),
            "LICENSES/README.md": licence_index(entries).encode(),
            "samples.parquet": index,
            "croissant.json": croissant_json(_about(settings, facts), shards, facts.licences, index, beside),
        }
    if truth:
        papers["truth.parquet"] = truth
    else:
        tables.store.remove("shards/truth.parquet")
    for name, content in papers.items():
        tables.store.write_bytes(f"shards/{name}", content)
    _remember(tables.store, settings)
    return [f"shards/{name}" for name in papers]


def last_settings(store: Store) -> CardSettings:
    """What the cards were last made with; the defaults before the first time.

    Raises:
        ValueError: The file that says so is damaged.
    """
    if not store.exists(CARD):
        return CardSettings()
    try:
        return CardSettings(**json.loads(store.read_bytes(CARD)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{CARD} is damaged: {error}; delete it, and give the card's settings again") from None


def remove_cards(store: Store, settings: CardSettings) -> None:
    """Remove all papers, as there is nothing left that they could describe; the settings are for the next ones."""
    for name in PAPERS:
        store.remove(f"shards/{name}")
    _remember(store, settings)


def _remember(store: Store, settings: CardSettings) -> None:
    store.write_bytes(CARD, (json.dumps(dataclasses.asdict(settings), indent=1) + "\n").encode())


def _settled(settings: CardSettings, last: CardSettings) -> CardSettings:
    given = {
        field.name: value
        for field in dataclasses.fields(settings)
        if (value := getattr(settings, field.name)) != field.default
    }
    return dataclasses.replace(last, **given)


def _shards(con: duckdb.DuckDBPyConnection) -> list[Shard]:
    return [from_dict(Shard, row) for row in rows(con, "SELECT * FROM shards ORDER BY shard")]


def _truth_shards(con: duckdb.DuckDBPyConnection) -> list[TruthShard]:
    return [from_dict(TruthShard, row) for row in rows(con, "SELECT * FROM truth_shards ORDER BY shard")]


def _about(settings: CardSettings, facts: Facts) -> "About":
    from shards.croissant import About

    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    published = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC) if epoch else None
    return About(
        name=settings.name,
        description=settings.description or facts.summary,
        version=settings.version,
        homepage=settings.homepage,
        publisher=settings.publisher,
        cite_as=settings.cite_as,
        published=published,
        collection=facts.collection,
        processing=f"Cameras and scale: {CONVENTION}. Curated by {', '.join(facts.made_with['presets'])}.",
        uses=USES,
        limits=LIMITS,
        personal=PERSONAL,
    )
