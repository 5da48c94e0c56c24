from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from pipeline.backends import LocalBackend, RetryPolicy
from pipeline.budget import ByteBudget
from pipeline.events import EventLog
from pipeline.records import Asset, Record, SourceItem
from pipeline.runner import Runner, RunState
from pipeline.stage import Stage
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.pipeline.toys import item
from tests.render.rows import asset_of

POLICY = RetryPolicy(attempts=2, first_wait_s=0.01)
ASSET_BYTES = 100


@dataclass(frozen=True, kw_only=True)
class Bring(Stage[SourceItem, Asset]):
    """An asset of 100 bytes for each item; two neighbours bring the same."""

    name: ClassVar[str] = "toy.bring"
    writes: ClassVar[tuple[type[Record], ...]] = (Asset,)
    resource: ClassVar[str] = "io"  # type: ignore[assignment,misc]
    machine_fields: ClassVar[frozenset[str]] = frozenset({"data", "limit"})
    limit: int = 0

    @property
    def byte_budget(self) -> int:
        return self.limit

    @classmethod
    def inputs(cls, rows: Sequence[Record]) -> list[SourceItem]:
        return [row for row in rows if isinstance(row, SourceItem)]

    def process(self, item: SourceItem) -> Iterator[Asset]:
        asset = asset_of(self.store, str(item.seq // 2).encode().ljust(ASSET_BYTES))
        yield replace(asset, item_id=item.item_id, seq=item.seq)


def run(store: Store, items: list[SourceItem], limit: int) -> tuple[RunState, list[int]]:
    stages = (Bring(data=store.root, limit=limit),)
    backend = LocalBackend(store, stages, 2, POLICY)
    marks: list[int] = []
    runner = Runner(Tables(store), stages, backend, policy=POLICY, events=EventLog(store), on_watermark=marks.append)
    try:
        return runner.run(iter(items)), marks
    finally:
        backend.close()


def test_what_is_left_is_left_to_a_later_run(store: Store) -> None:
    items = [item(number) for number in range(300)]
    run(store, items[200:202], limit=0)  # done before, and far down the list
    state, marks = run(store, items, limit=10 * ASSET_BYTES)
    count = state.stages["toy.bring"]
    stored = Tables(store).rows(Asset)
    assert 10 <= len({asset.asset_id for asset in stored}) <= 11
    assert (count.resumed, count.done) == (2, len(stored) - 2)
    assert state.num_finished == len(stored)
    assert count.held == 300 - len(stored)
    # The packer may rely on what stands before the first that is missing, and on nothing after it.
    done = {asset.seq for asset in stored}
    assert max(marks) <= min(set(range(300)) - done)

    state, marks = run(store, items, limit=0)
    assert len(Tables(store).rows(Asset)) == 300
    assert state.stages["toy.bring"].held == 0
    assert marks[-1] == 300


def test_a_budget_that_is_spent_begins_nothing(store: Store) -> None:
    run(store, [item(0)], limit=0)
    state, _ = run(store, [item(number) for number in range(50)], limit=ASSET_BYTES)
    assert (state.stages["toy.bring"].done, state.stages["toy.bring"].held) == (0, 49)


def test_few_are_under_way_at_the_beginning_and_towards_the_end(store: Store) -> None:
    budget = ByteBudget(1000, Tables(store))
    assert (budget.admits(3), budget.admits(4)) == (True, False)  # nothing is known of sizes yet
    budget.count([asset_of(store, b"x" * 300), asset_of(store, b"y" * 300), asset_of(store, b"x" * 300)])
    assert budget.num_bytes == 600
    assert (budget.admits(1), budget.admits(2)) == (True, False)
    budget.count([asset_of(store, b"z" * 500)])
    assert budget.is_spent
    assert not budget.admits(0)


def test_no_budget_is_never_spent(tmp_path: Path) -> None:
    budget = ByteBudget(0, Tables(Store(str(tmp_path))))
    assert budget.admits(10**6)
    assert not budget.is_spent
