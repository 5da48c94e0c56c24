"""The decoders on streams that the formats' own encoders made, and on broken ones; no Blender."""

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from render.blender import fetch_decoders, ktx2, meshopt, wasm
from render.protocol import BadAsset

FOLDER = Path(__file__).parent / "compressed"
STREAMS: list[dict[str, Any]] = json.loads((FOLDER / "streams.json").read_text())
FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def name_of(stream: dict[str, Any]) -> str:
    return f"{stream['mode']}-{stream['filter']}-{stream['byteStride']}-v{stream['version']}"


@pytest.mark.parametrize("stream", STREAMS, ids=name_of)
def test_each_mode_and_filter_decodes_as_the_reference_decoder_does(stream: dict[str, Any]) -> None:
    assert meshopt.check(stream) == len(stream["decoded"]) // 2
    assert meshopt.decode(bytes.fromhex(stream["coded"]), stream).hex() == stream["decoded"]


def test_the_streams_cover_all_modes_and_filters() -> None:
    assert {stream["mode"] for stream in STREAMS} == {"ATTRIBUTES", "TRIANGLES", "INDICES"}
    assert {stream["filter"] for stream in STREAMS} == {"NONE", "OCTAHEDRAL", "QUATERNION", "EXPONENTIAL", "COLOR"}


@pytest.mark.parametrize("stream", STREAMS, ids=name_of)
def test_a_stream_that_ends_early_is_malformed(stream: dict[str, Any]) -> None:
    with pytest.raises(BadAsset, match="malformed"):
        meshopt.decode(bytes.fromhex(stream["coded"])[:-1], stream)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "SECRET"}, {"byteStride": 3}, {"byteStride": 512}, {"count": -1}, {"count": 1 << 40}, {"count": "7"},
        {"filter": "BLUR"}, {"filter": "QUATERNION", "byteStride": 4}, {"mode": "INDICES", "byteStride": 8},
        {"mode": "TRIANGLES", "byteStride": 4, "count": 4},
        {"mode": "INDICES", "byteStride": 4, "filter": "OCTAHEDRAL"},
    ],
)  # fmt: skip
def test_settings_that_the_extension_forbids_are_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(BadAsset, match="malformed"):
        meshopt.check({"mode": "ATTRIBUTES", "byteStride": 8, "count": 4, **changes})


def outcome(decode: Callable[[], Any]) -> tuple[str, Any]:
    """The reason of a refusal, or what was decoded."""
    try:
        return "", decode()
    except BadAsset as error:
        return error.reason, None


@FUZZ
@given(st.sampled_from(STREAMS), st.integers(0, 10_000), st.binary(min_size=1, max_size=4), st.integers(1, 5000))
def test_no_stream_breaks_out(stream: dict[str, Any], place: int, noise: bytes, count: int) -> None:
    data = bytearray.fromhex(stream["coded"])
    place %= len(data)
    data[place : place + len(noise)] = noise
    odd = {**stream, "count": 3 * count}
    reason, decoded = outcome(lambda: meshopt.decode(bytes(data), odd))
    assert reason == "malformed" or len(decoded) == odd["count"] * odd["byteStride"]


@pytest.mark.parametrize(
    ("name", "most", "mean"),
    [
        ("colours_etc1s", 32, 8.0), ("colours_etc1s_mips", 32, 8.0), ("colours_uastc", 14, 3.0),
        ("colours_uastc_zstd_mips", 14, 3.0), ("normals_etc1s", 9, 2.5), ("normals_uastc_zstd", 3, 0.6),
    ],
)  # fmt: skip
def test_a_ktx2_picture_looks_like_its_original(name: str, most: int, mean: float) -> None:
    pixels = ktx2.decode((FOLDER / f"{name}.ktx2").read_bytes())
    with Image.open(FOLDER / f"{name.split('_', maxsplit=1)[0]}.png") as image:
        original = np.asarray(image, dtype=int)
    assert pixels.shape == original.shape
    difference = np.abs(pixels - original)
    assert difference.max() <= most
    assert difference.mean() <= mean


@pytest.mark.parametrize(
    ("reason", "offset", "layout", "value"),
    [
        ("malformed", 0, "B", 0), ("image_bomb", 20, "I", 20_000), ("malformed", 24, "I", 0), ("malformed", 28, "I", 2),
        ("malformed", 36, "I", 6), ("unsupported_extension", 44, "I", 3), ("malformed", 48, "I", 10**9),
        ("malformed", 96, "Q", 1 << 40), ("malformed", 80, "Q", 1 << 62),
    ],
    ids=["magic", "width", "height", "depth", "faces", "scheme", "description", "size", "offset"],
)  # fmt: skip
def test_a_wrong_ktx2_header_is_refused(reason: str, offset: int, layout: str, value: int) -> None:
    data = bytearray((FOLDER / "colours_uastc_zstd_mips.ktx2").read_bytes())
    struct.pack_into(f"<{layout}", data, offset, value)
    with pytest.raises(BadAsset, match=reason):
        ktx2.decode(bytes(data))


@FUZZ
@given(st.sampled_from(sorted(FOLDER.glob("*.ktx2"))), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255))))
def test_no_ktx2_file_breaks_out(path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    reason, pixels = outcome(lambda: ktx2.decode(bytes(data)))
    assert reason in {"malformed", "image_bomb", "unsupported_extension"} or pixels.dtype == np.uint8


def test_a_decoder_has_a_ceiling_on_its_memory() -> None:
    decoder = wasm.Decoder("meshopt_decoder.wasm", max_bytes=0, instructions=0)
    assert decoder.call("sbrk", 2 * wasm.FREE_BYTES) == -1


def test_a_decoder_has_a_ceiling_on_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasm, "INSTRUCTIONS", 1000)
    monkeypatch.setattr(meshopt, "_INSTRUCTIONS_PER_BYTE", 0)
    with pytest.raises(BadAsset, match="fuel"):
        meshopt.decode(bytes.fromhex(STREAMS[0]["coded"]), STREAMS[0])


def test_the_decoders_are_the_ones_that_were_looked_at() -> None:
    for name in wasm.SHA256:
        assert wasm._compiled(name)
    kept = {name for package in fetch_decoders.PACKAGES for name in package.files}
    assert set(wasm.SHA256) <= kept
    assert {path.name for path in wasm.DECODERS.iterdir()} == kept | {"NOTICE.md"}


def test_without_wasmtime_a_compressed_file_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wasmtime", None)
    wasm._compiled.cache_clear()
    with pytest.raises(BadAsset, match=r"unsupported_extension.*pip install wasmtime"):
        meshopt.decode(bytes.fromhex(STREAMS[0]["coded"]), STREAMS[0])


def test_a_decoder_that_is_another_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meshopt_decoder.wasm").write_bytes((wasm.DECODERS / "meshopt_decoder.wasm").read_bytes() + b"\0")
    monkeypatch.setattr(wasm, "DECODERS", tmp_path)
    wasm._compiled.cache_clear()
    with pytest.raises(RuntimeError, match="damaged"):
        wasm.Decoder("meshopt_decoder.wasm", max_bytes=0, instructions=0)
