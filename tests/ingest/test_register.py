from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingest.register import register
from ingest.sources.source import Source, make_item
from pipeline.dates import today
from pipeline.records import SourceItem
from pipeline.storage import Store
from pipeline.tables import Tables


@dataclass(frozen=True)
class Names(Source):
    """Items with these names; dies before the one called `die`."""

    names: tuple[str, ...]
    checked_on: str = "2026-01-01"

    @property
    def name(self) -> str:
        return "names"

    def items(self) -> Iterator[SourceItem]:
        for name in self.names:
            if name == "die":
                raise KeyboardInterrupt
            yield make_item(source=self.name, uri=f"/{name}", name=name, spdx="MIT", checked_on=self.checked_on)


def numbered(count: int) -> tuple[str, ...]:
    return tuple(f"n{index:03d}" for index in range(count))


def stored(tables: Tables) -> dict[str, bytes]:
    return {file: tables.store.read_bytes(file) for file in tables.store.list_files("tables")}


def test_items_get_their_place_in_the_sources_order(tables: Tables) -> None:
    items = list(register(tables, Names(numbered(25)), batch_size=10))
    assert [(item.seq, item.name) for item in items] == list(enumerate(numbered(25)))
    assert len(stored(tables)) == 3
    assert tables.rows(SourceItem) == sorted(items, key=lambda item: item.item_id)


def test_known_items_keep_their_place_and_row_and_new_ones_follow(tables: Tables) -> None:
    first = list(register(tables, Names(("a", "b", "c")), batch_size=2))
    again = list(register(tables, Names(("new", "c", "a"), checked_on="2027-01-01"), batch_size=2))
    assert [(item.name, item.seq) for item in again] == [("new", 3), ("c", 2), ("a", 0)]
    assert again[1:] == [first[2], first[0]]
    assert len(tables.rows(SourceItem)) == 4


@pytest.mark.parametrize("killed_at", [0, 5, 10, 14, 25])
def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path: Path, killed_at: int) -> None:
    whole, broken = (Tables(Store(str(tmp_path / name))) for name in ("whole", "broken"))
    names = numbered(25)
    list(register(whole, Names(names), batch_size=10))
    with pytest.raises(KeyboardInterrupt):
        list(register(broken, Names((*names[:killed_at], "die")), batch_size=10))
    list(register(broken, Names(names), batch_size=10))
    assert stored(broken) == stored(whole)


def test_an_item_is_stored_before_it_is_given_out(tables: Tables) -> None:
    items = register(tables, Names(numbered(5)), batch_size=2)
    first = next(items)
    assert first in tables.rows(SourceItem)
    assert len(tables.rows(SourceItem)) == 2


def test_an_item_listed_twice_is_given_out_once(tables: Tables) -> None:
    items = list(register(tables, Names(("a", "b", "a", "c", "b")), batch_size=2))
    assert [item.name for item in items] == ["a", "b", "c"]


def test_a_merged_table_gives_the_same_places(tables: Tables) -> None:
    first = list(register(tables, Names(numbered(9)), batch_size=2))
    tables.compact(at_least=2)
    assert list(register(tables, Names(numbered(9)), batch_size=2)) == first


def test_a_corrected_licence_is_a_new_item() -> None:
    plain = make_item(source="s", uri="/a", name="a")
    same = make_item(source="other", uri="/a", name="a", author="Ann", checked_on="2020-01-01")
    assert plain.item_id == same.item_id
    for change in (
        {"spdx": "MIT"},
        {"noai": True},
        {"expected_sha256": "0" * 64},
        {"licence_text": "MIT"},
        {"uri": "/b"},
    ):
        changed = make_item(**{"source": "s", "uri": "/a", "name": "a", **change})  # type: ignore[arg-type]
        assert changed.item_id != plain.item_id


def test_the_date_can_be_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert today() == "2023-11-14"
    assert make_item(source="s", uri="/a", name="a").checked_on == "2023-11-14"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(ValueError, match="SOURCE_DATE_EPOCH"):
        today()
