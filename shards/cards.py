"""The data set's papers: card, attribution, licences, Croissant, and the index that goes out with the shards.

All of them are made from the tables and stand beside the tars, so that the folder `shards/` can be published as it is.
The same tables and settings give the same bytes.
"""

import datetime
import os
from typing import TYPE_CHECKING

import duckdb

from pipeline.records import from_dict
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
from shards.views import Shard, connect, rows

if TYPE_CHECKING:
    from shards.croissant import About

__all__ = ["CardSettings", "write_cards"]


def write_cards(tables: Tables, settings: CardSettings | None = None) -> list[str]:
    """Write all papers below `shards/`; returns their paths.

    The date of publication is that of the environment variable SOURCE_DATE_EPOCH, or is left out.

    Raises:
        ValueError: Nothing is packed yet.
    """
    # Slow to import: pandas, rdflib.
    from shards.croissant import croissant_json

    settings = settings or CardSettings()
    with connect(tables) as con:
        shards = _shards(con)
        if not shards:
            raise ValueError(f"{tables.store.root} has no shards to describe; run `mv4d pack` first")
        entries = credit_rows(con)
        index = index_parquet(con)
        truth = truth_parquet(con)
        facts = Facts.read(con, licences(entries), tables.store)
        papers = {
            "README.md": data_card(settings, facts).encode(),
            "ATTRIBUTION.md": attribution_markdown(entries).encode(),
            "attribution.parquet": attribution_parquet(entries),
            "LICENSES/README.md": licence_index(entries).encode(),
            "samples.parquet": index,
            "croissant.json": croissant_json(_about(settings, facts), shards, facts.licences, index),
        }
    if truth:
        papers["truth.parquet"] = truth
    else:
        tables.store.remove("shards/truth.parquet")
    for name, content in papers.items():
        tables.store.write_bytes(f"shards/{name}", content)
    return [f"shards/{name}" for name in papers]


def _shards(con: duckdb.DuckDBPyConnection) -> list[Shard]:
    return [from_dict(Shard, row) for row in rows(con, "SELECT * FROM shards ORDER BY shard")]


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
        collection="3D models with stated licences were collected, measured in motion and rendered by mv4d.",
        processing=f"Cameras and scale: {CONVENTION}. Curated by {', '.join(facts.made_with['presets'])}.",
        uses=USES,
        limits=LIMITS,
        personal=PERSONAL,
    )
