"""Tars whose bytes depend on nothing but their members."""

import hashlib
import io
import tarfile
import zlib
from typing import IO

from pipeline.records import SamplePart


class HashingWriter:
    """Hashes what goes through it to a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0

    def write(self, content: bytes) -> int:
        """Write and count."""
        self.sha256.update(content)
        self.num_bytes += len(content)
        return self._file.write(content)

    def tell(self) -> int:
        """Bytes so far."""
        return self.num_bytes


def add_member(tar: tarfile.TarFile, key: str, name: str, content: bytes) -> SamplePart:
    """Append `key.name` to a tar; says where it is."""
    # A fresh TarInfo has mtime 0, owner 0 without a name, and mode 0644.
    info = tarfile.TarInfo(f"{key}.{name}")
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
    padding = -len(content) % tarfile.BLOCKSIZE
    return SamplePart(
        name=name,
        offset=tar.offset - padding - len(content),
        num_bytes=len(content),
        crc32=zlib.crc32(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
