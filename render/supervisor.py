"""A Blender child under supervision: deadlines, a memory limit, a sandbox, and a fresh one after every crash.

A child belongs to the thread that starts it: the kernel kills it when that thread ends. What an asset does to its
child costs that asset only; what the machine does to a child is an exception, and no asset's fault.
"""

import errno
import functools
import itertools
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil

from pipeline.machine import total_memory_mb
from pipeline.storage import Store
from render.cores import Cores
from render.devices import (
    DRIVER_VARIABLES,
    Choice,
    DeviceUnavailable,
    EngineName,
    Wanted,
    cache_environment,
    choose,
    choose_gl,
    gpu_files,
    kernel_cache,
)
from render.process import Ended, LineProcess, Nonsense, Silent
from render.protocol import (
    CPU,
    REQUESTS,
    BadAsset,
    Bake,
    Convert,
    Draw,
    Hello,
    Load,
    Loaded,
    Measure,
    Prove,
    Survey,
    Welcome,
    fields_of,
    read_reply,
)
from render.sandbox import MAX_FILE_BYTES
from render.scratch import Scratch, StoredAsset, num_bytes_in, safe_suffix

logger = logging.getLogger("mv4d.render")

CHILD_MODULE = "render.blender.child"
PACKAGE_ROOT = Path(__file__).resolve().parent.parent
DATA_HEADROOM_MB = 2048
"""The kernel's own ceiling lies this far above `memory_mb`: a stop for what grows faster than we look."""
MACHINE_SHARE = 0.9
"""A child gets no more than this share of the machine's memory, whatever `memory_mb` says: the kernel's own way to
make room might hit anybody."""
TEXTURE_LIMITS_PX = (1024, 256)
"""What does not fit into memory is tried again with pictures of at most so many pixels a side."""
MAX_THREADS = 4096
"""Blender's own are a few for each core of the machine."""
MEGASAMPLE_S = 8.0
"""Added to the deadline of a picture for each million of paths: ten times what they take on a slow core."""
WATCH_DISK_EVERY_S = 1.0
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ")
"""Environment variables that a child gets; the rest may hold secrets."""
FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}
MEMORY_WORDS = ("MemoryError", "bad_alloc", "Cannot allocate memory", "Malloc returns null", "Calloc returns null")

NO_SPACE, FILE_TOO_LARGE = os.strerror(errno.ENOSPC), os.strerror(errno.EFBIG)

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
    """Resident memory that a child may reach. Beyond it, the asset is tried with smaller textures, then turned away. At
    most 90 % of the machine's (or the container's) memory, whatever is given here."""
    scratch_mb: int = 8192
    """Space for the temporary files of a child: its pictures, mostly."""
    start_s: float = 120.0
    load_s: float = 180.0
    measure_s: float = 120.0
    image_s: float = 120.0
    """Deadlines: to import bpy, to load an asset, to measure one window, to draw one picture. More is granted for large
    files (`load_s_per_mb`) and for pictures of many pixels and samples."""
    load_s_per_mb: float = 3.0
    """Real assets take 0.1 to 0.6 s for each MB of their files."""
    threads: int = 1
    """Cores a child may use; 0 for all. More children draw more than one child with more threads."""
    pin: bool = True
    """Tie each child to `threads` cores of its own, as long as there are some; not where a container rations cores."""
    device: Wanted = "auto"
    """What Cycles draws on. auto: OptiX, else CUDA, else HIP, else the processor. Pictures differ by a little between
    devices; the clip says which one drew it. EEVEE takes the GPU that OpenGL uses, and none with `cpu`."""
    children_per_gpu: int = 4
    """Renderers that share a GPU, where --workers leaves their number open."""
    device_s: float = 900.0
    """Deadline for the first picture on a GPU, for which a driver may have to compile."""
    recycle_after: int = 50
    """Assets after which a child is replaced."""
    recycle_memory_mb: int = 2000
    """Resident memory beyond which a child is replaced before its next asset."""
    sandbox: Literal["require", "best", "off"] = "best"
    """`best` does without what the kernel lacks, and says so once; `require` refuses to start."""

    def __post_init__(self) -> None:
        if min(self.start_s, self.load_s, self.measure_s, self.image_s) <= 0 or self.load_s_per_mb < 0:
            raise ValueError("deadlines must be longer than 0 s")
        if self.memory_mb < 512 or self.recycle_after < 1 or self.recycle_memory_mb < 1 or self.threads < 0:
            raise ValueError("need memory_mb >= 512, recycle_after and recycle_memory_mb >= 1, threads >= 0")
        if self.scratch_mb < 1 or self.children_per_gpu < 1 or self.device_s <= 0:
            raise ValueError(f"need scratch_mb and children_per_gpu >= 1 and device_s > 0, got {self}")

    def deadline_s(self, request: Any, inbox_mb: float) -> float:
        """Of a request; each event of the child starts it anew.

        Args:
            request: Of the protocol.
            inbox_mb: Size of the asset's files.
        """
        if isinstance(request, Hello):
            return self.start_s
        if isinstance(request, (Load, Bake, Convert)):
            return self.load_s + self.load_s_per_mb * inbox_mb
        if isinstance(request, Measure):
            return self.measure_s
        if isinstance(request, (Survey, Prove)):
            return self.start_s if isinstance(request, Survey) else self.device_s
        if isinstance(request, Draw):
            return self.image_s + MEGASAMPLE_S * request.size_px**2 * request.samples / 1e6
        return self.image_s


@dataclass(frozen=True)
class _Running:
    process: LineProcess
    scratch: Scratch


class BlenderChild:
    """One Blender process at a time, started when first needed and again after it ended."""

    def __init__(
        self, settings: BlenderSettings, *, module: str = "", readable: tuple[Path, ...] = (), rank: int = 0
    ) -> None:
        """Nothing is started yet.

        Args:
            settings: How to run it.
            module: What speaks the child's side of the protocol, if not Blender's.
            readable: Folders to import from and read besides the packages of the child.
            rank: Among the children of this process, which share its GPUs.
        """
        self.settings = settings
        self.rank = rank
        self.sandbox_lacks: tuple[str, ...] = ()
        """What the kernel does not offer, as the last child found."""
        self.welcome: Welcome | None = None
        """What the last child said of itself."""
        self._module = module or CHILD_MODULE
        self._readable = readable
        self._running: _Running | None = None
        self._next_id = 1
        self._loaded: tuple[tuple[str, int, bool], Loaded] | None = None
        self._largest_picture_px = 0
        self._num_seen = 0
        self._choices: dict[EngineName, Choice] = {}
        self._gpu_files = [] if settings.device == "cpu" else gpu_files()

    @property
    def pid(self) -> int | None:
        """Of the running process, which leads a process group of its own."""
        return self._running.process.pid if self._running else None

    @property
    def out(self) -> Path:
        """The folder for the child's pictures; lasts as long as the child."""
        return self._started().scratch.out

    def load(self, asset: StoredAsset, store: Store, texture_limit_px: int = 0, *, as_drawn: bool = True) -> Loaded:
        """Have an asset loaded; the one that is loaded already is not loaded again.

        Args:
            asset: What to load.
            store: Where it lies.
            texture_limit_px: Most pixels a side of its pictures; larger ones are scaled down. 0 leaves them alone.
            as_drawn: For pictures, as in `Load`.

        Raises:
            BadAsset: As `call`; or the blob cannot be unpacked.
        """
        key = (asset.asset_id, texture_limit_px, as_drawn)
        if self._loaded and self._loaded[0] == key:
            return self._loaded[1]
        path = self.take_in(asset, store)
        request = Load(
            path=str(path),
            format=safe_suffix(asset.format),
            texture_limit_px=texture_limit_px,
            as_drawn=as_drawn,
        )
        loaded: Loaded = self.call(request)
        self._loaded, self._largest_picture_px = (key, loaded), loaded.largest_picture_px
        return loaded

    def take_in(self, asset: StoredAsset, store: Store) -> Path:
        """Put an asset where the child may read it, and say where; the last one is forgotten.

        Raises:
            BadAsset: It cannot be unpacked, or its suffix is none.
        """
        worn = self._num_seen >= self.settings.recycle_after or self.memory_mb() > self.settings.recycle_memory_mb
        if self._running and worn:
            logger.debug("replacing the Blender child after %d assets", self._num_seen)
            self.close()
        scratch = self._started().scratch
        self._loaded, self._largest_picture_px = None, 0
        self._num_seen += 1
        os.truncate(scratch.log, 0)
        safe_suffix(asset.format)
        try:
            return scratch.take_in(asset, store)
        except OSError as error:
            # Not the data root's disk: the run can go on with assets that fit.
            _blame_a_full_disk(str(error))
            raise

    def device_for(self, engine: EngineName) -> Choice:
        """What an engine draws on: chosen, and proved by a picture if it is a GPU, once. Ask before `load`.

        Raises:
            DeviceUnavailable: The device that was asked for is not there, or does not draw.
        """
        if engine not in self._choices:
            self._choices[engine] = self._choose(engine)
        return self._choices[engine]

    def _choose(self, engine: EngineName) -> Choice:
        wanted, found = self.settings.device, []
        try:
            if engine == "eevee" or wanted not in ("auto", "cpu") or self._gpu_files:
                self._loaded = None
                found = self.call(Survey(engine=engine)).devices
            choice = choose_gl(found) if engine == "eevee" else choose(wanted, found, self._gpu_files, self.rank)
            if choice.device != CPU:
                self.call(Prove(engine=engine, device=choice.device))
        except (BadAsset, MachineFault) as error:
            raise DeviceUnavailable(
                f"the device for {engine} does not draw: {error}. Mend its driver, or draw with --blender.device cpu"
            ) from error
        return choice

    def lend(self, path: str, store: Store) -> Path:
        """Where the child may read a copy of a stored file, until the next one is lent.

        Raises:
            FileNotFoundError: It is not in the store.
        """
        try:
            return self._started().scratch.lend(path, store)
        except OSError as error:
            _blame_a_full_disk(str(error))
            raise

    def call(self, request: Any) -> Any:
        """The reply to a request of the protocol.

        Raises:
            BadAsset: The child says so; or it crashed, fell silent or grew too large: then it is gone, and the
                next call starts another.
            BlenderUnavailable: No child can be started.
            MachineFault: Somebody else ended the child, or its folder is full.
        """
        running = self._started()
        if isinstance(request, (Bake, Convert)):  # forget the asset, as the child does
            self._loaded = None
        message_id, self._next_id = self._next_id, self._next_id + 1
        answer = self._ask(running, message_id, request)
        if "error" in answer:
            reason, detail = str(answer["error"]["reason"]), str(answer["error"]["detail"])
            detail = running.scratch.anonymous(detail)
            _blame_a_full_disk(detail)
            if reason == "device_fault":
                self.close()
                self._choices = {}
                raise MachineFault(detail)
            if reason == "out_of_memory":  # as if it had been killed for that: `settle` goes by it
                self.close()
            raise BadAsset(reason, detail)
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

    def settle_in_memory(self, work: Callable[[int], T]) -> T:
        """As `settle`, but where memory runs out, the work is tried with ever smaller pictures on the asset.

        An asset that takes too much without a picture decoded, while it is loaded, gets no other try.

        Args:
            work: Called with the most pixels a side of the asset's pictures; 0 leaves them alone.

        Raises:
            BadAsset: As `call`.
        """
        out_of_memory: BadAsset | None = None
        for limit_px in (0, *TEXTURE_LIMITS_PX):
            if limit_px and self._largest_picture_px <= limit_px:
                continue
            try:
                return self.settle(functools.partial(work, limit_px))
            except BadAsset as error:
                if error.reason != "out_of_memory":
                    raise
                out_of_memory = error
        assert out_of_memory
        raise out_of_memory

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
        cores = Cores.take(self.settings.threads if self.settings.pin else 0)

        def clean_up() -> None:
            cores.release()
            scratch.remove()

        try:
            process = LineProcess(
                [python, *self._arguments(scratch, cores)],
                log=scratch.log,
                cwd=scratch.home,
                env=self._environment(scratch),
                after=clean_up,
            )
        except OSError as error:
            clean_up()
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

    def _arguments(self, scratch: Scratch, cores: Cores) -> list[str]:
        options = ["--mode", self.settings.sandbox, "--parent", str(os.getpid())]
        for number in cores.numbers:
            options += ["--core", str(number)]
        if not self._gpu_files:  # a GPU's driver sets far more memory aside than it uses
            options += ["--data_mb", str(memory_limit_mb(self.settings) + DATA_HEADROOM_MB)]
        packages = (PACKAGE_ROOT / "render", PACKAGE_ROOT / "pipeline", *self._readable)
        for folder in (*packages, scratch.inbox, scratch.lent):
            options += ["--read", str(folder)]
        for folder in (scratch.out, scratch.home):
            options += ["--write", str(folder)]
        if self._gpu_files:
            kernel_cache().mkdir(parents=True, exist_ok=True)
            options += ["--write", str(kernel_cache())]
            for path in self._gpu_files:
                options += ["--device", path]
            for folder_name in filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)):
                options += ["--read", folder_name]
        return ["-m", "render.sandbox", *options, "--", self._module]

    def _environment(self, scratch: Scratch) -> dict[str, str]:
        kept = {name: os.environ[name] for name in (*PASSED_ON, *DRIVER_VARIABLES) if name in os.environ}
        threads = {"OMP_NUM_THREADS": str(self.settings.threads)} if self.settings.threads else {}
        return kept | threads | {
            "HOME": str(scratch.home),
            "TMPDIR": str(scratch.home),
            **(cache_environment(kernel_cache()) if self._gpu_files else {"XDG_CACHE_HOME": str(scratch.home)}),
            "PYTHONPATH": os.pathsep.join(str(folder) for folder in (PACKAGE_ROOT, *self._readable)),
            "PYTHONSAFEPATH": "1",
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUTF8": "1",
            "PYTHONHASHSEED": "0",
        }  # fmt: skip

    def _ask(self, running: _Running, message_id: int, request: Any) -> dict[str, Any]:
        call = _name_of(request)
        watch_disk_at = 0.0

        def watch() -> None:
            nonlocal watch_disk_at
            self._watch_memory(running, call)
            if time.monotonic() >= watch_disk_at:
                watch_disk_at = time.monotonic() + WATCH_DISK_EVERY_S
                self._watch_disk(running, call)

        try:
            answer = running.process.ask(
                {"id": message_id, "call": call, "with": fields_of(request)},
                deadline_s=self.settings.deadline_s(request, num_bytes_in(running.scratch.inbox) / 2**20),
                most_events=_most_events(request),
                on_event=self._hear,
                on_poll=watch,
            )
            self._watch_memory(running, call)
        except Silent as error:
            if is_stopped(running.process.pid):
                self.close()
                raise MachineFault(f"somebody stopped the Blender child: {error} during {call}") from error
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
            if error.code == -signal.SIGXFSZ or FILE_TOO_LARGE in bad.detail:  # faster than we look
                limit_mb = min(self.settings.scratch_mb, MAX_FILE_BYTES >> 20)
                bad = BadAsset("disk_quota", f"more than {limit_mb} MB of files during {call}: {bad.detail}")
            raise bad from error
        if isinstance(answer.get("ok"), dict) or {"reason", "detail"} <= set(answer.get("error") or ()):
            return answer
        raise self._give_up("blender_crashed", f"neither ok nor error during {call}")

    def _hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "sandbox":
            self.sandbox_lacks = tuple(event.get("missing") or ())
            if self.sandbox_lacks:
                _warn_of_missing(", ".join(self.sandbox_lacks))

    def _watch_memory(self, running: _Running, call: str) -> None:
        """Go by the largest use so far: what passes between two looks counts, so the verdict is no matter of luck."""
        peak_mb, num_threads = vitals(running.process.pid)
        limit_mb = memory_limit_mb(self.settings)
        if peak_mb > limit_mb:
            raise self._give_up("out_of_memory", f"more than {limit_mb} MB during {call}")
        if num_threads > MAX_THREADS:
            raise self._give_up("blender_crashed", f"more than {MAX_THREADS} threads during {call}")

    def _watch_disk(self, running: _Running, call: str) -> None:
        running.scratch.cut_log()
        if running.scratch.written_mb(running.process.pid) > self.settings.scratch_mb:
            raise self._give_up("disk_quota", f"more than {self.settings.scratch_mb} MB of files during {call}")

    def _give_up(self, reason: str, detail: str) -> BadAsset:
        """End the process; its last words go into the detail."""
        words = self._running.scratch.log_tail() if self._running else ""
        self.close()
        return BadAsset(reason, f"{detail}\n{words}".rstrip())


def memory_limit_mb(settings: BlenderSettings) -> int:
    """Resident memory that a child may reach on this machine."""
    return min(settings.memory_mb, int(MACHINE_SHARE * _machine_mb()))


@functools.cache
def _machine_mb() -> float:
    return total_memory_mb()


def is_stopped(pid: int) -> bool:
    """True if the process stands still by a signal, or under a debugger."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def vitals(pid: int) -> tuple[float, int]:
    """The largest resident memory of a process so far in MB (where it is not known, that of now), and its threads now;
    zeros if it has ended."""
    try:
        with open(f"/proc/{pid}/status") as file:
            found = dict(re.findall(r"^(VmHWM|Threads):\s+(\d+)", file.read(), re.MULTILINE))
    except OSError:
        try:
            process = psutil.Process(pid)
            return process.memory_info().rss / 2**20, process.num_threads()
        except psutil.Error:
            return 0.0, 0
    return int(found.get("VmHWM", 0)) / 1024, int(found.get("Threads", 0))


def _most_events(request: Any) -> int:
    """More than any well-behaved child has to tell."""
    times, views = (len(getattr(request, name, ())) for name in ("times_s", "views"))
    return 1000 + 10 * times * max(1, views)


_children = threading.local()
_ranks: set[int] = set()
_ranks_lock = threading.Lock()


def _take_rank() -> int:
    """The lowest that no child of this process has."""
    with _ranks_lock:
        rank = next(number for number in itertools.count() if number not in _ranks)
        _ranks.add(rank)
    return rank


def child_for(settings: BlenderSettings) -> BlenderChild:
    """This thread's child for the settings: the stages of a worker share it, and the asset it has loaded."""
    held: dict[BlenderSettings, BlenderChild] = _children.__dict__.setdefault("held", {})
    if settings not in held:
        held[settings] = BlenderChild(settings, rank=_take_rank())
    return held[settings]


def close_child(settings: BlenderSettings) -> None:
    """End this thread's child for the settings, if there is one."""
    held: dict[BlenderSettings, BlenderChild] = _children.__dict__.setdefault("held", {})
    if settings in held:
        child = held.pop(settings)
        child.close()
        with _ranks_lock:
            _ranks.discard(child.rank)


def _name_of(request: Any) -> str:
    return next(name for name, (kind, _) in REQUESTS.items() if isinstance(request, kind))


def _blame_a_full_disk(detail: str) -> None:
    if NO_SPACE in detail:
        raise MachineFault(f"no room for the files of the Blender child: {detail}")


@functools.cache
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
