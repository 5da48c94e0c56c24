"""The blob store: an asset's bytes under their own hash, an asset of several files as one deterministic tar."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.storage import Store

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Blob:
    """A stored file."""

    path: str
    """Below the data root."""
    sha256: str
    num_bytes: int


def put_blob(store: Store, file: Path, suffix: str, *, sha256: str = "") -> Blob:
    """Store a file as `blobs/ab/<sha256>.<suffix>`; one that is there already is left alone.

    Raises:
        OSError: The file changed while it was read.
    """
    sha256 = sha256 or sha256_of(file)
    num_bytes = file.stat().st_size
    path = f"blobs/{sha256[:2]}/{sha256}.{suffix}"
    if store.exists(path) and store.size(path) == num_bytes:
        return Blob(path, sha256, num_bytes)
    digest = hashlib.sha256()
    with store.writer(path) as target, file.open("rb") as source:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            target.write(block)
        if digest.hexdigest() != sha256:
            raise OSError(f"{file} changed while it was read")
    return Blob(path, sha256, num_bytes)


def sha256_of(file: Path) -> str:
    """The file's sha256, hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_tar(target: Path, members: Mapping[str, Path]) -> None:
    """An uncompressed tar of files under the given names: equal contents, equal bytes."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in sorted(members.items()):
            entry = tarfile.TarInfo(name)
            entry.size = path.stat().st_size
            entry.mode = 0o644
            with path.open("rb") if entry.size else io.BytesIO() as content:
                tar.addfile(entry, content)
