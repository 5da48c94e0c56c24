from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends import LocalBackend, RetryPolicy
from pipeline.events import EventLog
from pipeline.records import Appearance, Rejected, SourceItem, Visibility
from pipeline.runner import Runner, RunState
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.pipeline.toys import Halve, Name, item

POLICY = RetryPolicy(attempts=3, first_wait_s=0.01)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[Tables, RunState]]:
    (tmp_path / "scratch").mkdir()

    def run_items(items: Iterator[SourceItem] | list[SourceItem], **options: Any) -> tuple[Tables, RunState]:
        store = Store(str(tmp_path / "data"))
        stages = (
            Halve(data=store.root, scratch=str(tmp_path / "scratch"), scale=options.pop("scale", 1.0)),
            Name(data=store.root),
        )
        backend = LocalBackend(store, stages, 2, POLICY)
        runner = Runner(Tables(store), stages, backend, policy=POLICY, events=EventLog(store), **options)
        try:
            return Tables(store), runner.run(iter(items))
        finally:
            backend.close()

    return run_items


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "scratch" / "calls").read_text().split()


def test_rows_flow_through_all_stages(run: Callable[..., tuple[Tables, RunState]]) -> None:
    tables, state = run([item(number) for number in range(10)])
    assert len(tables.rows(Visibility)) == len(tables.rows(Appearance)) == 15
    assert state.num_finished == 10
    assert state.stages["toy.name"].rows == 15


def test_bad_data_is_a_row_and_the_run_goes_on(run: Callable[..., tuple[Tables, RunState]]) -> None:
    tables, state = run([item(0), item(1, name="bad"), item(2)])
    assert [(row.rejected_id, row.reason) for row in tables.rows(Rejected)] == [("item001", "malformed")]
    assert len(tables.rows(Visibility)) == 4
    assert state.stages["toy.halve"].reasons == {"malformed": 1}


def test_a_fault_is_tried_again_and_blamed_on_one_input(
    run: Callable[..., tuple[Tables, RunState]], tmp_path: Path
) -> None:
    tables, _ = run([item(1, name="flaky"), item(3, name="faulty"), item(5)])
    assert calls(tmp_path).count("item001") == 2
    assert calls(tmp_path).count("item003") == 3
    found = tables.rows(Rejected)
    assert [(row.rejected_id, row.reason) for row in found] == [("item003", "machine_fault")]
    assert "every try fails" in found[0].detail
    assert {row.clip_id for row in tables.rows(Appearance)} == {"item001-0", "item005-0"}


def test_a_second_run_does_nothing_again(run: Callable[..., tuple[Tables, RunState]], tmp_path: Path) -> None:
    items = [item(0), item(1, name="bad"), item(2)]
    tables, _ = run(items)
    before, num_calls = tables.rows(Appearance), len(calls(tmp_path))
    tables, state = run([*items, item(3)])
    assert len(calls(tmp_path)) == num_calls + 1
    assert tables.rows(Appearance)[:4] == before
    assert state.stages["toy.halve"].resumed == 3
    assert state.num_finished == 4


def test_other_settings_are_other_work(run: Callable[..., tuple[Tables, RunState]], tmp_path: Path) -> None:
    run([item(1)])
    run([item(1)], scale=3.0)
    assert calls(tmp_path) == ["item001", "item001"]


def test_an_input_that_hangs_is_left_at_its_deadline(run: Callable[..., tuple[Tables, RunState]]) -> None:
    tables, _ = run([item(1, name="hang"), item(3), item(5)], deadline_s=1.0)
    assert [(row.rejected_id, row.reason) for row in tables.rows(Rejected)] == [("item001", "deadline")]
    assert len(tables.rows(Appearance)) == 2


def test_a_full_disk_ends_the_run_and_blames_nobody(run: Callable[..., tuple[Tables, RunState]]) -> None:
    with pytest.raises(RuntimeError, match="no space left"):
        run([item(1, name="full")])
    tables, _ = run([item(3)])
    assert tables.rows(Rejected) == []


def test_the_same_input_twice_is_done_once_and_both_wait_for_it(
    run: Callable[..., tuple[Tables, RunState]], tmp_path: Path
) -> None:
    _, state = run([item(0, name="slow"), item(0, name="slow"), item(1), item(0, name="slow")])
    assert calls(tmp_path).count("item000") == 1
    assert state.num_finished == 4


def test_the_watermark_waits_for_the_slowest_and_ends_at_the_count(
    run: Callable[..., tuple[Tables, RunState]],
) -> None:
    marks: list[int] = []
    run([item(1), item(3, name="slow"), item(5), item(7)], on_watermark=marks.append)
    assert marks == sorted(marks)
    assert set(marks) <= {0, 1, 4}
    assert marks[-1] == 4


def test_rows_stream_while_later_inputs_are_still_to_come(run: Callable[..., tuple[Tables, RunState]]) -> None:
    seen: list[int] = []

    def items() -> Iterator[SourceItem]:
        for number in range(200):
            yield item(number)

    def watch(state: RunState) -> None:
        if not seen and state.stages["toy.name"].rows:
            seen.append(state.stages["toy.halve"].done)

    run(items(), on_change=watch)
    assert seen[0] < 150


def test_events_tell_what_happened(run: Callable[..., tuple[Tables, RunState]]) -> None:
    import duckdb

    tables, _ = run([item(1), item(2, name="bad")])
    found = duckdb.sql(f"SELECT stage, reasons FROM '{tables.store.root}/runs/*/events.jsonl' WHERE event = 'done'")
    assert sorted(map(str, found.fetchall())) == sorted(
        map(str, [("toy.halve", []), ("toy.halve", ["malformed"]), ("toy.name", [])])
    )
