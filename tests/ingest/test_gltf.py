import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.gltf import read_gltf
from ingest.inspect import Limits, inspect_gltf
from ingest.refused import Refused
from ingest.sniff import sniff
from pipeline.records import to_table
from tests.ingest.tiny import glb, png, triangle, triangle_glb

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(content: bytes, tmp_path: Path) -> Any:
    (tmp_path / "a").write_bytes(content)
    return read_gltf(tmp_path / "a", max_json_bytes=1 << 20)


@pytest.mark.parametrize(
    ("reason", "content"),
    [
        ("truncated", b"glTF"),
        ("truncated", triangle_glb()[:-10]),
        ("truncated", triangle_glb()[:15]),
        ("truncated", triangle_glb()[:100]),
        ("malformed", triangle_glb() + b"more"),
        ("malformed", triangle_glb()[:8] + b"\xff\xff\xff\xff" + triangle_glb()[12:]),
        ("malformed", triangle_glb()[:12] + struct.pack("<I", 10**6) + triangle_glb()[16:]),
        ("malformed", triangle_glb().replace(b"JSON", b"BIN\0", 1)),
        ("malformed", struct.pack("<4sII", b"glTF", 2, 12)),
        ("malformed", glb(b'{"asset":')),
        ("malformed", glb(b'\xff\xfe{"asset":{}}')),
        ("malformed", glb(b"[]")),
        ("malformed", glb(b"[" * 5000)),
        ("malformed", glb(b'{"asset":{"version":"2.0"},"x":' + b"1" * 5000 + b"}")),
        ("not_an_asset", glb(b'{"error":404}')),
        ("unsupported_format", glb(b'{"asset":{"version":"1.0"}}')),
        ("unsupported_format", b"glTF" + struct.pack("<II", 1, 20) + bytes(8)),
        ("non_finite", glb(b'{"asset":{"version":"2.0"},"nodes":[{"scale":[NaN,1,1]}]}')),
        ("too_complex", glb(b"{" + b'"a":[[],[],[],[]],' * 20_000 + b'"b":0}')),
        ("too_complex", glb(b" " * (1 << 21))),
    ],
)
def test_a_broken_container_is_classified(reason: str, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refusal:
        read(content, tmp_path)
    assert refusal.value.reason == reason, refusal.value.detail


def inspect_anything(content: bytes, tmp_path: Path) -> None:
    """Either counts what can be stored, or refuses; and soon."""
    started = time.monotonic()
    (tmp_path / "a.glb").write_bytes(content)
    try:
        if sniff(tmp_path / "a.glb", "a.glb").format in ("glb", "gltf"):
            found = inspect_gltf(read_gltf(tmp_path / "a.glb", max_json_bytes=1 << 20), Limits())
            to_table([found], type(found))
    except Refused as refused:
        refused.detail.encode()
    assert time.monotonic() - started < 5


def rich_root() -> tuple[dict[str, Any], bytearray]:
    """The triangle with some of everything, so that a change can hit anything."""
    root, buffer = triangle()
    root["images"] = [{"bufferView": 4}, {"uri": "a.png"}]
    root["textures"] = [{"source": 0}]
    root["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    root["meshes"][0]["primitives"][0] |= {"material": 0, "mode": 4, "targets": [{"POSITION": 0}], "extensions": {}}
    root["meshes"][0]["weights"] = [0.5]
    root["bufferViews"].append({"buffer": 0, "byteOffset": len(buffer), "byteLength": len(png(2, 2)), "byteStride": 0})
    root["bufferViews"].append({"buffer": 0, "byteOffset": 0, "byteLength": 64})
    root["accessors"].append({"bufferView": 5, "componentType": 5126, "count": 1, "type": "MAT4"})
    root["accessors"][0]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": 1, "componentType": 5123},
        "values": {"bufferView": 3},
    }
    root["skins"] = [{"joints": [0, 1], "inverseBindMatrices": 4}, {"joints": [1]}]
    root["nodes"][0] |= {"translation": [0, 0, 0], "rotation": [0, 0, 0, 1], "scale": [1, 1, 1], "skin": 1}
    root["nodes"][1]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 3}}}
    root["extensionsUsed"] = ["KHR_texture_transform"]
    root["extensionsRequired"] = ["KHR_texture_transform"]
    buffer += png(2, 2)
    return root, buffer


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in some JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [found for key, child in inner for found in places(child, (*path, key))]


PLACES = [path for path in places(rich_root()[0]) if path]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(0, 6) | st.floats() | st.text(max_size=5)
    | st.sampled_from([-1, 2**31, 2**53, 10**30, 1e308, "../x", "data:,", "data:;base64,AAAA", "\ud800", "POSITION"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


def test_the_fuzzed_asset_is_valid_to_begin_with(tmp_path: Path) -> None:
    root, buffer = rich_root()
    root["skins"] = root["skins"][1:]
    root["nodes"][0]["skin"] = 0
    found = inspect_gltf(read(glb(root, buffer), tmp_path), Limits())
    assert (found.num_images, found.image_pixels, found.missing_files) == (2, 4, ("a.png",))


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON_VALUES), min_size=1, max_size=3), st.booleans())
def test_any_value_anywhere_in_the_json_is_counted_or_refused(
    tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any]], remove: bool
) -> None:
    root, buffer = rich_root()
    for path, value in changes:
        place: Any = root
        try:
            for key in path[:-1]:
                place = place[key]
            if remove:
                del place[path[-1]]
            else:
                place[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    inspect_anything(glb(json.dumps(root).encode(), buffer), tmp_path)


@FUZZ
@given(st.data())
def test_any_flipped_bytes_are_counted_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(glb(*rich_root()))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    inspect_anything(bytes(content), tmp_path)


@FUZZ
@given(st.integers(0, 4000), st.binary(max_size=64))
def test_any_cut_and_tail_is_counted_or_refused(tmp_path: Path, cut: int, tail: bytes) -> None:
    inspect_anything(glb(*rich_root())[:cut] + tail, tmp_path)


@FUZZ
@given(st.binary(max_size=300), st.sampled_from([b"", b"glTF\x02\0\0\0", b'{"asset":', b"PK\x03\x04", b"\x1f\x8b"]))
def test_any_bytes_at_all_are_refused(tmp_path: Path, rest: bytes, head: bytes) -> None:
    inspect_anything(head + rest, tmp_path)
