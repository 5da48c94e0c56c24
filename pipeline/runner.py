"""Run a chain of stages over a stream of inputs: here or on Ray, with retries, resume, deadlines and progress.

Rows flow as soon as they exist: a clip can be scored while another asset is still being fetched. Later stages go first,
so that work in hand is finished before more is begun, and a bounded number of inputs is under way at any time.
"""

import itertools
import sys
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pipeline.admission import Admission
from pipeline.backends import Backend, Lane, Outcome, RetryPolicy, Task, lane_of, reasons_of
from pipeline.budget import ByteBudget
from pipeline.events import EventLog
from pipeline.records import Record
from pipeline.stage import Stage, rejected
from pipeline.tables import Tables

PATIENCE = 8
"""How often work may be passed over on a machine before nothing more begins there until it fits."""


@dataclass
class StageCount:
    """What a stage has done so far in this run."""

    waiting: int = 0
    running: int = 0
    done: int = 0
    resumed: int = 0
    """Done by an earlier run."""
    held: int = 0
    """Left to do by a later run, because the byte budget is spent."""
    rows: int = 0
    busy_s: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass
class RunState:
    """What a progress display needs to know."""

    stages: "OrderedDict[str, StageCount]"
    num_inputs: int | None
    """Inputs of the first stage in all; None while unknown."""
    num_finished: int = 0
    """Inputs of the first stage with all that came of them."""
    started: float = field(default_factory=time.monotonic)


@dataclass
class _Work:
    """A task with the first-stage inputs that wait for it."""

    task: Task
    roots: set[int]
    lost: int = 0
    """How many workers died with it alone."""
    is_suspect: bool = False
    """A process died in which other tasks ran as well."""
    not_before: float = 0.0
    started: float = 0.0
    memory_mb: float = 0.0
    passed_over: Counter[str] = field(default_factory=Counter)
    """How often smaller work went first for want of memory, by place."""


class Runner:
    """Runs stages in a chain: the rows that one yields are sought through for the inputs of the next."""

    def __init__(
        self,
        tables: Tables,
        stages: Sequence[Stage[Any, Any]],
        backend: Backend,
        *,
        policy: RetryPolicy,
        events: EventLog,
        deadline_s: float = 3600.0,
        on_change: Callable[[RunState], None] = lambda state: None,
        on_watermark: Callable[[int], None] = lambda seq: None,
    ) -> None:
        """Prepare a run.

        Args:
            tables: Where rows are committed and what is done is read.
            stages: In the order in which rows flow.
            backend: Built with the same stages.
            policy: For workers that die; faults inside a worker follow the same policy there.
            events: Where each task's end is recorded.
            deadline_s: For one task in all, whatever it does. Blender's phases have their own, shorter ones.
            on_change: Called with the state after each step.
            on_watermark: Called with n when all first-stage inputs before the n-th are finished.
        """
        if deadline_s <= 0:
            raise ValueError(f"deadline_s must be positive, got {deadline_s}")
        self._tables, self._stages, self._backend = tables, tuple(stages), backend
        self._policy, self._events, self._deadline_s = policy, events, deadline_s
        self._on_change, self._on_watermark = on_change, on_watermark
        self._numbers = itertools.count()
        self._done = [tables.done(stage) for stage in self._stages]
        self._before = [set(done) for done in self._done]
        """Done by earlier runs, and not met in this one yet."""
        self._made: list[dict[str, list[Record]]] = [
            tables.made_from(stage) if index + 1 < len(self._stages) else {} for index, stage in enumerate(self._stages)
        ]
        self._queues: list[OrderedDict[str, _Work]] = [OrderedDict() for _ in self._stages]
        self._running: dict[int, tuple[int, _Work]] = {}  # task number -> worker, work
        self._affinity: dict[int, str] = {}  # worker -> what it has warm
        self._admission = Admission()
        self._budgets = [ByteBudget(stage.byte_budget, tables) for stage in self._stages]
        self._held: set[int] = set()
        """Roots that a spent budget has left to a later run, and that wait for something else still."""
        self._first_held = sys.maxsize
        self._outstanding: dict[int, int] = {}  # root -> tasks it waits for
        self._next_root = 0
        names = [stage.name for stage in self._stages]
        self.state = RunState(OrderedDict((name, StageCount()) for name in names), None)

    def run(self, items: Iterator[Any], *, num_inputs: int | None = None) -> RunState:
        """Bring every item through all stages.

        Args:
            items: Inputs of the first stage, in the order that decides ties.
            num_inputs: How many there are, if known.

        Raises:
            RuntimeError: The machine cannot go on; the tables are consistent and the same run resumes.
        """
        self.state.num_inputs = num_inputs
        self._tables.remember_settings(self._stages)
        try:
            self._loop(items)
        finally:
            self._events.flush()
        self._tables.compact(at_least=2)
        return self.state

    def _loop(self, items: Iterator[Any]) -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="mv4d-merge") as merger:
            self._work_off(items, merger)

    def _work_off(self, items: Iterator[Any], merger: Executor) -> None:
        exhausted = False
        since_merge = 0
        merging: Future[int] | None = None
        while True:
            while not exhausted and self._wants_more():
                try:
                    self._admit(next(items))
                except StopIteration:
                    exhausted = True
                    self.state.num_inputs = self._next_root
                    self._announce()
            has_held = self._hold_back()
            self._dispatch()
            self._on_change(self.state)
            if exhausted and not self._outstanding:
                break
            for worker, outcome in self._backend.wait(0.0 if has_held else 0.2):
                self._settle(worker, outcome)
                since_merge += 1
            self._kill_overdue()
            if merging and merging.done():
                merging.result()
                merging = None
            if since_merge >= 2000 and not merging:
                # Aside, so that nobody waits for work meanwhile.
                merging = merger.submit(self._tables.compact, wait=False)
                since_merge = 0

    def _wants_more(self) -> bool:
        lanes = Counter(self._backend.lanes().values())
        return len(self._outstanding) < max(4, 12 * lanes["core"] + 2 * lanes["io"])

    def _admit(self, item: Any) -> None:
        root = self._next_root
        self._next_root += 1
        self._outstanding[root] = 0
        self._enqueue(0, item, {root})
        self._close_finished({root})

    def _enqueue(self, index: int, item: Any, roots: set[int]) -> None:
        stage = self._stages[index]
        input_id = stage.input_id(item)
        count = self.state.stages[stage.name]
        if input_id in self._done[index]:
            if input_id in self._before[index]:
                self._before[index].discard(input_id)
                count.resumed += 1
            self._route(index, item, self._made[index].get(input_id, []), roots)
            return
        work = self._queues[index].get(input_id) or self._running_work(index, input_id)
        if work is None:
            task = Task(number=next(self._numbers), stage_index=index, input_id=input_id, item=item)
            work = self._queues[index][input_id] = _Work(task, set(), memory_mb=stage.memory_mb(item))
            count.waiting += 1
        for root in roots - work.roots:
            self._outstanding[root] += 1
        work.roots |= roots

    def _running_work(self, index: int, input_id: str) -> _Work | None:
        for _, work in self._running.values():
            if work.task.stage_index == index and work.task.input_id == input_id:
                return work
        return None

    def _route(self, index: int, item: Any, rows: Sequence[Record], roots: set[int]) -> None:
        """Hand the rows of an item on to the next stage, and to the side stages on the way there."""
        if self._stages[index].side:
            return
        for later in range(index + 1, len(self._stages)):
            stage = self._stages[later]
            known = [item, *rows] if stage.side and isinstance(item, Record) else rows
            for found in stage.inputs(known):
                self._enqueue(later, found, roots)
            if not stage.side:
                break

    def _dispatch(self) -> None:
        busy = {worker for worker, _ in self._running.values()}
        for worker, lane in self._backend.lanes().items():
            if worker not in busy and (work := self._choose(worker, lane)):
                index = work.task.stage_index
                count = self.state.stages[self._stages[index].name]
                count.waiting -= 1
                count.running += 1
                work.started = time.monotonic()
                self._running[work.task.number] = (worker, work)
                self._affinity[worker] = self._stages[index].affinity(work.task.item)
                for idle in self._admission.begin(worker, self._backend.place(worker), work.memory_mb):
                    self._affinity.pop(idle, None)
                    self._backend.rest(idle)
                self._backend.submit(worker, work.task)

    def _choose(self, worker: int, lane: Lane) -> _Work | None:
        """The next task for a worker: of the latest stage, and best of what the worker has warm.

        Work that does not fit into the machine's memory is passed over, but not for ever.
        """
        now = time.monotonic()
        place = self._backend.place(worker)
        fitting: dict[int, list[_Work]] = {}
        too_large: list[_Work] = []
        for index in reversed(range(len(self._stages))):
            running = self.state.stages[self._stages[index].name].running
            if lane_of(self._stages[index]) == lane and self._budgets[index].admits(running):
                fitting[index] = []
                for work in self._queues[index].values():
                    if work.not_before <= now and work.is_suspect == self._backend.takes_suspects(worker):
                        fits = self._admission.fits(worker, place, work.memory_mb)
                        (fitting[index] if fits else too_large).append(work)
        due = any(work.passed_over[place.name] >= PATIENCE for work in too_large)
        for index, works in fitting.items():
            ready = [work for work in works if work.memory_mb == 0 or not due]
            if ready:
                chosen = self._warmest(worker, index, ready)
                if chosen.memory_mb > 0:
                    for work in too_large:
                        work.passed_over[place.name] += 1
                chosen.passed_over.clear()
                del self._queues[index][chosen.task.input_id]
                return chosen
        return None

    def _warmest(self, worker: int, index: int, ready: Sequence[_Work]) -> _Work:
        """What the worker has warm, else what nobody has, else the first."""
        stage = self._stages[index]
        mine = self._affinity.get(worker, "")
        others = {warm for other, warm in self._affinity.items() if other != worker}

        def coldness(work: _Work) -> int:
            warm = stage.affinity(work.task.item)
            return 0 if warm == mine else (2 if warm in others else 1)

        return min(ready, key=coldness)

    def _settle(self, worker: int, outcome: Outcome) -> None:
        if outcome.number not in self._running:
            return
        _, work = self._running.pop(outcome.number)
        self._admission.end(worker)
        if outcome.stop:
            raise RuntimeError(outcome.stop)
        if outcome.lost:
            self._admission.forget(worker)
            work.is_suspect |= outcome.is_shared
            self._lose(work, outcome.lost, strikes=0 if outcome.is_shared else 1)
        else:
            self._finish(work, outcome)

    def _lose(self, work: _Work, why: str, reason: str = "machine_fault", *, strikes: int = 1) -> None:
        """A worker died with the task: try again after a while, or turn the input away after so many strikes."""
        stage = self._stages[work.task.stage_index]
        count = self.state.stages[stage.name]
        count.running -= 1
        work.lost += strikes
        self._events.write("lost", stage=stage.name, input_id=work.task.input_id, why=why)
        if work.lost < self._policy.attempts:
            wait_s = min(self._policy.longest_wait_s, self._policy.first_wait_s * 2.0 ** (work.lost - 1))
            work.not_before = time.monotonic() + wait_s
            self._queues[work.task.stage_index][work.task.input_id] = work
            count.waiting += 1
            return
        count.running += 1
        name = str(getattr(work.task.item, "name", ""))
        row = rejected(stage, work.task.input_id, reason, why, name)
        self._tables.commit(stage, work.task.input_id, [row])
        self._finish(work, Outcome(number=work.task.number, rows=(row,), attempts=work.lost))

    def _finish(self, work: _Work, outcome: Outcome) -> None:
        index = work.task.stage_index
        stage = self._stages[index]
        reasons = reasons_of(outcome.rows)
        count = self.state.stages[stage.name]
        count.running -= 1
        count.done += 1
        count.busy_s += outcome.seconds
        count.rows += len(outcome.rows) - len(reasons)
        count.reasons.update(reasons)
        self._done[index].add(work.task.input_id)
        self._budgets[index].count(outcome.rows)
        if index + 1 < len(self._stages):
            # Kept for inputs that turn up again (equal bytes under two names), as rows are small.
            self._made[index][work.task.input_id] = list(outcome.rows)
        self._events.write(
            "done",
            stage=stage.name,
            input_id=work.task.input_id,
            seconds=round(outcome.seconds, 4),
            attempts=outcome.attempts,
            rows=len(outcome.rows) - len(reasons),
            reasons=reasons,
        )
        self._route(index, work.task.item, outcome.rows, work.roots)
        for root in work.roots:
            self._outstanding[root] -= 1
        self._close_finished(work.roots)

    def _hold_back(self) -> bool:
        """Leave what waits for a stage whose budget is spent to a later run; gives whether there was any."""
        has_held = False
        for stage, budget, waiting in zip(self._stages, self._budgets, self._queues, strict=True):
            if budget.is_spent and waiting:
                count = self.state.stages[stage.name]
                if not count.held:
                    self._events.write("byte_budget_spent", stage=stage.name, num_bytes=budget.num_bytes)
                has_held = True
                count.waiting -= len(waiting)
                count.held += len(waiting)
                while waiting:
                    _, work = waiting.popitem()
                    self._held |= work.roots
                    self._first_held = min(self._first_held, *work.roots)
                    for root in work.roots:
                        self._outstanding[root] -= 1
                    self._close_finished(work.roots)
        return has_held

    def _close_finished(self, roots: set[int]) -> None:
        finished = [root for root in roots if self._outstanding.get(root) == 0]
        for root in finished:
            del self._outstanding[root]
        if finished:
            self.state.num_finished += len(set(finished) - self._held)
            self._held.difference_update(finished)
            self._announce()

    def _announce(self) -> None:
        self._on_watermark(min(self._first_held, min(self._outstanding, default=self._next_root)))

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for number, (worker, work) in list(self._running.items()):
            if now - work.started > self._deadline_s:
                del self._running[number]
                self._backend.replace(worker)
                self._admission.forget(worker)
                work.lost = self._policy.attempts  # an input that hangs once would hang again
                self._lose(work, f"no answer after {self._deadline_s:.0f} s", "deadline")


def by_stage(state: RunState) -> dict[str, dict[str, int]]:
    """Outcomes of a run by stage: `rows`, `resumed`, and each reason with its count."""
    table: dict[str, dict[str, int]] = defaultdict(dict)
    for name, count in state.stages.items():
        table[name] = {"rows": count.rows, "resumed": count.resumed, **count.reasons}
    return dict(table)
