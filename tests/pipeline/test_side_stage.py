"""A stage beside the chain: gets rows with the input that they came of, and takes nothing from the stage after it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.backends import LocalBackend, RetryPolicy
from pipeline.events import EventLog
from pipeline.records import Appearance, Decision, Record, SourceItem, Visibility
from pipeline.runner import Runner, RunState
from pipeline.stage import Stage
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.pipeline.toys import Halve, Name, item

POLICY = RetryPolicy(attempts=2, first_wait_s=0.01)


@dataclass(frozen=True)
class Pair:
    source: SourceItem
    row: Visibility


@dataclass(frozen=True, kw_only=True)
class Note(Stage[Pair, Decision]):
    """Notes which input a row came of."""

    name: ClassVar[str] = "toy.note"
    writes: ClassVar[tuple[type[Record], ...]] = (Decision,)
    side: ClassVar[bool] = True

    @classmethod
    def inputs(cls, rows: Sequence[Record]) -> list[Pair]:
        sources = [row for row in rows if isinstance(row, SourceItem)]
        return [Pair(sources[0], row) for row in rows if isinstance(row, Visibility)]

    @classmethod
    def input_id(cls, item: Any) -> str:
        return str(item.row.clip_id)

    def process(self, item: Pair) -> Iterator[Decision]:
        yield Decision(clip_id=item.row.clip_id, preset=item.source.item_id, keep=True, reason="", reasons=())


def run(tmp_path: Path, *, beside: bool, count: int = 4) -> tuple[Tables, RunState]:
    store = Store(str(tmp_path / "data"))
    (tmp_path / "scratch").mkdir(exist_ok=True)
    halve, name = Halve(data=store.root, scratch=str(tmp_path / "scratch")), Name(data=store.root)
    stages: list[Stage[Any, Any]] = [halve, Note(data=store.root), name] if beside else [halve, name]
    backend = LocalBackend(store, stages, 2, POLICY)
    runner = Runner(Tables(store), stages, backend, policy=POLICY, events=EventLog(store))
    try:
        return Tables(store), runner.run(iter([item(number) for number in range(count)]))
    finally:
        backend.close()


def test_rows_reach_the_side_stage_with_their_input_and_the_next_stage_too(tmp_path: Path) -> None:
    tables, state = run(tmp_path, beside=True)
    notes = tables.rows(Decision)
    assert {row.clip_id: row.preset for row in notes} == {
        row.clip_id: row.clip_id.partition("-")[0] for row in tables.rows(Visibility)
    }
    assert len(notes) == len(tables.rows(Appearance)) == 6
    assert state.num_finished == 4


def test_a_side_stage_may_come_later_and_redoes_nothing_else(tmp_path: Path) -> None:
    tables, _ = run(tmp_path, beside=False)
    assert not tables.rows(Decision)
    calls = (tmp_path / "scratch" / "calls").read_text()
    tables, state = run(tmp_path, beside=True)
    assert len(tables.rows(Decision)) == 6
    assert (tmp_path / "scratch" / "calls").read_text() == calls
    assert state.stages["toy.note"].rows == 6
    assert (state.stages["toy.halve"].resumed, state.stages["toy.name"].resumed) == (4, 6)
    _, again = run(tmp_path, beside=True)
    assert again.stages["toy.note"].resumed == 6
