"""What decides how an object looks, in the real Blender child: light, materials, hair, instances, what is left out."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cameras import look_at_origin, pinhole, project
from render.lights import LightsName, light_of
from render.look import QUALITIES
from render.protocol import View, fields_of
from tests.render.blender_process import DRAWING, BlenderProcess, colour, make_files, picture, view
from tests.render.panoramas import openexr, radiance, sky
from tests.render.tiny_gltf import CUBE, TinyGltf, png

pytestmark = pytest.mark.blender

WHITE, RED, GREEN, BLACK = (1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    make_files("tests.render.look_files", path)
    return path


def lit_by(name: LightsName, **changes: Any) -> dict[str, Any]:
    return fields_of(light_of(name, "test", **changes))


def srgb(linear: float) -> float:
    """The sRGB transfer function."""
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


Draw = Callable[..., np.ndarray]


@pytest.fixture
def draw_gltf(blender: BlenderProcess, tmp_path: Path) -> Draw:
    """Draws a glTF file that a function makes, in front; gives the picture."""

    def draw(build: Callable[[TinyGltf], int], *views: View, **changes: Any) -> np.ndarray:
        tiny = TinyGltf()
        node = build(tiny)
        tiny.animate("hop", (node, "translation", [0.0, 1.0], [[0, 0, 0], [0, 0.01, 0]]))
        blender.load(tiny.save(tmp_path / "a.glb"))
        blender.draw(tmp_path / "out", 0, [0.0], [view(0, name="v")], **changes)
        return picture(tmp_path / "out", "v")

    return draw


def grey_sides(tiny: TinyGltf) -> int:
    """A grey cube: on which side light falls is plain to see."""
    return tiny.node(mesh=tiny.cube(tiny.material((0.5, 0.5, 0.5))))


def brightness(blender: BlenderProcess, out: Path, **changes: Any) -> dict[str, float]:
    """Mean value of the loaded cube's sides, each seen head-on."""
    sides = {"front": (0, 0), "left": (90, 0), "back": (180, 0), "right": (270, 0), "top": (0, 84), "bottom": (0, -84)}
    views = [view(azimuth, elevation, name=name) for name, (azimuth, elevation) in sides.items()]
    blender.draw(out, 0, [0.0], views, samples=16, **changes)
    return {name: float(picture(out, name)[22:26, 22:26, :3].mean()) for name in sides}


@pytest.fixture
def grey_cube(blender: BlenderProcess, tmp_path: Path) -> Path:
    tiny = TinyGltf()
    node = grey_sides(tiny)
    tiny.animate("hop", (node, "translation", [0.0, 1.0], [[0, 0, 0], [0, 0.01, 0]]))
    blender.load(tiny.save(tmp_path / "cube.glb"))
    return tmp_path


def test_no_side_is_black_and_none_is_burnt_in_the_studio(blender: BlenderProcess, grey_cube: Path) -> None:
    sides = brightness(blender, grey_cube / "out", light=lit_by("studio"))
    assert min(sides.values()) > 0.3
    assert max(sides.values()) < 0.97
    assert sides["front"] > sides["bottom"] + 0.1  # it still has a direction


def test_grey_light_is_the_same_from_everywhere(blender: BlenderProcess, grey_cube: Path) -> None:
    light = lit_by("grey")
    sides = brightness(blender, grey_cube / "out", light=light)
    assert np.ptp(list(sides.values())) < 0.02
    assert sides["front"] == pytest.approx(srgb(0.5 * light["ambient_strength"]), abs=0.05)


def test_diffusion4ds_suns_shine_from_where_its_script_turns_them(blender: BlenderProcess, grey_cube: Path) -> None:
    """The sides' light follows from the suns' rotations: a sun shines along its own -z. Filmic is not linear, so
    the order is compared."""
    light = lit_by("diffusion4d")
    sides = brightness(blender, grey_cube / "out", light={**light, "ambient_strength": 0.0})
    normals = {"front": (0, -1, 0), "left": (1, 0, 0), "back": (0, 1, 0), "right": (-1, 0, 0), "top": (0, 0, 1)}
    normals |= {"bottom": (0, 0, -1)}
    for name, normal in normals.items():
        falls = sum(sun["strength"] * max(0.0, float(np.dot(normal, towards(sun)))) for sun in light["suns"])
        assert sides[name] == pytest.approx(min(1.0, srgb(0.5 * falls / math.pi)), abs=0.04), name


def towards(sun: dict[str, Any]) -> np.ndarray:
    """Direction to a sun from its Euler angles about x, then y, then z."""
    x, y, z = np.radians(sun["rotation_deg"])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x @ [0, 0, 1])


def test_a_sun_throws_a_shadow_if_it_is_told_to(draw_gltf: Draw) -> None:
    def cube_behind_a_bar(tiny: TinyGltf) -> int:
        node = tiny.node(mesh=tiny.cube(tiny.material(WHITE)))
        tiny.node(parent=node, mesh=tiny.cube(tiny.material(WHITE)), translation=[0, 1.5, 2], scale=[1.2, 0.3, 0.3])
        return node

    sun = {"name": "sun", "rotation_deg": [53, 0, 0], "strength": 2.0, "angle_deg": 0.5}
    plain, shaded = (
        draw_gltf(cube_behind_a_bar, light={**lit_by("grey", ambient=0.1), "suns": [{**sun, "shadow": shadow}]})
        for shadow in (False, True)
    )
    darker = (plain - shaded)[plain[..., 3] > 0.9][:, 0]
    assert 0.03 < (darker > 0.2).mean() < 0.3
    assert darker.min() > -0.1


@pytest.mark.parametrize("write", [radiance, openexr])
@pytest.mark.parametrize(("turn_deg", "bright"), [(0.0, "front"), (90.0, "left"), (180.0, "back"), (270.0, "right")])
def test_a_picture_lights_the_side_that_it_is_turned_to(
    blender: BlenderProcess, grey_cube: Path, write: Callable[[np.ndarray], bytes], turn_deg: float, bright: str
) -> None:
    path = grey_cube / "sky.hdr"
    path.write_bytes(write(sky()))
    sides = brightness(blender, grey_cube / "out", light=lit_by("hdri", picture=str(path), turn_deg=turn_deg))
    assert max(sides, key=lambda name: sides[name]) == bright
    assert sides[bright] > 1.5 * sorted(sides.values())[-2] or sides[bright] > 0.95


def test_what_is_right_of_the_middle_of_a_picture_is_right_of_it_in_the_world(
    blender: BlenderProcess, grey_cube: Path
) -> None:
    """Looking from the origin to the front, a quarter turn to the right is where azimuth -90 looks from."""
    path = grey_cube / "sky.hdr"
    path.write_bytes(radiance(sky(90.0)))
    sides = brightness(blender, grey_cube / "out", light=lit_by("hdri", picture=str(path), turn_deg=0.0))
    assert max(sides, key=lambda name: sides[name]) == "right"


def test_light_leaves_nothing_behind(blender: BlenderProcess, grey_cube: Path) -> None:
    path = grey_cube / "sky.hdr"
    path.write_bytes(radiance(sky()))
    blender.draw(grey_cube / "before", 0, [0.0], [view(30, 20, name="v")])
    for light in (lit_by("hdri", picture=str(path)), lit_by("diffusion4d"), lit_by("grey", own=True)):
        blender.draw(grey_cube / "other", 0, [0.0], [view(30, 20, name="v")], light=light, view_transform="filmic")
    blender.draw(grey_cube / "after", 0, [0.0], [view(30, 20, name="v")])
    assert (grey_cube / "before" / "v_000.png").read_bytes() == (grey_cube / "after" / "v_000.png").read_bytes()


def test_filmic_is_another_curve(blender: BlenderProcess, grey_cube: Path) -> None:
    glaring = lit_by("grey", ambient=4.0)
    standard = brightness(blender, grey_cube / "a", light=glaring)["front"]
    filmic = brightness(blender, grey_cube / "b", light=glaring, view_transform="filmic")["front"]
    assert standard == 1.0  # cut off at white
    assert 0.7 < filmic < 0.95


def test_a_narrow_filter_leaves_hard_edges(blender: BlenderProcess, grey_cube: Path) -> None:
    """Under 0.1 % of the published pictures' alpha values lie between 0 and 1: each pixel is one point."""
    soft = {}
    for name in ("high", "diffusion4d"):
        options = {"paths": fields_of(QUALITIES[name].paths), "samples": 16}
        blender.draw(grey_cube / name, 0, [0.0], [view(30, 20, name="v")], **options)
        alpha = picture(grey_cube / name, "v")[..., 3]
        soft[name] = ((alpha > 0.02) & (alpha < 0.98)).mean()
    assert soft["diffusion4d"] < 0.002
    assert soft["high"] > 0.02


def test_the_first_box_alone_may_decide_the_framing(blender: BlenderProcess, tmp_path: Path) -> None:
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.cube(tiny.material(RED)), scale=[1, 2, 1], translation=[5, 0, 0])
    tiny.animate("slide", (node, "translation", [0.0, 1.0], [[5, 0, 0], [8, 0, 0]]))
    blender.load(tiny.save(tmp_path / "a.glb"))
    place = look_at_origin(0, 0, 2.0)
    camera = View(name="v", c2w=[place.ravel().tolist()], frozen=False)
    fov_deg = math.degrees(2 * math.atan(18 / 50))
    drawn = blender.draw(tmp_path / "out", 0, [0.0, 1.0], [camera], framing="first_box", fov_deg=fov_deg)
    assert drawn.world_scale == pytest.approx(0.5)
    assert drawn.world_centre == pytest.approx([5.0, 0.0, 0.0])
    alpha = picture(tmp_path / "out", "v", 0)[..., 3]
    rows, columns = np.flatnonzero(alpha.max(axis=1) > 0.5), np.flatnonzero(alpha.max(axis=0) > 0.5)
    box = CUBE[:, [0, 2, 1]] * [0.5, 0.5, 1.0]
    pixels = project(box, place, pinhole(fov_deg, 48))[:, :2]
    shown = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert shown == pytest.approx([*pixels.min(axis=0), *pixels.max(axis=0)], abs=1.2)
    assert drawn.outside_px > 10
    assert picture(tmp_path / "out", "v", 1)[..., 3].max() == 0.0


# Materials


def quad(tiny: TinyGltf, material: int) -> int:
    """A sheet of 2 m that faces the front."""
    position = tiny.accessor(np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32), "VEC3")
    uv = tiny.accessor(np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32), "VEC2")
    sheet = {"attributes": {"POSITION": position, "TEXCOORD_0": uv}, "material": material}
    sheet["indices"] = tiny.accessor([0, 1, 2, 0, 2, 3], "SCALAR")
    tiny.document["meshes"].append({"primitives": [sheet]})
    return len(tiny.document["meshes"]) - 1


def with_opacity(tiny: TinyGltf, opacity: float, **extra: Any) -> int:
    material = tiny.material(RED, **extra)
    tiny.document["materials"][material]["pbrMetallicRoughness"]["baseColorFactor"][3] = opacity
    return material


@pytest.mark.parametrize(
    ("opacity", "extra", "expected"),
    [
        (0.25, {"alphaMode": "BLEND"}, 0.25),
        (0.25, {"alphaMode": "OPAQUE"}, 1.0),
        (0.4, {"alphaMode": "MASK", "alphaCutoff": 0.5}, 0.0),
        (0.6, {"alphaMode": "MASK", "alphaCutoff": 0.5}, 1.0),
    ],
)
def test_opacity_is_alpha_by_the_materials_mode(
    draw_gltf: Draw, opacity: float, extra: dict[str, Any], expected: float
) -> None:
    def sheet_and_frame(tiny: TinyGltf) -> int:
        node = tiny.node(mesh=quad(tiny, with_opacity(tiny, opacity, **extra)))
        tiny.node(parent=node, mesh=tiny.cube(tiny.material(GREEN)), translation=[0, 1.5, 0], scale=[2, 0.1, 0.1])
        return node

    image = draw_gltf(sheet_and_frame, samples=64)
    assert image[25:33, 20:28, 3].mean() == pytest.approx(expected, abs=0.06)


def test_glass_is_solid_in_alpha_and_shows_the_surroundings(draw_gltf: Draw) -> None:
    def pane(tiny: TinyGltf) -> int:
        tiny.document["extensionsUsed"] = ["KHR_materials_transmission"]
        glass = tiny.material(WHITE, extensions={"KHR_materials_transmission": {"transmissionFactor": 1.0}})
        tiny.document["materials"][glass]["pbrMetallicRoughness"]["roughnessFactor"] = 0.0
        return tiny.node(mesh=tiny.cube(glass))

    light = lit_by("grey")
    image = draw_gltf(pane, light=light, samples=32)
    assert image[22:26, 22:26, 3].min() == 1.0
    assert image[22:26, 22:26, :3].mean() == pytest.approx(srgb(light["ambient_strength"]), abs=0.08)


def test_an_unlit_material_shows_its_colour_whatever_the_light(draw_gltf: Draw) -> None:
    def flat(tiny: TinyGltf) -> int:
        tiny.document["extensionsUsed"] = ["KHR_materials_unlit"]
        return tiny.node(mesh=tiny.cube(tiny.material((0.5, 0.25, 0.1), extensions={"KHR_materials_unlit": {}})))

    for light in (lit_by("studio"), lit_by("grey", ambient=0.1)):
        assert colour(draw_gltf(flat, light=light)) == pytest.approx([srgb(0.5), srgb(0.25), srgb(0.1)], abs=0.01)


def test_what_glows_shines_in_the_dark_and_on_its_neighbours(draw_gltf: Draw) -> None:
    def lamp(tiny: TinyGltf) -> int:
        tiny.document["extensionsUsed"] = ["KHR_materials_emissive_strength"]
        strength = {"KHR_materials_emissive_strength": {"emissiveStrength": 2.0}}
        glowing = tiny.material(BLACK, emissiveFactor=[0.0, 0.3, 0.0], extensions=strength)
        node = tiny.node(mesh=tiny.cube(glowing), translation=[0, 0.55, 0])
        tiny.node(parent=node, mesh=tiny.cube(tiny.material(WHITE)), translation=[0, -2, -1.2], scale=[2, 2, 2])
        return node

    dark = {**lit_by("grey"), "ambient_strength": 0.0}
    image = draw_gltf(lamp, light=dark, samples=64)
    assert image[8:12, 22:26].mean(axis=(0, 1)) == pytest.approx([0.0, srgb(0.6), 0.0, 1.0], abs=0.03)
    below = image[30:45, 22:26, :3].mean(axis=(0, 1))
    assert below[1] > 5 * max(below[0], below[2], 0.01)


def coloured(tiny: TinyGltf, mesh: int, value: tuple[float, float, float]) -> int:
    """The mesh with vertex colours."""
    colours = tiny.accessor(np.array([value] * 8, np.float32), "VEC3")
    for primitive in tiny.document["meshes"][mesh]["primitives"]:
        primitive["attributes"]["COLOR_0"] = colours
    return mesh


def test_vertex_colours_multiply_what_the_material_says(draw_gltf: Draw) -> None:
    """As glTF has it, with a factor or a texture; a mesh without them that wears the same material is as it was."""
    light = lit_by("grey", ambient=1.25)  # of strength 1: a white surface is white
    dim = (0.2, 0.5, 1.0)

    def factor(tiny: TinyGltf) -> int:
        return tiny.node(mesh=coloured(tiny, tiny.cube(tiny.material((1.0, 0.5, 0.1))), dim))

    def textured(tiny: TinyGltf) -> int:
        material = tiny.material(WHITE)
        pixel = png(1, 1, b"\0\xff\xbc\x59")  # 1, 0.5, 0.1
        texture = tiny.texture(bufferView=tiny.view(pixel), mimeType="image/png")
        tiny.document["materials"][material]["pbrMetallicRoughness"] |= texture
        return tiny.node(mesh=coloured(tiny, tiny.cube(material), dim))

    def bare(tiny: TinyGltf) -> int:
        return tiny.node(mesh=coloured(tiny, tiny.cube(), (0.2, 0.25, 0.1)))

    def shared(tiny: TinyGltf) -> int:
        material = tiny.material((0.2, 0.25, 0.1))
        node = tiny.node(mesh=tiny.cube(material))
        tiny.node(parent=node, mesh=coloured(tiny, tiny.cube(material), BLACK), translation=[0, 0, -1])
        return node

    expected = [srgb(0.2), srgb(0.25), srgb(0.1)]
    for build in (factor, textured, bare, shared):
        image = draw_gltf(build, light=light, samples=32)
        assert image[20:28, 20:28, :3].mean(axis=(0, 1)) == pytest.approx(expected, abs=0.06), build.__name__


def test_vertex_colours_are_shown_where_a_white_material_ignores_them(blender: BlenderProcess, folder: Path) -> None:
    blender.load(folder / "painted.blend")
    blender.draw(folder / "out", 0, [0.0], [view(0, name="v")])
    red, green, blue = colour(picture(folder / "out", "v"))
    assert green > 2 * max(red, blue)


# What is drawn at all


def drawn_file(blender: BlenderProcess, path: Path, **changes: Any) -> tuple[np.ndarray, float]:
    """The picture, and the radius in which everything is framed."""
    blender.load(path)
    out = path.parent / "out"
    drawn = blender.draw(out, 0, [0.0], [view(30, 20, name="v")], **changes)
    return picture(out, "v"), 1 / drawn.world_scale


RADIUS = math.sqrt(3) / 2
"""Of the sphere around a unit cube."""


@pytest.mark.parametrize("name", ["hidden", "holes", "unseen", "spraying", "lit", "sky"])
def test_helpers_and_what_a_render_hides_take_no_part(blender: BlenderProcess, folder: Path, name: str) -> None:
    image, radius = drawn_file(blender, folder / f"{name}.blend")
    assert radius == pytest.approx(RADIUS)
    assert np.ptp(colour(image)) < 0.02  # nor does their colour
    middle = image[18:30, 18:30, 3]
    assert middle.min() == 1.0


def test_modifiers_are_those_of_a_render_with_two_subdivisions_at_most(blender: BlenderProcess, folder: Path) -> None:
    loaded = blender.load(folder / "subdivided.blend")
    assert (loaded.num_vertices, loaded.num_triangles) == (98, 192)
    assert drawn_file(blender, folder / "subdivided.blend")[1] < 0.6  # rounded, and no array


@pytest.mark.parametrize(("name", "num_objects"), [("instanced", 2), ("scattered", 8)])
def test_instances_are_drawn_and_framed(blender: BlenderProcess, folder: Path, name: str, num_objects: int) -> None:
    loaded = blender.load(folder / f"{name}.blend")
    assert loaded.num_objects == num_objects
    assert loaded.num_vertices == 8 * num_objects
    image, radius = drawn_file(blender, folder / f"{name}.blend")
    assert radius == pytest.approx({"instanced": math.hypot(2.0, 0.5, 0.5), "scattered": 0.7 * math.sqrt(3)}[name])
    assert max(image[[0, -1], :, 3].max(), image[:, [0, -1], 3].max()) < 0.5


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("furry", math.hypot(1.4, 0.4, 0.4), math.hypot(1.7, 0.7, 0.7)),  # 1 m of hair on a side, 5 cm thick
        ("combed", 1.25, 1.6),  # from -0.5 to 2.1 m
        ("dotted", math.sqrt(12) + 0.3, math.sqrt(12) + 0.6),
    ],
)
def test_hair_strands_and_points_are_framed(
    blender: BlenderProcess, folder: Path, name: str, least: float, most: float
) -> None:
    image, radius = drawn_file(blender, folder / f"{name}.blend")
    assert least < radius < most
    assert max(image[[0, -1], :, 3].max(), image[:, [0, -1], 3].max()) < 0.5


def test_hair_is_not_cut_at_the_box_of_the_mesh(blender: BlenderProcess, folder: Path) -> None:
    image, _ = drawn_file(blender, folder / "combed.blend", size_px=96)
    widths = (image[..., 3] > 0.5).sum(axis=1)
    shown = widths[widths > 0]
    assert len(shown) > 70  # of 96: 2.6 m in a picture of 3 m
    assert shown[:30].max() < 12  # a strand of 1.6 m stands out of
    assert shown.max() > 30  # a cube of 1 m


# The asset's own lights


def test_own_lights_are_used_if_wanted_and_there(blender: BlenderProcess, folder: Path) -> None:
    own = lit_by("studio", own=True)
    image, _ = drawn_file(blender, folder / "lit.blend", light=own)
    red, green, blue = colour(image)
    assert green > red + 0.1  # the green lamp on top of the rig's grey surroundings
    assert red == pytest.approx(blue, abs=0.02)  # but not the lamp that a render hides
    image, _ = drawn_file(blender, folder / "lit.blend")
    own_again, _ = drawn_file(blender, folder / "lit.blend", light=own)
    blender.draw(folder / "out", 0, [0.0], [view(30, 20, name="v")])
    assert np.array_equal(picture(folder / "out", "v"), image)  # the lamp is off again
    assert not np.array_equal(own_again, image)
    image, _ = drawn_file(blender, folder / "sky.blend", light=own)
    red, green, blue = colour(image)
    assert blue > 5 * max(red, green, 0.01)
    without, _ = drawn_file(blender, folder / "hidden.blend", light=own)
    rig, _ = drawn_file(blender, folder / "hidden.blend")
    assert np.array_equal(without, rig)


def test_a_draw_says_whose_light_it_was(blender: BlenderProcess, folder: Path, tmp_path: Path) -> None:
    for name, expected in (("lit", True), ("sky", True), ("hidden", False)):
        blender.load(folder / f"{name}.blend")
        for own in (False, True):
            drawn = blender.draw(tmp_path, 0, [0.0], [view(0)], light=lit_by("studio", own=own))
            assert drawn.own_light is (own and expected)


def test_the_lights_of_a_gltf_are_left_out_unless_wanted(draw_gltf: Draw) -> None:
    def with_sun(tiny: TinyGltf) -> int:
        tiny.document["extensionsUsed"] = ["KHR_lights_punctual"]
        sun = {"type": "directional", "color": [0.0, 1.0, 0.0], "intensity": 3000.0}
        tiny.document["extensions"] = {"KHR_lights_punctual": {"lights": [sun]}}
        tiny.document["cameras"] = [{"type": "perspective", "perspective": {"yfov": 0.8, "znear": 0.1}}]
        tiny.node(extensions={"KHR_lights_punctual": {"light": 0}}, camera=0, translation=[0, 0, 30])
        return tiny.node(mesh=tiny.cube(tiny.material(WHITE)))

    assert np.ptp(colour(draw_gltf(with_sun))) < 0.02
    red, green, _ = colour(draw_gltf(with_sun, light=lit_by("studio", own=True)))
    assert green > red + 0.1
    assert DRAWING["light"]["own"] is False  # type: ignore[index]
