"""Skinned sample assets that live in water or on the ground without legs: a fish, an octopus and a snake."""

import numpy as np

from render.blender.sample_motion import add_action, eased, poses, wave
from render.blender.sample_scene import BLACK, WHITE, Bone, Material, Piece, add_skeleton, add_skin, rgb
from render.blender.sample_shapes import ellipsoid, lathe, mirrored, spline, tube, upright


def build_fish(base: str = "#ff7a1a", band: str = "#fdfdfb", fin: str = "#ff9d2e", seed: int = 0) -> None:
    """A banded reef fish that swims on the spot, with a painted skin.

    Args:
        base: sRGB of the flanks.
        band: sRGB of the bands.
        fin: sRGB of the fins.
        seed: Of the bands' edges and the scales' shades.
    """
    bones = [
        Bone("body", (0, 0.0, 0), (0, -0.3, 0)),
        Bone("head", (0, -0.3, 0), (0, -0.85, 0), "body"),
        Bone("spine", (0, 0.0, 0), (0, 0.25, 0), "body"),
        Bone("tail", (0, 0.25, 0), (0, 0.55, 0), "spine"),
        Bone("tail fin", (0, 0.55, 0), (0, 1.0, 0), "tail"),
        Bone("fin left", (0.2, -0.3, -0.08), (0.42, -0.1, -0.16), "body"),
        Bone("fin right", (-0.2, -0.3, -0.08), (-0.42, -0.1, -0.16), "body"),
    ]
    along = ("head", "body", "spine", "tail", "tail fin")
    outline = [  # y, half width, half height
        (-0.84, 0.03, 0.04), (-0.76, 0.10, 0.14), (-0.58, 0.18, 0.27), (-0.30, 0.23, 0.38), (-0.02, 0.22, 0.40),
        (0.22, 0.17, 0.31), (0.42, 0.10, 0.18), (0.58, 0.06, 0.11), (0.66, 0.045, 0.10),
    ]  # fmt: skip
    profile = spline(outline, 28)
    skin = Material("scales", image=_fish_skin(base, band, seed), roughness=0.35)
    fins = Material("fins", fin, roughness=0.4)
    body = tube([(0, y, 0) for y in profile[:, 0]], profile[:, 1:], sides=20)
    tail = upright(
        spline([(0.6, -0.06), (0.98, -0.40), (1.06, -0.34), (0.93, 0), (1.06, 0.34), (0.98, 0.40), (0.6, 0.06)], 25),
        0.03,
    )
    dorsal = upright(
        spline(
            [
                (-0.42, 0.30),
                (-0.36, 0.50),
                (-0.1, 0.60),
                (0.15, 0.48),
                (0.38, 0.42),
                (0.40, 0.2),
                (0.0, 0.36),
                (-0.42, 0.30),
            ],
            29,
        )[:-1],
        0.03,
    )
    anal = upright(spline([(0.0, -0.36), (0.12, -0.56), (0.32, -0.46), (0.38, -0.18), (0.0, -0.36)], 17)[:-1], 0.03)
    pectoral = ellipsoid(0.17, 0.09, 0.018).turned("z", 35).moved(0.34, -0.2, -0.13)
    eye, pupil = (
        ellipsoid(0.05, 0.08, 0.08).moved(0.135, -0.62, 0.09),
        ellipsoid(0.02, 0.045, 0.045).moved(0.178, -0.63, 0.095),
    )
    pieces = [
        Piece(body, skin, along),
        Piece(tail, fins, ("tail", "tail fin")),
        Piece(dorsal, fins, along),
        Piece(anal, fins, along),
        Piece(pectoral, fins, ("fin left",)),
        Piece(mirrored(pectoral), fins, ("fin right",)),
    ]
    for surface, paint in ((eye, WHITE), (pupil, BLACK)):
        pieces += [Piece(surface, paint, ("head",)), Piece(mirrored(surface), paint, ("head",))]
    rig = add_skeleton("Fish rig", bones)
    add_skin("Fish", pieces, bones, rig)

    n = 60
    turns = {
        "head": (0, 0, wave(n, 3, 7, 0.15)),
        "body": (wave(n, 1, 4), wave(n, 1, 6, 0.25), wave(n, 3, 6, 0.0)),
        "spine": (0, 0, wave(n, 3, 13, -0.15)),
        "tail": (0, 0, wave(n, 3, 20, -0.3)),
        "tail fin": (0, 0, wave(n, 3, 26, -0.45)),
        "fin left": (0, 20 + wave(n, 3, 30), 0),
        "fin right": (0, -20 - wave(n, 3, 30), 0),
    }
    add_action("swim", {rig: poses(rig, turns, {"body": (wave(n, 3, 0.03), wave(n, 2, 0.04), wave(n, 1, 0.06))})})


def _fish_skin(base: str, band: str, seed: int) -> np.ndarray:
    """Bands with dark rims, scales, a paler belly. v runs from the nose to the tail, u around from the back."""
    size = 256
    v, u = np.meshgrid(1 - (np.arange(size) + 0.5) / size, (np.arange(size) + 0.5) / size, indexing="ij")
    rng = np.random.default_rng(seed)
    edge = v + 0.012 * np.sin(2 * np.pi * (2 * u + rng.random())) + 0.006 * np.sin(2 * np.pi * (5 * u + rng.random()))
    across = 24 * u + 0.5 * (np.floor(30 * v) % 2)
    scale = np.hypot(across % 1 - 0.5, 30 * v % 1 - 0.2)
    belly = 0.5 - 0.5 * np.cos(2 * np.pi * u)
    shade = (1.0 - 0.16 * np.clip(scale - 0.45, 0, 1) * 2)[..., None]
    skin = rgb(base) * (1 - 0.25 * belly[..., None]) + 0.25 * belly[..., None]
    for centre, half in ((0.33, 0.045), (0.56, 0.055), (0.83, 0.03)):
        distance = np.abs(edge - centre)[..., None]
        skin = np.where(distance < half + 0.018, rgb("#1b1b22"), skin)
        skin = np.where(distance < half, rgb(band), skin)
    return np.asarray(np.clip(skin * shade, 0, 1) * 255).round().astype(np.uint8)


def build_octopus() -> None:
    """A purple octopus whose eight arms curl in a wave while its mantle nods."""
    skin = Material("octopus skin", "#8e3fd1", roughness=0.35)
    sucker = Material("suckers", "#ffb3c8", roughness=0.5)
    spot = Material("spots", "#ff9a3d", roughness=0.4)
    bones = [Bone("body", (0, 0, 0.3), (0, 0, 0.55)), Bone("mantle", (0, 0, 0.55), (0, 0.25, 1.2), "body")]
    knots = [(0.14, 0, 0.36), (0.40, 0, 0.20), (0.70, 0, 0.06), (1.00, 0, 0.10), (1.20, 0, 0.26), (1.18, 0, 0.40)]
    path = spline(knots, 25)
    radii = np.linspace(0.15, 0.03, 25)
    pieces = [
        Piece(lathe(spline([(0, 0.2), (0.22, 0.24), (0.30, 0.38), (0.26, 0.55), (0, 0.6)], 13), 20), skin, ("body",)),
        Piece(
            ellipsoid(0.36, 0.42, 0.46, 20)
            .warped(lambda p: p * (1 - 0.28 * p[:, 2:] * [1, 1, 0]))
            .turned("x", -22)
            .moved(0, 0.1, 0.86),
            skin,
            ("mantle",),
        ),
    ]
    spots = [
        (0.12, 0.1, 1.28, 0.08), (-0.13, 0.2, 1.26, 0.06), (0.02, -0.1, 1.22, 0.05), (0.3, 0.25, 1.03, 0.07),
        (-0.32, 0.2, 1.0, 0.08), (0.0, 0.47, 1.08, 0.09), (0.18, 0.46, 0.85, 0.06), (-0.2, 0.46, 0.88, 0.06),
    ]  # fmt: skip
    for x, y, z, size in spots:
        pieces.append(Piece(ellipsoid(size, size, size, 10).moved(x, y, z), spot, ("mantle",)))
    for side in (1, -1):
        pieces += [
            Piece(ellipsoid(0.12, 0.12, 0.14).moved(0.19 * side, -0.27, 0.66), WHITE, ("body",)),
            Piece(ellipsoid(0.055, 0.03, 0.07).moved(0.20 * side, -0.375, 0.66), BLACK, ("body",)),
        ]
    turns = {"mantle": (wave(72, 2, 9), wave(72, 1, 7, 0.1), 0), "body": (wave(72, 2, 4, 0.2), 0, wave(72, 1, 8))}
    for arm in range(8):
        degrees = 22.5 + 45 * arm
        spin = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
        joints = [(float(x * spin[0]), float(x * spin[1]), float(z)) for x, _, z in path[[0, 6, 12, 18, 24]]]
        names = [f"arm {arm} {part}" for part in range(4)]
        for part, name in enumerate(names):
            bones.append(Bone(name, joints[part], joints[part + 1], names[part - 1] if part else "body"))
            phase = arm / 8 - 0.16 * part
            lift, swing = wave(72, 2, 9 + 6 * part, phase), wave(72, 2, 6 + 5 * part, phase + 0.3)
            turns[name] = (lift * spin[1], -lift * spin[0], swing)
        pieces.append(Piece(tube(path, radii, sides=9).turned("z", degrees), skin, tuple(names)))
        for index in range(3, 22, 3):
            x, _, z = path[index]
            dot = ellipsoid(radii[index] * 0.5, radii[index] * 0.5, radii[index] * 0.35, 8)
            side = path[min(index + 1, 24)] - path[index - 1]
            down = np.array([side[2], 0, -side[0]]) / np.hypot(side[0], side[2]) * radii[index] * 0.9
            pieces.append(Piece(dot.moved(x + down[0], 0, z + down[2]).turned("z", degrees), sucker, tuple(names)))
    rig = add_skeleton("Octopus rig", bones)
    add_skin("Octopus", pieces, bones, rig)
    add_action("crawl", {rig: poses(rig, turns, {"body": (0, 0, 0.05 + wave(72, 2, 0.05, 0.25))})})


def build_snake() -> None:
    """A patterned snake that slithers with its head raised and its tongue out."""
    num_bones, length = 14, 2.4
    nose = -length / 2
    joints = np.linspace(-length / 2, length / 2, num_bones + 1)
    # The chain starts at the middle: a body that hangs from its head would whip its tail about.
    bones = []
    middle = num_bones // 2
    for index in range(middle, num_bones):
        parent = f"spine {index - 1}" if index > middle else ""
        bones.append(Bone(f"spine {index}", (0, joints[index], 0.12), (0, joints[index + 1], 0.12), parent))
    for index in range(middle - 1, -1, -1):
        parent = f"spine {index + 1}"
        bones.append(Bone(f"spine {index}", (0, joints[index + 1], 0.12), (0, joints[index], 0.12), parent))
    bones.append(Bone("tongue", (0, nose - 0.30, 0.12), (0, nose - 0.48, 0.12), "spine 0"))
    names = tuple(f"spine {index}" for index in range(num_bones))

    at = np.linspace(0, 1, 60)
    radius = np.interp(at, [0, 0.04, 0.35, 0.65, 1.0], [0.09, 0.10, 0.165, 0.15, 0.02])
    body = tube(
        [(0, -length / 2 + length * share, 0.12) for share in at], np.column_stack([radius, radius * 0.85]), sides=14
    )
    head = ellipsoid(0.19, 0.28, 0.13).warped(
        lambda p: p * np.column_stack([1 + 0.9 * p[:, 1], np.ones(len(p)), np.ones(len(p))])
    )
    green = Material("head", "#2f9e44", roughness=0.4)
    pieces = [
        Piece(body, Material("diamonds", image=_diamonds(), roughness=0.4), names),
        Piece(head.moved(0, nose - 0.10, 0.14), green, ("spine 0",)),
        Piece(
            tube([(0, nose - 0.28, 0.11), (0, nose - 0.48, 0.11)], [0.018, 0.016], sides=6),
            Material("tongue", "#e8254a"),
            ("tongue",),
        ),
    ]
    for side in (1, -1):
        fork = tube([(0, nose - 0.48, 0.11), (0.05 * side, nose - 0.57, 0.12)], [0.016, 0.008], sides=6)
        pieces += [
            Piece(
                ellipsoid(0.04, 0.05, 0.045).moved(0.1 * side, nose - 0.16, 0.215),
                Material("eye yellow", "#ffe066", roughness=0.2),
                ("spine 0",),
            ),
            Piece(ellipsoid(0.014, 0.02, 0.04).moved(0.13 * side, nose - 0.18, 0.22), BLACK, ("spine 0",)),
            Piece(fork, Material("tongue", "#e8254a"), ("tongue",)),
        ]
    rig = add_skeleton("Snake rig", bones)
    add_skin("Snake", pieces, bones, rig)
    n = 72
    # Each segment's heading is a travelling wave; a bone turns by the difference from its parent's heading.
    headings = [wave(n, 2, 20.0 if index < 3 else 44.0, 0.12 * index) for index in range(num_bones)]
    raised = {3: -28.0, 2: -22.0, 1: 18.0, 0: 30.0}
    turns = {}
    for index, heading in enumerate(headings):
        parent_heading = headings[index + 1] if index < middle else headings[index - 1] if index > middle else 0.0
        pitch = raised.get(index, 0.0) + (wave(n, 1, 4) if index < 3 else 0.0)
        turns[f"spine {index}"] = (pitch, 0, heading - parent_heading)
    turns["tongue"] = (wave(n, 8, 14), 0, 0)
    flick = eased(n, (0, -0.02), (14, 0.16), (20, -0.02), (26, -0.02), (40, 0.16), (46, -0.02), (72, -0.02))
    add_action("slither", {rig: poses(rig, turns, {"tongue": (0, 0.1 + flick * -1, 0)})})


def _diamonds() -> np.ndarray:
    """Yellow and dark diamonds on green, a pale belly. v runs from the head to the tail, u around from the back."""
    height, width = 512, 128
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    back = np.abs((u + 0.5) % 1 - 0.5) * 2  # 0 on the back, 1 on the belly
    diamond = np.abs(v * 16 % 1 - 0.5) * 2 + back * 2.2
    skin = np.broadcast_to(rgb("#2f9e44"), (height, width, 3))
    skin = np.where((diamond < 1.15)[..., None], rgb("#14351f"), skin)
    skin = np.where((diamond < 0.85)[..., None], rgb("#ffd43b"), skin)
    skin = np.where((diamond < 0.35)[..., None], rgb("#e8590c"), skin)
    skin = np.where((back > 0.72)[..., None], rgb("#f4f1c9"), skin)
    return np.asarray(skin * 255).round().astype(np.uint8)
