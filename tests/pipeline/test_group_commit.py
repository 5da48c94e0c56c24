import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline.group_commit import GroupCommit
from pipeline.records import Done, Record, Visibility
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.pipeline.toys import Halve, item


def made(stage: Halve, number: int) -> tuple[str, list[Record]]:
    return f"item{number:03d}", list(stage.process(item(number)))


def fragments(tables: Tables, record: type[Record]) -> list[str]:
    return tables.store.list_files(f"tables/{record.table}", ".parquet")


def test_threads_side_by_side_share_fragments_and_lose_nothing(tables: Tables) -> None:
    stages = [Halve(data=tables.store.root, scale=scale) for scale in (1.0, 2.0)]
    group = GroupCommit(tables)
    work = [(stage, *made(stage, number)) for number in range(20) for stage in stages]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda arguments: group.commit(*arguments), work))
    for stage in stages:
        assert tables.made_from(stage) == dict(made(stage, number) for number in range(20))
        assert tables.done(stage) == {f"item{number:03d}" for number in range(20)}
    assert len(fragments(tables, Done)) <= 20


def test_rows_are_written_when_commit_returns(tables: Tables) -> None:
    stage = Halve(data=tables.store.root)
    GroupCommit(tables).commit(stage, *made(stage, 4))
    assert tables.done(stage) == {"item004"}


def test_a_group_of_one_writes_the_fragment_of_a_plain_commit(tables: Tables) -> None:
    stage = Halve(data=tables.store.root)
    tables.commit(stage, *made(stage, 4))
    before = fragments(tables, Visibility)
    GroupCommit(tables).commit(stage, *made(stage, 4))
    assert fragments(tables, Visibility) == before


def test_a_disk_that_fails_fails_for_all_who_waited_and_not_for_those_after(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Halve(data=tables.store.root)
    group = GroupCommit(tables)
    write, fails = Store.write_bytes, threading.Event()

    def failing(self: Store, relative: str, content: bytes) -> None:
        if fails.is_set():
            raise OSError("no space left")
        write(self, relative, content)

    def attempt(number: int) -> Any:
        try:
            return group.commit(stage, *made(stage, number))
        except OSError as error:
            return str(error)

    monkeypatch.setattr(Store, "write_bytes", failing)
    fails.set()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(attempt, range(4))) == ["no space left"] * 4
    fails.clear()
    assert attempt(9) is None
    assert tables.done(stage) == {"item009"}


def test_what_a_killed_group_left_is_given_once_and_merged_to_once(tables: Tables) -> None:
    stage = Halve(data=tables.store.root)
    tables.commit_together(stage, [made(stage, 1), made(stage, 2)])
    (ledger,) = fragments(tables, Done)
    tables.store.remove(ledger)  # killed before it was written
    tables.commit_together(stage, [made(stage, 2), made(stage, 3)])
    tables.commit(stage, *made(stage, 1))
    rows = [row for number in (1, 2, 3) for row in made(stage, number)[1]]
    assert sorted(tables.rows(Visibility), key=str) == sorted(rows, key=str)
    tables.compact(at_least=2)
    with tables.connect([Visibility]) as con:
        assert con.execute("SELECT count(*) FROM visibility").fetchall() == [(len(rows),)]
