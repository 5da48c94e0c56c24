"""FBX files that announce more than they hold. Found by mutating real ones: Blender made gigabytes of room for them."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.fbx import check_fbx
from ingest.refused import Refused
from tests.fuzz.fbx import Fbx, Property, Record


def array(values: list[float], *, count: int = 0, packed: bytes | None = None) -> Property:
    """An array of doubles, stored as they are, or as the given zlib stream; `count` is what it says instead."""
    data = struct.pack(f"<{len(values)}d", *values) if packed is None else packed
    head = struct.pack("<III", count or len(values), int(packed is not None), len(data))
    return Property(b"d", head + data)


def file(*properties: Property, version: int = 7400, **lies: int) -> Fbx:
    """The smallest tree: a list of objects with one geometry, which lies."""
    vertices = Record(b"Vertices", list(properties), lies=lies)
    geometry = Record(b"Geometry", [Property(b"L", struct.pack("<q", 1))], [vertices])
    return Fbx(version, [Record(b"Objects", children=[geometry])], b"footer")


DOUBLES = [0.5, 1.0, 2.0]
SOUND = {
    "narrow": file(array(DOUBLES)),
    "wide": file(array(DOUBLES), version=7700),
    "packed": file(array(DOUBLES, packed=zlib.compress(struct.pack("<3d", *DOUBLES)))),
    "empty array": file(array([])),
    "text": file(Property(b"S", struct.pack("<I", 3) + b"abc"), Property(b"C", b"Y")),
}
BROKEN: dict[str, tuple[Callable[[], Fbx], str]] = {
    "two billion properties": (lambda: file(array(DOUBLES), count=2**31), "malformed"),
    "more properties than there are": (lambda: file(array(DOUBLES), count=2), "malformed"),
    "ends before its properties": (lambda: file(array(DOUBLES), end=100), "malformed"),
    "ends after its parent": (lambda: file(array(DOUBLES), end=10_000), "malformed"),
    "ends long after its parent": (lambda: file(array(DOUBLES), end=2**63, version=7500), "malformed"),
    "unknown type": (lambda: file(Property(b"?", b"\0" * 8)), "malformed"),
    "more elements than bytes": (lambda: file(array(DOUBLES, count=4)), "malformed"),
    "room for gigabytes": (lambda: file(array(DOUBLES, count=2**32 - 1)), "too_complex"),
    "no zlib stream": (lambda: file(array([], count=3, packed=b"\1" * 40)), "malformed"),
    "half a stream": (lambda: file(array([], count=3, packed=zlib.compress(b"\0" * 24)[:-5])), "malformed"),
    "a bomb": (lambda: file(array([], count=3, packed=zlib.compress(bytes(1 << 28)))), "malformed"),
    "text without an end": (lambda: file(Property(b"S", struct.pack("<I", 2**31) + b"abc")), "malformed"),
}


def saved(fbx: Fbx, folder: Path) -> Path:
    path = folder / "a.fbx"
    path.write_bytes(fbx.write())
    return path


@pytest.mark.parametrize("name", SOUND)
def test_what_holds_together_passes(name: str, tmp_path: Path) -> None:
    check_fbx(saved(SOUND[name], tmp_path))


@pytest.mark.parametrize("name", BROKEN)
def test_what_announces_more_than_it_holds_is_refused(name: str, tmp_path: Path) -> None:
    make, reason = BROKEN[name]
    with pytest.raises(Refused) as caught:
        check_fbx(saved(make(), tmp_path))
    assert caught.value.reason == reason


def test_a_file_that_was_cut_short_is_truncated_wherever_the_cut_is(tmp_path: Path) -> None:
    whole = SOUND["packed"]
    content = whole.write()[: -len(whole.footer)]
    for length in range(27, len(content) - 1):
        path = tmp_path / "a.fbx"
        path.write_bytes(content[:length])
        with pytest.raises(Refused) as caught:
            check_fbx(path)
        assert caught.value.reason == "truncated", length


def test_deep_trees_are_walked_without_recursion(tmp_path: Path) -> None:
    deep = b""
    for _ in range(20_000):
        body = deep + b"\0" * 13
        # Offsets are relative here; they are made absolute below.
        deep = struct.pack("<IIIB", len(body) + 14, 0, 0, 1) + b"a" + body
    content = bytearray(b"Kaydara FBX Binary  \0\x1a\0" + struct.pack("<I", 7400) + deep + b"\0" * 13)
    at, end = 27, 27 + len(deep)
    for _ in range(20_000):
        struct.pack_into("<I", content, at, end)
        at, end = at + 14, end - 13
    path = tmp_path / "deep.fbx"
    path.write_bytes(content)
    check_fbx(path)


def test_real_files_pass(real_assets: Path) -> None:
    binary = [path for path in real_assets.rglob("*.fbx") if path.read_bytes().startswith(b"Kaydara")]
    assert len(binary) >= 4
    for path in binary:
        check_fbx(path)
