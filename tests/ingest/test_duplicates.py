from dataclasses import replace
from pathlib import Path

from ingest.duplicates import STAGE, mark_duplicates
from ingest.register import register
from ingest.sources.manifest import Manifest
from ingest.stage import Ingest
from pipeline.records import Rejected, SourceItem
from pipeline.tables import Tables
from tests.ingest.test_register import stored
from tests.ingest.tiny import triangle_glb


def ingest_all(tables: Tables, items: list[SourceItem]) -> None:
    stage = Ingest(data=tables.store.root)
    for item in items:
        tables.commit(stage, stage.input_id(item), list(stage.process(item)))


def listed(tables: Tables, folder: Path, names: list[str]) -> list[SourceItem]:
    rows = "".join(f"{name},MIT\n" for name in names)
    (folder / "list.csv").write_text(f"file,spdx\n{rows}")
    return list(register(tables, Manifest(path=folder / "list.csv")))


def test_equal_bytes_are_marked_all_but_the_first(tables: Tables, tmp_path: Path) -> None:
    for name, seed in (("z.glb", 0), ("b.glb", 1), ("a.glb", 0), ("c.glb", 0)):
        (tmp_path / name).write_bytes(triangle_glb(seed=seed))
    ingest_all(tables, listed(tables, tmp_path, ["z.glb", "b.glb", "a.glb", "c.glb"]))
    assert mark_duplicates(tables) == 2
    marks = {row.name: row for row in tables.rows(Rejected, "stage = ?", [STAGE])}
    assert marks.keys() == {"a.glb", "c.glb"}
    assert all(row.detail == "same bytes as z.glb" for row in marks.values())
    assert all(row.reason == "duplicate_bytes" for row in marks.values())
    before = stored(tables)
    assert mark_duplicates(tables) == 2
    assert stored(tables) == before


def test_the_order_of_arrival_does_not_decide(tables: Tables, tmp_path: Path) -> None:
    for name in ("a.glb", "b.glb"):
        (tmp_path / name).write_bytes(triangle_glb())
    items = listed(tables, tmp_path, ["b.glb", "a.glb"])
    ingest_all(tables, items[1:])
    assert mark_duplicates(tables) == 0
    ingest_all(tables, items[:1])
    assert mark_duplicates(tables) == 1
    (mark,) = tables.rows(Rejected)
    assert (mark.rejected_id, mark.detail) == (items[1].item_id, "same bytes as b.glb")


def test_marks_survive_merging_and_more_arrivals(tables: Tables, tmp_path: Path) -> None:
    for name in ("a.glb", "b.glb", "c.glb"):
        (tmp_path / name).write_bytes(triangle_glb())
    items = listed(tables, tmp_path, ["a.glb", "b.glb", "c.glb"])
    ingest_all(tables, items[:2])
    mark_duplicates(tables)
    tables.compact(at_least=1)
    ingest_all(tables, items)
    assert mark_duplicates(tables) == 2
    tables.compact(at_least=1)
    assert sorted(row.name for row in tables.rows(Rejected)) == ["b.glb", "c.glb"]


def test_two_settings_of_one_stage_make_no_duplicates(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(triangle_glb())
    items = listed(tables, tmp_path, ["a.glb"])
    ingest_all(tables, items)
    other = Ingest(data=tables.store.root, policy="research")
    tables.commit(other, items[0].item_id, [replace(row) for row in other.process(items[0])])
    assert mark_duplicates(tables) == 0
