"""A Blender child under supervision: deadlines, a memory limit, a sandbox, and a fresh one after every crash.

A child belongs to the thread that starts it: the kernel kills it when that thread ends. What an asset does to its
child costs that asset only; what the machine does to a child is an exception, and no asset's fault.
"""

import errno
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil

from pipeline.storage import Store
from render.process import Ended, LineProcess, Nonsense, Silent
from render.protocol import REQUESTS, BadAsset, Hello, Load, Loaded, Welcome, fields_of, read_reply
from render.scratch import Scratch, StoredAsset, safe_suffix

logger = logging.getLogger("mv4d.render")

CHILD_MODULE = "render.blender.child"
PACKAGE_ROOT = Path(__file__).resolve().parent.parent
DATA_HEADROOM_MB = 2048
"""The kernel's own ceiling lies this far above `memory_mb`: a stop for what grows faster than we look."""
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ")
"""Environment variables that a child gets; the rest may hold secrets."""
FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}
MEMORY_WORDS = ("MemoryError", "bad_alloc", "Cannot allocate memory", "Malloc returns null", "Calloc returns null")

NO_SPACE = os.strerror(errno.ENOSPC)

T = TypeVar("T")


class BlenderUnavailable(RuntimeError):
    """No child can be started on this machine."""


class MachineFault(RuntimeError):
    """The machine failed a child: somebody ended it, an operator or the kernel, or there is no room for its files."""


@dataclass(frozen=True, kw_only=True)
class BlenderSettings:
    """How Blender is run on this machine. Nothing here decides a pixel, so none of it is part of any id."""

    blender_python: str = ""
    """Interpreter that has bpy; empty for the one that runs mv4d."""
    memory_mb: int = 6000
    """Resident memory at which a child is killed and its asset turned away."""
    start_s: float = 120.0
    load_s: float = 180.0
    measure_s: float = 120.0
    image_s: float = 120.0
    """Deadlines: to import bpy, to load an asset, to measure one window, to draw one picture."""
    threads: int = 1
    """Cores a child may use; 0 for all. More children draw more than one child with more threads."""
    recycle_after: int = 50
    """Assets after which a child is replaced."""
    recycle_memory_mb: int = 2000
    """Resident memory beyond which a child is replaced before its next asset."""
    sandbox: Literal["require", "best", "off"] = "best"
    """`best` does without what the kernel lacks, and says so once; `require` refuses to start."""

    def __post_init__(self) -> None:
        if min(self.start_s, self.load_s, self.measure_s, self.image_s) <= 0:
            raise ValueError("deadlines must be longer than 0 s")
        if self.memory_mb < 512 or self.recycle_after < 1 or self.recycle_memory_mb < 1 or self.threads < 0:
            raise ValueError("need memory_mb >= 512, recycle_after and recycle_memory_mb >= 1, threads >= 0")

    def deadline_s(self, call: str) -> float:
        """Of a call of the protocol; each event of the child starts it anew."""
        return {"hello": self.start_s, "load": self.load_s, "measure": self.measure_s}.get(call, self.image_s)


@dataclass(frozen=True)
class _Running:
    process: LineProcess
    scratch: Scratch


class BlenderChild:
    """One Blender process at a time, started when first needed and again after it ended."""

    def __init__(self, settings: BlenderSettings, *, module: str = "", readable: tuple[Path, ...] = ()) -> None:
        """Nothing is started yet.

        Args:
            settings: How to run it.
            module: What speaks the child's side of the protocol, if not Blender's.
            readable: Folders to import from and read besides the packages of the child.
        """
        self.settings = settings
        self.welcome: Welcome | None = None
        """What the last child said of itself."""
        self._module = module or CHILD_MODULE
        self._readable = readable
        self._running: _Running | None = None
        self._next_id = 1
        self._loaded: tuple[str, Loaded] | None = None
        self._num_seen = 0

    @property
    def pid(self) -> int | None:
        """Of the running process, which leads a process group of its own."""
        return self._running.process.pid if self._running else None

    @property
    def out(self) -> Path:
        """The folder for the child's pictures; lasts as long as the child."""
        return self._started().scratch.out

    def load(self, asset: StoredAsset, store: Store) -> Loaded:
        """Have an asset loaded; the one that is loaded already is not loaded again.

        Raises:
            BadAsset: As `call`; or the blob cannot be unpacked.
        """
        if self._loaded and self._loaded[0] == asset.asset_id:
            return self._loaded[1]
        worn = self._num_seen >= self.settings.recycle_after or self.memory_mb() > self.settings.recycle_memory_mb
        if self._running and worn:
            logger.debug("replacing the Blender child after %d assets", self._num_seen)
            self.close()
        scratch = self._started().scratch
        self._loaded = None
        self._num_seen += 1
        os.truncate(scratch.log, 0)
        suffix = safe_suffix(asset.format)
        try:
            path = scratch.take_in(asset, store)
        except OSError as error:
            # Not the data root's disk: the run can go on with assets that fit.
            _blame_a_full_disk(str(error))
            raise
        loaded: Loaded = self.call(Load(path=str(path), format=suffix))
        self._loaded = (asset.asset_id, loaded)
        return loaded

    def call(self, request: Any) -> Any:
        """The reply to a request of the protocol.

        Raises:
            BadAsset: The child says so; or it crashed, fell silent or grew too large: then it is gone, and the
                next call starts another.
            BlenderUnavailable: No child can be started.
            MachineFault: Somebody else ended the child, or its folder is full.
        """
        running = self._started()
        message_id, self._next_id = self._next_id, self._next_id + 1
        answer = self._ask(running, message_id, request)
        if "error" in answer:
            detail = running.scratch.anonymous(str(answer["error"]["detail"]))
            _blame_a_full_disk(detail)
            raise BadAsset(str(answer["error"]["reason"]), detail)
        return read_reply(_name_of(request), answer["ok"])

    def settle(self, work: Callable[[], T]) -> T:
        """The work's result. A crash is an asset's fault only if it happens in a child that starts with it.

        So the verdict on an asset does not depend on what came before it.

        Raises:
            BadAsset: As `call`.
        """
        was_running = self._running is not None
        try:
            return work()
        except BadAsset as error:
            gone = self._running is None
            if not (was_running and gone and error.reason in ("blender_crashed", "out_of_memory")):
                raise
            logger.info("trying again in a fresh Blender child: %s", error)
        return work()

    def memory_mb(self) -> float:
        """Resident memory of the process; 0.0 if there is none."""
        try:
            return float(psutil.Process(self.pid).memory_info().rss) / 2**20 if self.pid else 0.0
        except psutil.Error:
            return 0.0

    def close(self) -> None:
        """End the process, if there is one, and remove its folder."""
        if self._running:
            self._running.process.close()
        self._running = self._loaded = None
        self._num_seen = 0

    def _started(self) -> _Running:
        if self._running:
            return self._running
        began = time.monotonic()
        python = self.settings.blender_python or sys.executable
        scratch = Scratch.make()
        try:
            process = LineProcess(
                [python, *self._arguments(scratch)],
                log=scratch.log,
                cwd=scratch.home,
                env=self._environment(scratch),
                after=scratch.remove,
            )
        except OSError as error:
            scratch.remove()
            raise BlenderUnavailable(f"cannot run the interpreter {python}: {error}") from error
        self._running = _Running(process, scratch)
        try:
            self.welcome = read_reply("hello", self._ask(self._running, 0, Hello())["ok"])
        except (BadAsset, MachineFault, LookupError, TypeError) as error:
            self.close()
            raise BlenderUnavailable(_why_not_started(python, str(error))) from error
        start_s = round(time.monotonic() - began, 3)
        event = {"kind": "blender_started", "pid": process.pid, "start_s": start_s}
        logger.info("Blender child %d is up after %.1f s", process.pid, start_s, extra={"event": event})
        return self._running

    def _arguments(self, scratch: Scratch) -> list[str]:
        options = ["--mode", self.settings.sandbox, "--parent", str(os.getpid())]
        options += ["--data_mb", str(self.settings.memory_mb + DATA_HEADROOM_MB)]
        for folder in (PACKAGE_ROOT / "render", PACKAGE_ROOT / "pipeline", *self._readable, scratch.inbox):
            options += ["--read", str(folder)]
        for folder in (scratch.out, scratch.home):
            options += ["--write", str(folder)]
        return ["-m", "render.sandbox", *options, "--", self._module]

    def _environment(self, scratch: Scratch) -> dict[str, str]:
        kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        threads = {"OMP_NUM_THREADS": str(self.settings.threads)} if self.settings.threads else {}
        return kept | threads | {
            "HOME": str(scratch.home),
            "TMPDIR": str(scratch.home),
            "XDG_CACHE_HOME": str(scratch.home),
            "PYTHONPATH": os.pathsep.join(str(folder) for folder in (PACKAGE_ROOT, *self._readable)),
            "PYTHONSAFEPATH": "1",
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUTF8": "1",
            "PYTHONHASHSEED": "0",
        }  # fmt: skip

    def _ask(self, running: _Running, message_id: int, request: Any) -> dict[str, Any]:
        call = _name_of(request)

        def check_memory() -> None:
            used, limit = self.memory_mb(), self.settings.memory_mb
            if used > limit:
                raise self._give_up("out_of_memory", f"{used:.0f} MB during {call}, the limit is {limit} MB")

        try:
            answer = running.process.ask(
                {"id": message_id, "call": call, "with": fields_of(request)},
                deadline_s=self.settings.deadline_s(call),
                on_event=_hear,
                on_poll=check_memory,
            )
        except Silent as error:
            raise self._give_up("deadline", f"{error} during {call}") from error
        except Nonsense as error:
            raise self._give_up("blender_crashed", f"{error} during {call}") from error
        except Ended as error:
            if error.code in FROM_OUTSIDE:
                self.close()
                raise MachineFault(f"somebody ended the Blender child with {error} during {call}") from error
            bad = self._give_up("blender_crashed", f"{error} during {call}")
            _blame_a_full_disk(bad.detail)
            if any(word in bad.detail for word in MEMORY_WORDS):
                bad = BadAsset("out_of_memory", bad.detail)
            raise bad from error
        if isinstance(answer.get("ok"), dict) or {"reason", "detail"} <= set(answer.get("error") or ()):
            return answer
        raise self._give_up("blender_crashed", f"neither ok nor error during {call}")

    def _give_up(self, reason: str, detail: str) -> BadAsset:
        """End the process; its last words go into the detail."""
        words = self._running.scratch.log_tail() if self._running else ""
        self.close()
        return BadAsset(reason, f"{detail}\n{words}".rstrip())


_children = threading.local()


def child_for(settings: BlenderSettings) -> BlenderChild:
    """This thread's child for the settings: the stages of a worker share it, and the asset it has loaded."""
    held: dict[BlenderSettings, BlenderChild] = _children.__dict__.setdefault("held", {})
    if settings not in held:
        held[settings] = BlenderChild(settings)
    return held[settings]


def close_child(settings: BlenderSettings) -> None:
    """End this thread's child for the settings, if there is one."""
    held: dict[BlenderSettings, BlenderChild] = _children.__dict__.setdefault("held", {})
    if settings in held:
        held.pop(settings).close()


def _name_of(request: Any) -> str:
    return next(name for name, (kind, _) in REQUESTS.items() if isinstance(request, kind))


def _blame_a_full_disk(detail: str) -> None:
    if NO_SPACE in detail:
        raise MachineFault(f"no room for the files of the Blender child: {detail}")


def _hear(event: dict[str, Any]) -> None:
    if event["event"] == "sandbox" and event.get("missing"):
        _warn_of_missing(", ".join(event["missing"]))


@cache
def _warn_of_missing(missing: str) -> None:
    logger.warning(
        "the sandbox around Blender is incomplete: this machine does not offer %s. Run assets from strangers on "
        "Linux 6.2 or newer, or in a container without network and secrets.",
        missing,
    )


def _why_not_started(python: str, error: str) -> str:
    if "No module named 'bpy'" in error:
        return (
            f"the interpreter {python} has no bpy: install mv4d[render] under Python 3.11, or name another "
            "interpreter with --blender-python"
        )
    return f"the Blender child of {python} did not start: {error}"
