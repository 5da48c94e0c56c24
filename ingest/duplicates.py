"""Marks items whose bytes came earlier in the input."""

from pipeline.records import Asset, Rejected
from pipeline.tables import Tables

STAGE = "ingest.duplicates"


def mark_duplicates(tables: Tables) -> int:
    """Write a `Rejected` row for every asset that is not the first of its bytes by `seq`; returns how many there are.

    Of imported clips several share a model, of which there are no bytes: they are no duplicates.

    Running it again writes nothing new; after more assets came in, it writes the whole list again under the same name.
    """
    query = """
        SELECT item_id, name, first_value(name) OVER same, row_number() OVER same AS place
        FROM (SELECT DISTINCT ON (item_id) item_id, asset_id, seq, name FROM assets WHERE blob <> '' ORDER BY item_id)
        WINDOW same AS (PARTITION BY asset_id ORDER BY seq, item_id)
        QUALIFY place > 1
        ORDER BY item_id
    """
    with tables.connect([Asset]) as con:
        found = con.execute(query).fetchall()
    marks = [
        Rejected(rejected_id=item_id, stage=STAGE, reason="duplicate_bytes", detail=f"same bytes as {first}", name=name)
        for item_id, name, first, _ in found
    ]
    if marks and tables.rows(Rejected, "stage = ?", [STAGE]) != marks:
        tables.write(Rejected, STAGE, marks, made_by=STAGE, made_from="")
    return len(marks)
