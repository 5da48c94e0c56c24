"""What an asset's pictures cost the real Blender child, and what is saved by scaling them down."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.storage import Store
from render.supervisor import BlenderChild, BlenderSettings, vitals
from tests.render.blender_process import BlenderProcess, colour, picture, view
from tests.render.rows import asset_of
from tests.render.tiny_gltf import TinyGltf

pytestmark = pytest.mark.blender
BEIGE = (200, 160, 90)


def plain_png(size_px: int, colour: tuple[int, int, int], depth: int) -> bytes:
    """A square of one colour, 8 or 16 bits a channel."""
    pixel = b"".join(value.to_bytes(1, "big") * (depth // 8) for value in colour)
    compressor = zlib.compressobj(1)
    body = b"".join(compressor.compress(b"\0" + pixel * size_px) for _ in range(size_px)) + compressor.flush()
    header = struct.pack(">IIBBBBB", size_px, size_px, depth, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def painted_cube(size_px: int, depth: int = 8, num_textures: int = 1) -> bytes:
    """Cubes that slide, each with a picture of its own on it."""
    gltf = TinyGltf()
    for number in range(num_textures):
        beige = (BEIGE[0], BEIGE[1], BEIGE[2] + number)
        image = gltf.texture(bufferView=gltf.view(plain_png(size_px, beige, depth)), mimeType="image/png")
        gltf.document["materials"].append({"pbrMetallicRoughness": image})
        node = gltf.node(mesh=gltf.cube(number), translation=[0.1 * number, 0.0, 0.0])
        gltf.animate(f"slide {number}", (node, "translation", [0.0, 1.0], [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    return gltf.bytes()


@pytest.fixture(scope="module")
def blender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlenderProcess]:
    process = BlenderProcess(tmp_path_factory.mktemp("log") / "log")
    yield process
    process.close()


@pytest.mark.parametrize("depth", [8, 16])
def test_smaller_pictures_have_the_same_colours(blender: BlenderProcess, tmp_path: Path, depth: int) -> None:
    path = tmp_path / "cube.glb"
    path.write_bytes(painted_cube(512, depth))
    seen = []
    for limit_px in (0, 256):
        loaded = blender.ask("load", path=str(path), format="glb", texture_limit_px=limit_px)
        assert (loaded.image_pixels, loaded.largest_picture_px) == (512 * 512, 512)
        blender.draw(tmp_path / str(limit_px), 0, [0.0], [view(20.0, 20.0)])
        seen.append(colour(picture(tmp_path / str(limit_px), "v020")))
    assert np.ptp(seen[0]) > 0.15, "the texture shows"
    assert np.abs(seen[0] - seen[1]).max() < 2 / 255


@pytest.mark.slow
def test_pictures_are_decoded_only_to_draw_and_smaller_ones_take_less(store: Store) -> None:
    asset = asset_of(store, painted_cube(4096, num_textures=4))
    peaks = {}
    for limit_px in (0, 1024):
        child = BlenderChild(BlenderSettings())
        try:
            before, _ = vitals(_pid(child))
            child.load(asset, store, limit_px)
            loaded, _ = vitals(_pid(child))
            peaks[limit_px] = loaded - before
        finally:
            child.close()
    assert peaks[0] < 60, "4 pictures of 64 MB are not in memory"
    assert peaks[1024] < 250, "one after the other is, and two at most"


def _pid(child: BlenderChild) -> int:
    assert child.out.exists()
    assert child.pid
    return child.pid
