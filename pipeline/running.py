"""From options to a run: backend, progress and events around a chain of stages."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.backends import Backend, LocalBackend, RayBackend, RetryPolicy
from pipeline.events import EventLog
from pipeline.progress import Progress
from pipeline.reasons import REASONS
from pipeline.runner import Runner, RunState
from pipeline.stage import Stage
from pipeline.storage import Store
from pipeline.tables import Tables

logger = logging.getLogger("mv4d.pipeline")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How and where to run; nothing here changes what comes out."""

    data: str = "data"
    """Data root: a folder, or an fsspec URL such as s3://bucket/prefix."""
    backend: Literal["auto", "local", "ray"] = "auto"
    """local: threads and child processes of this machine. ray: actors on the cluster. auto: ray inside a Ray job."""
    workers: int = 0
    """Renderers at once; 0 is one a core, or all cores of the cluster but one."""
    gpus_per_worker: float = 0.0
    """Share of a GPU that each Ray worker asks for."""
    memory_mb_total: int = 0
    """Memory that the renderers of one machine may take together, in MB; 0 is 80 % of what is free when they start."""
    attempts: int = 3
    """Tries when the machine, not the input, is at fault."""
    deadline_s: float = 7200.0
    """Longest time for one input at one stage, whatever it does."""
    retry_rejected: str = ""
    """Look again at what earlier runs turned away for these reasons, by commas: `fetch_failed,machine_fault`."""
    quiet: bool = False
    """No progress display."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.reasons_to_retry) - set(REASONS))
        if unknown:
            raise ValueError(f"no such reason: {', '.join(unknown)}; `mv4d stats` lists those of a data root")
        if self.workers < 0 or self.attempts < 1 or self.deadline_s <= 0 or self.memory_mb_total < 0:
            raise ValueError(f"need workers and memory_mb_total >= 0, attempts >= 1 and deadline_s > 0, got {self}")

    @property
    def reasons_to_retry(self) -> tuple[str, ...]:
        """The reasons of `retry_rejected`."""
        return tuple(word for part in self.retry_rejected.split(",") if (word := part.strip()))

    @property
    def tables(self) -> Tables:
        """The tables of the data root."""
        return Tables(Store(self.data))

    @property
    def uses_ray(self) -> bool:
        """True if the work goes to a Ray cluster."""
        inside_job = any(name in os.environ for name in ("RAY_JOB_ID", "RAY_ADDRESS"))
        return self.backend == "ray" or (self.backend == "auto" and inside_job)

    @property
    def num_workers(self) -> int:
        """Workers on this machine."""
        return self.workers or os.cpu_count() or 1


def absolute_root(data: str) -> str:
    """The data root as workers on other machines and in other folders can use it."""
    return data if "://" in data else os.path.abspath(data)


def run_stages(
    options: RunOptions,
    stages: Sequence[Stage[Any, Any]],
    items: Iterator[Any],
    *,
    heading: str,
    num_inputs: int | None = None,
    on_watermark: Callable[[int], None] = lambda seq: None,
) -> RunState:
    """Bring items through stages, with progress on the terminal and events in the data root.

    Raises:
        RuntimeError: The machine cannot go on; the same run resumes.
    """
    store = Store(options.data)
    tables = Tables(store)
    tables.recover()
    if options.reasons_to_retry:
        num_waiting = tables.requeue(stages, options.reasons_to_retry)
        logger.info("%d inputs are looked at again (%s)", num_waiting, ", ".join(options.reasons_to_retry))
    policy = RetryPolicy(attempts=options.attempts)
    backend: Backend
    if options.uses_ray:
        backend = RayBackend(
            store,
            stages,
            options.workers,
            policy,
            num_gpus=options.gpus_per_worker,
            memory_mb=options.memory_mb_total,
        )
    else:
        backend = LocalBackend(store, stages, options.num_workers, policy, memory_mb=options.memory_mb_total)
    try:
        with Progress(heading, quiet=options.quiet) as progress:
            runner = Runner(
                tables,
                stages,
                backend,
                policy=policy,
                events=EventLog(store),
                deadline_s=options.deadline_s,
                on_change=progress.update,
                on_watermark=on_watermark,
            )
            state = runner.run(items, num_inputs=num_inputs)
    finally:
        backend.close()
    for name, count in state.stages.items():
        if count.held:
            logger.warning(
                "%s: the byte budget is spent; %d inputs stay to do: raise --fetch.byte_budget and give the same "
                "command again", name, count.held
            )  # fmt: skip
    return state
