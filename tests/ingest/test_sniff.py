import gzip
import io
import struct
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from ingest.refused import Refused
from ingest.sniff import sniff
from tests.ingest.tiny import glb, png


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"PXR-USDC")
    return buffer.getvalue()


def fbx(version: int) -> bytes:
    return b"Kaydara FBX Binary  \x00\x1a\x00" + struct.pack("<I", version)


BLEND = b"BLENDER-v293REND" + bytes(100)
GLTF = b'{"asset": {"version": "2.0"}}'


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.glb", glb({"asset": {}}), "glb glb"),
        ("no_suffix", glb({"asset": {}}), "glb glb"),
        ("a.gltf", GLTF, "gltf gltf"),
        ("wrong.glb", GLTF, "gltf gltf"),
        ("a.fbx", fbx(7400), "fbx fbx"),
        ("a.blend", BLEND, "blend blend"),
        ("old.blend", gzip.compress(BLEND), "blend blend"),
        ("new.blend", zstd(BLEND), "blend blend"),
        ("a.usd", b"PXR-USDC\0\0", "usd usdc"),
        ("a.usda", b"#usda 1.0\n", "usd usda"),
        ("a.usdz", zipped("scene.usdc"), "usd usdz"),
        ("a.abc", b"Ogawa\xff\x00\x01", "abc abc"),
        ("a.obj", b"# made by hand\nv 0 0 0\n", "obj obj"),
        ("url.glb?token=1", glb({"asset": {}}), "glb glb"),
    ],
)
def test_a_file_is_known_by_its_first_bytes(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / "file").write_bytes(content)
    found = sniff(tmp_path / "file", name)
    assert f"{found.format} {found.suffix}" == kind


@pytest.mark.parametrize(
    ("name", "content", "reason", "word"),
    [
        ("a.glb", b"", "empty_file", "zero"),
        ("a.glb", b"<!DOCTYPE html><html></html>", "not_an_asset", "HTML"),
        ("a.glb", b"\n <html lang=en>", "not_an_asset", "HTML"),
        ("a.obj", b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "not_an_asset", "XML"),
        ("a.glb", b'{"error": "not logged in"}', "not_an_asset", "JSON"),
        ("a.glb", b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "not_an_asset", "git lfs pull"),
        ("a.glb", png(1, 1), "not_an_asset", "PNG"),
        ("a.fbx", b"; FBX 7.5.0 project file", "unsupported_format", "binary FBX"),
        ("a.fbx", fbx(6100), "unsupported_format", "6.1"),
        ("a.fbx", b"Kaydara FBX Binary", "truncated", "header"),
        ("a.abc", b"\x89HDF\r\n\x1a\n", "unsupported_format", "Ogawa"),
        ("a.zip", zipped("readme.txt"), "unsupported_format", "unpack"),
        ("a.usdz", zipped("scene.usdc")[:40], "truncated", "zip"),
        ("a.blend", gzip.compress(b"something else"), "unsupported_format", "gzip"),
        ("a.blend", gzip.compress(BLEND)[:11], "unsupported_format", "gzip"),
        ("a.dae", b"<?xml version='1.0'?><COLLADA>", "unsupported_format", "COLLADA"),
        ("a.stl", b"solid x", "unsupported_format", ".stl"),
        ("a.fbx", b"something else", "malformed", ".fbx"),
        ("a.obj", b"\0\0\0\0", "malformed", ".obj"),
    ],
)
def test_an_impostor_is_told_apart(tmp_path: Path, name: str, content: bytes, reason: str, word: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(Refused) as refusal:
        sniff(tmp_path / "file", name)
    assert refusal.value.reason == reason
    assert word in refusal.value.detail
