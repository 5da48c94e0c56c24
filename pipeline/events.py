"""What happened in a run, as JSON lines under `runs/<run id>/`: what was slow, what was tried again, what died.

Tables hold results and are the same for every run; events hold times and are not.
"""

import datetime
import json
import secrets
import threading
import time
from typing import Any

from pipeline.storage import Store


class EventLog:
    """One run's events. Threads may share it."""

    def __init__(self, store: Store, run_id: str = "") -> None:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
        self.run_id = run_id or f"{stamp}-{secrets.token_hex(3)}"
        self._store = store
        self._buffer: list[str] = []
        self._part = 0
        self._flushed = time.monotonic()
        self._lock = threading.Lock()

    def write(self, event: str, **fields: Any) -> None:
        """Record an event with the time of day."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **fields}, default=str)
        with self._lock:
            self._buffer.append(line)
            if time.monotonic() - self._flushed > 2.0:
                self._flush()

    def flush(self) -> None:
        """Write what is left."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        # Object stores cannot append, so each flush is a file of its own there; a folder gets one growing file.
        self._flushed = time.monotonic()
        if not self._buffer:
            return
        text = "\n".join(self._buffer) + "\n"
        folder = f"runs/{self.run_id}"
        if self._store.is_local:
            path = self._store.path(f"{folder}/events.jsonl")
            self._store.fs.makedirs(self._store.path(folder), exist_ok=True)
            with open(path, "a", encoding="utf-8") as file:
                file.write(text)
        else:
            self._store.write_bytes(f"{folder}/events-{self._part:05d}.jsonl", text.encode())
            self._part += 1
        self._buffer = []
