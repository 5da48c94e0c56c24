"""glTF under meshopt and KTX2: its claims are checked, and its bytes are stored as they came."""

import base64
import copy
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, features

from ingest.gltf import read_gltf
from ingest.image_size import image_size
from ingest.inspect import Limits, inspect_gltf
from ingest.refused import Refused
from ingest.stage import Ingest
from pipeline.records import Asset, Inspection
from pipeline.storage import Store
from tests.ingest.tiny import glb, item, triangle

FOLDER = Path(__file__).parents[1] / "render" / "compressed"
KHR = "KHR_meshopt_compression"
SHEET: dict[str, Any] = json.loads((FOLDER / "sheet_khr_meshopt.gltf").read_text())


def inspected(path: Path) -> Inspection:
    return inspect_gltf(read_gltf(path, max_json_bytes=1 << 20), Limits())


@pytest.mark.parametrize("name", ["sheet_ext_meshopt.glb", "sheet_khr_meshopt.gltf", "sheet_draco.glb"])
def test_a_compressed_file_says_what_the_plain_one_says(name: str) -> None:
    plain, found = inspected(FOLDER / "sheet.glb"), inspected(FOLDER / name)
    assert found.animation_names == plain.animation_names == ("bend", "swell", "slide")
    assert found.durations_s == pytest.approx(plain.durations_s)
    assert (found.num_vertices, found.num_triangles) == (plain.num_vertices, plain.num_triangles)


def test_its_bytes_are_stored_as_they_came(store: Store) -> None:
    path = FOLDER / "sheet_ext_meshopt.glb"
    asset, inspection = Ingest(data=store.root).process(item(path))
    assert isinstance(asset, Asset)
    assert isinstance(inspection, Inspection)
    assert asset.asset_id == hashlib.sha256(path.read_bytes()).hexdigest()
    assert store.read_bytes(asset.blob) == path.read_bytes()
    assert "EXT_meshopt_compression" in inspection.extensions_required


def compressed(root: dict[str, Any]) -> dict[str, Any]:
    """The extension's object of the first view."""
    view: dict[str, Any] = root["bufferViews"][0]["extensions"][KHR]
    return view


@pytest.mark.parametrize(
    "change",
    [
        lambda root: compressed(root).update(byteLength=10**9),
        lambda root: compressed(root).update(byteOffset=10**9),
        lambda root: compressed(root).update(buffer=0),
        lambda root: compressed(root).update(buffer=7),
        lambda root: compressed(root).update(count=1),
        lambda root: compressed(root).update(mode="ZIP"),
        lambda root: compressed(root).update(byteStride=-4),
        lambda root: root["bufferViews"][0]["extensions"].update({KHR: []}),
        lambda root: root["bufferViews"][0].update(byteLength=10**9),
        lambda root: root["accessors"][0].update(count=10**6),
        lambda root: root["accessors"][0].update(min="no"),
    ],
)
def test_a_wrong_claim_about_compressed_bytes_is_malformed(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    root = copy.deepcopy(SHEET)
    change(root)
    (tmp_path / "a.gltf").write_text(json.dumps(root))
    with pytest.raises(Refused, match="malformed"):
        inspected(tmp_path / "a.gltf")


def test_a_duration_that_compressed_keys_claim_is_limited(tmp_path: Path) -> None:
    root = copy.deepcopy(SHEET)
    root["accessors"][root["animations"][0]["samplers"][0]["input"]]["max"] = [1e6]
    (tmp_path / "a.gltf").write_text(json.dumps(root))
    with pytest.raises(Refused, match="absurd_duration"):
        inspected(tmp_path / "a.gltf")


def textured(tmp_path: Path, content: bytes, name: str) -> Path:
    """The triangle with a texture that only an extension names."""
    root, buffer = triangle()
    root["bufferViews"].append({"buffer": 0, "byteOffset": len(buffer), "byteLength": len(content)})
    root["images"] = [{"bufferView": 4}]
    root["textures"] = [{"extensions": {name: {"source": 0}}}]
    root["extensionsUsed"] = root["extensionsRequired"] = [name]
    root["buffers"][0]["byteLength"] = len(buffer) + len(content)
    (tmp_path / "a.glb").write_bytes(glb(root, buffer + content))
    return tmp_path / "a.glb"


def test_a_ktx2_texture_counts_its_pixels(tmp_path: Path) -> None:
    content = bytearray((FOLDER / "colours_uastc_zstd_mips.ktx2").read_bytes())
    assert inspected(textured(tmp_path, content, "KHR_texture_basisu")).image_pixels == 22 * 14
    content[20:24] = (20_000).to_bytes(4, "little")
    with pytest.raises(Refused, match="image_bomb"):
        inspected(textured(tmp_path, content, "KHR_texture_basisu"))


def test_a_texture_of_an_extension_must_name_an_image_that_is_there(tmp_path: Path) -> None:
    path = textured(tmp_path, b"", "KHR_texture_basisu")
    path.write_bytes(path.read_bytes().replace(b'"source": 0', b'"source": 1'))
    with pytest.raises(Refused, match="malformed"):
        inspected(path)


@pytest.mark.parametrize("size", [(300, 7), (64, 64), (4000, 100)])
def test_the_size_of_an_avif_is_read_from_its_start(size: tuple[int, int]) -> None:
    if not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    written = io.BytesIO()
    Image.new("RGBA", size, (10, 200, 30, 90)).save(written, "AVIF", speed=10)
    content = written.getvalue()
    assert image_size(lambda offset, count: content[offset : offset + count]) == size


def test_a_fallback_buffer_may_also_be_there(tmp_path: Path) -> None:
    """A file that does not require the extension carries the plain bytes as well."""
    root = copy.deepcopy(SHEET)
    plain = bytes(root["buffers"][0]["byteLength"])
    root["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{base64.b64encode(plain).decode()}"
    root.pop("extensionsRequired")
    (tmp_path / "a.gltf").write_text(json.dumps(root))
    assert inspected(tmp_path / "a.gltf").num_vertices == 81
