"""Rows of many small tasks written together.

To write the fragments of one download takes more of a core than the download itself. Threads that work side by side
therefore wait a moment for each other, and one of them writes for all.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from pipeline.records import Record
from pipeline.stage import Stage
from pipeline.tables import Tables

GATHER_S = 0.1


class GroupCommit:
    """`Tables.commit` for threads that work side by side; returns when the caller's own rows are written."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._lock = threading.Lock()
        self._waiting: list[tuple[Stage[Any, Any], str, Sequence[Record], Future[None]]] = []

    def commit(self, stage: Stage[Any, Any], input_id: str, rows: Sequence[Record]) -> None:
        """See `Tables.commit`. The first to come waits `GATHER_S` for others, and writes what there is by then.

        Raises:
            OSError: The rows could not be written, which then holds for all that were to be written together.
        """
        written: Future[None] = Future()
        with self._lock:
            self._waiting.append((stage, input_id, rows, written))
            is_first = len(self._waiting) == 1
        if is_first:
            time.sleep(GATHER_S)
            self._write()
        written.result()

    def _write(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        by_stage = defaultdict(list)
        for entry in waiting:
            by_stage[id(entry[0])].append(entry)
        for entries in by_stage.values():
            try:
                self._tables.commit_together(entries[0][0], [(input_id, rows) for _, input_id, rows, _ in entries])
            except BaseException as error:  # raised again in each thread that waits
                for *_, written in entries:
                    written.set_exception(error)
            else:
                for *_, written in entries:
                    written.set_result(None)
