"""The private folder of a Blender child: what it may read (`inbox`), write (`out`, `home`), and its log."""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.records import Asset, ClipPlan, Probe
from pipeline.storage import Store
from render.protocol import BadAsset

PREFIX = "mv4d-blender-"
SHARED_MEMORY = "/dev/shm"
MIN_FREE_BYTES = 1 << 30
"""Pictures pass through memory if that much of it is free, else through the temporary folder."""
MAX_UNPACKED_BYTES = 2 << 30
MAX_UNPACKED_FILES = 10_000
MAX_LOG_BYTES = 16 << 20
ABANDONED_AFTER_S = 60.0
_PROGRESS = re.compile(r"Fra:|\d\d:\d\d:\d\d \| INFO")


@dataclass(frozen=True, kw_only=True)
class LooseFile:
    """A file that belongs to no data root; its fields as in `Asset`."""

    asset_id: str
    format: str
    blob: str
    main_file: str


StoredAsset = Asset | Probe | ClipPlan | LooseFile
"""What says where an asset's blob lies and how to open it."""


@dataclass(frozen=True)
class Scratch:
    """A folder that lives as long as its child, and is swept up by the next run if the driver was killed."""

    folder: Path
    lock: int
    """File descriptor of a lock that the kernel lets go when the driver ends, however it ends."""

    @classmethod
    def make(cls) -> "Scratch":
        """A new folder, after sweeping up what dead drivers left."""
        parent = _roomy_folder()
        _sweep(parent)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        for name in ("inbox", "lent", "out", "home"):
            (folder / name).mkdir()
        (folder / "log").touch()
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return cls(folder, lock)

    @property
    def inbox(self) -> Path:
        """Holds the loaded asset; the child may read it."""
        return self.folder / "inbox"

    @property
    def lent(self) -> Path:
        """Holds what the child may read besides the asset: a picture of surroundings."""
        return self.folder / "lent"

    @property
    def out(self) -> Path:
        """Where the child puts pictures."""
        return self.folder / "out"

    @property
    def home(self) -> Path:
        """HOME, TMPDIR and working folder of the child."""
        return self.folder / "home"

    @property
    def log(self) -> Path:
        """What the child says on stderr."""
        return self.folder / "log"

    def take_in(self, asset: StoredAsset, store: Store) -> Path:
        """Put an asset into the emptied inbox and give the file to open.

        The asset stays until the next one comes: Blender reads textures and caches when it first needs them.

        Raises:
            BadAsset: It is a tar that reaches outside its folder, is broken, too large, or lacks its main file.
            FileNotFoundError: The blob is not in the store.
        """
        empty(self.inbox)
        with store.open(asset.blob) as blob:
            if asset.main_file:
                unpack(blob, self.inbox)
                return _existing(self.inbox, asset.main_file)
            # A copy, not a link: the child must not hold a handle on the data root's own file.
            # The blob's own suffix, as a format may have several: .usdc and .usdz are read in different ways.
            path = self.inbox / f"asset.{safe_suffix(asset.blob.rpartition('.')[2])}"
            with path.open("wb") as copy:
                shutil.copyfileobj(blob, copy, 1 << 20)
        return path

    def lend(self, path: str, store: Store) -> Path:
        """Put a file where the child may read it, in place of the last one, and say where.

        Raises:
            FileNotFoundError: It is not in the store.
        """
        copy = self.lent / os.path.basename(path)
        if not copy.exists():
            empty(self.lent)
            unfinished = self.lent / "unfinished"
            with store.open(path) as original, unfinished.open("xb") as file:
                shutil.copyfileobj(original, file, 1 << 20)
            unfinished.rename(copy)
        return copy

    def log_tail(self, num_lines: int = 12) -> str:
        """The log's last lines, progress reports left out: they differ from run to run."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 20_000))
            lines = file.read().decode(errors="replace").splitlines()
        said = [line.rstrip() for line in lines if line.strip() and not _PROGRESS.match(line)]
        return self.anonymous("\n".join(line[:300] for line in said[-num_lines:]))

    def cut_log(self) -> None:
        """Forget what a child that floods its log has said so far."""
        if self.log.stat().st_size > MAX_LOG_BYTES:
            os.truncate(self.log, 0)

    def written_mb(self, pid: int) -> float:
        """What a child has on the disk: in the folders that it may write to, and in files that it keeps open unseen."""
        num_bytes = num_bytes_in(self.out) + num_bytes_in(self.home)
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    file = entry.stat()
                    if file.st_nlink == 0 and stat.S_ISREG(file.st_mode):
                        num_bytes += file.st_blocks * 512
        return num_bytes / 2**20

    def anonymous(self, text: str) -> str:
        """The text without this folder's name, which is another in each run."""
        return text.replace(f"{self.inbox}/", "").replace(str(self.folder), "…")

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self.lock)


def empty(folder: Path) -> None:
    """Delete all that is in a folder."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def num_bytes_in(folder: Path) -> int:
    """Disk space of all files below a folder, some of which may vanish meanwhile."""
    total = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    total += num_bytes_in(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def safe_suffix(suffix: str) -> str:
    """The suffix of a file format, fit for a file name.

    Raises:
        BadAsset: It is none.
    """
    if not re.fullmatch(r"[a-z0-9]{1,8}", suffix):
        raise BadAsset("unsupported_format", f"no such file suffix: {suffix!r}")
    return suffix


def unpack(blob: IO[bytes], folder: Path) -> None:
    """Unpack an asset's tar: regular files only, none outside the folder, within the limits.

    Raises:
        BadAsset: It holds anything else, or cannot be read.
    """
    num_bytes = num_files = 0
    try:
        with tarfile.open(fileobj=blob, mode="r:") as tar:
            for member in tar:
                name = safe_name(member.name)
                if member.isdir():
                    continue
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise BadAsset("unsafe_uri", f"a member of the tar is no regular file: {member.name!r}")
                num_bytes, num_files = num_bytes + member.size, num_files + 1
                if num_bytes > MAX_UNPACKED_BYTES or num_files > MAX_UNPACKED_FILES:
                    raise BadAsset("too_large", f"{num_files} files of {num_bytes} bytes so far in the tar")
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with (folder / name).open("xb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
    except tarfile.TarError as error:
        raise BadAsset("malformed", f"the packed folder is no tar: {error}") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise BadAsset("malformed", f"two members of the tar clash: {error}") from error


def safe_name(name: str) -> PurePosixPath:
    """A relative path that stays below its folder.

    Raises:
        BadAsset: It does not.
    """
    path = PurePosixPath(name)
    too_long = any(len(os.fsencode(part)) > 200 for part in path.parts) or len(path.parts) > 20
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or too_long:
        raise BadAsset("unsafe_uri", f"not a plain path below the asset's folder: {name[:300]!r}")
    return path


def _existing(folder: Path, main_file: str) -> Path:
    path = folder / safe_name(main_file)
    if not path.is_file():
        raise BadAsset("missing_file", f"the packed folder holds no {main_file!r}")
    return path


def _roomy_folder() -> str:
    with contextlib.suppress(OSError):
        space = os.statvfs(SHARED_MEMORY)
        if space.f_bavail * space.f_frsize > MIN_FREE_BYTES and os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
            return SHARED_MEMORY
    return tempfile.gettempdir()


def _sweep(parent: str) -> None:
    for folder in Path(parent).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.getuid() or abs(time.time() - folder.stat().st_mtime) < ABANDONED_AFTER_S:
                continue  # another user's, or so young that its owner may not have locked it yet
            lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its driver lives
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
