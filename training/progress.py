"""How far a long command is: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_EVERY_S = 30.0


@contextlib.contextmanager
def progress(doing: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A function that is to be told how much is done, of how much.

    Args:
        doing: What is done: `encoding`.
        unit: What is counted: `samples`.
    """
    console = Console(stderr=True)
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn(f"{unit},"), TimeRemainingColumn())
    started = last = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(doing, total=None)

        def show(done: int, total: int) -> None:
            nonlocal last
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and (done == total or time.monotonic() - last > PLAIN_EVERY_S):
                last = time.monotonic()
                print(f"{doing}: {done}/{total} {unit}, {last - started:.0f} s so far", file=sys.stderr, flush=True)

        yield show
