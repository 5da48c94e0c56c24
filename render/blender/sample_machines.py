"""Sample assets of stiff parts that move against each other: a windmill, a helicopter, a treasure chest."""

import bpy
import numpy as np

from render.blender.sample_motion import Curves, add_action, eased, moves, steady, wave
from render.blender.sample_scene import DARK, GOLD, SILVER, WHITE, Material, Piece, add_object
from render.blender.sample_shapes import Surface, box, ellipsoid, lathe, mirrored, plate, ring_of, spline, tube, upright

WOOD = Material("wood", "#8a5a2b", roughness=0.8)


def build_windmill() -> None:
    """A windmill on a meadow: the sails turn, the cap follows the wind, the vane swings."""
    plaster, cloth = Material("plaster", "#fff4dc", roughness=0.9), Material("sailcloth", "#fdf6e8", roughness=0.9)
    roof, stone = Material("roof", "#c8402f", roughness=0.7), Material("stone", "#8d93a1", roughness=0.9)
    grass, leaf = Material("grass", "#6ec04b", roughness=0.9), Material("bush", "#2f8f46", roughness=0.9)
    blue = Material("blue paint", "#2f7fd6", roughness=0.5)
    door = spline([(-0.13, 0), (0.13, 0), (0.13, 0.3), (0.0, 0.42), (-0.13, 0.3)], 5)
    pieces = [
        Piece(lathe([(0, -0.12), (0.95, -0.12), (1.12, -0.05), (1.12, 0.0), (0, 0.03)], 28), grass),
        Piece(lathe([(0, 0), (0.56, 0), (0.53, 0.22), (0, 0.22)], 16), stone),
        Piece(lathe([(0, 0.2), (0.5, 0.2), (0.44, 0.7), (0.37, 1.2), (0.33, 1.62), (0, 1.62)], 16), plaster),
        Piece(lathe([(0.44, 0.84), (0.47, 0.84), (0.47, 0.9), (0.43, 0.9), (0.44, 0.84)], 16), WOOD),
        Piece(plate(door, 0.06).turned("x", 90).moved(0, -0.52, 0.1), blue),
        Piece(ellipsoid(0.02, 0.02, 0.02, 8).moved(0.08, -0.57, 0.28), GOLD),
    ]
    for angle, z in ((-8, 1.2), (70, 0.62), (150, 1.1), (235, 0.68)):
        window = box(0.16, 0.05, 0.2, 0.2)
        reach = 0.47 - 0.12 * z
        pieces.append(Piece(window.moved(0, -reach, z).turned("z", angle), blue))
    for x, y, size in (
        (0.75, -0.35, 0.14),
        (0.85, -0.15, 0.10),
        (-0.78, 0.3, 0.17),
        (-0.62, 0.52, 0.12),
        (0.35, 0.85, 0.13),
        (-0.7, -0.55, 0.09),
    ):
        pieces.append(Piece(ellipsoid(size, size, size * 0.9, 10).moved(x, y, size * 0.7), leaf))
    tower = add_object("Tower", pieces)

    cap_pieces = [
        Piece(lathe([(0, 0), (0.40, 0), (0.40, 0.08), (0.34, 0.28), (0.18, 0.46), (0, 0.52)], 16), roof),
        Piece(tube([(0, -0.2, 0.2), (0, -0.52, 0.2)], [0.06, 0.05], sides=10), WOOD),
        Piece(tube([(0, 0.2, 0.2), (0, 0.8, 0.14)], [0.035, 0.025], sides=8), WOOD),
        Piece(upright([(0.72, -0.02), (1.02, 0.05), (1.02, 0.35), (0.72, 0.28)], 0.03), blue),
    ]
    cap = add_object("Cap", cap_pieces, parent=tower, at=(0, 0, 1.62))
    arm = [
        (box(0.05, 0.04, 1.14, 0.15).moved(z=0.62), WOOD),
        (box(0.24, 0.015, 0.86, 0.05).moved(0.14, 0, 0.74), cloth),
    ]
    arm += [(box(0.28, 0.03, 0.03, 0.1).moved(0.13, -0.01, z), WOOD) for z in np.linspace(0.32, 1.16, 6)]
    arm += [(box(0.03, 0.03, 0.88, 0.1).moved(0.27, -0.01, 0.74), WOOD)]
    blades = [Piece(ellipsoid(0.11, 0.09, 0.11), GOLD)]
    for surface, paint in arm:
        blades += [Piece(copy, paint) for copy in ring_of(surface.turned("z", -14), 4, "y", 20)]
    sails = add_object("Sails", blades, parent=cap, at=(0, -0.56, 0.2))
    vane = add_object(
        "Vane",
        [
            Piece(tube([(0, 0, 0), (0, 0, 0.28)], [0.014, 0.014], sides=8), DARK),
            Piece(
                upright(
                    [(-0.2, 0.2), (0.06, 0.2), (0.18, 0.12), (0.18, 0.34), (0.06, 0.26), (-0.2, 0.26), (-0.28, 0.23)],
                    0.02,
                ),
                GOLD,
            ),
        ],
        parent=cap,
        at=(0, 0, 0.5),
    )
    n = 96
    add_action(
        "turn",
        {
            cap: moves(rotation_deg=(0, 0, wave(n, 1, 24))),
            sails: moves(rotation_deg=(0, steady(n, -360), 0)),
            vane: moves(rotation_deg=(0, 0, wave(n, 3, 40))),
        },
    )


def build_helicopter() -> None:
    """A rescue helicopter that hovers, leans and turns its rotors."""
    red, glass = Material("red paint", "#e02b35", roughness=0.3), Material("glass", "#8fd3f4", roughness=0.1)
    profile = spline(
        [
            (-1.0, 0.06, 0.10),
            (-0.85, 0.30, 0.30),
            (-0.45, 0.46, 0.46),
            (0.1, 0.46, 0.48),
            (0.55, 0.26, 0.30),
            (0.85, 0.12, 0.14),
        ],
        24,
    )
    hull = tube([(0, y, 0.12 * max(y, 0.0)) for y in profile[:, 0]], profile[:, 1:], sides=22)
    boom = tube([(0, 0.6, 0.1), (0, 1.75, 0.24)], [0.14, 0.06], sides=12)
    pieces = [
        Piece(hull, red),
        Piece(ellipsoid(0.41, 0.46, 0.34, 20).moved(0, -0.60, 0.13), glass),
        Piece(boom, WHITE),
        Piece(upright([(1.55, 0.2), (1.85, 0.25), (2.05, 0.72), (1.85, 0.72)], 0.05), red),
        Piece(box(0.8, 0.2, 0.04, 0.3).moved(0, 1.5, 0.24), red),
        Piece(lathe([(0, 0.4), (0.24, 0.4), (0.14, 0.56), (0.05, 0.62), (0.05, 0.78), (0, 0.78)], 14), DARK),
        Piece(box(0.9, 0.6, 0.08, 0.3).moved(0, 0.05, -0.05).scaled(1.03, 1, 1), WHITE),
    ]
    for side in (1, -1):
        runner = spline(
            [
                (0.42 * side, -0.95, -0.62),
                (0.42 * side, -0.8, -0.74),
                (0.42 * side, 0.0, -0.76),
                (0.42 * side, 0.6, -0.76),
            ],
            12,
        )
        pieces.append(Piece(tube(runner, [0.04] * 12, sides=8), DARK))
        pieces += [
            Piece(tube([(0.25 * side, y, -0.35), (0.42 * side, y, -0.75)], [0.03, 0.03], sides=8), DARK)
            for y in (-0.4, 0.3)
        ]
        window = (
            plate([(-0.2, -0.14), (0.18, -0.14), (0.14, 0.14), (-0.16, 0.14)], 0.05).turned("x", 90).turned("z", 90)
        )
        pieces.append(Piece(window.moved(0.445 * side, 0.12, 0.14), glass))
        cross = [box(0.03, 0.2, 0.06, 0.1), box(0.03, 0.06, 0.2, 0.1)]
        pieces += [Piece(bar.moved(0.40 * side, 0.42, 0.05).turned("z", 0), WHITE) for bar in cross]
    body = add_object("Body", pieces)
    blades = [ellipsoid(0.09, 0.72, 0.015, 12).moved(0, 0.80, 0)]
    tips = [box(0.14, 0.14, 0.034, 0.2).moved(0, 1.38, 0)]
    rotor = add_object(
        "Rotor",
        [Piece(lathe([(0, -0.04), (0.1, -0.04), (0.07, 0.08), (0, 0.08)], 14), SILVER)]
        + [Piece(copy, DARK) for blade in blades for copy in ring_of(blade, 3)]
        + [Piece(copy, GOLD) for tip in tips for copy in ring_of(tip, 3)],
        parent=body,
        at=(0, 0, 0.8),
    )
    small = [Piece(copy, DARK) for copy in ring_of(ellipsoid(0.012, 0.04, 0.17, 10).moved(0, 0, 0.19), 3, "x")]
    tail_rotor = add_object(
        "Tail rotor", [*small, Piece(ellipsoid(0.05, 0.04, 0.04, 10), SILVER)], parent=body, at=(0.09, 1.86, 0.48)
    )
    n = 72
    add_action(
        "hover",
        {
            body: moves(
                location=(wave(n, 1, 0.22), wave(n, 2, 0.10, 0.1), wave(n, 2, 0.16)),
                rotation_deg=(wave(n, 2, 7, 0.3), wave(n, 1, 12), wave(n, 1, 16, 0.25)),
            ),
            rotor: moves(rotation_deg=(0, 0, steady(n, 720))),
            tail_rotor: moves(rotation_deg=(steady(n, -1080), 0, 0)),
        },
    )


def build_chest() -> None:
    """A treasure chest that opens, throws coins and shows a jewel, and closes again. Lasts 5 s."""
    n = 120
    jewel_paint = Material("ruby", "#ff2d6f", roughness=0.1, glow=0.3)
    pieces = [Piece(box(1.3, 0.06, 0.5, 0.2).moved(0, y, 0.27), WOOD) for y in (-0.42, 0.42)]
    pieces += [Piece(box(0.06, 0.84, 0.5, 0.2).moved(x, 0, 0.27), WOOD) for x in (-0.62, 0.62)]
    pieces += [Piece(box(1.3, 0.88, 0.06, 0.2).moved(0, 0, 0.04), WOOD)]
    pieces += [Piece(box(0.1, 0.94, 0.55, 0.1).moved(x, 0, 0.27), DARK) for x in (-0.6, 0.6)]
    pieces += [Piece(box(1.36, 0.03, 0.06, 0.2).moved(0, -0.455, z), DARK) for z in (0.05, 0.49)]
    heap = lathe(spline([(0.62, 0.0), (0.55, 0.08), (0.3, 0.2), (0, 0.26)], 9), 24).scaled(0.9, 0.62, 1).moved(z=0.28)
    pieces.append(Piece(heap, GOLD))
    rng = np.random.default_rng(3)
    coin = lathe([(0, -0.02), (0.085, -0.02), (0.085, 0.02), (0, 0.02)], 14)
    for x, y, tilt, turn in rng.uniform(-1, 1, (26, 4)):
        height = 0.30 + 0.22 * (1 - x * x) * (1 - y * y)
        pieces.append(Piece(coin.turned("x", 35 * tilt).turned("z", 180 * turn).moved(0.48 * x, 0.3 * y, height), GOLD))
    chest = add_object("Chest", pieces)

    arc = [(0.44 * float(np.cos(a)), 0.34 * float(np.sin(a))) for a in np.linspace(0, np.pi, 13)]
    half = plate(arc, 1.0).turned("x", 90).turned("z", 90).scaled(1, 1, 1)
    lid_pieces = [Piece(half.scaled(1.3, 1, 1).moved(0, -0.43, 0), WOOD)]
    lid_pieces += [Piece(half.scaled(0.1, 1.07, 1.07).moved(x, -0.43, 0), DARK) for x in (-0.6, 0.0, 0.6)]
    lid_pieces += [
        Piece(box(0.22, 0.07, 0.2, 0.2).moved(0, -0.9, -0.03), GOLD),
        Piece(ellipsoid(0.035, 0.03, 0.05, 10).moved(0, -0.94, -0.04), DARK),
    ]
    lid = add_object("Lid", lid_pieces, parent=chest, at=(0, 0.43, 0.53))
    jewel = add_object(
        "Jewel",
        [Piece(lathe([(0, -0.2), (0.17, 0.03), (0.11, 0.13), (0, 0.13)], 8), jewel_paint)],
        parent=chest,
        at=(0, 0, 0.3),
    )

    rise = eased(n, (0, 0), (24, 0), (48, 1), (84, 1), (104, 0), (120, 0))
    size = 0.7 + 0.4 * rise
    curves: dict[bpy.types.Object, Curves] = {
        lid: moves(
            rotation_deg=(
                eased(n, (0, 0), (10, 0), (14, -6), (18, 0), (34, -108), (40, -100), (90, -100), (110, 0), (120, 0)),
                0,
                0,
            )
        ),
        jewel: moves(
            location=(0, 0, 0.34 + 0.72 * rise + 0.04 * rise * wave(n, 4, 1.0)),
            rotation_deg=(0, 0, steady(n, 720)),
            scale=(size, size, size),
        ),
    }
    for index in range(8):
        angle = 2 * np.pi * (index + 0.5) / 8
        curves[add_object(f"Coin {index}", [Piece(coin, GOLD)], parent=chest, at=(0, 0, 0.4))] = _toss(
            n, 28 + 3 * index, angle
        )
    add_action("open", curves)


def _toss(num_frames: int, start: int, angle: float) -> Curves:
    """A coin's flight out of the chest and back into it, 40 frames long, spinning."""
    share = np.clip((np.arange(num_frames + 1) - start) / 40.0, 0, 1)
    out, up = 0.34 * np.sin(np.pi * share), 1.3 * 4 * share * (1 - share)
    return moves(
        location=(out * np.cos(angle), 0.7 * out * np.sin(angle), 0.38 + up),
        rotation_deg=(720 * share, 180 * share, np.degrees(angle)),
    )


def stadium(length: float, height: float, width: float) -> Surface:
    """A crawler track seen from the side: a box along Y with round ends, about the origin."""
    radius = height / 2
    ends = [np.linspace(-np.pi / 2, np.pi / 2, 9), np.linspace(np.pi / 2, 3 * np.pi / 2, 9)]
    centre = length / 2 - radius
    outline = [
        (centre * sign + radius * np.cos(a), radius * np.sin(a))
        for sign, angles in zip((1, -1), ends, strict=True)
        for a in angles
    ]
    return upright(outline, width)


def both_sides(surface: Surface, paint: Material) -> list[Piece]:
    """A piece and its mirror image."""
    return [Piece(surface, paint), Piece(mirrored(surface), paint)]
