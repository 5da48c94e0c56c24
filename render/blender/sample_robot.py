"""A toy robot with eight animations: more than the default cap on animations per asset lets through."""

import numpy as np

from render.blender.sample_motion import add_action, eased, poses, wave
from render.blender.sample_scene import DARK, SILVER, Bone, Material, Piece, add_skeleton, add_skin
from render.blender.sample_shapes import Surface, box, ellipsoid, lathe, mirrored, plate, tube

TEAL = Material("teal", "#19b5a5", roughness=0.35)
YELLOW = Material("yellow", "#ffc933", roughness=0.4)
LAMP = Material("lamp", "#ff4d4d", roughness=0.3, glow=0.6)
GLASS = Material("eye glass", "#7ee8ff", roughness=0.2, glow=0.7)

Turns = dict[str, tuple[object, object, object]]


def build_robot() -> None:
    """A boxy robot in seven materials, every part carried by one bone."""
    bones = [
        Bone("hips", (0, 0, 0.78), (0, 0, 0.95)),
        Bone("chest", (0, 0, 0.95), (0, 0, 1.5), "hips"),
        Bone("head", (0, 0, 1.5), (0, 0, 1.95), "chest"),
        Bone("antenna", (0, 0, 1.95), (0, 0, 2.25), "head"),
    ]
    screen = plate([(-0.2, -0.12), (0.2, -0.12), (0.2, 0.12), (-0.2, 0.12)], 0.04).turned("x", 90)
    pieces = _carried(
        "hips",
        (box(0.46, 0.34, 0.2, 0.2).moved(z=0.82), DARK),
        (lathe([(0, 0.88), (0.15, 0.88), (0.15, 1.0), (0, 1.0)], 16), SILVER),
    )
    pieces += _carried(
        "chest",
        (box(0.72, 0.46, 0.6, 0.14).moved(z=1.22), TEAL),
        (screen.moved(0, -0.235, 1.3), DARK),
        *(
            (ellipsoid(0.04, 0.03, 0.04, 10).moved(x, -0.25, 1.06), paint)
            for x, paint in ((-0.14, LAMP), (0, YELLOW), (0.14, GLASS))
        ),
        *(
            (box(0.28 * (0.5 + 0.25 * (i % 3)), 0.02, 0.03, 0.1).moved(-0.02 * i, -0.262, 1.24 + 0.06 * i), GLASS)
            for i in range(3)
        ),
        (box(0.4, 0.16, 0.36, 0.2).moved(0, 0.28, 1.26), YELLOW),
        (lathe([(0, 1.5), (0.1, 1.5), (0.1, 1.62), (0, 1.62)], 14), SILVER),
    )
    pieces += _carried(
        "head",
        (box(0.6, 0.48, 0.44, 0.18).moved(z=1.82), TEAL),
        (box(0.46, 0.06, 0.2, 0.2).moved(0, -0.235, 1.86), DARK),
        (box(0.24, 0.03, 0.04, 0.3).moved(0, -0.25, 1.68), DARK),
        *((ellipsoid(0.07, 0.04, 0.07, 14).moved(x, -0.27, 1.86), GLASS) for x in (-0.11, 0.11)),
        *(
            (
                lathe([(0, 0), (0.1, 0), (0.07, 0.07), (0, 0.07)], 14)
                .turned("y", 90 * sign)
                .moved(0.3 * sign, 0, 1.82),
                YELLOW,
            )
            for sign in (1, -1)
        ),
    )
    pieces += _carried(
        "antenna",
        (tube([(0, 0, 2.02), (0, 0, 2.22)], [0.02, 0.02], sides=8), SILVER),
        (ellipsoid(0.07, 0.07, 0.07, 12).moved(z=2.27), LAMP),
    )
    for side, sign in (("left", 1), ("right", -1)):
        bones += _limbs(side, sign)
        for bone, surface, paint in _limb_surfaces():
            pieces += _carried(f"{bone} {side}", (surface if sign > 0 else mirrored(surface), paint))
    rig = add_skeleton("Robot rig", bones)
    add_skin("Robot", pieces, bones, rig)
    for name, (turns, shift) in _performances().items():
        add_action(name, {rig: poses(rig, turns, {"hips": shift})})


def _carried(bone: str, *parts: tuple[Surface, Material]) -> list[Piece]:
    return [Piece(surface, paint, (bone,)) for surface, paint in parts]


def _limbs(side: str, sign: int) -> list[Bone]:
    arm, leg = 0.47 * sign, 0.16 * sign
    return [
        Bone(f"arm {side}", (arm, 0, 1.42), (arm, 0, 1.08), "chest"),
        Bone(f"forearm {side}", (arm, 0, 1.08), (arm, 0, 0.75), f"arm {side}"),
        Bone(f"hand {side}", (arm, 0, 0.75), (arm, 0, 0.6), f"forearm {side}"),
        Bone(f"thigh {side}", (leg, 0, 0.76), (leg, 0, 0.44), "hips"),
        Bone(f"shin {side}", (leg, 0, 0.44), (leg, 0, 0.12), f"thigh {side}"),
        Bone(f"foot {side}", (leg, 0, 0.12), (leg, -0.2, 0.06), f"shin {side}"),
    ]


def _limb_surfaces() -> list[tuple[str, Surface, Material]]:
    """The left limbs: bone, surface and paint."""
    claw = tube([(0, 0, 0.64), (0.07, 0, 0.58), (0.05, 0, 0.5)], [0.03, 0.03, 0.02], sides=8)
    return [
        ("arm", ellipsoid(0.12, 0.12, 0.12, 14).moved(0.46, 0, 1.42), YELLOW),
        ("arm", tube([(0.47, 0, 1.36), (0.47, 0, 1.12)], [0.06, 0.06], sides=10), SILVER),
        ("arm", ellipsoid(0.085, 0.085, 0.085, 12).moved(0.47, 0, 1.08), DARK),
        ("forearm", box(0.17, 0.17, 0.3, 0.2).moved(0.47, 0, 0.9), TEAL),
        ("hand", lathe([(0, 0.64), (0.07, 0.64), (0.08, 0.75), (0, 0.75)], 12).moved(0.47), DARK),
        ("hand", claw.moved(0.47), YELLOW),
        ("hand", claw.scaled(-1, 1, 1).moved(0.47), YELLOW),
        ("thigh", tube([(0.16, 0, 0.74), (0.16, 0, 0.48)], [0.07, 0.07], sides=10), SILVER),
        ("thigh", ellipsoid(0.09, 0.09, 0.09, 12).moved(0.16, 0, 0.44), DARK),
        ("shin", box(0.2, 0.2, 0.28, 0.2).moved(0.16, 0, 0.27), TEAL),
        ("foot", box(0.24, 0.4, 0.13, 0.25).moved(0.16, -0.06, 0.065), YELLOW),
    ]


def _performances() -> dict[str, tuple[Turns, tuple[object, object, object]]]:
    """Name: turns of the bones, shift of the hips. Angles about X: a limb swings forward when negative."""
    return {
        "walk": _stride(48, 2, swing=26, knee=40, lean=5, bounce=0.03),
        "run": _stride(32, 2, swing=46, knee=80, lean=14, bounce=0.08),
        "wave": _greeting(60),
        "jump": _jump(48),
        "dance": _dance(96),
        "bow": _bow(60),
        "look about": _look(72),
        "box": _boxing(48),
    }


def _stride(
    n: int, cycles: int, *, swing: float, knee: float, lean: float, bounce: float
) -> tuple[Turns, tuple[object, object, object]]:
    turns: Turns = {
        "chest": (lean, 0, wave(n, cycles, 7)),
        "hips": (0, wave(n, cycles, 3, 0.25), wave(n, cycles, -6)),
        "head": (-0.5 * lean, 0, wave(n, cycles, -5)),
    }
    for side, phase in (("left", 0.0), ("right", 0.5)):
        bend = np.maximum(wave(n, cycles, 1.0, phase + 0.15), 0.0) * knee
        turns |= {
            f"thigh {side}": (wave(n, cycles, -swing, phase - 0.05) - 0.2 * bend, 0, 0),
            f"shin {side}": (bend, 0, 0),
            f"foot {side}": (wave(n, cycles, 10, phase), 0, 0),
            f"arm {side}": (wave(n, cycles, swing, phase), -6 if side == "left" else 6, 0),
            f"forearm {side}": (-20 - 2 * lean + wave(n, cycles, 14, phase), 0, 0),
        }
    turns["antenna"] = (wave(n, 2 * cycles, 12, 0.3), 0, 0)
    return turns, (0, 0, wave(n, 2 * cycles, bounce, 0.2))


def _greeting(n: int) -> tuple[Turns, tuple[object, object, object]]:
    up = eased(n, (0, 0), (12, 1), (48, 1), (60, 0))
    turns: Turns = {
        "arm right": (0, 140 * up, 0),
        "forearm right": (0, up * (12 + wave(n, 5, 34)), 0),
        "head": (0, up * wave(n, 2, 12), 0),
        "chest": (0, -6 * up, 0),
        "antenna": (0, up * wave(n, 5, 20), 0),
        "arm left": (wave(n, 1, 8), -8, 0),
    }
    return turns, (0.03 * up, 0, 0)


def _jump(n: int) -> tuple[Turns, tuple[object, object, object]]:
    crouch = eased(n, (0, 0), (10, 1), (16, -0.1), (30, -0.1), (36, 0.8), (48, 0))
    height = eased(n, (0, 0), (12, 0), (23, 0.75), (34, 0), (48, 0))
    turns: Turns = {"chest": (22 * crouch, 0, 0), "head": (-14 * crouch, 0, 0), "antenna": (-26 * crouch, 0, 0)}
    for side, sign in (("left", -1), ("right", 1)):
        turns |= {
            f"thigh {side}": (-52 * crouch, 0, 0),
            f"shin {side}": (88 * crouch, 0, 0),
            f"foot {side}": (-36 * crouch, 0, 0),
            f"arm {side}": (35 * crouch, sign * 150 * np.clip(height / 0.75, 0, 1), 0),
        }
    return turns, (0, 0, height - 0.17 * np.maximum(crouch, 0))


def _dance(n: int) -> tuple[Turns, tuple[object, object, object]]:
    sway = wave(n, 4, 1.0)
    turns: Turns = {
        "hips": (0, 9 * sway, wave(n, 2, 24)),
        "chest": (0, -14 * sway, wave(n, 2, -14)),
        "head": (wave(n, 8, 9), 10 * sway, 0),
        "antenna": (wave(n, 8, 16), 16 * sway, 0),
    }
    for side, sign, phase in (("left", -1, 0.0), ("right", 1, 0.5)):
        turns |= {
            f"arm {side}": (wave(n, 4, 30, phase), sign * (75 + wave(n, 4, 40, phase)), 0),
            f"forearm {side}": (0, sign * (45 + wave(n, 4, 40, phase + 0.2)), 0),
            f"thigh {side}": (-16 + wave(n, 4, 16, phase), 0, 0),
            f"shin {side}": (26 + wave(n, 4, -26, phase), 0, 0),
            f"foot {side}": (-10 + wave(n, 4, 10, phase), 0, 0),
        }
    return turns, (0.08 * sway, 0, wave(n, 8, 0.04) - 0.03)


def _bow(n: int) -> tuple[Turns, tuple[object, object, object]]:
    deep = eased(n, (0, 0), (20, 1), (36, 1), (60, 0))
    turns: Turns = {
        "hips": (22 * deep, 0, 0),
        "chest": (42 * deep, 0, 0),
        "head": (18 * deep, 0, 0),
        "antenna": (26 * deep, 0, 0),
    }
    for side in ("left", "right"):
        turns[f"thigh {side}"] = (-22 * deep, 0, 0)
    turns |= {
        "arm right": (-52 * deep, 10 * deep, 0),
        "forearm right": (-30 * deep, -60 * deep, 0),
        "arm left": (38 * deep, -26 * deep, 0),
    }
    return turns, (0, 0.16 * deep, -0.02 * deep)


def _look(n: int) -> tuple[Turns, tuple[object, object, object]]:
    side = eased(n, (0, 0), (14, 1), (28, 1), (44, -1), (58, -1), (72, 0))
    shade = eased(n, (0, 0), (14, 1), (58, 1), (72, 0))
    turns: Turns = {
        "head": (-6 * shade, 0, 62 * side),
        "chest": (4 * shade, 0, 26 * side),
        "antenna": (0, wave(n, 6, 14), 0),
        "arm left": (-88 * shade, -34 * shade, 0),
        "forearm left": (-64 * shade, 62 * shade, 0),
        "arm right": (wave(n, 2, 6), 8, 0),
    }
    return turns, (0, 0, wave(n, 2, 0.012))


def _boxing(n: int) -> tuple[Turns, tuple[object, object, object]]:
    turns: Turns = {
        "chest": (10, 0, wave(n, 3, 26)),
        "hips": (0, 0, -16),
        "head": (0, 0, wave(n, 3, -14)),
        "antenna": (wave(n, 6, 18), 0, 0),
    }
    for side, sign, phase in (("left", 1, 0.5), ("right", -1, 0.0)):
        punch = np.maximum(wave(n, 3, 1.0, phase), 0.0)
        turns |= {
            f"arm {side}": (-30 - 58 * punch, 0, -8 * sign),
            f"forearm {side}": (-112 + 108 * punch, 0, 0),
            f"thigh {side}": (-16 * sign - 10, 0, 0),
            f"shin {side}": (24, 0, 0),
        }
    return turns, (0, wave(n, 6, 0.03), -0.06 + wave(n, 6, 0.025, 0.25))
