import contextlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.records import (
    RECORDS,
    Appearance,
    Done,
    Record,
    Rejected,
    Sample,
    SamplePart,
    Visibility,
    arrow_schema,
)
from pipeline.storage import Store
from pipeline.tables import JOURNAL, REQUEUED, DamagedTable, OldTable, Tables
from tests.pipeline.toys import Halve, item


def halve(store: Store, number: int, name: str = "") -> tuple[Halve, str, list[Any]]:
    stage = Halve(data=store.root, scratch="/tmp")
    return stage, f"item{number:03d}", list(stage.process(item(number, name=name)))


def test_rows_come_back_as_they_were_written(tables: Tables) -> None:
    stage, input_id, rows = halve(tables.store, 4)
    tables.commit(stage, input_id, rows)
    assert tables.rows(Visibility) == rows
    assert tables.done(stage) == {input_id}
    assert tables.made_from(stage) == {input_id: rows}


def test_doing_it_again_overwrites_and_never_doubles(tables: Tables) -> None:
    for _ in range(3):
        tables.commit(*halve(tables.store, 4))
    with tables.connect() as con:
        assert con.execute("SELECT count(*) FROM visibility").fetchall() == [(2,)]


def test_other_settings_have_a_ledger_of_their_own(tables: Tables) -> None:
    stage, input_id, rows = halve(tables.store, 1)
    tables.commit(stage, input_id, rows)
    assert tables.done(Halve(data=tables.store.root, scale=2.0)) == set()
    assert tables.done(Halve(data="elsewhere", scratch="other")) == {input_id}


def test_every_table_has_a_view_even_without_rows(tables: Tables) -> None:
    with tables.connect() as con:
        for record in RECORDS:
            columns = [row[0] for row in con.execute(f"DESCRIBE {record.table}").fetchall()]
            assert columns[: len(arrow_schema(record).names)] == arrow_schema(record).names


def test_compaction_changes_files_and_not_rows(tables: Tables) -> None:
    for number in range(6):
        tables.commit(*halve(tables.store, number, "bad" if number == 3 else ""))
    before = (
        tables.rows(Visibility),
        tables.rows(Done),
        tables.rows(Rejected),
        tables.made_from(halve(tables.store, 0)[0]),
    )
    assert tables.compact(at_least=2) > 0
    after = (
        tables.rows(Visibility),
        tables.rows(Done),
        tables.rows(Rejected),
        tables.made_from(halve(tables.store, 0)[0]),
    )
    assert before == after
    assert len(tables.store.list_files("tables/visibility")) == 1
    tables.commit(*halve(tables.store, 7))
    tables.compact(at_least=2)
    assert len(tables.store.list_files("tables/visibility")) == 1
    assert len(tables.rows(Visibility)) == len(before[0]) + 1


class Killed(BaseException):
    pass


@pytest.mark.parametrize("die_at", range(1, 12))
def test_compaction_may_be_killed_at_any_step(tables: Tables, monkeypatch: pytest.MonkeyPatch, die_at: int) -> None:
    for number in range(4):
        tables.commit(*halve(tables.store, number))
    before = tables.rows(Visibility)
    steps = 0

    def count_and_die(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == die_at:
            raise Killed

    write, remove = Store.write_bytes, Store.remove

    def dying_write(self: Store, path: str, content: bytes) -> None:
        count_and_die()
        write(self, path, content)

    def dying_remove(self: Store, path: str) -> None:
        count_and_die()
        remove(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_bytes", dying_write)
        patch.setattr(Store, "remove", dying_remove)
        try:
            tables.compact(at_least=2)
        except Killed:
            assert tables.rows(Visibility) == before or tables.store.exists(JOURNAL)
    tables.compact(at_least=2)
    assert tables.rows(Visibility) == before
    with tables.connect() as con:
        assert con.execute("SELECT count(*) FROM visibility").fetchone() == (len(before),)
    assert not tables.store.exists(JOURNAL)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("die_at", range(6))
def test_what_was_rejected_can_be_queued_again_even_if_killed(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, die_at: int, merged: bool
) -> None:
    for number in range(6):
        stage, input_id, rows = halve(tables.store, number, "bad" if number in (1, 4) else "")
        tables.commit(stage, input_id, rows)
    if merged:
        tables.compact(at_least=2)
    before = tables.rows(Visibility)
    assert tables.requeue([stage], ["fetch_failed"]) == 0
    steps = 0

    def write_or_die(self: Store, path: str, content: bytes) -> None:
        nonlocal steps
        steps += 1
        if steps == die_at:
            raise Killed
        write(self, path, content)

    write = Store.write_bytes
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_bytes", write_or_die)
        with contextlib.suppress(Killed):
            assert tables.requeue([stage], ["malformed", "fetch_failed"]) == 2
    tables.recover()
    tables.requeue([stage], ["malformed"])
    assert tables.rows(Rejected) == []
    assert tables.done(stage) == {f"item{number:03d}" for number in (0, 2, 3, 5)}
    assert tables.rows(Visibility) == before
    assert not tables.store.exists(REQUEUED)
    tables.commit(*halve(tables.store, 4, "bad"))
    assert [row.rejected_id for row in tables.rows(Rejected)] == ["item004"]


def test_other_settings_keep_what_they_rejected(tables: Tables) -> None:
    stage, input_id, rows = halve(tables.store, 1, "bad")
    tables.commit(stage, input_id, rows)
    assert tables.requeue([Halve(data=tables.store.root, scale=2.0)], ["malformed"]) == 0
    assert len(tables.rows(Rejected)) == 1


def test_a_fragment_that_was_cut_short_is_named_with_its_line_in_the_ledger(tables: Tables) -> None:
    for number in (1, 2):
        tables.commit(*halve(tables.store, number))
    path = Path(tables.store.path(tables.store.list_files("tables/visibility", ".parquet")[0]))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedTable) as caught:
        tables.rows(Visibility)
    assert f"tables/visibility/{path.name}" in str(caught.value)
    assert f"tables/done/{path.name}" in str(caught.value)
    tables.store.remove(f"tables/visibility/{path.name}")
    tables.store.remove(f"tables/done/{path.name}")
    assert len(tables.done(halve(tables.store, 1)[0])) == 1


def of_an_older_version(tables: Tables, record: type[Record], column: str, number: int = 0) -> None:
    path = tables.store.path(tables.store.list_files(f"tables/{record.table}", ".parquet")[number])
    table = pq.read_table(path)
    if "." not in column:
        table = table.drop_columns([column])
    else:
        name, inner = column.split(".")
        shorter = [
            [{key: part[key] for key in part if key != inner} for part in row] for row in table[name].to_pylist()
        ]
        table = table.set_column(table.column_names.index(name), name, pa.array(shorter))
    pq.write_table(table, path)


def test_a_table_without_a_column_is_said_to_be_of_an_older_version(tables: Tables) -> None:
    tables.commit(*halve(tables.store, 1))
    of_an_older_version(tables, Visibility, "border_touch")
    for where in ("true", "border_touch > 0.5"):
        with pytest.raises(OldTable, match=r"visibility of .*older version of mv4d, without border_touch: make it"):
            tables.rows(Visibility, where)
    with pytest.raises(DamagedTable):
        tables.made_from(halve(tables.store, 1)[0])


def test_rows_of_an_older_version_among_newer_ones_are_noticed(tables: Tables) -> None:
    for number in (1, 2):
        tables.commit(*halve(tables.store, number))
    of_an_older_version(tables, Visibility, "border_touch")
    with pytest.raises(OldTable, match="without border_touch:"):
        tables.rows(Visibility)


def test_what_is_missing_within_a_column_is_named(tables: Tables) -> None:
    part = SamplePart(name="json", offset=512, num_bytes=3, crc32=7, sha256="00")
    sample = Sample(
        sample_key="k", clip_id="c", asset_id="a", shard="s.tar", split="train", licence_class="cc0", offset=0,
        num_bytes=1024, parts=(part,),
    )  # fmt: skip
    tables.write(Sample, "one", [sample], made_by="toy@1", made_from="c")
    assert tables.rows(Sample) == [sample]
    of_an_older_version(tables, Sample, "parts.crc32")
    with pytest.raises(OldTable, match=r"without parts\.crc32:"):
        tables.rows(Sample)


def test_tables_work_on_an_object_store() -> None:
    tables = Tables(Store("memory://tables-test"))
    tables.commit(*halve(tables.store, 2))
    tables.commit(*halve(tables.store, 4))
    assert len(tables.rows(Visibility)) == 4
    tables.compact(at_least=2)
    assert len(tables.rows(Visibility)) == 4


def test_an_unknown_reason_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="unknown reason"):
        Rejected(rejected_id="x", stage="toy", reason="just because", detail="", name="")


def test_folders_of_fragments_are_plain_parquet(tables: Tables, tmp_path: Path) -> None:
    import duckdb

    tables.commit(*halve(tables.store, 2))
    found = duckdb.sql(f"SELECT made_by, made_from FROM '{tables.store.root}/tables/visibility/*.parquet'").fetchall()
    assert found == [(f"toy.halve@{halve(tables.store, 2)[0].settings_id}", "item002")] * 2
    assert tables.rows(Appearance) == []
