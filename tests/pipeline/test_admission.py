import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.admission import Admission, Place
from pipeline.backends import LocalBackend, RetryPolicy
from pipeline.events import EventLog
from pipeline.records import Record, Rejected, SourceItem, Visibility
from pipeline.runner import Runner
from pipeline.stage import Stage
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.pipeline.toys import item

HERE, THERE = Place(name="here", memory_mb=1000), Place(name="there", memory_mb=1000)


def test_work_fits_beside_what_others_are_busy_with_on_the_same_machine() -> None:
    admission = Admission()
    admission.begin(0, HERE, 600)
    assert admission.fits(1, HERE, 400)
    assert not admission.fits(1, HERE, 401)
    assert admission.fits(1, THERE, 900)
    assert admission.fits(1, HERE, 0)
    admission.end(0)
    assert admission.fits(1, HERE, 900)


def test_what_is_larger_than_the_machine_runs_alone() -> None:
    admission = Admission()
    assert admission.fits(0, HERE, 5000)
    admission.begin(0, HERE, 5000)
    assert not admission.fits(1, HERE, 1)
    admission.end(0)
    admission.begin(1, HERE, 1)
    assert not admission.fits(0, HERE, 5000)


def test_idle_workers_are_rested_where_room_is_needed_and_only_there() -> None:
    admission = Admission()
    for worker, memory_mb in ((0, 200), (1, 500), (2, 100)):
        assert admission.begin(worker, HERE, memory_mb) == []
        admission.end(worker)
    admission.begin(3, THERE, 900)
    admission.end(3)
    assert admission.begin(4, HERE, 150) == []
    admission.end(4)
    assert admission.begin(5, HERE, 500) == [1]
    assert admission.begin(2, HERE, 5000) == [0, 4]


def test_a_worker_that_is_gone_holds_nothing() -> None:
    admission = Admission()
    admission.begin(0, HERE, 900)
    admission.forget(0)
    assert admission.fits(1, HERE, 900)
    assert admission.begin(1, HERE, 900) == []


@dataclass(frozen=True, kw_only=True)
class Heavy(Stage[SourceItem, Visibility]):
    """Takes as much memory as an item's title says, in MB, for a moment; and tells when."""

    name: ClassVar[str] = "toy.heavy"
    writes: ClassVar[tuple[type[Record], ...]] = (Visibility,)
    machine_fields: ClassVar[frozenset[str]] = frozenset({"data", "seen"})
    seen: "Seen"

    def memory_mb(self, item: SourceItem) -> float:
        return float(item.title)

    def process(self, item: SourceItem) -> Iterator[Visibility | Rejected]:
        self.seen.begin(item)
        time.sleep(0.03 * (1 + item.seq % 4))  # so that workers do not all become free at once
        self.seen.end(item)
        yield Visibility(clip_id=item.item_id, coverage_min=0, coverage_mean=0, coverage_max=0, border_touch=0)

    @classmethod
    def inputs(cls, rows: Sequence[Record]) -> list[SourceItem]:
        return [row for row in rows if isinstance(row, SourceItem)]

    def close(self) -> None:
        self.seen.num_closed += 1


class Seen:
    """What was under way at the same time."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.most_mb, self.most_together, self.num_closed = 0.0, 0, 0
        self._now: dict[str, float] = {}
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: object) -> "Seen":
        return self  # a stage's settings are copied to be written down

    def begin(self, item: SourceItem) -> None:
        with self._lock:
            self.order.append(item.item_id)
            self._now[item.item_id] = float(item.title)
            self.most_mb = max(self.most_mb, sum(self._now.values()))
            self.most_together = max(self.most_together, len(self._now))

    def end(self, item: SourceItem) -> None:
        with self._lock:
            del self._now[item.item_id]


def weighing(number: int, memory_mb: int) -> SourceItem:
    return SourceItem(**{**vars(item(number)), "title": str(memory_mb)})


def run(folder: Path, items: Sequence[SourceItem], *, workers: int = 4, memory_mb: float = 1000) -> Seen:
    """What was under way at the same time while all items were brought through."""
    store, seen, policy = Store(str(folder)), Seen(), RetryPolicy(attempts=1)
    stages = (Heavy(data=store.root, seen=seen),)
    backend = LocalBackend(store, stages, workers, policy, memory_mb=memory_mb)
    try:
        Runner(Tables(store), stages, backend, policy=policy, events=EventLog(store)).run(iter(items))
    finally:
        backend.close()
    assert len(Tables(store).rows(Visibility)) == len(items)
    return seen


def test_a_run_stays_within_the_memory_of_its_machine(tmp_path: Path) -> None:
    weights = [300, 300, 300, 900, 100, 700, 300, 300, 200, 600]
    items = [weighing(number, weights[number % 10]) for number in range(40)]
    bounded = run(tmp_path / "bounded", items)
    assert 700 < bounded.most_mb <= 1000
    assert bounded.most_together > 1
    free = run(tmp_path / "free", items, memory_mb=1e6)
    assert free.most_mb > 1000
    rows = [Tables(Store(str(tmp_path / name))).rows(Visibility) for name in ("bounded", "free")]
    assert rows[0] == rows[1]


def test_an_item_larger_than_the_machine_is_done_and_alone(tmp_path: Path) -> None:
    items = [weighing(0, 200), weighing(1, 5000), weighing(2, 200), weighing(3, 5000), weighing(4, 200)]
    assert run(tmp_path, items).most_mb == 5000


def test_a_heavy_item_is_passed_over_for_a_while_only(tmp_path: Path) -> None:
    items = [weighing(number, 1000 if number == 2 else 120) for number in range(80)]
    place = run(tmp_path, items, workers=8).order.index("item002")
    assert place <= 20  # it was passed over 8 times, and 8 were under way


@pytest.mark.parametrize("memory_mb", [900, 1e6])
def test_idle_workers_give_back_what_a_heavy_item_needs(tmp_path: Path, memory_mb: float) -> None:
    items = [weighing(0, 400), weighing(1, 400), weighing(2, 850)]
    seen = run(tmp_path, items, workers=2, memory_mb=memory_mb)
    num_at_the_end = 2
    assert (seen.num_closed > num_at_the_end) == (memory_mb == 900)


def test_the_budget_is_most_of_what_is_free_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.admission.free_memory_mb", lambda: 10_000.0)
    assert Place.here(0).memory_mb == 8000
    assert Place.here(3000, name="node").memory_mb == 3000
