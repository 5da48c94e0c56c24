import gzip
import struct
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.sniff import Format
from ingest.stage import Ingest
from ingest.texture_names import places, texture_names
from pipeline.records import Asset
from pipeline.storage import Store
from tests.ingest.tiny import item, png

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def fbx(*names: str) -> bytes:
    """As much of an FBX as names pictures."""
    nodes = b"".join(
        node + b"S" + struct.pack("<I", len(name.encode())) + name.encode()
        for name in names
        for node in (b"RelativeFilename", b"FileName")
    )
    return b"Kaydara FBX Binary  \0\x1a\0" + struct.pack("<I", 7400) + nodes


def usdc(*tokens: str) -> bytes:
    """As much of a binary USD as holds tokens."""
    text = b"".join(token.encode() + b"\0" for token in tokens)
    packed = b"\0" + pa.compress(text, codec="lz4_raw", asbytes=True)
    section = struct.pack("<3Q", len(tokens), len(text), len(packed)) + packed
    table = struct.pack("<Q", 1) + struct.pack("<16sQQ", b"TOKENS", 88, len(section))
    return b"PXR-USDC" + bytes(8) + struct.pack("<Q", 88 + len(section)) + bytes(64) + section + table


BLEND = b"BLENDER-v405" + bytes(50) + b"//..\\maps\\skin.PNG\0" + bytes(9) + b"//eyes.jpg\0 //run.py\0"


@pytest.mark.parametrize(
    ("kind", "content", "names"),
    [
        ("fbx", fbx("C:\\art\\skin.tga", "maps/eyes.png", "notes.txt"), ["C:\\art\\skin.tga", "maps/eyes.png"]),
        ("fbx", fbx("b.png") + bytes((4 << 20) - 150) + fbx("a.png"), ["b.png", "a.png"]),
        ("usd", b"#usda 1.0\nasset inputs:file = @./maps/skin.png@\nreferences = @other.usda@", ["./maps/skin.png"]),
        ("usd", usdc("points", "maps/skin.png", "xformOp:translate"), ["maps/skin.png"]),
        ("blend", BLEND, ["..\\maps\\skin.PNG", "eyes.jpg"]),
        ("blend", gzip.compress(BLEND), ["..\\maps\\skin.PNG", "eyes.jpg"]),
        ("blend", pa.compress(BLEND, codec="zstd", asbytes=True), ["..\\maps\\skin.PNG", "eyes.jpg"]),
        ("blend", gzip.compress(BLEND)[:-20], []),
        ("abc", b"Ogawa@skin.png@", []),
    ],
    ids=["fbx", "fbx across blocks", "usda", "usdc", "blend", "gzip", "zstd", "cut off", "abc"],
)
def test_the_pictures_that_a_file_names(kind: Format, content: bytes, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    assert texture_names(tmp_path / "a", kind) == names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("maps/a.png", ["maps/a.png", "a.png", "textures/a.png", "Textures/a.png"]),
        ("C:\\art\\a.png", ["a.png", "textures/a.png", "Textures/a.png"]),
        ("/etc/a.png", ["a.png", "textures/a.png", "Textures/a.png"]),
        ("..\\..\\a.png", ["a.png", "textures/a.png", "Textures/a.png"]),
        ("50%20off.png", ["50%20off.png", "textures/50%20off.png", "Textures/50%20off.png"]),
        ("a\nb.png", []),
    ],
)
def test_only_places_below_the_assets_folder_are_looked_at(name: str, expected: list[str]) -> None:
    assert places(name) == expected


def test_the_first_place_that_has_a_picture_is_taken(tmp_path: Path, store: Store) -> None:
    (tmp_path / "art" / "textures").mkdir(parents=True)
    (tmp_path / "outside.png").write_bytes(png(1, 1))
    (tmp_path / "art" / "textures" / "skin.png").write_bytes(png(2, 2))
    content = b"#usda 1.0\n@C:/somewhere/skin.png@ @../outside.png@ @gone.png@"
    (tmp_path / "art" / "a.usda").write_bytes(content)
    (asset,) = Ingest(data=store.root).process(item(tmp_path / "art" / "a.usda"))
    assert isinstance(asset, Asset)
    assert asset.main_file == "asset.usda"
    assert b"textures/skin.png" in store.read_bytes(asset.blob)
    assert b"outside.png\0" not in store.read_bytes(asset.blob)


@FUZZ
@given(st.sampled_from(["fbx", "usd", "blend"]), st.binary(max_size=200), st.integers(0, 300), st.booleans())
def test_any_bytes_are_read_without_a_word(tmp_path: Path, kind: Format, noise: bytes, place: int, keep: bool) -> None:
    content = {"fbx": fbx("a.png"), "usd": usdc("a.png"), "blend": gzip.compress(BLEND)}[kind]
    place %= len(content)
    (tmp_path / "a").write_bytes(content[:place] + noise + content[place + (0 if keep else len(noise)) :])
    for name in texture_names(tmp_path / "a", kind):
        name.encode()
        places(name)
