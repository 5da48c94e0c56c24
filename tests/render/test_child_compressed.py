"""The real Blender child on compressed glTF and other extensions: it shows what the plain original shows."""

import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from pipeline.storage import Store
from render.supervisor import BlenderChild, BlenderSettings
from tests.render.blender_process import BlenderProcess, Failed, colour, picture, view
from tests.render.test_supervisor import stored
from tests.render.tiny_gltf import CUBE, TinyGltf

pytestmark = pytest.mark.blender

FOLDER = Path(__file__).parent / "compressed"
TIMES_S = [0.0, 0.3, 0.7, 1.1, 1.6, 2.0]
RED, GREEN, BLUE = (0.8, 0.05, 0.05), (0.05, 0.8, 0.05), (0.05, 0.05, 0.8)


def measures(blender: BlenderProcess, path: Path) -> dict[str, np.ndarray]:
    """Name of each animation to its motion and boxes."""
    found = {}
    for action in blender.load(path).actions:
        measured = blender.measure(action.index, TIMES_S)
        motion = [measured.motion_mean, measured.motion_p95, measured.path_length]
        found[action.name] = np.array([action.start_s, action.end_s, *motion, *measured.box_min, *measured.box_max])
    return found


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("sheet_khr_meshopt.gltf", 0.0), ("sheet_ext_meshopt.glb", 5e-4), ("sheet_quantized.glb", 5e-4),
        ("sheet_draco.glb", 2e-3),
    ],
)  # fmt: skip
def test_a_compressed_mesh_moves_as_the_original(blender: BlenderProcess, name: str, tolerance: float) -> None:
    """A skin, a morph target and three animations."""
    original, compressed = measures(blender, FOLDER / "sheet.glb"), measures(blender, FOLDER / name)
    assert list(compressed) == list(original) == ["bend", "swell", "slide"]
    for animation in original:
        assert compressed[animation] == pytest.approx(original[animation], abs=tolerance)
    assert all(numbers[2] > 0.02 for numbers in original.values())


def test_a_real_file_under_meshopt_is_read(blender: BlenderProcess, real_assets: Path) -> None:
    loaded = blender.load(real_assets / "hostile" / "meshopt.glb")
    assert loaded.num_vertices > 1000
    assert all(blender.measure(action.index, [action.start_s, action.end_s]).finite for action in loaded.actions)


def test_it_works_in_the_sandbox_too(store: Store) -> None:
    row = stored(store, (FOLDER / "sheet_ext_meshopt.glb").read_bytes())
    textured = stored(store, quad_of_bytes(KHR_texture_basisu=(FOLDER / "colours_uastc_zstd_mips.ktx2").read_bytes()))
    child = BlenderChild(BlenderSettings(sandbox="best", memory_mb=3000))
    try:
        assert [action.name for action in child.load(row, store).actions] == ["bend", "swell", "slide"]
        assert child.load(textured, store).num_images == 1
    finally:
        child.close()


@pytest.mark.parametrize(
    ("offset", "value"), [("count", 1 << 30), ("byteStride", 6), ("byteLength", 10**9), ("mode", "NONE")]
)
def test_wrong_words_about_compressed_data_are_malformed(
    blender: BlenderProcess, tmp_path: Path, offset: str, value: Any
) -> None:
    root = json.loads((FOLDER / "sheet_khr_meshopt.gltf").read_text())
    root["bufferViews"][0]["extensions"]["KHR_meshopt_compression"][offset] = value
    (tmp_path / "odd.gltf").write_text(json.dumps(root))
    with pytest.raises(Failed, match="malformed"):
        blender.load(tmp_path / "odd.gltf")


def test_indices_past_the_end_are_malformed_though_they_were_compressed(
    blender: BlenderProcess, tmp_path: Path
) -> None:
    root = json.loads((FOLDER / "sheet_khr_meshopt.gltf").read_text())
    for accessor in root["accessors"]:
        if accessor["count"] == 81:
            accessor["count"] = 80
    (tmp_path / "odd.gltf").write_text(json.dumps(root))
    with pytest.raises(Failed, match=r"malformed: .*index 80 of 80"):
        blender.load(tmp_path / "odd.gltf")


def quad_of_bytes(**pictures: bytes) -> bytes:
    """A quad that slides, with a texture: `png`, or the name of an extension."""
    tiny, (name, data) = TinyGltf(), next(iter(pictures.items()))
    positions = tiny.accessor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], "VEC3")
    uvs = tiny.accessor([[0.0, 1], [1, 1], [1, 0], [0, 0]], "VEC2")
    kinds = {"png": "image/png", "EXT_texture_webp": "image/webp", "EXT_texture_avif": "image/avif"}
    image = {"bufferView": tiny.view(data), "mimeType": kinds.get(name, "image/ktx2")}
    tiny.document["images"].append(image)
    texture: dict[str, Any] = {"source": 0}
    if name != "png":
        texture = {"extensions": {name: {"source": 0}}}
        tiny.document |= {"extensionsUsed": [name], "extensionsRequired": [name]}
    tiny.document["textures"].append(texture)
    tiny.document["materials"].append({
        "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0},
        "alphaMode": "BLEND", "doubleSided": True,
    })  # fmt: skip
    tiny.document["meshes"].append({
        "primitives": [{
            "attributes": {"POSITION": positions, "TEXCOORD_0": uvs}, "material": 0,
            "indices": tiny.accessor([0, 1, 2, 0, 2, 3], "SCALAR"),
        }]
    })  # fmt: skip
    node = tiny.node(mesh=0)
    tiny.animate("slide", (node, "translation", [0.0, 1.0], [[0, 0, 0], [0.2, 0, 0]]))
    return tiny.bytes()


def drawn(blender: BlenderProcess, folder: Path, content: bytes) -> np.ndarray:
    folder.mkdir()
    (folder / "asset.glb").write_bytes(content)
    loaded = blender.load(folder / "asset.glb")
    assert loaded.num_images == 1
    assert loaded.missing_textures == []
    blender.draw(folder / "out", 0, [0.0], [view(0.0)], size_px=40, samples=8)
    return picture(folder / "out", "v000")


def re_encoded(kind: str) -> bytes:
    written = io.BytesIO()
    with Image.open(FOLDER / "colours.png") as image:
        image.save(written, kind, quality=100)
    return written.getvalue()


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("colours_*.ktx2")))
def test_a_ktx2_texture_is_drawn_as_its_png(blender: BlenderProcess, tmp_path: Path, name: str) -> None:
    original = drawn(blender, tmp_path / "png", quad_of_bytes(png=(FOLDER / "colours.png").read_bytes()))
    found = drawn(blender, tmp_path / "ktx2", quad_of_bytes(KHR_texture_basisu=(FOLDER / name).read_bytes()))
    covered = original[..., 3] > 0.0
    assert 0.5 < original[20, 20, 3] < 0.8
    assert np.abs(found - original)[covered].mean() < (0.02 if "uastc" in name else 0.03)


@pytest.mark.parametrize(("name", "kind"), [("EXT_texture_webp", "WEBP"), ("EXT_texture_avif", "AVIF")])
def test_webp_and_avif_textures_are_drawn_as_their_png(
    blender: BlenderProcess, tmp_path: Path, name: str, kind: str
) -> None:
    if not features.check(kind.lower()):
        pytest.skip(f"Pillow was built without {kind}")
    original = drawn(blender, tmp_path / "png", quad_of_bytes(png=(FOLDER / "colours.png").read_bytes()))
    found = drawn(blender, tmp_path / "other", quad_of_bytes(**{name: re_encoded(kind)}))
    assert np.abs(found - original)[original[..., 3] > 0.0].mean() < 0.02


def test_a_ktx2_texture_may_lie_beside_a_gltf(blender: BlenderProcess, tmp_path: Path) -> None:
    content = quad_of_bytes(KHR_texture_basisu=b"elsewhere")
    length = struct.unpack_from("<I", content, 12)[0]
    root = json.loads(content[20 : 20 + length])
    root["images"] = [{"uri": "maps/col%20ours.ktx2"}]
    root["buffers"][0]["uri"] = "data.bin"
    (tmp_path / "maps").mkdir()
    (tmp_path / "data.bin").write_bytes(content[28 + length :])
    (tmp_path / "asset.gltf").write_text(json.dumps(root))
    assert blender.load(tmp_path / "asset.gltf").missing_textures == ["col ours.ktx2"]
    (tmp_path / "maps" / "col ours.ktx2").write_bytes((FOLDER / "colours_etc1s.ktx2").read_bytes())
    assert blender.load(tmp_path / "asset.gltf").missing_textures == []
    root["images"] = [{"uri": "../colours_etc1s.ktx2"}]
    (tmp_path.parent / "colours_etc1s.ktx2").write_bytes((FOLDER / "colours_etc1s.ktx2").read_bytes())
    (tmp_path / "asset.gltf").write_text(json.dumps(root))
    assert blender.load(tmp_path / "asset.gltf").missing_textures == ["colours_etc1s.ktx2"]


def test_sparse_positions_and_several_skins_survive_a_rewrite(blender: BlenderProcess, tmp_path: Path) -> None:
    """A cubic spline has the file rewritten; the rest of it must stay what it was."""
    tiny = TinyGltf()
    mesh = tiny.cube()
    position = tiny.document["meshes"][mesh]["primitives"][0]["attributes"]["POSITION"]
    far = tiny.view(np.float32([[0.5, 9.0, 0.5]]).tobytes())
    tiny.document["accessors"][position]["sparse"] = {
        "count": 1, "indices": {"bufferView": tiny.view(np.uint16([7]).tobytes()), "componentType": 5123},
        "values": {"bufferView": far},
    }  # fmt: skip
    joints = tiny.accessor(np.zeros((8, 4), np.int64), "VEC4")
    weights = tiny.accessor(np.float32([[1, 0, 0, 0]] * 8), "VEC4")
    for primitive in tiny.document["meshes"][mesh]["primitives"]:
        primitive["attributes"] |= {"JOINTS_0": joints, "WEIGHTS_0": weights}
    inverse = tiny.accessor(np.eye(4, dtype=np.float32).reshape(1, 16), "MAT4")
    bones = [tiny.node(name=f"bone {place}", translation=[4.0 * place, 0, 0]) for place in range(2)]
    tiny.document["skins"] = [{"joints": [bone], "inverseBindMatrices": inverse} for bone in bones]
    for skin in range(2):
        tiny.node(mesh=mesh, skin=skin)
    keys = [[[0, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 2, 0], [0, 0, 0]]]
    cubic(tiny, (bones[0], "translation", "VEC3"), [0.0, 1.0], keys)
    blender.load(tiny.save(tmp_path / "a.glb"))
    measured = blender.measure(0, [0.5])
    assert measured.box_max == pytest.approx([4.5, 0.5, 10.0], abs=1e-3)
    assert measured.box_min == pytest.approx([-0.5, -0.5, -0.5], abs=1e-3)


def test_a_picture_of_an_older_kind_is_taken_where_the_texture_names_both(
    blender: BlenderProcess, tmp_path: Path
) -> None:
    tiny = TinyGltf()
    look = tiny.texture(bufferView=tiny.view((FOLDER / "colours.png").read_bytes()), mimeType="image/png")
    tiny.document["images"].append({"bufferView": tiny.view(b"no picture at all"), "mimeType": "image/ktx2"})
    tiny.document["textures"][0]["extensions"] = {"KHR_texture_basisu": {"source": 1}}
    tiny.document["extensionsUsed"] = ["KHR_texture_basisu"]
    tiny.document["materials"].append({"pbrMetallicRoughness": look})
    tiny.node(mesh=tiny.cube(0))
    loaded = blender.load(tiny.save(tmp_path / "a.glb"))
    assert loaded.missing_textures == []


def test_a_bomb_in_ktx2_is_refused(blender: BlenderProcess, tmp_path: Path) -> None:
    data = bytearray((FOLDER / "colours_uastc.ktx2").read_bytes())
    data[20:28] = (16_384).to_bytes(4, "little") * 2
    (tmp_path / "a.glb").write_bytes(quad_of_bytes(KHR_texture_basisu=bytes(data)))
    with pytest.raises(Failed, match=r"malformed|image_bomb"):
        blender.load(tmp_path / "a.glb")


def hermite(t: float, length_s: float, *, ends: Any, tangents: Any) -> np.ndarray:
    """glTF 2.0, appendix C.5: the out-tangent of the first key, and the in-tangent of the second."""
    (start, end), (leaving, arriving) = np.asarray(ends), np.asarray(tangents) * length_s
    return np.asarray(
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * leaving
        + (-2 * t**3 + 3 * t**2) * end
        + (t**3 - t**2) * arriving
    )


def cubic(tiny: TinyGltf, channel: tuple[int, str, str], times_s: list[float], keys: Any) -> None:
    """An animation of cubic splines; keys are in-tangent, value, out-tangent."""
    node, path, kind = channel
    tiny.animate("curve", (node, path, times_s, np.zeros(3)))
    sampler = tiny.document["animations"][-1]["samplers"][0]
    rows = np.asarray(keys, dtype=np.float32)
    sampler |= {"interpolation": "CUBICSPLINE", "output": tiny.accessor(rows.reshape(-1, rows.shape[-1]), kind)}


def test_cubic_splines_follow_their_formula(blender: BlenderProcess, tmp_path: Path) -> None:
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.cube())
    keys = [[[0, 0, 0], [0, 0, 0], [4, -3, 0]], [[-6, 2, 5], [1, 2, 3], [0, 0, 0]]]
    cubic(tiny, (node, "translation", "VEC3"), [0.0, 2.0], keys)
    blender.load(tiny.save(tmp_path / "a.glb"))
    for time_s in (0.0, 0.25, 0.9, 1.37, 2.0):
        x, y, z = hermite(time_s / 2, 2.0, ends=[keys[0][1], keys[1][1]], tangents=[keys[0][2], keys[1][0]])
        measured = blender.measure(0, [time_s])
        middle = (np.array(measured.box_min) + measured.box_max) / 2
        assert middle == pytest.approx([x, -z, y], abs=2e-3)


def test_cubic_rotations_follow_their_formula(blender: BlenderProcess, tmp_path: Path) -> None:
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.cube(points=CUBE + np.float32([3, 0, 0])))
    half = math.sqrt(0.5)
    keys = [[[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1.5, 0]], [[0, 0, 0, 0.5], [0, 0, half, half], [0, 0, 0, 0]]]
    cubic(tiny, (node, "rotation", "VEC4"), [0.0, 1.0], keys)
    blender.load(tiny.save(tmp_path / "a.glb"))
    for time_s in (0.1, 0.5, 0.8):
        turn = hermite(time_s, 1.0, ends=[keys[0][1], keys[1][1]], tangents=[keys[0][2], keys[1][0]])
        angle = 2 * math.atan2(turn[2], turn[3])
        measured = blender.measure(0, [time_s])
        middle = (np.array(measured.box_min) + measured.box_max) / 2
        assert middle == pytest.approx([3 * math.cos(angle), 0.0, 3 * math.sin(angle)], abs=5e-3)


def test_cubic_weights_follow_their_formula(blender: BlenderProcess, tmp_path: Path) -> None:
    tiny = TinyGltf()
    mesh = tiny.cube()
    raised, widened = np.zeros_like(CUBE), np.zeros_like(CUBE)
    raised[:, 1] = np.where(CUBE[:, 1] > 0, 2.0, 0.0)
    widened[:, 0] = np.where(CUBE[:, 0] > 0, 1.0, 0.0)
    targets = [{"POSITION": tiny.accessor(points, "VEC3")} for points in (raised, widened)]
    for primitive in tiny.document["meshes"][mesh]["primitives"]:
        primitive["targets"] = targets
    tiny.document["meshes"][mesh]["weights"] = [0.0, 0.0]
    node = tiny.node(mesh=mesh)
    # For each key the in-tangents of both targets, then the values, then the out-tangents.
    keys = [[[0.0], [0.0], [0.0], [0.0], [2.0], [0.5]], [[0.0], [-1.0], [0.5], [1.0], [0.0], [0.0]]]
    cubic(tiny, (node, "weights", "SCALAR"), [0.0, 1.0], keys)
    blender.load(tiny.save(tmp_path / "a.glb"))
    for time_s in (0.25, 0.6):
        up, wide = hermite(time_s, 1.0, ends=[[0, 0], [0.5, 1.0]], tangents=[[2.0, 0.5], [0.0, -1.0]])
        measured = blender.measure(0, [time_s])
        assert measured.box_max[2] == pytest.approx(0.5 + 2 * up, abs=2e-3)
        assert measured.box_max[0] == pytest.approx(0.5 + wide, abs=2e-3)


@pytest.mark.parametrize("default", [1, None])
def test_only_the_default_scene_is_shown_else_the_first(
    blender: BlenderProcess, tmp_path: Path, default: int | None
) -> None:
    tiny = TinyGltf()
    nodes = [
        tiny.node(mesh=tiny.cube(), translation=[5.0 * place, 0, 0], scale=[1.0 + place] * 3) for place in range(3)
    ]
    tiny.document["scenes"] = [{"nodes": [nodes[0]]}, {"nodes": [nodes[1]]}]  # the third is in none
    tiny.document.pop("scene")
    if default is not None:
        tiny.document["scene"] = default
    for node in nodes:
        tiny.animate(f"hop {node}", (node, "translation", [0.0, 1.0], [[5.0 * node, 0, 0], [5.0 * node, 3, 0]]))
    shown = default or 0
    loaded = blender.load(tiny.save(tmp_path / "a.glb"))
    assert loaded.num_objects == 1
    measured = blender.measure(shown, [0.0])
    assert measured.box_max[0] - measured.box_min[0] == pytest.approx(1.0 + shown)


def test_of_material_variants_the_one_that_the_mesh_states_is_shown(blender: BlenderProcess, tmp_path: Path) -> None:
    tiny = TinyGltf()
    red, green, blue = (tiny.material(colour) for colour in (RED, GREEN, BLUE))
    mesh = tiny.cube(red)
    mappings = [{"material": green, "variants": [0]}, {"material": blue, "variants": [1]}]
    for primitive in tiny.document["meshes"][mesh]["primitives"]:
        primitive["extensions"] = {"KHR_materials_variants": {"mappings": mappings}}
    tiny.document["extensions"] = {"KHR_materials_variants": {"variants": [{"name": "one"}, {"name": "two"}]}}
    tiny.document["extensionsUsed"] = ["KHR_materials_variants"]
    node = tiny.node(mesh=mesh)
    tiny.animate("hop", (node, "translation", [0.0, 1.0], [[0, 0, 0], [0, 1, 0]]))
    blender.load(tiny.save(tmp_path / "a.glb"))
    blender.draw(tmp_path / "out", 0, [0.0], [view(0.0)])
    shown = colour(picture(tmp_path / "out", "v000"))
    assert shown[0] > 2 * max(shown[1], shown[2])


def test_a_texture_transform_moves_the_picture(blender: BlenderProcess, tmp_path: Path) -> None:
    """The texture's left half is red, its right half blue; moved by half its width, the left of the quad is blue."""
    written = io.BytesIO()
    Image.fromarray(np.uint8([[[220, 10, 10]] * 8 + [[10, 10, 220]] * 8] * 16)).save(written, "PNG")
    content = quad_of_bytes(png=written.getvalue())
    length = struct.unpack_from("<I", content, 12)[0]
    root = json.loads(content[20 : 20 + length])
    root["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["extensions"] = {
        "KHR_texture_transform": {"offset": [0.5, 0.0]}
    }
    root["extensionsUsed"] = ["KHR_texture_transform"]
    text = json.dumps(root).encode()
    text += b" " * (-len(text) % 4)
    moved = struct.pack("<I4s", len(text), b"JSON") + text + content[20 + length :]
    moved = struct.pack("<4sII", b"glTF", 2, 12 + len(moved)) + moved
    plain, shifted = drawn(blender, tmp_path / "a", content), drawn(blender, tmp_path / "b", moved)
    left, right = (slice(14, 26), slice(12, 18)), (slice(14, 26), slice(22, 28))
    assert plain[left][..., 0].mean() > 2 * plain[left][..., 2].mean()
    assert shifted[left][..., 2].mean() > 2 * shifted[left][..., 0].mean()
    assert shifted[right][..., 0].mean() > 2 * shifted[right][..., 2].mean()
