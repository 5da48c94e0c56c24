"""Faults in a binary FBX, whose records are taken apart and written again with lies in them."""

import contextlib
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

HEADER_BYTES = 27
SCALARS = {b"Y": "<h", b"C": "<?", b"I": "<i", b"F": "<f", b"D": "<d", b"L": "<q"}
ARRAYS = {b"f": "f", b"d": "d", b"l": "q", b"i": "i", b"b": "b"}
FLOATS = (float("nan"), float("inf"), -float("inf"), 1e308, 1e30, -1e12, 1e-300, 0.0, -1.0)
INTEGERS = (0, 1, -1, -2, 255, 2**15, 2**31 - 1, -(2**31))
TICKS_A_SECOND = 46186158000
BOMB_BYTES = 256 << 20


@dataclass
class Property:
    """A value of a record, as it is stored after its type letter."""

    kind: bytes
    payload: bytes

    @property
    def values(self) -> list[Any]:
        """Of an array, decompressed."""
        count, encoding, length = struct.unpack_from("<III", self.payload)
        data = self.payload[12 : 12 + length]
        data = zlib.decompress(data) if encoding else data
        return list(struct.unpack(f"<{count}{ARRAYS[self.kind]}", data))

    def store(self, values: list[Any]) -> None:
        """Write an array, uncompressed."""
        data = struct.pack(f"<{len(values)}{ARRAYS[self.kind]}", *values)
        self.payload = struct.pack("<III", len(values), 0, len(data)) + data


@dataclass
class Record:
    """A node of the file's tree."""

    name: bytes
    properties: list[Property] = field(default_factory=list)
    children: list["Record"] = field(default_factory=list)
    had_children: bool = False
    """A list of children ends with an empty record, even if nothing stands before it."""
    lies: dict[str, int] = field(default_factory=dict)
    """Instead of `end`, `count`, `length` or `name_length` as they would be."""

    def walk(self) -> Iterator["Record"]:
        """It and all below."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass
class Fbx:
    """A file taken apart."""

    version: int
    records: list[Record]
    footer: bytes

    @classmethod
    def read(cls, content: bytes) -> "Fbx":
        """Take a sound file apart."""
        version = struct.unpack_from("<I", content, 23)[0]
        records, at = _read_list(content, HEADER_BYTES, len(content), wide=version >= 7500)
        return cls(version, records, content[at:])

    def write(self) -> bytes:
        """Put it together again, lies and all."""
        content = b"Kaydara FBX Binary  \0\x1a\0" + struct.pack("<I", self.version)
        wide = self.version >= 7500
        for record in self.records:
            content += _written(record, len(content), wide=wide)
        return content + _empty(wide=wide) + self.footer

    def all(self) -> list[Record]:
        """Every record."""
        return [found for record in self.records for found in record.walk()]

    def named(self, *names: bytes) -> list[Record]:
        """The records of some names; all if there is none."""
        everything = self.all()
        return [record for record in everything if record.name in names] or everything


def _empty(*, wide: bool) -> bytes:
    return b"\0" * (25 if wide else 13)


def _read_list(content: bytes, at: int, end: int, *, wide: bool) -> tuple[list[Record], int]:
    records = []
    layout = "<QQQB" if wide else "<IIIB"
    while at < end:
        stop, count, length, name_length = struct.unpack_from(layout, content, at)
        at += struct.calcsize(layout)
        if stop == 0:
            break
        record = Record(content[at : at + name_length])
        at += name_length
        properties_end = at + length
        while at < properties_end and len(record.properties) < count:
            size = _size_of(content, at)
            record.properties.append(Property(content[at : at + 1], content[at + 1 : at + 1 + size]))
            at += 1 + size
        at = properties_end
        if at < stop:
            record.had_children = True
            record.children, at = _read_list(content, at, stop, wide=wide)
        records.append(record)
        at = stop
    return records, at


def _size_of(content: bytes, at: int) -> int:
    kind = content[at : at + 1]
    if kind in SCALARS:
        return struct.calcsize(SCALARS[kind])
    if kind in ARRAYS:
        return 12 + int(struct.unpack_from("<I", content, at + 9)[0])
    return 4 + int(struct.unpack_from("<I", content, at + 1)[0])


def _written(record: Record, at: int, *, wide: bool) -> bytes:
    layout = "<QQQB" if wide else "<IIIB"
    head = struct.calcsize(layout) + len(record.name)
    properties = b"".join(entry.kind + entry.payload for entry in record.properties)
    body = properties
    for child in record.children:
        body += _written(child, at + head + len(body), wide=wide)
    if record.children or record.had_children:
        body += _empty(wide=wide)
    top = 2 ** (64 if wide else 32)
    lies = record.lies
    fields = (
        lies.get("end", at + head + len(body)) % top,
        lies.get("count", len(record.properties)) % top,
        lies.get("length", len(properties)) % top,
        lies.get("name_length", len(record.name)) % 256,
    )
    return struct.pack(layout, *fields) + record.name + body


def mutate_fbx(content: bytes, names: Sequence[str], rng: random.Random) -> bytes:
    """The file with faults of the given names."""
    fbx = Fbx.read(content)
    for name in names:
        # After another fault, the place for this one may be gone.
        with contextlib.suppress(LookupError, struct.error):
            _INSIDE[name](fbx, rng)
    return fbx.write()


def _lengths(fbx: Fbx, rng: random.Random) -> None:
    record = rng.choice(fbx.all())
    key = rng.choice(("end", "count", "length", "name_length"))
    record.lies[key] = rng.choice((0, 1, 2, 100, 10_000, 2**31, 2**32 - 1, 2**63))


def _kinds(fbx: Fbx, rng: random.Random) -> None:
    entry = _some_property(fbx, rng)
    entry.kind = rng.choice((*SCALARS, *ARRAYS, b"S", b"R", b"Z", b"\0"))


def _headers(fbx: Fbx, rng: random.Random) -> None:
    """Count, encoding or stored length of an array."""
    entry = _some_property(fbx, rng, arrays=True)
    if len(entry.payload) >= 12:
        parts = list(struct.unpack_from("<III", entry.payload))
        which = rng.randrange(3)
        values = ((0, 1, parts[0] + 1, 10**6, 2**31, 2**32 - 1), (0, 1, 2, 255), (0, 1, parts[2] - 1, 2**31, 2**32 - 1))
        parts[which] = rng.choice(values[which]) % 2**32
        entry.payload = struct.pack("<III", *parts) + entry.payload[12:]


def _compressed(fbx: Fbx, rng: random.Random) -> None:
    """A zlib stream that is broken, ends early, is empty, or unpacks to much more than it says."""
    entry = _some_property(fbx, rng, arrays=True)
    if len(entry.payload) < 12:
        return
    count = struct.unpack_from("<I", entry.payload)[0]
    what = rng.randrange(5)
    if what == 0:
        data = rng.randbytes(64)
    elif what == 1:
        data = zlib.compress(b"\0" * 8 * count)[:-6]
    elif what == 2:
        data = b""
    elif what == 3:
        data = _bomb()
    else:
        data = zlib.compress(rng.randbytes(8 * count))
    entry.payload = struct.pack("<III", count, 1, len(data)) + data


@cache
def _bomb() -> bytes:
    packer = zlib.compressobj()
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(BOMB_BYTES >> 20)) + packer.flush()


def _numbers(fbx: Fbx, rng: random.Random) -> None:
    scalars = [entry for record in fbx.all() for entry in record.properties if entry.kind in SCALARS]
    _set_number(rng.choice(scalars), rng)


def _set_number(entry: Property, rng: random.Random) -> None:
    if entry.kind in (b"F", b"D"):
        value = rng.choice(FLOATS)
        entry.payload = struct.pack("<d", value) if entry.kind == b"D" else struct.pack("<f", min(value, 3e38))
    elif entry.kind in (b"I", b"L"):
        entry.payload = struct.pack(SCALARS[entry.kind], rng.choice(INTEGERS))
    elif entry.kind == b"Y":
        entry.payload = struct.pack("<h", rng.choice((0, -1, 32767)))


def _array_values(fbx: Fbx, rng: random.Random) -> None:
    entry = _some_property(fbx, rng, arrays=True)
    try:
        values = entry.values
    except (struct.error, zlib.error, KeyError):
        return
    for _ in range(rng.choice((1, 1, 10))):
        if values:
            at = rng.randrange(len(values))
            if entry.kind in (b"f", b"d"):
                values[at] = rng.choice(FLOATS) if entry.kind == b"d" else min(rng.choice(FLOATS), 3e38)
            elif entry.kind == b"l":
                values[at] = rng.choice((0, -1, TICKS_A_SECOND * 10**6, 2**62, values[at] + 1))
            elif entry.kind == b"i":
                values[at] = rng.choice(INTEGERS)
    if rng.random() < 0.3:
        values = values[: rng.randrange(len(values) + 1)]
    entry.store(values)


def _strings(fbx: Fbx, rng: random.Random) -> None:
    strings = [entry for record in fbx.all() for entry in record.properties if entry.kind in (b"S", b"R")]
    text = rng.choice((b"", b"\xff\xfe", b"x" * 5000, b"Mesh", b"Model\0\x01Model", b"../../x.png", b"\0\x01", b"%s%n"))
    length = rng.choice((len(text), len(text), len(text), 2**31))
    rng.choice(strings).payload = struct.pack("<I", length) + text


def _tree(fbx: Fbx, rng: random.Random) -> None:
    parents = [record for record in fbx.all() if record.children]
    parent = rng.choice(parents)
    child = rng.choice(parent.children)
    what = rng.randrange(5)
    if what == 0:
        parent.children.remove(child)
    elif what == 1:
        parent.children.append(child)
    elif what == 2:
        other = rng.choice(parents)
        if not any(record is other for record in child.walk()):
            parent.children.remove(child)
            other.children.append(child)
    elif what == 3:
        child.name = rng.choice((b"", b"Objects", b"C", b"Vertices", b"\xff" * 200))
    else:
        deep = Record(b"a")
        for _ in range(rng.choice((30, 400))):
            deep = Record(b"a", children=[deep])
        parent.children.append(deep)


def _connections(fbx: Fbx, rng: random.Random) -> None:
    """Objects tied to others than they should be, to themselves, or to nothing."""
    connections = [record for record in fbx.named(b"C") if len(record.properties) >= 3]
    if not connections:
        return
    first, second = rng.choice(connections), rng.choice(connections)
    what = rng.randrange(4)
    if what == 0:
        first.properties[1], second.properties[1] = second.properties[1], first.properties[1]
    elif what == 1:
        first.properties[1] = first.properties[2]
    elif what == 2:
        first.properties[1], first.properties[2] = first.properties[2], first.properties[1]
    else:
        first.properties[2] = Property(b"L", struct.pack("<q", rng.choice((0, -1, 2**62))))


def _objects(fbx: Fbx, rng: random.Random) -> None:
    """Two objects of one id, or settings of the scene that make no sense."""
    if rng.random() < 0.5:
        objects = [child for record in fbx.named(b"Objects") for child in record.children if child.properties]
        if objects:
            rng.choice(objects).properties[0] = rng.choice(objects).properties[0]
        return
    settings = [record for record in fbx.named(b"P") if record.properties]
    numbers = [entry for entry in rng.choice(settings).properties if entry.kind in SCALARS]
    if numbers:
        _set_number(rng.choice(numbers), rng)


def _geometry(fbx: Fbx, rng: random.Random) -> None:
    """Polygons, weights and curves: the arrays that index others."""
    names = (
        b"PolygonVertexIndex",
        b"Indexes",
        b"Weights",
        b"KeyTime",
        b"KeyValueFloat",
        b"Vertices",
        b"UVIndex",
        b"Transform",
    )
    records = [record for record in fbx.named(*names) if record.properties and record.properties[0].kind in ARRAYS]
    if not records:
        return
    entry = rng.choice(records).properties[0]
    try:
        values = entry.values
    except (struct.error, zlib.error, KeyError):
        return
    what = rng.randrange(4)
    if what == 0:
        values = values[: rng.randrange(len(values) + 1)]
    elif what == 1:
        values = values * rng.choice((2, 10))
    elif what == 2:
        rng.shuffle(values)
    elif values and entry.kind in (b"i", b"l"):
        values[rng.randrange(len(values))] = rng.choice((2**31 - 1, -(2**31), 10**6))
    entry.store(values)


def _version(fbx: Fbx, rng: random.Random) -> None:
    fbx.version = rng.choice((0, 6100, 7100, 7400, 7500, 7700, 9900, 2**32 - 1))


def _some_property(fbx: Fbx, rng: random.Random, *, arrays: bool = False) -> Property:
    found = [entry for record in fbx.all() for entry in record.properties if not arrays or entry.kind in ARRAYS]
    return rng.choice(found or [Property(b"i", b"")])


_INSIDE: dict[str, Callable[[Fbx, random.Random], None]] = {
    "lengths": _lengths,
    "kinds": _kinds,
    "headers": _headers,
    "compressed": _compressed,
    "numbers": _numbers,
    "array_values": _array_values,
    "strings": _strings,
    "tree": _tree,
    "connections": _connections,
    "objects": _objects,
    "geometry": _geometry,
    "version": _version,
}
FBX_MUTATORS = tuple(_INSIDE)
