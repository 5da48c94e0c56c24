"""One driver at a time for a data root: a lock that the kernel lets go when the driver ends, however it ends."""

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from typing import IO

from pipeline.storage import Store

LOCK = "driver.lock"
_SWEPT = ("tables", "blobs", "shards", "cache")


@contextlib.contextmanager
def sole_driver(store: Store) -> Iterator[None]:
    """Keep other drivers off a data root, after removing what a killed one left half-written.

    A folder that is made for it goes again if the block raises before there is anything in it. An object store knows no
    locks: there, it is up to the user. Nor do some network file systems.

    Raises:
        RuntimeError: Another process is at work on the data root.
    """
    if not store.is_local:
        yield
        return
    path = store.path(LOCK)
    new = _missing_folders(os.path.dirname(path))
    with _locked(store, path) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        for folder in _SWEPT:
            store.remove_partial(folder)
        has_ended = False
        try:
            yield
            has_ended = True
        finally:
            if not has_ended and new and os.listdir(new[0]) == [LOCK]:
                os.unlink(path)
                with contextlib.suppress(OSError):  # the outer ones may have other things in them
                    for folder in new:
                        os.rmdir(folder)


def _missing_folders(folder: str) -> list[str]:
    """A folder and those around it that are not there yet, the innermost first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


@contextlib.contextmanager
def _locked(store: Store, path: str) -> Iterator[IO[str]]:
    while True:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise RuntimeError(
                    f"another mv4d ({file.read().strip() or 'of unknown id'}) is at work on {store.root}: wait until "
                    "it is done, end it, or give --data another folder"
                ) from None
            except OSError:
                pass  # a file system without locks
            # A driver that found nothing to do may have removed the file between these lines.
            if os.path.exists(path) and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                yield file
                return


@contextlib.contextmanager
def turn_of(store: Store, lock: str) -> Iterator[None]:
    """Wait for one's turn to change something small, which others may change beside a driver.

    Args:
        store: The data root; on an object store nobody waits.
        lock: Name of a file in it.
    """
    if not store.is_local:
        yield
        return
    path = store.path(lock)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
