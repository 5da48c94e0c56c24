"""Sample assets with jointed arms of stiff parts: an industrial robot that moves a crate, and an excavator."""

import bpy
import numpy as np

from render.blender.sample_machines import both_sides, stadium
from render.blender.sample_motion import add_action, eased, moves, steady, wave
from render.blender.sample_scene import DARK, SILVER, Material, Piece, add_object, rgb
from render.blender.sample_shapes import box, ellipsoid, lathe, plate, ring_of, tube, upright

RUBBER = Material("rubber", "#1d1f24", roughness=0.8)


def build_robot_arm() -> None:
    """An orange arm that lifts a crate from one stand to another, in 5 s."""
    n = 120
    orange = Material("orange paint", "#ff6a13", roughness=0.35)
    hazard = Material("hazard stripes", image=_hazard_stripes(), roughness=0.6)
    axle = tube([(-0.2, 0, 0), (0.2, 0, 0)], [0.13, 0.13], sides=16)
    floor = [
        Piece(box(2.6, 1.5, 0.08, 0.3).moved(0, -0.25, -0.04), Material("floor", "#5c7a99", roughness=0.8)),
        Piece(box(0.72, 0.72, 0.16, 0.15).moved(0, 0, 0.08), hazard),
        *(
            Piece(box(0.5, 0.5, 0.3, 0.15).moved(x, -0.62, 0.15), Material("stand", "#3f8f6b", roughness=0.7))
            for x in (-0.95, 0.95)
        ),
    ]
    base = add_object("Base", floor)
    turntable = add_object(
        "Turntable",
        [
            Piece(lathe([(0, 0), (0.28, 0), (0.24, 0.2), (0, 0.2)], 18), orange),
            *both_sides(box(0.08, 0.3, 0.36, 0.3).moved(0.17, 0, 0.32), orange),
        ],
        parent=base,
        at=(0, 0, 0.16),
    )
    upper = add_object(
        "Upper arm",
        [Piece(axle, DARK), Piece(tube([(0, 0, 0), (0, 0, 0.75)], [(0.12, 0.15), (0.09, 0.11)], sides=14), orange)],
        parent=turntable,
        at=(0, 0, 0.4),
    )
    forearm = add_object(
        "Forearm",
        [
            Piece(axle.scaled(0.8, 0.85, 0.85), DARK),
            Piece(tube([(0, 0, 0), (0, 0, 0.7)], [(0.10, 0.11), (0.06, 0.07)], sides=14), orange),
        ],
        parent=upper,
        at=(0, 0, 0.75),
    )
    palm = [
        Piece(axle.scaled(0.5, 0.55, 0.55), DARK),
        Piece(lathe([(0, 0), (0.06, 0), (0.06, 0.1), (0.2, 0.12), (0.2, 0.17), (0, 0.17)], 14), SILVER),
    ]
    wrist = add_object("Wrist", palm, parent=forearm, at=(0, 0, 0.7))
    finger = [
        Piece(box(0.04, 0.1, 0.28, 0.2).moved(0, 0, 0.13), DARK),
        Piece(box(0.06, 0.08, 0.12, 0.2).moved(0, 0, 0.24), Material("pad", "#ffd23f")),
    ]
    fingers = [
        add_object(f"Finger {name}", finger, parent=wrist, at=(x, 0, 0.16))
        for name, x in (("left", 0.14), ("right", -0.14))
    ]
    crate = add_object("Crate", [Piece(box(0.28, 0.28, 0.28, 0.06), Material("crate", image=_planks(), roughness=0.8))])

    yaw = eased(n, (0, 57), (8, 57), (30, 57), (60, -57), (86, -57), (112, 57), (120, 57))
    height = eased(
        n,
        (0, 0.55),
        (4, 0.55),
        (16, 0.2),
        (24, 0.2),
        (36, 0.6),
        (54, 0.6),
        (66, 0.2),
        (74, 0.2),
        (88, 0.55),
        (120, 0.55),
    )
    shoulder, elbow = _reach(1.13 - 0.12 * (height - 0.2) / 0.4, height, 0.75, 0.7)
    hold = eased(n, (0, 0.22), (16, 0.22), (22, 0.165), (68, 0.165), (74, 0.22), (120, 0.22))
    curves = {
        turntable: moves(rotation_deg=(0, 0, yaw)),
        upper: moves(rotation_deg=(shoulder, 0, 0)),
        forearm: moves(rotation_deg=(elbow, 0, 0)),
        wrist: moves(rotation_deg=(180 - shoulder - elbow, 0, 0)),
        fingers[0]: moves(location=(hold, 0, 0.16)),
        fingers[1]: moves(location=(-hold, 0, 0.16)),
    }
    add_action("pick and place", curves)
    places, headings = _carried_along(wrist, (0, 0, 0.34), n, first=20, last=70)
    bpy.data.actions.remove(bpy.data.actions["pick and place"])
    for node in curves:
        node.animation_data_clear()
    curves[crate] = moves(location=(*places.T,), rotation_deg=(0, 0, headings))
    add_action("pick and place", curves)


def _reach(out: np.ndarray, up: np.ndarray, first: float, second: float) -> tuple[np.ndarray, np.ndarray]:
    """Angles in degrees, from upright and from straight, that put the end of a two-part arm at a place."""
    far = np.hypot(out, up)
    elbow = np.arccos((far**2 - first**2 - second**2) / (2 * first * second))
    shoulder = np.arctan2(out, up) - np.arctan2(second * np.sin(elbow), first + second * np.cos(elbow))
    return np.degrees(shoulder), np.degrees(elbow)


def _carried_along(
    node: bpy.types.Object, grip: tuple[float, float, float], n: int, *, first: int, last: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where a thing is that is held from one frame to another and rests before and after.

    Returns:
        Places, shape (frame, 3), and headings in degrees, shape (frame,).
    """
    scene = bpy.context.scene
    places, headings = np.empty((n + 1, 3)), np.empty(n + 1)
    for frame in range(n + 1):
        scene.frame_set(int(np.clip(frame, first, last)))
        world = np.array(node.matrix_world)
        places[frame] = world[:3, :3] @ np.array(grip) + world[:3, 3]
        headings[frame] = np.degrees(np.arctan2(world[1, 0], world[0, 0]))
    scene.frame_set(0)
    return places, headings


def _hazard_stripes() -> np.ndarray:
    row, column = np.meshgrid(np.arange(128), np.arange(128), indexing="ij")
    yellow = ((row + column) // 16 % 2 == 0)[..., None]
    return np.asarray(np.where(yellow, rgb("#ffcf1a"), rgb("#20232a")) * 255).round().astype(np.uint8)


def _planks() -> np.ndarray:
    """A wooden crate's side: planks with grain in a nailed frame."""
    size = 128
    row, column = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    grain = np.random.default_rng(5).normal(0.0, 1.0, (size, 1)).cumsum(axis=0)
    plank = row // 21
    shade = 0.88 + 0.05 * np.sin(plank * 2.4) + 0.03 * np.sin(grain + column / 19 + plank * 3)
    wood = shade[..., None] * rgb("#d9a05b")
    wood = np.where((row % 21 < 2)[..., None], rgb("#6b4320"), wood)
    frame = (np.minimum(row, column) < 15) | (np.maximum(row, column) > size - 16) | (np.abs(row - column) < 10)
    wood = np.where(frame[..., None], (0.9 + 0.04 * np.sin(row / 7 + column / 5))[..., None] * rgb("#b87333"), wood)
    for y in (8, size - 9):
        for x in (8, size - 9):
            wood = np.where((np.hypot(row - y, column - x) < 3.5)[..., None], rgb("#3a3f47"), wood)
    return np.asarray(np.clip(wood, 0, 1) * 255).round().astype(np.uint8)


def build_excavator() -> None:
    """A yellow excavator with two animations: it digs, and it drives off with its arm raised."""
    yellow, glass = (
        Material("machine yellow", "#ffb800", roughness=0.4),
        Material("cab glass", "#9bdcf5", roughness=0.1),
    )
    earth = Material("earth", "#7a4a28", roughness=1.0)
    tread = stadium(1.5, 0.42, 0.3).moved(0.42, 0, 0.21)
    lugs = [box(0.32, 0.07, 0.05, 0.2).moved(0.42, y, z) for y in np.linspace(-0.48, 0.48, 8) for z in (0.01, 0.42)]
    chassis = [*both_sides(tread, RUBBER), Piece(box(0.6, 0.8, 0.16, 0.2).moved(0, 0, 0.28), DARK)]
    for lug in lugs:
        chassis += both_sides(lug, DARK)
    base = add_object("Chassis", chassis)
    hub = [Piece(tube([(-0.03, 0, 0), (0.03, 0, 0)], [0.14, 0.14], sides=16, round_ends=False), yellow)]
    hub += [Piece(copy, DARK) for copy in ring_of(ellipsoid(0.04, 0.035, 0.035, 8).moved(0.02, 0, 0.085), 5, "x")]
    wheels = [
        add_object(f"Wheel {i}", hub, parent=base, at=(x, y, 0.21))
        for i, (x, y) in enumerate((x, y) for x in (0.57, -0.57) for y in (-0.52, 0.0, 0.52))
    ]
    house = [
        Piece(lathe([(0, 0), (0.34, 0), (0.34, 0.08), (0, 0.08)], 18), DARK),
        Piece(box(1.0, 1.15, 0.3, 0.2).moved(0, 0.18, 0.22), yellow),
        Piece(box(1.0, 0.4, 0.36, 0.3).moved(0, 0.62, 0.46), yellow),
        Piece(box(0.42, 0.6, 0.6, 0.12).moved(0.28, -0.1, 0.64), yellow),
        Piece(box(0.36, 0.52, 0.34, 0.1).moved(0.28, -0.16, 0.71), glass),
        Piece(box(0.46, 0.42, 0.32, 0.1).moved(0.28, -0.08, 0.71), glass),
        Piece(tube([(-0.25, 0.55, 0.6), (-0.25, 0.55, 0.95)], [0.05, 0.05], sides=10), DARK),
        Piece(ellipsoid(0.06, 0.06, 0.07, 10).moved(0.28, -0.05, 0.97), Material("beacon", "#ff7a00", glow=0.8)),
    ]
    cab = add_object("House", house, parent=base, at=(0, 0, 0.38))
    profile = [(0.08, -0.10), (-0.35, 0.52), (-1.15, 0.62), (-1.18, 0.78), (-0.40, 0.74), (-0.1, 0.12)]
    boom = add_object(
        "Boom",
        [
            Piece(upright(profile, 0.16), yellow),
            *both_sides(ellipsoid(0.03, 0.09, 0.09, 12).moved(0.09, -1.15, 0.70), DARK),
        ],
        parent=cab,
        at=(-0.12, -0.35, 0.25),
    )
    shape = [(-0.10, 0.10), (0.06, 0.12), (0.05, -0.82), (-0.06, -0.82)]
    stick = add_object(
        "Stick",
        [Piece(upright(shape, 0.13), yellow), *both_sides(ellipsoid(0.03, 0.07, 0.07, 12).moved(0.07, 0, -0.8), DARK)],
        parent=boom,
        at=(0, -1.15, 0.70),
    )
    shell = [
        (0.06, 0.06),
        (0.14, -0.06),
        (0.12, -0.24),
        (-0.02, -0.34),
        (-0.22, -0.30),
        (-0.24, -0.26),
        (-0.04, -0.27),
        (0.07, -0.2),
        (0.09, -0.06),
        (-0.05, 0.02),
    ]
    teeth = [
        plate([(-0.04, 0), (0.04, 0), (0, 0.12)], 0.04).turned("z", 90).moved(x, -0.22, -0.29)
        for x in (-0.15, 0.0, 0.15)
    ]
    cheek = upright([(0.06, 0.06), (0.14, -0.06), (0.12, -0.24), (-0.02, -0.34), (-0.2, -0.29), (-0.05, 0.02)], 0.03)
    bucket = add_object(
        "Bucket",
        [Piece(upright(shell, 0.42), DARK), *both_sides(cheek.moved(0.2), DARK), *(Piece(t, SILVER) for t in teeth)],
        parent=stick,
        at=(0, 0, -0.8),
    )
    load = add_object("Load", [Piece(ellipsoid(0.19, 0.13, 0.12, 12), earth)], parent=bucket, at=(0, -0.04, -0.16))

    n = 96
    lift = eased(n, (0, 0), (18, -26), (34, -20), (54, 16), (70, 16), (96, 0))
    reach = eased(n, (0, -20), (18, -58), (36, 14), (54, 4), (70, -30), (96, -20))
    curl = eased(n, (0, 10), (18, -36), (36, 62), (56, 66), (70, -50), (80, -50), (96, 10))
    swing = eased(n, (0, 0), (38, 0), (60, 70), (76, 70), (96, 0))
    full = eased(n, (0, 0.05), (24, 0.05), (38, 1), (62, 1), (70, 0.05), (96, 0.05))
    still = moves(rotation_deg=(0, 0, 0))
    dig = {
        cab: moves(rotation_deg=(0, 0, swing)),
        boom: moves(rotation_deg=(-lift, 0, 0)),
        stick: moves(rotation_deg=(reach, 0, 0)),
    }
    dig |= {
        bucket: moves(rotation_deg=(curl, 0, 0)),
        load: moves(scale=(full, full, full)),
        base: moves(location=(0, 0, 0), rotation_deg=(0, 0, 0)),
    }
    add_action("dig", dig | dict.fromkeys(wheels, still))

    n = 72
    drive = {
        base: moves(
            location=(0, wave(n, 1, 0.5), np.abs(wave(n, 9, 0.02))),
            rotation_deg=(wave(n, 3, 2.5), 0, wave(n, 1, 10, 0.25)),
        )
    }
    drive |= {cab: moves(rotation_deg=(0, 0, wave(n, 1, 35))), boom: moves(rotation_deg=(-14 + wave(n, 3, 6), 0, 0))}
    drive |= {
        stick: moves(rotation_deg=(12 + wave(n, 3, 9, 0.2), 0, 0)),
        bucket: moves(rotation_deg=(40 + wave(n, 3, 16, 0.4), 0, 0)),
        load: moves(scale=(0.05, 0.05, 0.05)),
    }
    drive |= {wheel: moves(rotation_deg=(steady(n, 0) - wave(n, 1, 140), 0, 0)) for wheel in wheels}
    add_action("drive", drive)
