"""Whether a binary FBX holds together: each record inside its parent, each array as long as it says.

Blender takes an FBX at its word: it makes room for as many properties, elements and unpacked bytes as are announced
before it reads the first, so one wrong byte may cost gigabytes. Here, only what fits into the file is believed.
"""

import contextlib
import mmap
import struct
import zlib
from pathlib import Path

from ingest.json_values import broken
from ingest.refused import Refused

_HEADER_BYTES = 27
_WIDE_SINCE = 7500
"""From this version on, offsets and counts have 64 bits."""
_SCALAR_BYTES = {b"Z": 1, b"B": 1, b"C": 1, b"Y": 2, b"I": 4, b"F": 4, b"D": 8, b"L": 8}
_ITEM_BYTES = {b"b": 1, b"c": 1, b"i": 4, b"f": 4, b"l": 8, b"d": 8}
_BLOBS = (b"S", b"R")
_SMALLEST_PROPERTY = 2
_MOST_ARRAY_BYTES = 4 << 30
_BLOCK_BYTES = 4 << 20


def check_fbx(path: Path) -> None:
    """Walk through all records and arrays.

    Raises:
        Refused: `truncated`, `malformed` or `too_complex`.
    """
    with path.open("rb") as file, contextlib.closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as content:
        _Walk(content).run()


class _Walk:
    """Reads what announces something, and skips what is only data; arrays are unpacked and thrown away."""

    def __init__(self, content: mmap.mmap) -> None:
        version = struct.unpack_from("<I", content, _HEADER_BYTES - 4)[0]
        self._content = content
        self._head = struct.Struct("<QQQB" if version >= _WIDE_SINCE else "<IIIB")
        self._array_bytes = 0

    def run(self) -> None:
        """Without recursion, as trees may be deep."""
        at = _HEADER_BYTES
        ends = [len(self._content)]
        while True:
            if at + self._head.size > ends[-1]:
                self._past_end(at, ends)
            end, count, _, name_bytes = self._head.unpack_from(self._content, at)
            start, at = at, at + self._head.size
            if end == 0 and len(ends) == 1:
                return
            if end:
                at += name_bytes
                if not at <= end <= ends[-1] or count * _SMALLEST_PROPERTY > end - at:
                    self._past_end(start, ends, end)
                for _ in range(count):
                    at = self._after_property(at, end)
                if at < end:
                    ends.append(end)
            while len(ends) > 1 and at == ends[-1]:
                ends.pop()

    def _past_end(self, start: int, ends: list[int], end: int = 0) -> None:
        if len(ends) == 1 and (end > len(self._content) or not end):
            raise Refused("truncated", f"its record at byte {start} ends after the file of {len(self._content)} bytes")
        broken(f"its record at byte {start} does not fit into the one around it, or says it holds more than it can")

    def _after_property(self, at: int, end: int) -> int:
        """Where the next property begins."""
        kind = self._content[at : at + 1]
        size = _SCALAR_BYTES.get(kind)
        if size is None and kind in _BLOBS and at + 5 <= end:
            size = 4 + struct.unpack_from("<I", self._content, at + 1)[0]
        elif size is None and kind in _ITEM_BYTES and at + 13 <= end:
            size = 12 + struct.unpack_from("<I", self._content, at + 9)[0]
        if size is None or at + 1 + size > end:
            broken(f"its property at byte {at} is of no known type, or ends after its record")
        if kind in _ITEM_BYTES:
            self._check_array(at + 1, _ITEM_BYTES[kind], size - 12)
        return at + 1 + size

    def _check_array(self, at: int, item_bytes: int, stored: int) -> None:
        count, encoding, _ = struct.unpack_from("<III", self._content, at)
        self._array_bytes += count * item_bytes
        if self._array_bytes > _MOST_ARRAY_BYTES:
            raise Refused("too_complex", f"its arrays have more than {_MOST_ARRAY_BYTES >> 30} GB", "simplify it")
        data = self._content[at + 12 : at + 12 + stored]
        whole = stored == count * item_bytes if encoding == 0 else encoding == 1 and _unpacks(data, count * item_bytes)
        if not whole:
            broken(f"its array at byte {at} does not hold the {count} elements that it says")


def _unpacks(data: bytes, num_bytes: int) -> bool:
    """True if it is a sound zlib stream of so many bytes; no more than a block is held in memory."""
    stream = zlib.decompressobj()
    try:
        while not stream.eof:
            block = stream.decompress(data, _BLOCK_BYTES)
            data, num_bytes = stream.unconsumed_tail, num_bytes - len(block)
            if num_bytes < 0 or not (block or data or stream.eof):
                return False
    except zlib.error:
        return False
    return num_bytes == 0
