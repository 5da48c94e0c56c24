"""Sample assets with one fault each, which a data set must turn away or remark on: scenes, and broken bytes."""

import json
import struct
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from render.blender.sample_motion import add_action, eased, moves, steady, wave
from render.blender.sample_scene import WHITE, Material, Piece, add_object, rgb
from render.blender.sample_shapes import box, ellipsoid, lathe, plate, ring_of, spline, tube

RED = Material("red paint", "#e63946", roughness=0.4)
COAL = Material("coal", "#1b1b20", roughness=0.8)

NOT_FOUND_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>404 Not Found</title></head>
<body><h1>404 Not Found</h1><p>The model you asked for is not here.</p></body>
</html>
"""


def build_snowman() -> None:
    """A snowman with an animation in which nothing moves."""
    scarf, carrot, wood = Material("scarf", "#2a9d8f"), Material("carrot", "#ff7b00"), Material("twig", "#6b4423")
    balls = [(0.5, 0.45), (0.36, 1.13), (0.26, 1.62)]
    pieces = [Piece(ellipsoid(size, size, size, 22).moved(z=height), WHITE) for size, height in balls]
    pieces += [Piece(ellipsoid(0.035, 0.03, 0.035, 8).moved(x, -0.235, 1.68), COAL) for x in (-0.09, 0.09)]
    pieces += [Piece(ellipsoid(0.035, 0.03, 0.035, 8).moved(0, -0.35, z), COAL) for z in (1.06, 1.18, 1.3)]
    pieces += [
        Piece(tube([(0, -0.24, 1.62), (0, -0.5, 1.6)], [0.05, 0.01], sides=10), carrot),
        Piece(lathe([(0, 1.36), (0.27, 1.36), (0.27, 1.47), (0, 1.47)], 18), scarf),
        Piece(box(0.1, 0.05, 0.34, 0.2).moved(0.14, -0.27, 1.24), scarf),
        Piece(lathe([(0, 1.84), (0.28, 1.84), (0.28, 1.88), (0.18, 1.88), (0.17, 2.2), (0, 2.2)], 18), COAL),
    ]
    for side in (1, -1):
        branch = spline([(0.3 * side, 0, 1.2), (0.55 * side, -0.05, 1.3), (0.8 * side, -0.1, 1.5)], 8)
        pieces.append(Piece(tube(branch, np.linspace(0.035, 0.02, 8), sides=7), wood))
    snowman = add_object("Snowman", pieces)
    add_action("stand", {snowman: moves(location=(np.zeros(49), 0, 0), rotation_deg=(np.zeros(49), 0, 0))})


def build_lighthouse() -> None:
    """A lighthouse on a rock, without any animation."""
    rock, glass = Material("rock", "#7d8597", roughness=1.0), Material("lantern", "#ffe066", glow=1.0)
    rng = np.random.default_rng(8)
    pieces = [
        Piece(ellipsoid(0.8, 0.7, 0.3, 14).warped(lambda p: p * rng.uniform(0.9, 1.1, (len(p), 1))).moved(z=0.05), rock)
    ]
    rings = np.linspace(0.25, 1.85, 6)
    width = 0.42 - 0.10 * (rings - 0.25)
    for index in range(5):
        band = [
            (0.0, rings[index]),
            (width[index], rings[index]),
            (width[index + 1], rings[index + 1]),
            (0.0, rings[index + 1]),
        ]
        pieces.append(Piece(lathe(band, 24), RED if index % 2 == 0 else WHITE))
    pieces += [
        Piece(lathe([(0, 1.85), (0.36, 1.85), (0.36, 1.92), (0, 1.92)], 24), COAL),
        Piece(lathe([(0, 1.92), (0.18, 1.92), (0.18, 2.2), (0, 2.2)], 16), glass),
        Piece(lathe([(0, 2.2), (0.26, 2.2), (0.05, 2.42), (0, 2.5)], 16), RED),
    ]
    pieces += [Piece(post, COAL) for post in ring_of(box(0.02, 0.02, 0.18, 0.1).moved(0.33, 0, 2.0), 12)]
    add_object("Lighthouse", pieces)


def build_rocket() -> None:
    """A rocket that flies away: thirty times its own length in 2 s."""
    n, silver, flame = 48, Material("hull", "#f1f3f7", roughness=0.3), Material("flame", "#ff9f1c", glow=2.0)
    body = spline([(0.16, 0.0), (0.3, 0.5), (0.3, 1.1), (0.16, 1.65), (0.0, 1.95)], 18)
    fin = plate([(0.2, 0.35), (0.55, -0.15), (0.55, -0.3), (0.16, 0.0)], 0.05).turned("x", 90)
    pieces = [Piece(lathe([(0.0, 0.0), *((max(float(r), 0.0), float(z)) for r, z in body)], 22), silver)]
    pieces += [Piece(copy, RED) for copy in ring_of(fin, 4, "z", 45)]
    pieces += [
        Piece(ellipsoid(0.12, 0.05, 0.12, 14).moved(0, -0.28, 1.15), Material("porthole", "#4cc9f0", roughness=0.1))
    ]
    pieces += [Piece(lathe([(0.27, 1.34), (0.285, 1.34), (0.25, 1.5), (0.24, 1.5), (0.27, 1.34)], 22), RED)]
    rocket = add_object("Rocket", pieces)
    jet = add_object("Flame", [Piece(lathe([(0, -0.8), (0.1, -0.4), (0.15, -0.1), (0, 0)], 14), flame)], parent=rocket)
    flicker = 1 + wave(n, 8, 0.2)
    flight = moves(location=(0, 0, eased(n, (0, 0), (2 * n, 2 * 30 * 2.8))))
    add_action("launch", {rocket: flight, jet: moves(scale=(2 - flicker, 2 - flicker, flicker))})


def build_vase() -> None:
    """A painted vase on a turntable: it turns as one stiff piece and does nothing else."""
    glaze, rim = Material("glaze", image=_meander(), roughness=0.25), Material("clay", "#c05621", roughness=0.6)
    outline = spline([(0.0, 0.0), (0.3, 0.02), (0.52, 0.5), (0.42, 0.95), (0.2, 1.2), (0.3, 1.42)], 30)
    inside = [(0.25, 1.42), (0.15, 1.2), (0.0, 1.1)]
    pieces = [Piece(lathe([(max(float(r), 0.0), float(z)) for r, z in outline] + inside, 32), glaze)]
    for side in (1, -1):
        handle = spline(
            [(0.44 * side, 0, 0.9), (0.62 * side, 0, 1.1), (0.5 * side, 0, 1.33), (0.26 * side, 0, 1.3)], 14
        )
        pieces.append(Piece(tube(handle, [0.045] * 14, sides=10), rim))
    vase = add_object("Vase", pieces)
    add_action("turntable", {vase: moves(rotation_deg=(0, 0, steady(96, 360)))})


def _meander() -> np.ndarray:
    """Blue key pattern and stripes on white. v runs up the vase."""
    key = np.array(
        [
            [1, 1, 1, 1, 1, 1, 0],
            [0, 0, 0, 0, 0, 1, 0],
            [0, 1, 1, 1, 0, 1, 0],
            [0, 1, 0, 1, 0, 1, 0],
            [0, 1, 0, 0, 0, 1, 0],
            [1, 1, 1, 1, 1, 1, 1],
        ]
    )
    pattern = np.zeros((64, 84), dtype=int)
    for top in (14, 30):
        pattern[top : top + 6] = np.tile(key, 12)
    pattern[[11, 23, 27, 39, 46, 47, 52]] = 1
    picture = np.where(pattern[..., None] == 1, rgb("#1d4ed8"), rgb("#fbf7ee"))
    return np.asarray(picture.repeat(3, axis=0).repeat(3, axis=1) * 255).round().astype(np.uint8)


def build_car() -> None:
    """A toy car, well animated but for one frame, on which it is eight lengths away."""
    n = 48
    paint, glass = Material("car paint", "#3a86ff", roughness=0.25), Material("windows", "#d7f0ff", roughness=0.1)
    lamp, tyre, hub = (
        Material("headlights", "#fff3b0", glow=1.0),
        Material("tyre", "#22242b", roughness=0.9),
        Material("hub", "#e9edf2"),
    )
    pieces = [
        Piece(box(0.86, 1.7, 0.34, 0.25).moved(0, 0, 0.42), paint),
        Piece(box(0.74, 0.86, 0.34, 0.25).moved(0, 0.1, 0.72), paint),
        Piece(box(0.77, 0.7, 0.2, 0.2).moved(0, 0.1, 0.72), glass),
        Piece(box(0.6, 0.9, 0.2, 0.2).moved(0, 0.1, 0.72), glass),
        Piece(box(0.2, 1.72, 0.03, 0.2).moved(0, 0, 0.59), WHITE),
        *(Piece(ellipsoid(0.09, 0.05, 0.09, 12).moved(x, -0.83, 0.46), lamp) for x in (-0.28, 0.28)),
    ]
    root = add_object("Car")
    body = add_object("Body", pieces, parent=root)
    rim = [
        Piece(ellipsoid(0.04, 0.05, 0.05, 8).moved(x, 0, 0.09).turned("x", 72 * i), hub)
        for i in range(5)
        for x in (-0.07, 0.07)
    ]
    wheel = [Piece(tube([(-0.07, 0, 0), (0.07, 0, 0)], [0.22, 0.22], sides=18, round_ends=False), tyre), *rim]
    wheels = [
        add_object(f"Wheel {i}", wheel, parent=root, at=(x, y, 0.22))
        for i, (x, y) in enumerate((x, y) for x in (-0.42, 0.42) for y in (-0.52, 0.52))
    ]
    jump = np.zeros(n + 1)
    jump[24] = 8 * 1.7
    curves = {
        root: moves(location=(jump, 0, 0), rotation_deg=(0, 0, wave(n, 1, 14))),
        body: moves(location=(0, 0, 0.05 + wave(n, 4, 0.05)), rotation_deg=(wave(n, 2, 5), wave(n, 4, 4), 0)),
    }
    add_action("drive", curves | {wheel: moves(rotation_deg=(steady(n, 720), 0, 0)) for wheel in wheels})


def build_jack_in_the_box() -> None:
    """A clown on a spring jumps out of a box; `take_images_away` later takes the box's picture away."""
    n = 72
    tile = np.indices((64, 64)).sum(axis=0) // 16 % 2
    picture = np.asarray(np.where(tile[..., None] == 1, rgb("#ff006e"), rgb("#ffbe0b")) * 255).round().astype(np.uint8)
    paper, gold = Material("box paper", image=picture), Material("spring", "#d9dee7", roughness=0.3, metallic=0.5)
    skin, hat = Material("face", "#ffd9b3", roughness=0.7), Material("hat", "#8338ec")
    walls = [Piece(wall, paper) for wall in ring_of(box(0.94, 0.06, 0.8, 0.1).moved(0, -0.44, 0.42), 4)]
    jar = add_object("Box", [*walls, Piece(box(0.94, 0.94, 0.06, 0.1).moved(0, 0, 0.04), paper)])
    lid = add_object("Lid", [Piece(box(0.98, 0.98, 0.07, 0.2).moved(0, -0.49, 0), hat)], parent=jar, at=(0, 0.49, 0.86))
    turns = np.linspace(0, 6 * 2 * np.pi, 110)
    coil = np.column_stack([0.2 * np.cos(turns), 0.2 * np.sin(turns), np.linspace(0, 0.9, 110)])
    spring = add_object(
        "Spring", [Piece(tube(coil, [0.03] * 110, sides=6, round_ends=False), gold)], parent=jar, at=(0, 0, 0.08)
    )
    face = [
        Piece(ellipsoid(0.3, 0.3, 0.3, 20), skin),
        Piece(ellipsoid(0.08, 0.08, 0.08, 12).moved(0, -0.31, -0.02), RED),
        *(Piece(ellipsoid(0.035, 0.03, 0.06, 10).moved(x, -0.275, 0.1), COAL) for x in (-0.1, 0.1)),
        *(Piece(ellipsoid(0.13, 0.13, 0.13, 12).moved(x, 0.02, 0.06), RED) for x in (-0.3, 0.3)),
        Piece(lathe([(0, 0.2), (0.24, 0.2), (0, 0.72)], 18), hat),
        Piece(ellipsoid(0.07, 0.07, 0.07, 12).moved(z=0.72), WHITE),
    ]
    head = add_object("Head", face, parent=jar, at=(0, 0, 0.5))
    out = eased(
        n, (0, 0), (12, 0), (18, 1.25), (24, 0.85), (30, 1.1), (36, 0.96), (42, 1.02), (54, 1), (68, 0), (72, 0)
    )
    stretch, size = 0.12 + 0.98 * out, 0.9 + 0.1 * np.clip(out, 0, 1)
    curves = {
        spring: moves(scale=(1, 1, stretch)),
        head: moves(
            location=(0, 0, 0.08 + 0.9 * stretch + 0.22),
            rotation_deg=(wave(n, 4, 8) * out, wave(n, 3, 14) * out, 0),
            scale=(size, size, size),
        ),
        lid: moves(rotation_deg=(-eased(n, (0, 0), (12, 0), (16, 125), (22, 105), (56, 110), (68, 0), (72, 0)), 0, 0)),
    }
    add_action("pop", curves)


def with_nan_positions(glb: bytes) -> bytes:
    """The same binary glTF with NaN for some vertices of its first mesh; the accessor's own bounds stay finite."""
    document, _ = _glb_parts(glb)
    return _with_nan(glb, document["meshes"][0]["primitives"][0]["attributes"]["POSITION"], 3)


def with_nan_animation(glb: bytes) -> bytes:
    """The same binary glTF with NaN in the middle of its first animation's first curve."""
    document, _ = _glb_parts(glb)
    return _with_nan(glb, document["animations"][0]["samplers"][0]["output"], 2)


def _with_nan(glb: bytes, accessor_index: int, num_rows: int) -> bytes:
    document, binary_start = _glb_parts(glb)
    accessor = document["accessors"][accessor_index]
    view = document["bufferViews"][accessor["bufferView"]]
    columns = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
    start = (
        binary_start + view.get("byteOffset", 0) + accessor.get("byteOffset", 0) + accessor["count"] // 2 * columns * 4
    )
    patch = struct.pack("<f", float("nan")) * (columns * num_rows)
    return glb[:start] + patch + glb[start + len(patch) :]


def _glb_parts(glb: bytes) -> tuple[dict, int]:
    """The JSON of a binary glTF, and where its binary chunk's content starts."""
    (json_bytes,) = struct.unpack_from("<I", glb, 12)
    return json.loads(glb[20 : 20 + json_bytes]), 20 + json_bytes + 8


def take_images_away(gltf: Path) -> None:
    """Delete the pictures that a .gltf names."""
    for image in json.loads(gltf.read_text())["images"]:
        (gltf.parent / unquote(image["uri"])).unlink(missing_ok=True)
