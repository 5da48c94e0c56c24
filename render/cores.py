"""A core for each Blender child of a machine, whoever started it: threads, Ray actors, several drivers."""

import contextlib
import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(tempfile.gettempdir()) / "mv4d-cores"
"""Holds a lock file for each core. All users of the machine share it; the kernel lets go of the locks of the dead."""
CPU_QUOTAS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))


@dataclass(frozen=True)
class Cores:
    """Cores that nobody else's child is tied to."""

    numbers: tuple[int, ...]
    _locks: tuple[int, ...]

    @classmethod
    def take(cls, how_many: int) -> "Cores":
        """As many cores as are asked for, of those that this process may use; none if there are not so many left.

        None either where cores are not given but rationed, as in most containers: others are on the same ones.
        """
        locks: dict[int, int] = {}
        if how_many and hasattr(os, "sched_getaffinity") and not _rationed():
            with contextlib.suppress(OSError):
                _make_folder()
                for number in sorted(os.sched_getaffinity(0)):
                    if len(locks) < how_many and (lock := _lock(FOLDER / str(number))) is not None:
                        locks[number] = lock
        taken = cls(tuple(locks), tuple(locks.values()))
        if len(locks) == how_many:
            return taken
        taken.release()
        return cls((), ())

    def release(self) -> None:
        """Let others have them."""
        for lock in self._locks:
            with contextlib.suppress(OSError):
                os.close(lock)


def _make_folder() -> None:
    if not FOLDER.exists():
        FOLDER.mkdir(exist_ok=True)
        FOLDER.chmod(0o777)


def _lock(path: Path) -> int | None:
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    with contextlib.suppress(OSError):
        os.fchmod(lock, 0o666)  # whatever the umask says; only its owner may
    return lock


def _rationed() -> bool:
    for path in CPU_QUOTAS:
        with contextlib.suppress(OSError):
            if path.read_text().split()[0] not in ("max", "-1"):
                return True
    return False
