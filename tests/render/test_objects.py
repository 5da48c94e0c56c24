"""Any 3D file as a still GLB, and an animated GLB as other formats: the real Blender child on files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

import render.objects
from fourd.canonical import MAX_VERTICES
from fourd.export.glb import write_animated_glb
from fourd.export.skeleton import SkeletonSettings
from fourd.export.skinned_glb import write_skinned_glb
from fourd.gltf import read_glb
from fourd.objects.glb import read_object, read_with_looks
from fourd.objects.loading import find_place
from fourd.objects.placement import Silhouettes, Similarity
from fourd.objects.static import StaticObject, bounding_radius
from pipeline.records import ClipPlan
from pipeline.storage import Store
from pipeline.tables import Tables
from render.objects import Moment, loose_file, object_main, write_converted, write_still
from render.protocol import BadAsset, Trace
from render.supervisor import BlenderChild, BlenderSettings
from render.surfaces import Moving
from render.truth import surfaces_of
from tests.fourd.export.objects import bent, write_toy
from tests.fourd.objects.files import picture
from tests.render.rows import asset_of
from tests.render.tiny_gltf import CUBE, TinyGltf
from tests.render.truth_examples import made

pytestmark = pytest.mark.blender

AS_IT_IS = Similarity(turn=np.eye(3), offset=np.zeros(3))
SHARE = 1e-4
"""Of the radius: how far object and tracks may lie apart."""


@pytest.fixture(scope="module")
def child() -> Iterator[BlenderChild]:
    child = BlenderChild(BlenderSettings())
    yield child
    child.close()


def both(child: BlenderChild, model: Path, out: Path, *, part: float = 0.6) -> tuple[StaticObject, Moving]:
    """The still object of a file's first animation, and the surface that ground truth of that moment is made of."""
    with loose_file(model) as (file, store):
        loaded = child.load(file, store)
        action = loaded.actions[0]
        time_s = action.start_s + part * (action.end_s - action.start_s)
        order = Trace(
            action_index=0,
            times_s=[time_s],
            world_scale=1.0,
            world_centre=[0.0] * 3,
            normals=False,
            out_folder=str(child.out),
        )
        moving = surfaces_of(child, order)
        write_still(child, file, store, out, at=Moment(action_index=0, time_s=time_s))
    return read_object(out, object_from_world=AS_IT_IS), moving


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Signed: a face turned round counts against it."""
    corners = vertices[faces].astype(np.float64) - (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    return float(np.linalg.det(corners).sum() / 6)


def area(vertices: np.ndarray, faces: np.ndarray) -> float:
    corners = vertices[faces].astype(np.float64)
    return float(
        np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    )


def assert_same_surface(static: StaticObject, moving: Moving) -> None:
    pose = moving.poses[0]
    traced, triangles = np.asarray(pose.positions, dtype=np.float64), pose.surface.triangles
    radius = float(np.linalg.norm(np.ptp(traced, axis=0))) / 2
    assert cKDTree(static.vertices).query(traced)[0].max() < SHARE * radius
    assert cKDTree(traced).query(static.vertices)[0].max() < SHARE * radius
    assert len(static.faces) == len(triangles)
    assert area(static.vertices, static.faces) == pytest.approx(area(traced, triangles), rel=1e-3)
    assert volume(static.vertices, static.faces) == pytest.approx(
        volume(traced, triangles), rel=1e-3, abs=1e-3 * SHARE * radius**3
    )


@pytest.mark.parametrize(
    "name",
    ["Fox.glb", "CesiumMilkTruck.glb", "RobotExpressive.glb", "AnimatedMorphSphere.glb", "SketchfabFoxDraco.glb",
     "Cow.fbx", "Frog.blend", "06_parent-inverse-anim/06_parent-inverse-anim.gltf"],
)  # fmt: skip
def test_the_object_stands_where_ground_truth_has_it(
    child: BlenderChild, real_assets: Path, tmp_path: Path, name: str
) -> None:
    static, moving = both(child, real_assets / name, tmp_path / "object.glb")
    assert_same_surface(static, moving)


@pytest.mark.parametrize("name", ["windmill.glb", "helicopter.fbx", "ball/ball.gltf"])
def test_the_built_in_samples_do_too(child: BlenderChild, samples: Path, tmp_path: Path, name: str) -> None:
    static, moving = both(child, samples / name, tmp_path / "object.glb")
    assert_same_surface(static, moving)


def two_parts(path: Path) -> Path:
    """Two cubes under a turned and scaled parent, of two materials, one of them with a picture. Nothing moves."""
    tiny = TinyGltf()
    rig = tiny.node(name="rig", rotation=[0, 0.38268343, 0, 0.92387953], scale=[1, 2, 0.5])
    skin, plain = tiny.material((1.0, 1.0, 1.0), name="skin"), tiny.material((0.05, 0.05, 0.8), name="plain")
    image = tiny.texture(bufferView=tiny.view(picture([[[200, 20, 20], [20, 200, 20]]])), mimeType="image/png")
    tiny.document["materials"][skin]["pbrMetallicRoughness"] = image
    textured = tiny.cube(skin)
    for primitive in tiny.document["meshes"][textured]["primitives"]:
        primitive["attributes"]["TEXCOORD_0"] = tiny.accessor(CUBE[:, :2] + 0.5, "VEC2")
    tiny.node(rig, mesh=textured, name="left", translation=[-1, 0, 0], rotation=[0.5, 0.5, 0.5, 0.5])
    right = tiny.node(rig, mesh=tiny.cube(plain), name="right", translation=[1, 0.5, 0], scale=[-1, 1, 1])
    tiny.node(right, mesh=tiny.cube(plain), name="hat", translation=[0, 1, 0], scale=[0, 0, 0])
    return tiny.save(path)


def test_hierarchy_names_materials_and_pictures_are_kept(child: BlenderChild, tmp_path: Path) -> None:
    out = tmp_path / "object.glb"
    with loose_file(two_parts(tmp_path / "parts.glb")) as (file, store):
        loaded, baked = write_still(child, file, store, out)
    document = read_glb(out).document
    nodes = document["nodes"]
    children = {nodes[child]["name"]: entry["name"] for entry in nodes for child in entry.get("children", [])}
    assert children["left"] == children["right"] == "rig"
    assert {entry["name"] for entry in document["materials"]} == {"skin", "plain"}
    assert [entry["mimeType"] for entry in document["images"]] == ["image/png"]
    assert "animations" not in document
    assert "skins" not in document
    assert baked.left_out == []
    assert loaded.missing_textures == []
    colours = read_object(out).colors
    assert (colours.max(axis=0) > 0.5).all()  # red and green of the picture, blue of the other


def test_without_an_animation_the_object_stands_as_the_file_states(child: BlenderChild, tmp_path: Path) -> None:
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.cube(), name="box", translation=[1, 0, 0])
    tiny.animate("away", (node, "translation", [0.0, 1.0], [[5, 0, 0], [9, 0, 0]]))
    path = tiny.save(tmp_path / "a.glb")

    def middle(*options: str) -> float:
        assert object_main([str(path), "--out", str(tmp_path / "object.glb"), *options]) == 0
        static = read_object(tmp_path / "object.glb", object_from_world=AS_IT_IS)
        return float((static.vertices[:, 0].min() + static.vertices[:, 0].max()) / 2)

    assert middle() == pytest.approx(1.0, abs=1e-5)
    assert middle("--animation", "away") == pytest.approx(5.0, abs=1e-5)
    assert middle("--animation", "away", "--frame", "12") == pytest.approx(7.0, abs=1e-5)


def test_what_has_too_many_vertices_to_be_moved_is_written_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert render.objects.MOVABLE_VERTICES == MAX_VERTICES
    tiny = TinyGltf()
    tiny.node(mesh=tiny.cube())
    path, out = tiny.save(tmp_path / "a.glb"), tmp_path / "object.glb"
    num_vertices = len(CUBE)
    for limit, said in ((num_vertices, 0), (num_vertices - 1, 1)):
        monkeypatch.setattr(render.objects, "MOVABLE_VERTICES", limit)
        assert object_main([str(path), "--out", str(out)]) == 0
        assert read_object(out).faces.shape == (12, 3)
        assert len(caplog.messages) == said
    assert f"{num_vertices} vertices" in caplog.text
    assert f"more than {num_vertices - 1}" in caplog.text
    assert "decimate" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--animation", "home"], "there are: 'away'"),
        (["--animation", "away", "--frame", "99"], "frames 0 to 24"),
        (["--frame", "3"], "--frame is of an --animation"),
        (["--clip", "abc"], "give a MODEL, or --data and --clip"),
    ],
)
def test_what_there_is_not_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.cube())
    tiny.animate("away", (node, "translation", [0.0, 1.0], [[5, 0, 0], [9, 0, 0]]))
    path = tiny.save(tmp_path / "a.glb")
    with pytest.raises(SystemExit):
        object_main([str(path), "--out", str(tmp_path / "object.glb"), *options])
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "object.glb").exists()


def test_a_file_with_side_files_is_taken_with_them(child: BlenderChild, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "textures").mkdir()
    (tmp_path / "model" / "textures" / "red.png").write_bytes(picture([[[220, 10, 10]]]))
    (tmp_path / "model" / "box.mtl").write_text("newmtl paint\nKd 1 1 1\nmap_Kd textures/red.png\n")
    corners = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    (tmp_path / "model" / "box.OBJ").write_text(f"mtllib box.mtl\no box\n{corners}usemtl paint\nf 1/1 2/2 3/3 4/4\n")
    with loose_file(tmp_path / "model" / "box.OBJ") as (file, store):
        write_still(child, file, store, tmp_path / "object.glb")
    static = read_object(tmp_path / "object.glb")
    np.testing.assert_allclose(static.colors, [[220 / 255, 10 / 255, 10 / 255]] * 4, atol=0.01)
    assert read_glb(tmp_path / "object.glb").document["materials"][0]["name"] == "paint"


@pytest.mark.parametrize(("content", "reason"), [(b"no model", "import_failed"), (None, "not_found")])
def test_a_bad_file_leaves_nothing_behind(
    child: BlenderChild, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "a.glb").write_bytes(content)
    with pytest.raises(BadAsset) as caught, loose_file(tmp_path / "a.glb") as (file, store):
        write_still(child, file, store, tmp_path / "object.glb")
    assert caught.value.reason == reason
    assert not (tmp_path / "object.glb").exists()


def test_a_baked_asset_is_loaded_anew_for_pictures(child: BlenderChild, tmp_path: Path) -> None:
    """Its things have lost their names, and its materials were never made ready for Cycles."""
    with loose_file(two_parts(tmp_path / "parts.glb")) as (file, store):
        write_still(child, file, store, tmp_path / "first.glb")
        write_still(child, file, store, tmp_path / "again.glb")
        loaded = child.load(file, store)
    assert loaded.num_objects == 3
    assert (tmp_path / "first.glb").read_bytes() == (tmp_path / "again.glb").read_bytes()


def swaying(static: StaticObject, num_frames: int) -> np.ndarray:
    """Tracks (T, V, 3): the object bends to and fro, which no shift, turn or scale of nodes does."""
    phase = np.sin(np.linspace(0, 2 * np.pi, num_frames))[:, None, None]
    bend = np.zeros_like(static.vertices)
    bend[:, 0] = 0.2 * static.vertices[:, 2] ** 2
    return (static.vertices + phase * bend).astype(np.float32)


@pytest.mark.parametrize("suffix", ["fbx", "abc", "usdc", "usdz"])
def test_an_animated_glb_moves_the_same_in_other_formats(child: BlenderChild, tmp_path: Path, suffix: str) -> None:
    with loose_file(two_parts(tmp_path / "parts.glb")) as (file, store):
        write_still(child, file, store, tmp_path / "object.glb")
    static = read_object(tmp_path / "object.glb", object_from_world=AS_IT_IS)
    tracks, fps = swaying(static, 7), 8.0
    write_animated_glb(static, tracks, fps, tmp_path / "moving.glb")
    out = tmp_path / f"out/moving.{suffix}"
    converted = write_converted(child, tmp_path / "moving.glb", out)
    assert (converted.fps, converted.num_frames) == (24.0, 19)
    with loose_file(out) as (file, store):
        loaded = child.load(file, store)
        action = loaded.actions[0]
        order = Trace(
            action_index=0,
            times_s=[action.start_s + frame / fps for frame in range(7)],
            world_scale=1.0,
            world_centre=[0.0] * 3,
            normals=False,
            out_folder=str(child.out),
        )
        moving = surfaces_of(child, order)
    for frame, pose in enumerate(moving.poses):
        assert cKDTree(pose.positions).query(tracks[frame])[0].max() < 1e-3
    assert {name.split(".")[0] for name in moving.object_names} >= ({"left", "right"} if suffix != "abc" else set())
    if suffix != "abc":
        assert {name.split(".")[0] for name in moving.material_names} == {"skin", "plain"}
        assert (loaded.num_images, loaded.missing_textures) == (1, [])


@pytest.mark.parametrize("suffix", ["fbx", "abc", "usdc"])
@pytest.mark.parametrize("model", ["chain", "parts"])
def test_a_skinned_glb_moves_the_same_in_other_formats(
    child: BlenderChild, tmp_path: Path, model: str, suffix: str
) -> None:
    """Between key frames too; and fitted bones, which shift along as well as turn, do so in the other file."""
    if model == "chain":
        static = read_object(write_toy(tmp_path / "object.glb"))
        tracks = bent(static.vertices, 7)
    else:
        with loose_file(two_parts(tmp_path / "parts.glb")) as (file, store):
            write_still(child, file, store, tmp_path / "object.glb")
        static = read_object(tmp_path / "object.glb", object_from_world=AS_IT_IS)
        tracks = swaying(static, 7)
    path = tmp_path / "skinned.glb"
    report = write_skinned_glb(static, tracks, 8.0, path, SkeletonSettings(max_bones=12))
    assert report.joint_error > 0.005
    converted = write_converted(child, path, tmp_path / f"out/skinned.{suffix}")
    assert (converted.fps, converted.num_frames) == (24.0, 19)
    own, other = (traced(child, file, num_frames=19, fps=24.0) for file in (path, tmp_path / f"out/skinned.{suffix}"))
    for mine, shown in zip(own, other, strict=True):
        assert cKDTree(shown).query(mine)[0].max() < 1e-3
        assert cKDTree(mine).query(shown)[0].max() < 1e-3
    at_keys = static.object_from_world(np.stack(own)[::3].reshape(-1, 3)).reshape(7, -1, 3)
    allowed = report.max_error * bounding_radius(static.vertices) + 1e-3
    for frame, track in enumerate(tracks):
        assert cKDTree(at_keys[frame]).query(track)[0].max() < allowed


def traced(child: BlenderChild, path: Path, *, num_frames: int, fps: float) -> list[np.ndarray]:
    """Vertices (V, 3) of a file at each frame of its animation, as ground truth has them."""
    with loose_file(path) as (file, store):
        start_s = child.load(file, store).actions[0].start_s
        order = Trace(
            action_index=0,
            times_s=[start_s + frame / fps for frame in range(num_frames)],
            world_scale=1.0,
            world_centre=[0.0] * 3,
            normals=False,
            out_folder=str(child.out),
        )
        return [np.asarray(pose.positions, dtype=np.float64) for pose in surfaces_of(child, order).poses]


def test_formats_and_animations_that_there_are_not_are_said(child: BlenderChild, tmp_path: Path) -> None:
    model = two_parts(tmp_path / "parts.glb")
    with pytest.raises(ValueError, match=r"cannot write \.dae"):
        write_converted(child, model, tmp_path / "a.dae")
    with pytest.raises(BadAsset, match="no animation 'walk'"):
        write_converted(child, model, tmp_path / "a.fbx", animation="walk")
    assert write_converted(child, model, tmp_path / "a.fbx").animation == ""


def test_the_object_of_a_clip_is_frame_0_of_its_tracks(store: Store, tables: Tables, real_assets: Path) -> None:
    """From the command line, and found from nothing but the pictures too."""
    asset = asset_of(store, (real_assets / "Fox.glb").read_bytes())
    example = made(store, asset, "ortho4", num_frames=5, passes=("tracks",))
    tables.write(ClipPlan, "toy", [example.item.plan], made_by="toy@1", made_from=asset.item_id)
    out = Path(store.path("object.glb"))
    assert object_main(["--data", store.root, "--clip", example.clip.clip_id[:12], "--out", str(out)]) == 0
    static = read_object(out, object_from_world=Similarity.of_clip(example.clip))
    tracks = example.tracks()
    apart = cKDTree(static.vertices).query(tracks.positions[0])[0].max()
    assert apart < SHARE + 2 * tracks.max_error
    assert np.abs(tracks.positions - tracks.positions[0]).max() > 100 * SHARE  # it does move

    alpha = np.stack([example.alpha(view)[0] for view in range(4)]) / 255.0
    cameras = np.stack([example.c2w(view, 0) for view in range(4)])
    seen = Silhouettes(alpha=alpha, c2w=cameras, intrinsics=example.clip.intrinsics)
    loaded = read_with_looks(out)
    found = loaded.put(find_place(out, loaded, seen, wanted="seen").object_from_file).static
    assert np.linalg.norm(found.vertices - static.vertices, axis=1).max() < 0.05
    assert found.object_from_world.scale == pytest.approx(static.object_from_world.scale, rel=0.03)
