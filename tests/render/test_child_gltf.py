"""The real Blender child on hand-written glTF files: what it finds, measures and draws."""

import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.cameras import look_at_origin, pinhole, project
from tests.render.blender_process import BlenderProcess, Failed, colour, picture, view
from tests.render.tiny_gltf import CUBE, TinyGltf, png

pytestmark = pytest.mark.blender

RED, GREEN, BLUE, YELLOW = (0.8, 0.05, 0.05), (0.05, 0.8, 0.05), (0.05, 0.05, 0.8), (0.8, 0.8, 0.05)
TIMES_S = [0.0, 0.25, 0.5, 0.75]


def three_actions(path: Path) -> Path:
    """Two cubes. `left` moves the first, `right` the second, `both` both and the first one's size; all for a second."""
    tiny = TinyGltf()
    first = tiny.node(
        mesh=tiny.cube(tiny.material(RED)), name="first", translation=[-2, 0, 0], rotation=[0, 0.3, 0, 0.954]
    )
    second = tiny.node(mesh=tiny.cube(tiny.material(BLUE)), name="second", translation=[2, 0, 0])
    tiny.animate("left", (first, "translation", [0.0, 1.0], [[-2, 0, 0], [-2, 1, 0]]))
    tiny.animate("right", (second, "translation", [0.0, 1.0], [[2, 0, 0], [2, 0, 3]]))
    tiny.animate(
        "both",
        (first, "scale", [0.0, 1.0], [[1, 1, 1], [2, 2, 2]]),
        (second, "translation", [0.0, 1.0], [[2, 0, 0], [2, -1, 0]]),
    )
    return tiny.save(path)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_animation_is_listed_once_in_the_files_order_with_its_times(
    blender: BlenderProcess, tmp_path: Path
) -> None:
    loaded = blender.load(three_actions(tmp_path / "a.glb"))
    assert [(entry.index, entry.name) for entry in loaded.actions] == [(0, "left"), (1, "right"), (2, "both")]
    assert all((entry.start_s, entry.end_s) == pytest.approx((0.0, 1.0)) for entry in loaded.actions)
    assert (loaded.num_objects, loaded.num_vertices, loaded.num_triangles) == (2, 16, 24)
    assert (loaded.num_materials, loaded.num_images, loaded.missing_textures) == (2, 0, [])


def test_an_action_moves_what_it_says_and_nothing_else(blender: BlenderProcess, tmp_path: Path) -> None:
    """The first action must not leave its mark on the others: importers leave it playing."""
    blender.load(three_actions(tmp_path / "a.glb"))
    ends = [blender.measure(index, [1.0]) for index in range(3)]
    assert [end.box_max[2] for end in ends] == pytest.approx([1.5, 0.5, 1.0], abs=1e-5)  # glTF's +y is up
    assert [end.box_min[1] for end in ends][1] == pytest.approx(-3.5, abs=1e-5)  # and its +z is our -y
    assert ends[2].box_min[2] == pytest.approx(-1.5, abs=1e-5)
    assert ends[0].box_max[0] == pytest.approx(2.5, abs=1e-5)


def test_nothing_leaks_from_one_action_into_the_next(blender: BlenderProcess, tmp_path: Path) -> None:
    path, views = three_actions(tmp_path / "a.glb"), [view(20, 15), view(110, 15)]
    blender.load(path)
    for index in (2, 1, 0, 2):
        blender.measure(index, TIMES_S)
        blender.draw(tmp_path / "before", index, TIMES_S, views)
    after = blender.measure(0, TIMES_S), blender.draw(tmp_path / "after", 0, TIMES_S, views)
    alone = BlenderProcess(tmp_path / "log")
    alone.load(path)
    fresh = alone.measure(0, TIMES_S), alone.draw(tmp_path / "fresh", 0, TIMES_S, views)
    assert alone.close() == 0
    assert fresh[0] == after[0]
    assert (fresh[1].world_scale, fresh[1].world_centre) == (after[1].world_scale, after[1].world_centre)
    assert files(tmp_path / "fresh") == files(tmp_path / "after")
    assert len(files(tmp_path / "fresh")) == 8


def test_the_order_of_frames_and_views_decides_no_pixel(blender: BlenderProcess, tmp_path: Path) -> None:
    """Cycles keeps the scene from picture to picture, and must not miss a change."""
    blender.load(three_actions(tmp_path / "a.glb"))
    views = [view(20, 15), view(110, 15)]
    blender.draw(tmp_path / "forth", 2, TIMES_S, views)
    blender.draw(tmp_path / "back", 2, TIMES_S[::-1], views[::-1])
    forth, back = files(tmp_path / "forth"), files(tmp_path / "back")
    for name in ("v020", "v110"):
        shown = [forth[f"{name}_{frame:03d}.png"] for frame in range(4)]
        assert shown == [back[f"{name}_{3 - frame:03d}.png"] for frame in range(4)]
        assert len(set(shown)) == 4


def test_the_number_of_threads_decides_no_pixel(blender: BlenderProcess, tmp_path: Path) -> None:
    blender.load(three_actions(tmp_path / "a.glb"))
    for threads in (1, 2):
        blender.draw(tmp_path / str(threads), 2, TIMES_S[:2], [view(30, 20)], threads=threads, denoise="fast")
    assert files(tmp_path / "1") == files(tmp_path / "2")


def test_the_seed_decides_pixels(blender: BlenderProcess, tmp_path: Path) -> None:
    blender.load(three_actions(tmp_path / "a.glb"))
    for seed in (1, 2):
        blender.draw(tmp_path / str(seed), 2, TIMES_S[:1], [view(30, 20)], seed=seed)
    assert files(tmp_path / "1") != files(tmp_path / "2")


def six_colours(tiny: TinyGltf) -> int:
    """A cube that is red in front, green on its left, blue behind and yellow on top."""
    sides = {"+z": RED, "+x": GREEN, "-z": BLUE, "+y": YELLOW, "-x": (0.5, 0.5, 0.5), "-y": (0.05, 0.05, 0.05)}
    return tiny.cube({side: tiny.material(value) for side, value in sides.items()})


def test_azimuth_0_is_the_front_and_grows_counter_clockwise(blender: BlenderProcess, tmp_path: Path) -> None:
    tiny = TinyGltf()
    node = tiny.node(mesh=six_colours(tiny))
    tiny.animate("still", (node, "scale", [0.0, 1.0], [[1, 1, 1], [1, 1, 1]]))
    blender.load(tiny.save(tmp_path / "a.glb"))
    blender.draw(tmp_path / "out", 0, [0.0], [view(0), view(90), view(180), view(0, 80, name="top")])
    seen = {name: colour(picture(tmp_path / "out", name)) for name in ("v000", "v090", "v180", "top")}
    assert int(seen["v000"].argmax()) == 0
    assert int(seen["v090"].argmax()) == 1
    assert int(seen["v180"].argmax()) == 2
    assert seen["top"][:2].min() > 2 * seen["top"][2]


def test_the_picture_shows_the_object_where_the_camera_says(blender: BlenderProcess, tmp_path: Path) -> None:
    blender.load(three_actions(tmp_path / "a.glb"))
    drawn = blender.draw(tmp_path / "out", 1, TIMES_S, [view(25, 10, name="v")], size_px=96)
    assert drawn.outside_px == 0.0
    events = [(entry["done"], entry["total"]) for entry in blender.events]
    assert events == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for frame, time_s in enumerate(TIMES_S):
        still = CUBE @ turn_about_y(0.3).T + [-2, 0, 0]
        asset = np.concatenate([still, CUBE + np.array([2, 0, 3 * time_s])]) @ np.array(
            [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
        )
        world = drawn.world_scale * (asset - drawn.world_centre)
        assert np.linalg.norm(world, axis=1).max() <= 1.0 + 1e-6
        pixels = project(world, look_at_origin(25, 10, 3.0), pinhole(40.0, 96))[:, :2]
        alpha = picture(tmp_path / "out", "v", frame)[..., 3]
        assert alpha.shape == (96, 96)
        rows, columns = np.flatnonzero(alpha.max(axis=1) > 0.5), np.flatnonzero(alpha.max(axis=0) > 0.5)
        shown = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert shown == pytest.approx([*pixels.min(axis=0), *pixels.max(axis=0)], abs=1.2)


def turn_about_y(half_sine: float) -> np.ndarray:
    """The rotation of a glTF quaternion (0, half_sine, 0, w)."""
    angle = 2 * math.asin(half_sine / math.hypot(half_sine, 0.954))
    return np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])


def test_times_between_blenders_frames_are_drawn_as_such(blender: BlenderProcess, tmp_path: Path) -> None:
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.cube())
    tiny.animate("dash", (node, "translation", [0.0, 1.0], [[0, 0, 0], [24, 0, 0]]))
    blender.load(tiny.save(tmp_path / "a.glb"))
    times_s = [0.0, 0.25 / 24, 1.0 / 24]
    assert blender.measure(0, times_s[:2]).box_max[0] == pytest.approx(0.75, abs=1e-3)
    blender.draw(tmp_path / "out", 0, times_s, [view(0, name="v")])
    ends = [np.flatnonzero(picture(tmp_path / "out", "v", frame)[..., 3].max(axis=0) > 0.5)[-1] for frame in range(3)]
    assert (ends[1] - ends[0]) / (ends[2] - ends[0]) == pytest.approx(0.25, abs=0.1)


def test_a_crop_is_what_the_whole_picture_shows_there(blender: BlenderProcess, tmp_path: Path) -> None:
    """A small thing far from the middle of its frame, for one frame; the same thing after a long way in the other."""
    tiny = TinyGltf()
    node = tiny.node(mesh=six_colours(tiny))
    tiny.animate("slide", (node, "translation", [0.0, 1.0], [[-4, 0, 0], [4, 0, 0]]))
    blender.load(tiny.save(tmp_path / "a.glb"))
    blender.draw(tmp_path / "out", 0, [0.0, 1.0], [view(0, name="v")], size_px=64)
    left, right = picture(tmp_path / "out", "v", 0), picture(tmp_path / "out", "v", 1)
    assert left[:, 32:, 3].max() == 0.0
    assert right[:, :32, 3].max() == 0.0
    assert left[..., 3].sum() == pytest.approx(right[..., 3].sum(), rel=0.05)
    assert left[..., 3].sum() > 10


def test_what_is_not_in_the_picture_costs_no_rendering(blender: BlenderProcess, tmp_path: Path) -> None:
    blender.load(three_actions(tmp_path / "a.glb"))
    away = look_at_origin(0, 0, 3.0)
    away[:3, :3] = away[:3, :3] @ np.diag([-1.0, 1.0, -1.0])
    looking_away = view(0, name="v")
    looking_away = type(looking_away)(name="v", c2w=[away.ravel().tolist()], frozen=False)
    drawn = blender.draw(tmp_path / "out", 0, [0.0], [looking_away])
    assert drawn.draw_s == 0.0
    assert picture(tmp_path / "out", "v").max() == 0.0


def test_a_frozen_view_shows_the_first_time_through_every_camera(blender: BlenderProcess, tmp_path: Path) -> None:
    blender.load(three_actions(tmp_path / "a.glb"))
    ring = [look_at_origin(90 * frame, 15, 3.0).ravel().tolist() for frame in range(4)]
    orbit = type(view(0))(name="orbit", c2w=ring, frozen=False)
    twin = type(view(0))(name="twin", c2w=ring, frozen=True)
    blender.draw(
        tmp_path / "out", 0, TIMES_S, [orbit, twin, view(0, 15, frozen=True, name="statue"), view(0, 15, name="v")]
    )
    shown = files(tmp_path / "out")
    assert shown["orbit_000.png"] == shown["twin_000.png"] == shown["statue_000.png"] == shown["v_000.png"]
    assert len({shown[f"statue_{frame:03d}.png"] for frame in range(4)}) == 1
    assert shown["orbit_002.png"] != shown["twin_002.png"]
    assert shown["v_002.png"] != shown["statue_002.png"]
    blender.draw(tmp_path / "first", 0, TIMES_S[:1], [view(180, 15, name="back")])
    assert (
        np.abs(picture(tmp_path / "out", "twin", 2)[..., 3].sum() - picture(tmp_path / "first", "back")[..., 3].sum())
        < 60
    )


def test_a_repeated_time_gives_the_same_picture(blender: BlenderProcess, tmp_path: Path) -> None:
    blender.load(three_actions(tmp_path / "a.glb"))
    blender.draw(tmp_path / "out", 2, [0.0, 0.5, 0.0, 0.5], [view(0, name="v")])
    shown = files(tmp_path / "out")
    assert shown["v_000.png"] == shown["v_002.png"] != shown["v_001.png"] == shown["v_003.png"]


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_an_asset_of_absurd_size_looks_and_measures_like_an_ordinary_one(
    blender: BlenderProcess, tmp_path: Path, scale: float
) -> None:
    results = []
    for factor in (1.0, scale):
        tiny = TinyGltf()
        root = tiny.node(scale=[factor] * 3)
        armature = tiny.node(parent=root, scale=[100, 100, 100])
        bone = tiny.node(parent=armature, translation=[0.01, 0, 0])
        tiny.node(parent=armature, mesh=skinned_cube(tiny, (0,), 0.01), skin=0)
        tiny.node(parent=root, mesh=six_colours(tiny), translation=[-1, 0, 0])
        identity = tiny.accessor(np.eye(4).reshape(1, 16), "MAT4")
        tiny.document["skins"] = [{"joints": [bone], "inverseBindMatrices": identity}]
        tiny.animate("hop", (bone, "translation", [0.0, 1.0], [[0.01, 0, 0], [0.01, 0.01, 0]]))
        loaded = blender.load(tiny.save(tmp_path / "a.glb"))
        measured = blender.measure(0, TIMES_S)
        drawn = blender.draw(tmp_path / f"{factor}", 0, TIMES_S[2:3], [view(30, 20, name="v")])
        results.append((loaded.family_id, measured, drawn.world_scale, picture(tmp_path / f"{factor}", "v")))
    (family, measured, world_scale, image), (other_family, other, other_scale, other_image) = results
    assert other_family == family
    assert other.motion_id == measured.motion_id
    assert other.motion_mean == pytest.approx(measured.motion_mean, rel=1e-4)
    assert other.rest_diagonal == pytest.approx(scale * measured.rest_diagonal, rel=1e-4)
    assert other_scale * scale == pytest.approx(world_scale, rel=1e-4)
    assert np.abs(image - other_image).mean() < 0.002


def test_an_asset_far_from_the_origin_is_framed_like_one_at_home(blender: BlenderProcess, tmp_path: Path) -> None:
    images = []
    for away in (0.0, 3e6):
        tiny = TinyGltf()
        node = tiny.node(mesh=six_colours(tiny), translation=[away, 0, 0])
        tiny.animate("hop", (node, "translation", [0.0, 1.0], [[away, 0, 0], [away, 1, 0]]))
        blender.load(tiny.save(tmp_path / "a.glb"))
        blender.draw(tmp_path / f"{away}", 0, [0.0, 1.0], [view(30, 20, name="v")])
        images.append(picture(tmp_path / f"{away}", "v", 1))
    assert np.abs(images[0] - images[1]).mean() < 0.01


def test_numbers_that_are_none_are_told_and_not_drawn(blender: BlenderProcess, tmp_path: Path) -> None:
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.cube())
    tiny.animate("hop", (node, "translation", [0.0, 0.5, 1.0], [[0, 0, 0], [0, np.nan, 0], [0, 1, 0]]))
    blender.load(tiny.save(tmp_path / "a.glb"))
    measured = blender.measure(0, TIMES_S)
    assert not measured.finite
    assert measured.motion_mean == 0.0
    assert measured.box_max == [0.0] * 3
    with pytest.raises(Failed, match="non_finite"):
        blender.draw(tmp_path / "out", 0, TIMES_S, [view(0)])


@pytest.mark.parametrize("uri", ["absent.png", "../outside.png", "broken.png"])
def test_a_texture_that_cannot_be_read_is_grey_and_told(blender: BlenderProcess, tmp_path: Path, uri: str) -> None:
    (tmp_path / "asset").mkdir()
    (tmp_path / "outside.png").write_bytes(png(1, 1, b"\0\xff\0\0"))
    (tmp_path / "asset" / "broken.png").write_bytes(b"no picture")
    tiny = TinyGltf()
    material = tiny.material(RED)
    tiny.document["materials"][material]["pbrMetallicRoughness"] = tiny.texture(uri=uri)
    node = tiny.node(mesh=tiny.cube(material))
    tiny.animate("hop", (node, "translation", [0.0, 1.0], [[0, 0, 0], [0, 1, 0]]))
    loaded = blender.load(tiny.save(tmp_path / "asset" / "a.glb"))
    assert (loaded.missing_textures, loaded.num_images) == ([uri.rpartition("/")[2]], 1)
    blender.draw(tmp_path / "out", 0, [0.0], [view(0)])
    shown = colour(picture(tmp_path / "out", "v000"))
    assert np.ptp(shown) < 0.02
    assert 0.2 < shown.mean() < 0.9


def test_a_picture_that_breaks_off_is_grey_too(blender: BlenderProcess, tmp_path: Path) -> None:
    tiny = TinyGltf()
    material = tiny.material(RED)
    broken = png(64, 64, b"\0\xff\0\0")[:-30]
    tiny.document["materials"][material]["pbrMetallicRoughness"] = tiny.texture(
        bufferView=tiny.view(broken), mimeType="image/png"
    )
    node = tiny.node(mesh=tiny.cube(material))
    tiny.animate("hop", (node, "translation", [0.0, 1.0], [[0, 0, 0], [0, 1, 0]]))
    blender.load(tiny.save(tmp_path / "a.glb"))
    blender.draw(tmp_path / "out", 0, [0.0], [view(0)])
    assert np.ptp(colour(picture(tmp_path / "out", "v000"))) < 0.02


def test_an_image_bomb_is_not_lit(blender: BlenderProcess, tmp_path: Path) -> None:
    tiny = TinyGltf()
    material = tiny.material(RED)
    tiny.document["materials"][material]["pbrMetallicRoughness"] = tiny.texture(
        bufferView=tiny.view(png(40_000, 40_000)), mimeType="image/png"
    )
    tiny.node(mesh=tiny.cube(material))
    with pytest.raises(Failed, match="image_bomb"):
        blender.load(tiny.save(tmp_path / "a.glb"))


def test_a_shell_turned_inside_out_is_an_outline_and_no_black_box(blender: BlenderProcess, tmp_path: Path) -> None:
    pictures = []
    for outlined in (False, True):
        tiny = TinyGltf()
        node = tiny.node(mesh=tiny.cube(tiny.material(RED)))
        if outlined:
            black = tiny.material((0.0, 0.0, 0.0), doubleSided=False)
            tiny.node(parent=node, mesh=tiny.cube(black, points=1.1 * CUBE, flipped=True))
        tiny.animate("hop", (node, "translation", [0.0, 1.0], [[0, 0, 0], [0, 1, 0]]))
        blender.load(tiny.save(tmp_path / "a.glb"))
        blender.draw(tmp_path / str(outlined), 0, [0.0], [view(0, name="v")], samples=8)
        pictures.append(picture(tmp_path / str(outlined), "v"))
    bare, outlined = (image[20:28, 20:28, :3].mean(axis=(0, 1)) for image in pictures)
    assert outlined == pytest.approx(bare, abs=0.06)
    assert bare[0] > 0.5


def test_a_single_sided_face_is_not_seen_from_behind(blender: BlenderProcess, tmp_path: Path) -> None:
    for double_sided in (True, False):
        tiny = TinyGltf()
        position = tiny.accessor(np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32), "VEC3")
        sheet = {"attributes": {"POSITION": position}, "indices": tiny.accessor([0, 1, 2, 0, 2, 3], "SCALAR")}
        material = tiny.material(RED, doubleSided=double_sided)
        tiny.document["meshes"].append({"primitives": [{**sheet, "material": material}]})
        node = tiny.node(mesh=0)
        tiny.animate("hop", (node, "translation", [0.0, 1.0], [[0, 0, 0], [0, 1, 0]]))
        blender.load(tiny.save(tmp_path / "a.glb"))
        blender.draw(tmp_path / "out", 0, [0.0], [view(0), view(180)])
        assert picture(tmp_path / "out", "v000")[..., 3].max() == 1.0
        assert picture(tmp_path / "out", "v180")[..., 3].max() == (1.0 if double_sided else 0.0)


def test_what_shrinks_to_a_point_or_is_invisible_takes_no_part_in_framing(
    blender: BlenderProcess, tmp_path: Path
) -> None:
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.cube(tiny.material(RED)))
    tiny.node(mesh=tiny.cube(), translation=[50, 0, 0], scale=[0, 0, 0])
    air = tiny.material(RED, alphaMode="BLEND")
    tiny.document["materials"][air]["pbrMetallicRoughness"]["baseColorFactor"] = [1, 1, 1, 0]
    tiny.node(mesh=tiny.cube(air), scale=[30, 30, 30])
    tiny.animate("hop", (node, "translation", [0.0, 1.0], [[0, 0, 0], [0, 1, 0]]))
    blender.load(tiny.save(tmp_path / "a.glb"))
    assert blender.measure(0, [0.0, 1.0]).box_max == pytest.approx([0.5, 0.5, 1.5], abs=1e-5)


def test_what_grows_out_of_nothing_is_measured_by_its_largest(blender: BlenderProcess, tmp_path: Path) -> None:
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.cube())
    tiny.animate("grow", (node, "scale", [0.0, 1.0], [[0, 0, 0], [1, 1, 1]]))
    blender.load(tiny.save(tmp_path / "a.glb"))
    measured = blender.measure(0, TIMES_S)
    assert measured.finite
    assert measured.rest_diagonal == pytest.approx(math.sqrt(3), abs=1e-4)
    assert 0.0 < measured.motion_mean < 1.0


def test_a_file_without_faces_is_turned_away_and_the_child_lives_on(blender: BlenderProcess, tmp_path: Path) -> None:
    empty = TinyGltf()
    empty.node(name="nothing")
    with pytest.raises(Failed, match="no_mesh"):
        blender.load(empty.save(tmp_path / "empty.glb"))
    with pytest.raises(Failed, match="blender_crashed"):
        blender.measure(0, [0.0])
    with pytest.raises(Failed, match="not_found"):
        blender.load(tmp_path / "absent.glb")
    (tmp_path / "page.glb").write_text("<html>404</html>")
    with pytest.raises(Failed, match="import_failed"):
        blender.load(tmp_path / "page.glb")
    required = TinyGltf()
    required.node(mesh=required.cube())
    required.document |= {"extensionsUsed": ["XYZ_odd"], "extensionsRequired": ["XYZ_odd"]}
    with pytest.raises(Failed, match="unsupported_extension"):
        blender.load(required.save(tmp_path / "odd.glb"))
    assert len(blender.load(three_actions(tmp_path / "a.glb")).actions) == 3


def test_a_time_beyond_blenders_timeline_is_refused(blender: BlenderProcess, tmp_path: Path) -> None:
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.cube())
    tiny.animate("age", (node, "translation", [0.0, 1e6], [[0, 0, 0], [0, 1, 0]]))
    assert blender.load(tiny.save(tmp_path / "a.glb")).actions[0].end_s == pytest.approx(1e6, rel=1e-6)
    with pytest.raises(Failed, match="absurd_duration"):
        blender.measure(0, [0.0, 1.0])


def test_skins_follow_their_bones_though_an_idle_joint_has_a_matrix_of_another_scale(
    blender: BlenderProcess, tmp_path: Path
) -> None:
    """Rigify's control bones come out of converters with unit bind matrices beside the others' hundredths."""
    tiny = TinyGltf()
    root = tiny.node(name="root", translation=[5, 0, 0])
    control = tiny.node(parent=root, name="control", translation=[0, 2, 0])
    arm = tiny.node(parent=control, name="arm", translation=[0, 1, 0])
    tiny.node(mesh=skinned_cube(tiny, (0, 1), 100.0), skin=0)
    binds = [np.diag([0.01, 0.01, 0.01, 1.0]), np.diag([0.01, 0.01, 0.01, 1.0]), np.eye(4)]
    binds[0][:3, 3], binds[1][:3, 3] = [-5, 0, 0], [-5, -3, 0]
    matrices = tiny.accessor(np.stack([matrix.T.ravel() for matrix in binds]), "MAT4")
    tiny.document["skins"] = [{"joints": [root, arm, control], "inverseBindMatrices": matrices}]
    tiny.animate("wave", (arm, "rotation", [0.0, 1.0], [[0, 0, 0, 1], [0, 0, math.sqrt(0.5), math.sqrt(0.5)]]))
    blender.load(tiny.save(tmp_path / "a.glb"))
    measured = blender.measure(0, [1.0])
    # Half follows the root and stays, half turns by 90 degrees about the arm's joint at (5, 3).
    assert measured.box_min == pytest.approx([3.5, -0.5, -1.5], abs=1e-3)
    assert measured.box_max == pytest.approx([4.5, 0.5, -0.5], abs=1e-3)


def skinned_cube(tiny: TinyGltf, joints_of_skin: tuple[int, ...], size: float) -> int:
    """A cube mesh that follows joints of its skin in equal parts."""
    mesh = tiny.cube(points=size * CUBE)
    idle = 4 - len(joints_of_skin)
    joints = tiny.accessor(np.array([[*joints_of_skin, *[0] * idle]] * 8), "VEC4")
    weights = tiny.accessor(np.array([[1.0] * (4 - idle) + [0.0] * idle] * 8) / (4 - idle), "VEC4")
    for primitive in tiny.document["meshes"][mesh]["primitives"]:
        primitive["attributes"] |= {"JOINTS_0": joints, "WEIGHTS_0": weights}
    return mesh


def test_what_hangs_on_the_bone_of_a_scaled_armature_stays_where_it_is(blender: BlenderProcess, tmp_path: Path) -> None:
    tiny = TinyGltf()
    armature = tiny.node(name="armature", scale=[100, 100, 100])
    bone = tiny.node(parent=armature, name="bone", translation=[0.01, 0.02, 0])
    tiny.node(parent=bone, name="hat", mesh=tiny.cube(), translation=[0, 0.03, 0], scale=[0.01, 0.01, 0.01])
    tiny.node(parent=armature, name="body", mesh=skinned_cube(tiny, (0,), 1.0), skin=0)
    bind = np.diag([0.01, 0.01, 0.01, 1.0])
    tiny.document["skins"] = [
        {"joints": [bone], "inverseBindMatrices": tiny.accessor(bind.T.reshape(1, 16).astype(np.float32), "MAT4")}
    ]
    tiny.animate("lift", (bone, "translation", [0.0, 1.0], [[0.01, 0.02, 0], [0.01, 0.04, 0]]))
    blender.load(tiny.save(tmp_path / "a.glb"))
    measured = blender.measure(0, [1.0])
    assert measured.box_max[2] == pytest.approx(7.5, abs=1e-3)  # the hat: 4 + 3 + a half
