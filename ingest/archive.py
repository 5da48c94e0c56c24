"""Unpacks a ZIP from the web: plain files below one folder, within limits, whatever the archive says of itself."""

import stat
import zipfile
import zlib
from pathlib import Path
from typing import IO

from ingest.refused import Refused
from ingest.side_files import relative_path

MAX_FILES = 10_000
_BLOCK = 1 << 20


def unpack_zip(archive: Path, folder: Path, *, max_bytes: int) -> list[Path]:
    """Unpack a ZIP into an empty folder; gives its files, those nearest to the root first, then by name.

    Args:
        archive: The ZIP.
        folder: Where to.
        max_bytes: Of all files together, as they really unpack.

    Raises:
        Refused: `malformed`, `unsafe_uri` or `too_large`.
    """
    left = max_bytes
    unpacked = []
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            if len(members) > MAX_FILES:
                raise Refused("too_large", f"its archive holds {len(members)} files; the limit is {MAX_FILES}")
            for member in members:
                if member.is_dir():
                    continue
                if member.flag_bits & 1 or stat.S_ISLNK(member.external_attr >> 16):
                    raise Refused("malformed", f"its archive holds {member.filename[:100]!a}, encrypted or a link")
                target = folder / relative_path(member.filename)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as content, target.open("xb") as file:
                    left -= _copy(content, file, left)
                unpacked.append(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise Refused("malformed", f"its archive cannot be unpacked: {error}") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise Refused(
            "malformed", f"two files of its archive have one name: {Path(str(error.filename)).name}"
        ) from None
    return sorted(unpacked, key=lambda path: (len(path.parts), str(path)))


def _copy(content: IO[bytes], file: IO[bytes], limit: int) -> int:
    """Bytes copied; what the directory of the archive says of sizes is not relied on."""
    num_bytes = 0
    while block := content.read(_BLOCK):
        num_bytes += len(block)
        if num_bytes > limit:
            raise Refused("too_large", f"its archive unpacks to more than the limit of {limit} bytes that were left")
        file.write(block)
    return num_bytes
