"""A data root, local or remote: read, list, and write so that a reader never sees half a file."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import fsspec

PARTIAL = ".partial"
"""Ends the name of a file that is not whole yet."""


@dataclass(frozen=True)
class Store:
    """Files below one data root: a folder, or any fsspec URL (`s3://bucket/prefix`, `gs://…`, `memory://…`).

    All paths are relative to the root, with forward slashes.
    """

    root: str

    def __post_init__(self) -> None:
        if not self.root:
            raise ValueError("the data root must not be empty")

    @cached_property
    def _fs_and_base(self) -> tuple[Any, str]:
        fs, base = fsspec.url_to_fs(self.root if "://" in self.root else os.path.abspath(self.root))
        return fs, base.rstrip("/")

    @property
    def fs(self) -> Any:
        """The fsspec file system."""
        return self._fs_and_base[0]

    @property
    def is_local(self) -> bool:
        """True for a folder of this machine."""
        return "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def path(self, relative: str) -> str:
        """The path as the file system knows it."""
        if relative.startswith("/") or ".." in relative.split("/"):
            raise ValueError(f"{relative!r} leaves the data root")
        return f"{self._fs_and_base[1]}/{relative}" if relative else self._fs_and_base[1]

    def exists(self, relative: str) -> bool:
        """True if a file or folder is there."""
        return bool(self.fs.exists(self.path(relative)))

    def size(self, relative: str) -> int:
        """Bytes of a file."""
        return int(self.fs.size(self.path(relative)))

    def version(self, relative: str) -> str:
        """Another text whenever the file has been written anew; empty if it is not there."""
        path = self.path(relative)
        try:
            if self.is_local:
                found = os.stat(path)
                return f"{found.st_ino} {found.st_mtime_ns} {found.st_size}"
            self.fs.invalidate_cache(path.rpartition("/")[0])
            about = self.fs.info(path)
        except FileNotFoundError:
            return ""
        return " ".join(str(about.get(name)) for name in ("ETag", "LastModified", "etag", "mtime", "created", "size"))

    def read_bytes(self, relative: str) -> bytes:
        """The whole file.

        Raises:
            FileNotFoundError: It does not exist.
        """
        content = self.fs.cat_file(self.path(relative))
        return bytes(content)

    def open(self, relative: str) -> IO[bytes]:
        """The file, opened for reading; seekable."""
        opened: IO[bytes] = self.fs.open(self.path(relative), "rb")
        return opened

    def write_bytes(self, relative: str, content: bytes) -> None:
        """Write a file whole: beside, fsync, rename; on an object store one put, which is atomic there."""
        with self.writer(relative) as file:
            file.write(content)

    @contextlib.contextmanager
    def writer(self, relative: str) -> Iterator[IO[bytes]]:
        """A file to write to that appears under its name only when the block ends without an exception."""
        path = self.path(relative)
        if not self.is_local:
            with tempfile.TemporaryFile() as buffer:
                yield buffer
                buffer.seek(0)
                with self.fs.open(path, "wb") as remote:
                    shutil.copyfileobj(buffer, remote)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        beside = f"{os.path.dirname(path)}/.{os.path.basename(path)}.{uuid.uuid4().hex[:8]}{PARTIAL}"
        try:
            with open(beside, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
            raise

    def list_files(self, folder: str, suffix: str = "") -> list[str]:
        """Relative paths of all files below a folder, sorted; unfinished ones are left out."""
        base = self.path(folder)
        root = self._fs_and_base[1]
        with contextlib.suppress(FileNotFoundError):
            self.fs.invalidate_cache(base)
            found = [str(path) for path in self.fs.find(base)]
            names = [path[path.index(root) + len(root) + 1 :] for path in found]
            return sorted(name for name in names if name.endswith(suffix) and not name.endswith(PARTIAL))
        return []

    def remove(self, relative: str) -> None:
        """Delete a file; nothing happens if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path(relative))

    def remove_folder(self, folder: str) -> int:
        """Delete all files below a folder, and on a disk the folder; returns how many there were.

        Raises:
            ValueError: It is the root.
        """
        if not folder.strip("/"):
            raise ValueError("the data root itself is not to be removed")
        files = self.list_files(folder)
        for file in files:
            self.remove(file)
        if self.is_local:
            shutil.rmtree(self.path(folder), ignore_errors=True)
        return len(files)

    def remove_partial(self, folder: str) -> None:
        """Delete what killed writers left half-written below a folder. Nobody may be writing there.

        Object stores leave nothing half-written.
        """
        if self.is_local:
            for parent, _, names in os.walk(self.path(folder)):
                for name in names:
                    if name.endswith(PARTIAL):
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(os.path.join(parent, name))

    @contextlib.contextmanager
    def local_copy(self, relative: str) -> Iterator[Path]:
        """The file as a path on this machine, for programs that cannot read from an object store."""
        if self.is_local:
            yield Path(self.path(relative))
            return
        with tempfile.TemporaryDirectory(prefix="mv4d-") as folder:
            copy = Path(folder) / os.path.basename(relative)
            self.fs.get_file(self.path(relative), str(copy))
            yield copy


def check_folder(path: str | Path) -> None:
    """Refuse a folder that nothing can be written to, before any work; nothing is made.

    Args:
        path: Of a folder that may be there, or be made; a URL is not looked at.

    Raises:
        ValueError: A file is in its place or in its way, or writing is not allowed.
    """
    if "://" in str(path):
        return
    there = Path(path).absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{path}: {there} is no folder; give another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: nothing may be written to {there}; give another --out")
