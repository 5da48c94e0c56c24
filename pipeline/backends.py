"""Where work runs: in threads of this process, or in Ray actors. Both look the same to the runner.

A worker takes one task at a time, runs the stage, commits the rows itself and sends them back: there is no
central writer, and pixels never travel.
"""

import errno
import importlib
import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tenacity import Retrying, retry_if_not_exception_type, stop_after_attempt, wait_exponential_jitter

from pipeline.admission import Place
from pipeline.group_commit import GroupCommit
from pipeline.records import Record, Rejected
from pipeline.revoked import deny_list
from pipeline.stage import Stage, rejected
from pipeline.storage import Store
from pipeline.tables import Tables

Lane = Literal["io", "core"]
"""Workers of the `io` lane wait for others; those of the `core` lane keep a core (or a GPU) busy."""
IO_PER_ACTOR = 64


class StopRun(Exception):
    """The machine cannot go on (its disk is full, say): no input is to blame, the run has to end."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """What happens when the machine, not the input, is at fault."""

    attempts: int = 3
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_wait_s < 0:
            raise ValueError(f"need attempts >= 1 and first_wait_s >= 0, got {self}")

    def retrying(self) -> Retrying:
        """Tenacity's loop for this policy."""
        return Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=wait_exponential_jitter(multiplier=self.first_wait_s, max=self.longest_wait_s),
            retry=retry_if_not_exception_type(StopRun),
            reraise=True,
        )


@dataclass(frozen=True, kw_only=True)
class Task:
    """One input for one stage."""

    number: int
    stage_index: int
    input_id: str
    item: Any


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a task, or that its worker is gone."""

    number: int
    rows: tuple[Record, ...] = ()
    seconds: float = 0.0
    attempts: int = 1
    lost: str = ""
    """Why the worker died with the task; empty if it did not."""
    is_shared: bool = False
    """Its process had other tasks as well, and any of them may be to blame."""
    stop: str = ""
    """Why the run has to end; empty if it may go on."""


Commit = Callable[[Stage[Any, Any], str, Sequence[Record]], None]
"""Writes what a stage made of an input."""


def commit_for(lane: Lane, tables: Tables) -> Commit:
    """How the workers of a lane that share a process write their rows."""
    return GroupCommit(tables).commit if lane == "io" else tables.commit


def run_task(
    tables: Tables, stages: Sequence[Stage[Any, Any]], task: Task, policy: RetryPolicy, commit: Commit
) -> Outcome:
    """Run one task to its end: rows committed, or a `Rejected` row after the last try."""
    stage = stages[task.stage_index]
    started = time.monotonic()
    attempts = 0
    rows: list[Record] = []
    try:
        for attempt in policy.retrying():
            with attempt:
                attempts += 1
                try:
                    rows = _rows_of(tables, stage, task)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise StopRun(f"no space left on the disk: {error}") from error
                    raise
    except StopRun as error:
        return Outcome(number=task.number, stop=str(error))
    except Exception as error:
        last_lines = "".join(traceback.format_exception(error)[-3:])
        name = str(getattr(task.item, "name", ""))
        rows = [rejected(stage, task.input_id, "machine_fault", f"{error!r}\n{last_lines}", name)]
    try:
        commit(stage, task.input_id, rows)
    except OSError as error:
        return Outcome(number=task.number, stop=f"cannot write to {tables.store.root}: {error}")
    seconds = time.monotonic() - started
    return Outcome(number=task.number, rows=tuple(rows), seconds=seconds, attempts=attempts)


def _rows_of(tables: Tables, stage: Stage[Any, Any], task: Task) -> list[Record]:
    """What the stage makes of the task's item; of an asset that was taken down, no stage makes anything."""
    if deny_list(tables.store.root).has(getattr(task.item, "asset_id", "")):
        name = str(getattr(task.item, "name", ""))
        return [rejected(stage, task.input_id, "revoked", "listed in shards/REVOKED.parquet", name)]
    return list(stage.process(task.item))


class Backend(Protocol):
    """Workers by number. A worker runs one task at a time."""

    def lanes(self) -> dict[int, Lane]:
        """The workers that can take tasks now, by number."""

    def place(self, worker: int) -> Place:
        """The machine of a worker that can take tasks."""

    def takes_suspects(self, worker: int) -> bool:
        """Whether a worker is kept, in a process of its own, for what may have killed a process that others shared."""

    def submit(self, worker: int, task: Task) -> None:
        """Give an idle worker a task."""

    def rest(self, worker: int) -> None:
        """Have an idle worker give back what its stages hold."""

    def wait(self, timeout_s: float) -> list[tuple[int, Outcome]]:
        """Outcomes that have come in, with the worker's number; waits for the first one at most so long."""

    def replace(self, worker: int) -> None:
        """Kill a worker that overran its deadline; another takes its number."""

    def close(self) -> None:
        """End all workers."""


def lane_of(stage: Stage[Any, Any]) -> Lane:
    """Whose work a stage is."""
    return "io" if stage.resource == "io" else "core"


def _lanes(stages: Sequence[Stage[Any, Any]], num_workers: int) -> list[Lane]:
    """The lane of each worker: one a core, and one for each download that may be under way."""
    core: list[Lane] = ["core"] * num_workers
    io: list[Lane] = ["io"] * max((stage.at_once for stage in stages if lane_of(stage) == "io"), default=0)
    return core + io


@dataclass
class _Thread:
    lane: Lane
    inbox: 'queue.Queue[Task | Literal["rest", "end"]]' = field(default_factory=queue.Queue)
    handle: threading.Thread | None = None


class LocalBackend:
    """Threads of this process. Heavy work is in child processes (Blender) or in code that frees the interpreter."""

    def __init__(
        self,
        store: Store,
        stages: Sequence[Stage[Any, Any]],
        num_workers: int,
        policy: RetryPolicy,
        *,
        memory_mb: float = 0.0,
    ) -> None:
        self._tables = Tables(store)
        self._commits: dict[Lane, Commit] = {lane: commit_for(lane, self._tables) for lane in ("core", "io")}
        self._place = Place.here(memory_mb)
        self._stages = tuple(stages)
        self._policy = policy
        self._outcomes: queue.Queue[tuple[_Thread, int, Outcome]] = queue.Queue()
        self._threads: dict[int, _Thread] = {}
        for worker, lane in enumerate(_lanes(self._stages, num_workers)):
            self._start(worker, lane)

    def _start(self, worker: int, lane: Lane) -> None:
        thread = self._threads[worker] = _Thread(lane)
        name = f"mv4d-{lane}-{worker}"
        thread.handle = threading.Thread(target=self._work, args=(worker, thread), name=name, daemon=True)
        thread.handle.start()

    def _work(self, worker: int, thread: _Thread) -> None:
        while (task := thread.inbox.get()) != "end":
            if isinstance(task, Task):
                commit = self._commits[thread.lane]
                outcome = run_task(self._tables, self._stages, task, self._policy, commit)
                self._outcomes.put((thread, worker, outcome))
            else:
                close_stages(self._stages, thread.lane)
        if thread.lane == "core":
            close_stages(self._stages, "core")

    def lanes(self) -> dict[int, Lane]:
        """See `Backend`."""
        return {worker: thread.lane for worker, thread in self._threads.items()}

    def place(self, worker: int) -> Place:
        """See `Backend`."""
        return self._place

    def takes_suspects(self, worker: int) -> bool:
        """See `Backend`. What kills this process ends the run."""
        return False

    def submit(self, worker: int, task: Task) -> None:
        """See `Backend`."""
        self._threads[worker].inbox.put(task)

    def rest(self, worker: int) -> None:
        """See `Backend`."""
        self._threads[worker].inbox.put("rest")

    def wait(self, timeout_s: float) -> list[tuple[int, Outcome]]:
        """See `Backend`."""
        found = []
        try:
            found.append(self._outcomes.get(timeout=timeout_s))
            while True:
                found.append(self._outcomes.get_nowait())
        except queue.Empty:
            pass
        # An outcome of a thread that was replaced comes too late: its task has been dealt with.
        return [(worker, outcome) for thread, worker, outcome in found if self._threads[worker] is thread]

    def replace(self, worker: int) -> None:
        """See `Backend`. Python cannot end a thread: it is left behind and ends itself after its task."""
        old = self._threads[worker]
        old.inbox.put("end")
        self._start(worker, old.lane)

    def close(self) -> None:
        """See `Backend`."""
        for thread in self._threads.values():
            thread.inbox.put("end")
        deadline = time.monotonic() + 10.0
        for thread in self._threads.values():
            if thread.handle is not None:
                thread.handle.join(timeout=max(0.0, deadline - time.monotonic()))
        # Those of the io lane share what their stages hold, connections above all.
        close_stages(self._stages, "io")


@dataclass(frozen=True)
class _Running:
    worker: int
    number: int
    """Of the task."""
    actor: Any
    is_shared: bool


class RayBackend:
    """Ray actors, a bounded number in flight, no Ray Data.

    A `core` worker is an actor with a core of its own. `io` workers are threads of an actor, `IO_PER_ACTOR` at most, so
    that they share connections and keep to one limit for each host. If such an actor dies, its tasks go one by one to
    the last `io` worker, which has an actor to itself: there the cause shows itself, and takes nothing with it.

    An actor never runs native render code itself (Blender is its child process), so its death means that the node is
    gone; the task is then given to another.
    """

    def __init__(
        self,
        store: Store,
        stages: Sequence[Stage[Any, Any]],
        num_workers: int,
        policy: RetryPolicy,
        *,
        num_gpus: float = 0.0,
        memory_mb: float = 0.0,
    ) -> None:
        ray: Any = importlib.import_module("ray")  # the `cluster` extra
        self._ray = ray
        if not ray.is_initialized():
            ray.init(log_to_driver=False, ignore_reinit_error=True)
        self._arguments = (store, tuple(stages), policy, memory_mb)
        self._num_gpus = num_gpus
        if num_workers == 0:
            num_workers = max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)
        self._lanes: dict[int, Lane] = dict(enumerate(_lanes(stages, num_workers)))
        self._actors: dict[int, Any] = {}
        self._places: dict[int, Place] = {}
        self._starting: dict[Any, tuple[int, ...]] = {}
        self._running: dict[Any, _Running] = {}
        io = [worker for worker, lane in self._lanes.items() if lane == "io"]
        self._for_suspects = len(self._lanes) if len(io) > 1 else None
        for worker in range(num_workers):
            self._start((worker,))
        for start in range(0, len(io), IO_PER_ACTOR):
            self._start(tuple(io[start : start + IO_PER_ACTOR]))
        if self._for_suspects is not None:
            self._lanes[self._for_suspects] = "io"
            self._start((self._for_suspects,))

    def _start(self, workers: tuple[int, ...]) -> None:
        """One actor for some workers of one lane."""
        lane = self._lanes[workers[0]]
        core = lane == "core"
        actor = (
            self._ray.remote(_RayWorker)
            .options(
                # Fetchers wait: they must not take the cores that the renderers need.
                num_cpus=1.0 if core else 0.0,
                num_gpus=self._num_gpus if core else 0.0,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=len(workers),
                scheduling_strategy="SPREAD",
            )
            .remote(*self._arguments, lane)
        )
        self._actors |= dict.fromkeys(workers, actor)
        self._starting[actor.ready.remote()] = workers

    def lanes(self) -> dict[int, Lane]:
        """See `Backend`. Actors that wait for a node are not listed yet."""
        starting = {worker for workers in self._starting.values() for worker in workers}
        return {worker: lane for worker, lane in self._lanes.items() if worker not in starting}

    def place(self, worker: int) -> Place:
        """See `Backend`. Of workers of one machine, the first has seen the most memory free."""
        name = self._places[worker].name
        memory_mb = max(place.memory_mb for place in self._places.values() if place.name == name)
        return Place(name=name, memory_mb=memory_mb)

    def takes_suspects(self, worker: int) -> bool:
        """See `Backend`."""
        return worker == self._for_suspects

    def rest(self, worker: int) -> None:
        """See `Backend`."""
        self._actors[worker].close.remote()

    def submit(self, worker: int, task: Task) -> None:
        """See `Backend`."""
        actor = self._actors[worker]
        self._running[actor.run.remote(task)] = _Running(worker, task.number, actor, len(self._beside(worker)) > 1)

    def wait(self, timeout_s: float) -> list[tuple[int, Outcome]]:
        """See `Backend`."""
        pending = [*self._starting, *self._running]
        if not pending:
            time.sleep(timeout_s)
            return []
        ready, _ = self._ray.wait(pending, num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = self._ray.wait(pending, num_returns=len(pending), timeout=0)
        found = []
        for reference in ready:
            if reference in self._starting:
                self._started(reference)
            else:
                found.append(self._finished(reference))
        return found

    def _started(self, reference: Any) -> None:
        workers = self._starting.pop(reference)
        try:
            self._places |= dict.fromkeys(workers, self._ray.get(reference))
        except self._ray.exceptions.RayActorError:
            self._start(workers)

    def _finished(self, reference: Any) -> tuple[int, Outcome]:
        was = self._running.pop(reference)
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            if was.actor is self._actors[was.worker]:  # the first to be heard of; the others share the new actor
                self._start(self._beside(was.worker))
            why = f"the Ray worker died: {type(error).__name__}"
            outcome = Outcome(number=was.number, lost=why, is_shared=was.is_shared)
        return was.worker, outcome

    def _beside(self, worker: int) -> tuple[int, ...]:
        """The workers of the same actor, this one among them."""
        return tuple(other for other, actor in self._actors.items() if actor is self._actors[worker])

    def replace(self, worker: int) -> None:
        """See `Backend`. An actor that others share goes on for them, with one thread fewer."""
        old, is_shared = self._actors[worker], len(self._beside(worker)) > 1
        self._running = {reference: was for reference, was in self._running.items() if was.worker != worker}
        if not is_shared:
            self._ray.kill(old, no_restart=True)
        self._start((worker,))

    def close(self) -> None:
        """See `Backend`."""
        busy = {was.worker for was in self._running.values()}
        idle = {id(self._actors[worker]): self._actors[worker] for worker in self.lanes() if worker not in busy}
        closing = [actor.close.remote() for actor in idle.values()]
        self._ray.wait(closing, num_returns=len(closing), timeout=10.0) if closing else None
        for actor in {id(actor): actor for actor in self._actors.values()}.values():
            self._ray.kill(actor, no_restart=True)


class _RayWorker:
    """The actor's body."""

    def __init__(
        self, store: Store, stages: Sequence[Stage[Any, Any]], policy: RetryPolicy, memory_mb: float, lane: Lane
    ) -> None:
        self._tables, self._stages, self._policy = Tables(store), stages, policy
        self._memory_mb, self._lane = memory_mb, lane
        self._commit = commit_for(lane, self._tables)

    def ready(self) -> Place:
        ray: Any = importlib.import_module("ray")
        return Place.here(self._memory_mb, name=str(ray.get_runtime_context().get_node_id()))

    def run(self, task: Task) -> Outcome:
        return run_task(self._tables, self._stages, task, self._policy, self._commit)

    def close(self) -> None:
        close_stages(self._stages, self._lane)


def close_stages(stages: Sequence[Stage[Any, Any]], lane: Lane) -> None:
    """Have the stages of a lane give back what they hold."""
    for stage in stages:
        if lane_of(stage) == lane:
            stage.close()


def reasons_of(rows: Sequence[Record]) -> list[str]:
    """The reasons of the rejected among the rows."""
    return [row.reason for row in rows if isinstance(row, Rejected)]
