"""A GLB as its JSON and its bytes: what is read, what is written, and files that lie."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourd import gltf as module
from fourd.export.errors import ExportError
from fourd.gltf import ARRAY_BUFFER, Gltf, read_glb

JSON, BIN = 0x4E4F534A, 0x004E4942


def gltf_of(data: bytes, views: list[dict[str, Any]], *accessors: dict[str, Any]) -> Gltf:
    document = {
        "asset": {"version": "2.0"}, "buffers": [{"byteLength": len(data)}],
        "bufferViews": [{"buffer": 0, **view} for view in views], "accessors": list(accessors),
    }  # fmt: skip
    return Gltf(path=Path("a.glb"), document=document, binary=bytearray(data))


def floats(**more: Any) -> dict[str, Any]:
    return {"bufferView": 0, "componentType": 5126, "count": 2, "type": "VEC2"} | more


def refused(gltf: Gltf) -> ExportError:
    with pytest.raises(ExportError, match=r"a\.glb") as caught:
        gltf.array(0)
    return caught.value


def test_values_are_found_by_offset_and_stride() -> None:
    data = np.arange(12, dtype="<f4").tobytes()
    view = {"byteOffset": 4, "byteLength": 44, "byteStride": 16}
    np.testing.assert_array_equal(gltf_of(data, [view], floats(byteOffset=8)).array(0), [[3, 4], [7, 8]])
    tight = {"byteOffset": 4, "byteLength": 44}
    np.testing.assert_array_equal(gltf_of(data, [tight], floats(byteOffset=8)).array(0), [[3, 4], [5, 6]])
    assert gltf_of(data, [tight], floats(count=0)).array(0).shape == (0, 2)


def test_normalised_numbers_lie_in_minus_one_to_one() -> None:
    data = np.array([-128, -127, 0, 127], "i1").tobytes()
    found = gltf_of(data, [{"byteLength": 4}], floats(componentType=5120, normalized=True)).array(0)
    np.testing.assert_allclose(found, [[-1, -1], [0, 1]])
    plain = gltf_of(data, [{"byteLength": 4}], floats(componentType=5120)).array(0)
    np.testing.assert_array_equal(plain, [[-128, -127], [0, 127]])


@pytest.mark.parametrize("with_base", [True, False])
def test_sparse_values_stand_over_the_others(with_base: bool) -> None:
    data = np.array([1, 2, 3, 4], "<f4").tobytes() + b"\0\0\1\0" + np.array([9, 9, 7, 8], "<f4").tobytes()
    views = [{"byteLength": 16}, {"byteOffset": 16, "byteLength": 4}, {"byteOffset": 20, "byteLength": 16}]
    entry = floats(sparse={
        "count": 1,
        "indices": {"bufferView": 1, "byteOffset": 2, "componentType": 5123},
        "values": {"bufferView": 2, "byteOffset": 8},
    })  # fmt: skip
    if not with_base:
        del entry["bufferView"]
    first = [1, 2] if with_base else [0, 0]
    np.testing.assert_array_equal(gltf_of(data, views, entry).array(0), [first, [7, 8]])


@pytest.mark.parametrize(
    ("view", "entry"),
    [
        ({"byteLength": 16}, floats(count=3)),
        ({"byteLength": 16}, floats(byteOffset=4)),
        ({"byteLength": 16}, floats(byteOffset=-4)),
        ({"byteOffset": -8, "byteLength": 16}, floats(count=1)),
        ({"byteOffset": 4, "byteLength": 16}, floats()),
        ({"byteLength": 16, "byteStride": 4}, floats()),
        ({"byteLength": 16}, floats(count=-1)),
        ({"byteLength": 16}, floats(componentType=5130)),
        ({"byteLength": 16}, floats(type="MAT9")),
        ({"byteLength": 16}, floats(bufferView=-1)),
        ({"byteLength": 16}, floats(bufferView=True)),
        ({"byteLength": 16}, floats(bufferView=None)),
    ],
)
def test_what_points_outside_is_refused(view: dict[str, Any], entry: dict[str, Any]) -> None:
    assert refused(gltf_of(bytes(16), [view], entry)).reason == "malformed"


def test_what_lies_elsewhere_or_is_packed_is_unsupported() -> None:
    packed = {"byteLength": 16, "extensions": {"EXT_meshopt_compression": {}}}
    assert "without compression" in str(refused(gltf_of(bytes(16), [packed], floats())))
    assert "outside the file" in str(refused(gltf_of(bytes(16), [{"byteLength": 16, "buffer": 1}], floats())))
    beside = gltf_of(bytes(16), [{"byteLength": 16}], floats())
    beside.document["buffers"][0]["uri"] = "../a.bin"
    assert refused(beside).reason == "unsupported"


def test_zeros_are_not_made_for_whatever_count_a_file_claims() -> None:
    entry = floats(count=1 << 40)
    del entry["bufferView"]
    assert refused(gltf_of(b"", [], entry)).reason == "too_large"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    gltf = gltf_of(b"abc", [{"byteLength": 3}])
    gltf.document |= {"extras": {"näme": "größer"}}
    gltf.document["buffers"].append({"byteLength": 9, "uri": "other.bin"})
    times = gltf.add_accessor(np.array([0, 1.5], np.float32), bounds=True)
    gltf.add_view(b"12345", stride=12, target=ARRAY_BUFFER)
    size = gltf.write(tmp_path / "a.glb")
    content = (tmp_path / "a.glb").read_bytes()
    assert size == len(content)
    assert len(content) % 4 == 0
    json_length = struct.unpack_from("<I", content, 12)[0]
    assert json_length % 4 == 0
    assert struct.unpack_from("<I", content, 20 + json_length)[0] % 4 == 0
    again = read_glb(tmp_path / "a.glb")
    assert again.document["extras"] == {"näme": "größer"}
    assert again.document["buffers"] == [{"byteLength": len(again.binary)}, {"byteLength": 9, "uri": "other.bin"}]
    assert again.document["accessors"][times]["min"] == [0.0]
    assert again.document["accessors"][times]["max"] == [1.5]
    np.testing.assert_array_equal(again.array(times), [[0], [1.5]])
    first, of_times, last = again.document["bufferViews"]
    assert (first, of_times["byteOffset"]) == ({"buffer": 0, "byteLength": 3}, 4)
    assert (last["byteStride"], last["target"], last["byteOffset"]) == (12, ARRAY_BUFFER, 12)
    assert "byteStride" not in of_times
    assert "target" not in of_times


def test_attributes_are_stored_as_is_shortest_and_read_alike() -> None:
    gltf = gltf_of(b"", [])
    still = np.zeros((70_000, 3), np.float32)
    few = still.copy()
    few[69_999] = 1.0
    rng = np.random.default_rng(0)
    shorts = rng.integers(-99, 99, (70_000, 3)).astype(np.int16)  # six bytes a row, padded to eight
    numbers = [*gltf.add_attributes([still, few]), *gltf.add_attributes([shorts, shorts[::-1].copy()])]
    for number, block in zip(numbers, (still, few, shorts, shorts[::-1]), strict=True):
        np.testing.assert_array_equal(gltf.array(number), block)
    entries = [gltf.document["accessors"][number] for number in numbers]
    assert [entry.get("sparse", {}).get("count") for entry in entries] == [1, 1, None, None]
    assert entries[1]["sparse"]["indices"]["componentType"] == 5125  # beyond 65,536 rows
    for entry in entries[2:]:
        assert entry["byteOffset"] % 4 == 0
        view = gltf.document["bufferViews"][entry["bufferView"]]
        assert (view["byteStride"] % 4, view["target"]) == (0, ARRAY_BUFFER)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"glTF", b"\0" * 40,
        struct.pack("<IIIII", 0x46546C68, 2, 32, 12, JSON) + b'{"asset":{}}',
        struct.pack("<IIIII", 0x46546C67, 1, 32, 12, JSON) + b'{"asset":{}}',
        struct.pack("<IIIII", 0x46546C67, 2, 32, 12, BIN) + b'{"asset":{}}',
        struct.pack("<IIIII", 0x46546C67, 2, 24, 4, JSON) + b"[]  ",
        struct.pack("<IIIII", 0x46546C67, 2, 24, 4, JSON) + b"{}  ",
        struct.pack("<IIIII", 0x46546C67, 2, 34, 14, JSON) + b'{"asset": 123}',
        struct.pack("<IIIII", 0x46546C67, 2, 32, 12, JSON) + b'{"asset":{}',
        struct.pack("<IIIII", 0x46546C67, 2, 24, 12, JSON) + b'{"asset":{}}',
        struct.pack("<IIIII", 0x46546C67, 2, 40, 12, JSON) + b'{"asset":{}}' + struct.pack("<II", 0, JSON),
        struct.pack("<IIIII", 0x46546C67, 2, 40, 12, JSON) + b'{"asset":{}}' + struct.pack("<II", 4, BIN),
        struct.pack("<IIIII", 0x46546C67, 2, 44, 12, JSON) + b'{"asset":{}}' + struct.pack("<II", 4, BIN),
        struct.pack("<IIIII", 0x46546C67, 2, 20 + 200_000, 200_000, JSON) + b"[" * 200_000,
    ],
    ids=range(15),
)  # fmt: skip
def test_a_file_that_is_no_glb_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(content)
    with pytest.raises(ExportError, match="is no GLB of version 2") as caught:
        read_glb(tmp_path / "a.glb")
    assert caught.value.reason == "malformed"


def test_sizes_have_limits_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gltf_of(bytes(64), [])
    whole.write(tmp_path / "a.glb")
    assert json.loads(json.dumps(read_glb(tmp_path / "a.glb").document))["asset"] == {"version": "2.0"}
    monkeypatch.setattr(module, "MAX_BYTES", 60)
    with pytest.raises(ExportError, match="at most") as caught:
        read_glb(tmp_path / "a.glb")
    assert caught.value.reason == "too_large"
    with pytest.raises(ExportError, match="would have") as caught:
        whole.write(tmp_path / "b.glb")
    assert caught.value.reason == "too_large"
    assert [path.name for path in tmp_path.iterdir()] == ["a.glb"]
