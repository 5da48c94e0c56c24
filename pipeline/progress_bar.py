"""How far one long piece of work is: a bar on a terminal, a line now and then elsewhere.

For work that counts steps, samples or files. A run of stages, with its queues and refusals, is shown by `progress.py`.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_EVERY_S = 30.0


class OnProgress(Protocol):
    """Is to be told how far the work is."""

    def __call__(self, done: int, total: int, about: str = "") -> None:
        """Show it.

        Args:
            done: How much is done.
            total: Of how much.
            about: What else there is to say: `27.1 dB`. Empty leaves what was said last.
        """


@contextlib.contextmanager
def progress_bar(doing: str, unit: str, *, console: Console | None = None, quiet: bool = False) -> Iterator[OnProgress]:
    """A function that is to be told how much is done, of how much.

    What the first call tells to be done counts as done before: time is foretold from what follows.

    Args:
        doing: What is done: `encoding`.
        unit: What is counted: `samples`.
        console: Where it is shown; the error stream if None.
        quiet: Show nothing.
    """
    console = console or Console(stderr=True)
    columns = (
        TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[about]}"), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    is_live = console.is_terminal and not quiet
    started = last = time.monotonic()
    first: int | None = None
    said, text = "", unit
    with Progress(*columns, console=console, disable=not is_live) as bar:
        task = bar.add_task(doing, total=None, about=unit)

        def show(done: int, total: int, about: str = "") -> None:
            nonlocal first, last, said, text
            first = done if first is None else first
            text = f"{unit}, {about}" if about else text
            bar.update(task, completed=done, total=total, about=escape(text))
            now, line = time.monotonic(), f"{doing}: {done}/{total} {text}"
            if is_live or quiet or line == said or (done < total and now - last <= PLAIN_EVERY_S):
                return
            last, said = now, line
            left_s = (now - started) * (total - done) / (done - first) if done > first else 0.0
            foretold = f", about {duration(left_s)} left" if left_s else ""
            print(f"{line}, {duration(now - started)} so far{foretold}", file=sys.stderr, flush=True)

        yield show


def duration(seconds: float) -> str:
    """As people say it: `75 s`, `12 min`, `1.6 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
