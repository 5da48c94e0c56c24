"""A run's progress for a person: a live table of its stages on a terminal, plain lines elsewhere.

One piece of work that only counts is shown by `progress_bar.py`.
"""

import itertools
import sys
import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.progress_bar import duration
from pipeline.runner import RunState, StageCount

PLAIN_EVERY_S = 10.0
LIVE_EVERY_S = 0.25


class Progress:
    """Shows a run while it goes on. Give `update` to the runner; use as a context manager."""

    def __init__(self, heading: str, *, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._heading = heading
        self._quiet = quiet
        self._live: Live | None = None
        self._last = 0.0
        self._last_line = ""

    def __enter__(self) -> "Progress":
        if self._console.is_terminal and not self._quiet:
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, state: RunState) -> None:
        """Redraw if it is time to; the last state of a run is always shown."""
        now = time.monotonic()
        held = sum(count.held for count in state.stages.values())
        finished = state.num_inputs is not None and state.num_finished + held >= state.num_inputs
        every = LIVE_EVERY_S if self._live is not None else PLAIN_EVERY_S
        if self._quiet or (now - self._last < every and not finished):
            return
        self._last = now
        if self._live is not None:
            self._live.update(self._table(state), refresh=True)
        elif (line := plain_line(state)) != self._last_line:
            self._last_line = line
            print(f"{self._heading}: {line}", file=sys.stderr, flush=True)

    def _table(self, state: RunState) -> RenderableType:
        table = Table(title=self._heading, title_justify="left", expand=False, pad_edge=False, box=None)
        for column in ("stage", "waiting", "running", "done", "resumed", "rows", "rate"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        table.add_column("turned away", overflow="fold", max_width=60)
        for name, count in state.stages.items():
            rate = f"{60 * count.done / max(1e-9, time.monotonic() - state.started):.1f}/min"
            table.add_row(name, *_numbers(count), rate if count.done else "", Text(_reasons(count), style="yellow"))
        total = state.num_inputs or 0
        bar = ProgressBar(total=max(1, total), completed=state.num_finished, width=40, pulse=not total)
        foot = Text(f"{state.num_finished}/{total or '?'} inputs finished, {_elapsed(state)}{_eta(state)}")
        return Group(table, bar, foot)


def plain_line(state: RunState) -> str:
    """The state in one line, for logs."""
    parts = []
    for name, count in state.stages.items():
        text = f"{name} {count.done + count.resumed}"
        if count.waiting + count.running:
            text += f" (+{count.waiting + count.running})"
        if count.held:
            text += f", {count.held} left for want of byte budget"
        if count.reasons:
            text += f" [{_reasons(count)}]"
        parts.append(text)
    total = "?" if state.num_inputs is None else state.num_inputs
    return f"{state.num_finished}/{total} inputs, {_elapsed(state)}{_eta(state)} | " + " | ".join(parts)


def _numbers(count: StageCount) -> list[str]:
    return [str(value or "") for value in (count.waiting, count.running, count.done, count.resumed, count.rows)]


def _reasons(count: StageCount) -> str:
    return ", ".join(f"{reason} {number}" for reason, number in count.reasons.most_common(6))


def _elapsed(state: RunState) -> str:
    return f"{duration(time.monotonic() - state.started)} so far"


def _eta(state: RunState) -> str:
    """Time left: what waits at each stage, times what an input of that stage has taken, over the busy workers."""
    if not state.num_inputs or not state.num_finished or state.num_finished >= state.num_inputs:
        return ""
    elapsed = time.monotonic() - state.started
    busy_s = sum(count.busy_s for count in state.stages.values())
    parallel = max(1.0, busy_s / max(elapsed, 1e-9))
    left_s = 0.0
    coming = float(state.num_inputs)  # inputs of this stage in all, as far as one can tell
    for stage, following in itertools.zip_longest(state.stages.values(), list(state.stages.values())[1:]):
        finished = stage.done + stage.resumed
        left = max(float(stage.waiting + stage.running), coming - finished)
        if stage.done:
            left_s += left * stage.busy_s / stage.done
        if following is not None:
            seen = following.waiting + following.running + following.done + following.resumed
            coming = seen + left * seen / max(1, finished)
    return f", about {duration(left_s / parallel)} left" if left_s else ""
