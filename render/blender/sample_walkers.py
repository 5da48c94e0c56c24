"""Skinned sample assets with limbs: a parrot and a fox, several animations each."""

from itertools import pairwise

import numpy as np

from render.blender.sample_motion import add_action, eased, poses, wave
from render.blender.sample_scene import BLACK, WHITE, Bone, Material, Piece, add_skeleton, add_skin, gradient
from render.blender.sample_shapes import Surface, ellipsoid, lathe, mirrored, spline, tube


def build_parrot(body: str = "#e5262e", middle: str = "#ffcb2d", tip: str = "#1c6fe0") -> None:
    """A macaw on the wing, its feathers in vertex colours: it flies, glides in a turn and hovers.

    Args:
        body: sRGB of the body and the shoulders.
        middle: sRGB of the middle of the wings.
        tip: sRGB of the wing tips and the tail.
    """
    feathers = Material("feathers", vertex_colours=True, roughness=0.55)
    beak = Material("beak", "#f4e7c3", roughness=0.3)
    bones = [
        Bone("body", (0, 0.1, 0), (0, -0.25, 0.05)),
        Bone("head", (0, -0.25, 0.05), (0, -0.6, 0.2), "body"),
        Bone("tail", (0, 0.25, -0.02), (0, 0.95, -0.08), "body"),
    ]
    for side, sign in (("left", 1), ("right", -1)):
        reach = [(0.08, -0.08), (0.45, -0.14), (0.85, -0.08), (1.30, 0.05)]
        for part, (start, end) in enumerate(pairwise(reach)):
            parent = f"wing {side} {part - 1}" if part else "body"
            head, tail = (sign * start[0], start[1], 0.06), (sign * end[0], end[1], 0.06)
            bones.append(Bone(f"wing {side} {part}", head, tail, parent))

    profile = spline(
        [
            (-0.52, 0.10, 0.22),
            (-0.36, 0.16, 0.10),
            (-0.1, 0.21, 0.02),
            (0.15, 0.19, 0.0),
            (0.4, 0.1, 0.0),
            (0.52, 0.05, 0.0),
        ],
        20,
    )
    trunk = tube([(0, y, z) for y, _, z in profile], profile[:, 1], sides=18)
    skull = ellipsoid(0.165, 0.19, 0.17, 18).moved(0, -0.52, 0.24)
    plumage = [(trunk, ("body", "head")), (skull, ("head",))]
    pieces = [Piece(s, feathers, b, colours=gradient(s.vertices[:, 1], [(0.2, body), (0.5, tip)])) for s, b in plumage]
    for across, length in ((0.0, 0.75), (-0.07, 0.62), (0.07, 0.62), (-0.13, 0.5), (0.13, 0.5)):
        quill = ellipsoid(0.05, length / 2, 0.014, 10).turned("z", across * 110).moved(across, 0.45 + length / 2, -0.04)
        paint = gradient(quill.vertices[:, 1], [(0.5, body), (0.75, middle), (0.95, tip)])
        pieces.append(Piece(quill, feathers, ("tail",), colours=paint))
    for side, flip in (("left", False), ("right", True)):
        names = tuple(f"wing {side} {part}" for part in range(3))
        for surface, carriers in _wing(names):
            placed = mirrored(surface) if flip else surface
            paint = gradient(np.abs(placed.vertices[:, 0]), [(0.3, body), (0.5, middle), (0.72, middle), (0.92, tip)])
            pieces.append(Piece(placed, feathers, carriers, colours=paint))
    pieces += _parrot_face(beak)
    rig = add_skeleton("Parrot rig", bones)
    add_skin("Parrot", pieces, bones, rig)
    _parrot_actions(rig)


def _wing(names: tuple[str, ...]) -> list[tuple[Surface, tuple[str, ...]]]:
    """The left wing: an arm with its covert feathers, and the quills behind it."""
    knots = spline([(0.06, -0.04, 0.12), (0.45, -0.08, 0.16), (0.85, -0.04, 0.12), (1.22, 0.05, 0.06)], 16)
    arm = tube([(x, y, 0.06) for x, y, _ in knots], np.column_stack([knots[:, 2], np.full(16, 0.028)]), sides=12)
    parts: list[tuple[Surface, tuple[str, ...]]] = [(arm, names)]
    for index, x in enumerate(np.linspace(0.16, 1.26, 12)):
        length = 0.34 + 0.14 * index / 11
        carrier = names[0] if x < 0.45 else names[1] if x < 0.85 else names[2]
        quill = ellipsoid(0.068, length / 2, 0.012, 10).moved(0, length / 2, 0).turned("z", -3 - 62 * (index / 11) ** 3)
        parts.append((quill.moved(x, 0.0, 0.055 - 0.002 * index), (carrier,)))
    return parts


def _parrot_face(beak: Material) -> list[Piece]:
    hook = spline([(-0.64, 0.28), (-0.76, 0.27), (-0.80, 0.18), (-0.775, 0.11)], 10)
    upper = tube([(0, y, z) for y, z in hook], np.linspace(0.075, 0.012, 10), sides=10)
    lower = tube([(0, -0.66, 0.18), (0, -0.73, 0.14)], [0.045, 0.015], sides=8)
    pieces = [Piece(upper, beak, ("head",)), Piece(lower, BLACK, ("head",))]
    for side in (1, -1):
        pieces += [
            Piece(ellipsoid(0.03, 0.075, 0.075, 12).moved(0.138 * side, -0.60, 0.27), WHITE, ("head",)),
            Piece(ellipsoid(0.016, 0.028, 0.028, 10).moved(0.164 * side, -0.615, 0.28), BLACK, ("head",)),
            Piece(
                tube([(0.08 * side, 0.12, -0.14), (0.09 * side, 0.34, -0.16)], [0.035, 0.02], sides=8), BLACK, ("body",)
            ),
        ]
    return pieces


def _wings(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> dict[str, tuple[object, object, object]]:
    """Both wings beating alike: lift of each part over the one before, in degrees."""
    turns: dict[str, tuple[object, object, object]] = {}
    for side, sign in (("left", 1), ("right", -1)):
        for part, lift in enumerate((first, second, third)):
            turns[f"wing {side} {part}"] = (0, -sign * lift, 0)
    return turns


def _parrot_actions(rig: object) -> None:
    n = 48
    beat = _wings(8 + wave(n, 4, 38), wave(n, 4, 22, -0.14), wave(n, 4, 26, -0.24))
    beat |= {
        "body": (wave(n, 4, 4, 0.1), 0, 0),
        "head": (wave(n, 4, -4, 0.1), 0, 0),
        "tail": (wave(n, 4, 9, -0.2), 0, 0),
    }
    add_action("fly", {rig: poses(rig, beat, {"body": (0, 0, wave(n, 4, 0.07, 0.5))})})

    n = 72
    bank = wave(n, 1, 26)
    glide = _wings(10 + wave(n, 2, 5), 4 + wave(n, 2, 4, 0.2), 8 + wave(n, 6, 4))
    glide |= {
        "body": (wave(n, 2, 5), bank, -0.6 * bank),
        "head": (0, -0.8 * bank, 0.5 * bank),
        "tail": (0, wave(n, 1, 18, -0.1), 0),
    }
    add_action("glide", {rig: poses(rig, glide, {"body": (wave(n, 1, 0.25), 0, wave(n, 2, 0.1))})})

    hover = _wings(5 + wave(n, 6, 34), wave(n, 6, 16, -0.14), wave(n, 6, 20, -0.24))
    look = eased(n, (0, 0), (12, 45), (26, 45), (42, -45), (58, -45), (72, 0))
    hover |= {"body": (-38 + wave(n, 2, 5), 0, 0), "head": (34, 0, look), "tail": (-22 + wave(n, 4, 12), 0, 0)}
    add_action("hover", {rig: poses(rig, hover, {"body": (0, 0, wave(n, 3, 0.06))})})


def build_fox() -> None:
    """A fox that walks, gallops and looks about."""
    fur, cream, dark = (
        Material("fur", "#e8671b", roughness=0.7),
        Material("cream", "#fff1dd", roughness=0.7),
        Material("socks", "#3a2218", roughness=0.7),
    )
    bones = [
        Bone("hips", (0, 0.35, 0.72), (0, 0.05, 0.74)),
        Bone("chest", (0, 0.05, 0.74), (0, -0.35, 0.74), "hips"),
        Bone("neck", (0, -0.35, 0.76), (0, -0.55, 0.98), "chest"),
        Bone("head", (0, -0.55, 0.98), (0, -0.95, 0.98), "neck"),
        Bone("ear left", (0.12, -0.55, 1.12), (0.15, -0.55, 1.36), "head"),
        Bone("ear right", (-0.12, -0.55, 1.12), (-0.15, -0.55, 1.36), "head"),
        Bone("tail 0", (0, 0.45, 0.74), (0, 0.72, 0.78), "hips"),
        Bone("tail 1", (0, 0.72, 0.78), (0, 1.0, 0.84), "tail 0"),
        Bone("tail 2", (0, 1.0, 0.84), (0, 1.35, 0.98), "tail 1"),
    ]
    pieces = _fox_head(fur, cream, dark)
    trunk = spline(
        [(0.48, 0.13, 0.74), (0.32, 0.19, 0.72), (0.02, 0.18, 0.74), (-0.25, 0.21, 0.72), (-0.42, 0.16, 0.78)], 18
    )
    pieces += [
        Piece(
            tube([(0, y, z) for y, _, z in trunk], np.column_stack([trunk[:, 1] * 0.9, trunk[:, 1]]), sides=16),
            fur,
            ("hips", "chest"),
        ),
        Piece(ellipsoid(0.15, 0.2, 0.18).moved(0, -0.36, 0.67), cream, ("chest",)),
        Piece(tube([(0, -0.30, 0.80), (0, -0.56, 1.0)], [0.16, 0.12], sides=14), fur, ("chest", "neck", "head")),
    ]
    brush = spline([(0.42, 0.05, 0.75), (0.62, 0.10, 0.76), (0.85, 0.16, 0.80), (1.06, 0.15, 0.87)], 16)
    tip = spline([(1.04, 0.152, 0.862), (1.2, 0.12, 0.92), (1.38, 0.04, 1.0)], 10)
    tail_bones = ("tail 0", "tail 1", "tail 2")
    for shape, paint in ((brush, fur), (tip, cream)):
        pieces.append(Piece(tube([(0, y, z) for y, _, z in shape], shape[:, 1], sides=14), paint, tail_bones))
    for side, x in (("left", 0.12), ("right", -0.12)):
        for end, y in (("front", -0.30), ("back", 0.36)):
            name, parent = f"{end} {side}", "chest" if end == "front" else "hips"
            bend = 0.05 if end == "back" else -0.02
            hip, knee, ankle = (x, y, 0.68), (x, y - bend, 0.38), (x, y + bend, 0.10)
            bones += [
                Bone(f"{name} upper", hip, knee, parent),
                Bone(f"{name} lower", knee, ankle, f"{name} upper"),
                Bone(f"{name} paw", ankle, (x, y + bend - 0.14, 0.04), f"{name} lower"),
            ]
            width = 0.125 if end == "back" else 0.10
            leg = (f"{name} upper", f"{name} lower")
            pieces += [
                Piece(tube(spline([hip, knee, (x, y, 0.26)], 10), np.linspace(width, 0.06, 10), sides=10), fur, leg),
                Piece(tube([(x, y, 0.29), ankle], [0.063, 0.055], sides=10), dark, leg[1:]),
                Piece(ellipsoid(0.07, 0.11, 0.055, 12).moved(x, y + bend - 0.04, 0.055), dark, (f"{name} paw",)),
            ]
    rig = add_skeleton("Fox rig", bones)
    add_skin("Fox", pieces, bones, rig)
    _fox_actions(rig)


def _fox_head(fur: Material, cream: Material, dark: Material) -> list[Piece]:
    snout = spline([(-0.62, 0.12, 0.97), (-0.8, 0.075, 0.94), (-0.96, 0.035, 0.92)], 10)
    pieces = [
        Piece(ellipsoid(0.205, 0.18, 0.165, 18).moved(0, -0.62, 1.02), fur, ("head",)),
        Piece(tube([(0, y, z) for y, _, z in snout], snout[:, 1], sides=12), fur, ("head",)),
        Piece(tube([(0, -0.66, 0.91), (0, -0.93, 0.895)], [0.09, 0.03], sides=12), cream, ("head",)),
        Piece(ellipsoid(0.045, 0.04, 0.04, 12).moved(0, -0.985, 0.935), dark, ("head",)),
    ]
    for side, sign in (("left", 1), ("right", -1)):
        cone = lathe([(0, 0), (0.09, 0), (0.075, 0.1), (0, 0.3)], 12).scaled(1, 0.5, 1)
        ear = cone.turned("y", 14).moved(0.12, -0.56, 1.1)
        inner = cone.scaled(0.6, 0.5, 0.7).turned("y", 14).moved(0.125, -0.59, 1.13)
        cheek = ellipsoid(0.10, 0.10, 0.075, 12).moved(0.105, -0.645, 0.955)
        eye = ellipsoid(0.024, 0.026, 0.036, 10).moved(0.095, -0.785, 1.055)
        for surface, paint, bone in (
            (ear, fur, f"ear {side}"),
            (inner, dark, f"ear {side}"),
            (cheek, cream, "head"),
            (eye, dark, "head"),
        ):
            pieces.append(Piece(surface if sign > 0 else mirrored(surface), paint, (bone,)))
    return pieces


def _fox_actions(rig: object) -> None:
    def legs(
        n: int, cycles: int, swing: float, knee: float, phases: dict[str, float]
    ) -> dict[str, tuple[object, object, object]]:
        turns: dict[str, tuple[object, object, object]] = {}
        for name, phase in phases.items():
            lifted = np.maximum(wave(n, cycles, 1.0, phase + 0.25), 0.0) ** 1.5
            turns[f"{name} upper"] = (wave(n, cycles, -swing, phase), 0, 0)
            turns[f"{name} lower"] = (lifted * knee * (1 if name.startswith("front") else -0.8), 0, 0)
            turns[f"{name} paw"] = (-lifted * 25 * (1 if name.startswith("front") else -1), 0, 0)
        return turns

    def tail(n: int, cycles: int, sway: float, lift: float = 0.0) -> dict[str, tuple[object, object, object]]:
        return {f"tail {part}": (lift, 0, wave(n, cycles, sway, -0.12 * part)) for part in range(3)}

    n = 48
    walk = legs(n, 2, 24, 45, {"front left": 0.0, "back right": 0.1, "front right": 0.5, "back left": 0.6})
    walk |= tail(n, 2, 10) | {"hips": (0, wave(n, 2, 3), wave(n, 2, 4)), "chest": (0, wave(n, 2, -4), wave(n, 2, -6))}
    walk |= {"neck": (wave(n, 4, 4), 0, wave(n, 2, 5)), "head": (wave(n, 4, -3), 0, 0)}
    add_action("walk", {rig: poses(rig, walk, {"hips": (0, 0, wave(n, 4, 0.02))})})

    n = 32
    gallop = legs(n, 2, 44, 70, {"front left": 0.0, "front right": 0.08, "back left": 0.42, "back right": 0.5})
    gallop |= tail(n, 2, 6, 8) | {"hips": (wave(n, 2, 14, 0.3), 0, 0), "chest": (wave(n, 2, -16, 0.2), 0, 0)}
    gallop |= {"neck": (18 + wave(n, 2, 8), 0, 0), "head": (-14 + wave(n, 2, 6, 0.3), 0, 0)}
    add_action("gallop", {rig: poses(rig, gallop, {"hips": (0, 0, 0.05 + wave(n, 2, 0.09, 0.1))})})

    n = 96
    turn = eased(n, (0, 0), (14, 48), (34, 48), (52, -48), (74, -48), (96, 0))
    nod = eased(n, (0, 0), (14, -12), (34, 10), (52, -10), (74, 14), (96, 0))
    look = tail(n, 3, 24, 6) | {
        "neck": (nod, 0, 0.4 * turn),
        "head": (nod, 0.25 * turn, 0.7 * turn),
        "chest": (wave(n, 3, 1.5), 0, 0.15 * turn),
    }
    for side in ("left", "right"):
        look[f"ear {side}"] = (eased(n, (0, 0), (20, 0), (24, 25), (28, 0), (60, 0), (64, 25), (68, 0), (96, 0)), 0, 0)
    add_action("look about", {rig: poses(rig, look)})
