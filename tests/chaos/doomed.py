"""`mv4d build` that comes to harm at chosen moments: `python -m tests.chaos.doomed MOMENTS LOG build …`.

Python tells an audit hook of each file that is opened, renamed or removed *before* it is done, so a moment can be as
exact as "just before the third clip's file takes its name". Nothing of the pipeline is replaced.
"""

import json
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

CHILD = "render.blender.child"
PHASES = {
    "register": r"tables/items/",
    "ingest": r"blobs/",
    "load": r"mv4d-blender-[^/]*/inbox/",
    "probe": r"tables/(probes|animations)/",
    "plan": r"tables/plans/",
    "draw": r"mv4d-blender-[^/]*/out$",
    "encode": r"mv4d-blender-[^/]*/out/.*\.png$",
    "store": r"clips/",
    "score": r"tables/(image_motion|visibility|appearance)/",
    "commit": r"tables/done/",
    "decide": r"tables/decisions/|cache/duplicates",
    "pack": r"shards/.*\.tar|tables/(samples|shards)/",
    "compact": r"tables/merging\.json|tables/[a-z_]*/\.?merged-",
    "cards": r"shards/[^/]*\.(md|json|parquet)",
}
"""Phase of a build, and the files that it touches. `load` and `draw` are what comes just before Blender does it."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When and whom to strike."""

    phase: str
    nth: int
    """Of the phase's file operations in this process, from 1."""
    victim: Literal["driver", "child"] = "driver"
    delay_s: float = 0.0
    """After that operation; 0 strikes before it is done."""
    torn: bool = False
    """Cut the file in two that was about to take its name, and now never does. Not together with a delay."""


def main() -> int:
    """Run the command that follows, under the moments."""
    moments = [Moment(**entry) for entry in json.loads(sys.argv[1])]
    Strikes(moments, Path(sys.argv[2])).arm()
    from pipeline.cli import main as run

    return run(sys.argv[3:])


class Strikes:
    """Watches file operations and strikes when a moment has come, each once."""

    def __init__(self, moments: list[Moment], log: Path) -> None:
        self._left = list(moments)
        self._log = log
        self._counts: Counter[str] = Counter()
        self._lock = threading.RLock()

    def arm(self) -> None:
        """From here on; a hook cannot be taken away again."""
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        path = _path_of(event, arguments)
        phase = phase_of(path) if path else ""
        if not phase:
            return
        with self._lock:
            self._counts[phase] += 1
            due = [moment for moment in self._left if (moment.phase, moment.nth) == (phase, self._counts[phase])]
            self._left = [moment for moment in self._left if moment not in due]
        for moment in due:
            if moment.torn and event == "os.rename" and not moment.delay_s:
                os.truncate(arguments[0], os.path.getsize(arguments[0]) // 2)
            if moment.delay_s:
                threading.Timer(moment.delay_s, self._strike, (moment, path)).start()
            else:
                self._strike(moment, path)

    def _strike(self, moment: Moment, path: str) -> None:
        pids = [os.getpid()] if moment.victim == "driver" else blender_children(os.getpid())
        # Two workers have two children: the one that was started last has the asset in hand, as often as not.
        with self._log.open("a") as log:
            log.write(json.dumps({**asdict(moment), "path": path, "struck": bool(pids), "time": time.time()}) + "\n")
        if pids:
            os.kill(pids[-1], signal.SIGKILL)


def _path_of(event: str, arguments: tuple[Any, ...]) -> str:
    """The file that is about to be changed, or read where that tells a phase."""
    if event == "open":
        path, mode = arguments[0], arguments[1]
        writes = isinstance(mode, str) and mode[:1] in "wax"
        return str(path) if isinstance(path, str | Path) and (writes or str(path).endswith(".png")) else ""
    if event == "os.rename":
        return os.fsdecode(arguments[1])
    if event in ("os.remove", "os.scandir") and isinstance(arguments[0], str | bytes | Path):
        path = os.fsdecode(arguments[0])
        return path if event == "os.remove" or path.endswith("/out") else ""
    return ""


def phase_of(path: str) -> str:
    """Phase of a file below a data root or a scratch folder; empty for other files."""
    return next((phase for phase, pattern in PHASES.items() if re.search(rf"/{pattern}", path)), "")


def blender_children(driver: int) -> list[int]:
    """Process ids of a driver's Blender children, oldest first."""
    return [process.pid for process in sorted(_children_of(driver), key=lambda process: float(process.create_time()))]


def _children_of(driver: int) -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["cmdline", "create_time"]):
        command = process.info["cmdline"] or []
        if CHILD in command and str(driver) in command:
            yield process


if __name__ == "__main__":
    sys.exit(main())
