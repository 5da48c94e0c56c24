"""Sample assets that deform by shape keys: a flower, a ball on a trampoline, a jellyfish and a flag."""

import numpy as np

from render.blender.sample_motion import add_action, eased, morphs, moves, wave
from render.blender.sample_scene import (
    DARK,
    GOLD,
    Material,
    Piece,
    add_object,
    add_shape_key,
    gradient,
    rest_vertices,
    rgb,
)
from render.blender.sample_shapes import Surface, box, ellipsoid, grid, lathe, ring_of, rotation, spline, tube


def build_flower() -> None:
    """A potted flower that opens and closes, with petals in vertex colours. Lasts 5 s."""
    painted = Material("petals", vertex_colours=True, roughness=0.6)
    green, pot = Material("stem", "#3fa34d", roughness=0.7), Material("terracotta", "#d9703f", roughness=0.8)
    soil, pollen = Material("soil", "#4a3020", roughness=1.0), Material("pollen", "#ffc21a", roughness=0.9)
    stem = spline([(0, 0, 0.4), (0.05, 0, 0.7), (-0.03, 0.02, 1.0), (0, 0, 1.32)], 16)
    fixed = [
        Piece(
            lathe(
                [(0, 0), (0.25, 0), (0.35, 0.38), (0.39, 0.38), (0.39, 0.48), (0.33, 0.48), (0.32, 0.42), (0, 0.42)], 24
            ),
            pot,
        ),
        Piece(lathe([(0.0, 0.40), (0.325, 0.40), (0.2, 0.45), (0, 0.46)], 20), soil),
        Piece(tube(stem, np.linspace(0.04, 0.03, 16), sides=10), green),
        Piece(_tilted(lathe(spline([(0, 1.26), (0.09, 1.28), (0.11, 1.34), (0, 1.38)], 9), 16)), green),
        Piece(_tilted(ellipsoid(0.13, 0.13, 0.08, 16).moved(z=1.40)), pollen),
    ]
    for turn, z, tilt in ((10, 0.62, 28), (140, 0.74, 40), (255, 0.86, 50)):
        leaf = ellipsoid(0.11, 0.26, 0.015, 14).warped(
            lambda p: p + np.column_stack([0 * p[:, 0], 0 * p[:, 0], -0.9 * p[:, 1] ** 2 + 1.5 * p[:, 0] ** 2])
        )
        fixed.append(Piece(leaf.moved(0, 0.27, 0).turned("x", tilt).turned("z", turn).moved(z=z), green))

    # Opening runs through several shapes: petals that went straight from bud to bloom would shrink half way.
    stages = (0.0, 0.35, 0.7, 1.0)
    shapes = [[_tilted(petal) for petal in _petals(stage)] for stage in stages]
    stops = [(0.0, "#ffe14d"), (0.25, "#ff8ac2"), (0.7, "#ff2e88"), (1.0, "#c2186b")]
    pieces = fixed + [Piece(petal, painted, colours=gradient(_along_petal(petal), stops)) for petal in shapes[0]]
    flower = add_object("Flower", pieces)
    rest = rest_vertices(flower)
    num_fixed = sum(len(piece.surface.vertices) for piece in fixed)
    for index, petals in enumerate(shapes[1:], start=1):
        target = rest.copy()
        target[num_fixed:] = np.concatenate([petal.vertices for petal in petals])
        add_shape_key(flower, f"open {index}", target)
    bend = np.clip(rest[:, 2:] - 0.45, 0, 1.0) ** 2
    add_shape_key(flower, "sway", rest + bend * np.array([0.16, 0.05, -0.02]))

    n = 120
    opening = eased(n, (0, 0), (8, 0), (52, 1), (76, 1), (112, 0), (120, 0))
    weights = {f"open {index}": np.interp(opening, stages, np.eye(4)[index]) for index in (1, 2, 3)}
    add_action("bloom", {flower.data.shape_keys: morphs(**weights, sway=wave(n, 2, 0.9))})


def _tilted(surface: Surface) -> Surface:
    """Bowed about the top of the stem, so that the flower shows its face to the front."""
    return surface.moved(z=-1.3).turned("x", 38).moved(z=1.3)


def _petals(opening: float) -> list[Surface]:
    """Eight outer and seven inner petals about the flower's heart, from bud (0) to bloom (1)."""
    across, along = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(0, 1, 10))
    width = 0.19 * np.sin(np.pi * np.clip(along * 0.93 + 0.07, 0, 1)) ** 0.7
    petals = []
    for count, size, start, lean in ((8, 0.8, 0.0, 1.0), (7, 0.56, 22.5, 0.8)):
        # The petal bends evenly along its length: an arc that starts upright and leans out.
        turn = np.radians(12 + opening * lean * 62 + along * (opening * lean * 52 - 38))
        step = size / 9
        out = np.cumsum(np.sin(turn), axis=0) * step
        up = np.cumsum(np.cos(turn), axis=0) * step
        cup = (0.09 + 0.12 * (1 - opening)) * across**2 * np.sin(np.pi * along)
        points = np.stack([width * across * (0.62 + 0.38 * opening), -0.07 - out + cup, 1.34 + up + 0.3 * cup], axis=-1)
        petal = grid(points)
        petals += ring_of(petal, count, "z", start)
    return petals


def _along_petal(petal: Surface) -> np.ndarray:
    """0 at the foot of a bud's petal, 1 at its tip, per vertex."""
    height = petal.vertices[:, 2]
    return np.asarray((height - height.min()) / np.ptp(height))


def build_ball() -> None:
    """A beach ball that squashes as it bounces on a trampoline. Lasts 1.25 s."""
    n = 30
    ball = add_object(
        "Ball", [Piece(ellipsoid(0.4, 0.4, 0.4, 28), Material("beach ball", image=_beach_ball(), roughness=0.3))]
    )
    rest = rest_vertices(ball)
    add_shape_key(ball, "squash", rest * [1.28, 1.28, 0.6])
    add_shape_key(ball, "stretch", rest * [0.87, 0.87, 1.28])

    ring = tube(
        [(0.86 * np.cos(a), 0.86 * np.sin(a), 0.5) for a in np.linspace(0, 2 * np.pi, 33)], [0.055] * 33, sides=10
    )
    legs = ring_of(tube([(0.84, 0, 0.48), (0.92, 0, 0.03)], [0.035, 0.035], sides=8), 6, "z", 30)
    radius, angle = np.meshgrid(np.linspace(0, 0.84, 10), np.arange(28) / 28 * 2 * np.pi, indexing="ij")
    membrane = grid(
        np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full_like(radius, 0.5)], axis=-1), wrap=True
    )
    frame = [Piece(ring, Material("pad", "#2f6fed", roughness=0.5)), *(Piece(leg, DARK) for leg in legs)]
    trampoline = add_object("Trampoline", [*frame, Piece(membrane, Material("net", "#272b38", roughness=0.8))])
    flat = rest_vertices(trampoline)
    dip = flat.copy()
    start = len(flat) - len(membrane.vertices)
    out = np.hypot(flat[start:, 0], flat[start:, 1])
    dip[start:, 2] -= 0.34 * np.cos(np.pi / 2 * np.clip(out / 0.84, 0, 1)) ** 2
    add_shape_key(trampoline, "dip", dip)

    share = np.arange(n + 1) / n
    flight = np.clip(share / 0.8, 0, 1)
    contact = np.sin(np.pi * np.clip((share - 0.8) / 0.2, 0, 1))
    height = 0.9 + 1.35 * 4 * flight * (1 - flight) - 0.46 * contact
    ringing = np.where(share < 0.4, -0.5 * np.sin(share * 2 * np.pi / 0.2) * np.exp(-share * 9) * 0.8, 0.0)
    fast = np.abs(1 - 2 * flight) * (1 - contact) * np.clip(np.minimum(share, 0.8 - share) * 12, 0, 1)
    spin = moves(location=(0, 0, height), rotation_deg=(0, 0, 360 * share))
    add_action(
        "bounce",
        {
            ball: spin,
            ball.data.shape_keys: morphs(squash=contact, stretch=0.8 * fast),
            trampoline.data.shape_keys: morphs(dip=contact + ringing),
        },
    )


def _beach_ball() -> np.ndarray:
    """Six segments, white caps."""
    colours = ["#ff4757", "#ffffff", "#ffd32a", "#ffffff", "#1e90ff", "#ffffff"]
    u = np.arange(192) * 6 // 192
    picture = np.repeat(np.array([rgb(colours[segment]) for segment in u])[None], 96, axis=0)
    picture[:7] = picture[-7:] = rgb("#ffffff")
    return np.asarray(picture * 255).round().astype(np.uint8)


def build_jellyfish() -> None:
    """A jellyfish whose bell pulses and whose tentacles trail in waves."""
    paint = Material("jelly", vertex_colours=True, roughness=0.25)
    outer = spline([(0, 0.5), (0.3, 0.45), (0.52, 0.25), (0.62, 0.0), (0.58, -0.1)], 16)
    inner = spline([(0.54, -0.04), (0.46, 0.12), (0.25, 0.28), (0, 0.32)], 12)
    bell = lathe([tuple(point) for point in np.concatenate([outer, inner])][::-1], 32)
    frill = bell.vertices[:, 2] < 0.1
    angle = np.arctan2(bell.vertices[:, 1], bell.vertices[:, 0])
    rest_bell = bell.vertices.copy()
    rest_bell[frill, 2] += 0.045 * np.cos(8 * angle[frill])
    bell = Surface(rest_bell, bell.faces, bell.corner_uv)
    pieces = [
        Piece(
            bell,
            paint,
            colours=gradient(
                rest_bell[:, 2], [(-0.12, "#ff5fb0"), (0.05, "#b65cff"), (0.3, "#5f7bff"), (0.5, "#57e0ff")]
            ),
        )
    ]
    for index in range(8):
        drop = np.linspace(0, 1, 22)
        length = 1.3 if index % 2 else 1.0
        path = np.column_stack([0.5 + 0.02 * np.sin(9 * drop), 0 * drop, -0.04 - length * drop])
        tentacle = tube(path, np.linspace(0.032, 0.01, 22), sides=7).turned("z", 45 * index)
        pieces.append(
            Piece(
                tentacle,
                paint,
                colours=gradient(-tentacle.vertices[:, 2], [(0.0, "#ff5fb0"), (0.7, "#ffb3dd"), (1.3, "#fff0fa")]),
            )
        )
    for index in range(4):
        drop = np.linspace(0, 1, 20)
        path = np.column_stack([0.12 + 0.05 * np.sin(7 * drop), 0.05 * np.cos(7 * drop), 0.2 - 0.9 * drop])
        arm = tube(path, np.linspace(0.075, 0.025, 20), sides=8).turned("z", 90 * index + 20)
        pieces.append(Piece(arm, paint, colours=gradient(-arm.vertices[:, 2], [(0.0, "#8f6bff"), (0.7, "#ffc6ec")])))
    dots = [ellipsoid(0.05, 0.05, 0.03, 8).turned("y", 38).moved(0.37, 0, 0.40).turned("z", 36 * i) for i in range(10)]
    pieces += [Piece(dot, Material("spots", "#fff6b0", glow=0.3)) for dot in dots]
    jelly = add_object("Jellyfish", pieces)

    rest = rest_vertices(jelly)
    low = np.clip(0.45 - rest[:, 2:], 0, 0.55) / 0.55
    add_shape_key(jelly, "squeeze", rest * (1 - 0.34 * low * [1, 1, 0]) + [0, 0, 0.10] * (1 - low) - [0, 0, 0.06] * low)
    depth = np.clip(-rest[:, 2], 0, None)
    outward = rest[:, :2] / np.maximum(np.hypot(rest[:, 0], rest[:, 1]), 0.05)[:, None]
    for name, trail in (("trail sine", np.sin(6 * depth)), ("trail cosine", np.cos(6 * depth) - 1)):
        moved = rest.copy()
        moved[:, :2] += 0.16 * (depth * trail)[:, None] * outward + 0.10 * (depth * trail)[:, None] * [1, 0.4]
        add_shape_key(jelly, name, moved)

    n = 72
    pulse = 0.5 - 0.5 * np.cos(2 * np.pi * 3 * np.arange(n + 1) / n)
    rise = wave(n, 3, 0.13, -0.3) + wave(n, 1, 0.12)
    weights = {"squeeze": pulse**1.5, "trail sine": wave(n, 3, 1.0), "trail cosine": wave(n, 3, 1.0, 0.25)}
    add_action(
        "pulse",
        {
            jelly: moves(location=(0, 0, rise), rotation_deg=(wave(n, 1, 9), wave(n, 1, 9, 0.25), 0)),
            jelly.data.shape_keys: morphs(**weights),
        },
    )


def build_flag(
    stripes: tuple[str, ...] = ("#e63946", "#ff9f1c", "#ffe066", "#2ec4b6", "#3a86ff", "#8338ec"),
    emblem: str = "#ffffff",
) -> None:
    """A striped flag that waves from a pole.

    Args:
        stripes: sRGB from the top.
        emblem: sRGB of the star in the middle.
    """
    x, z = np.meshgrid(np.linspace(0, 1.5, 31), np.linspace(0, 0.95, 20))
    cloth = grid(np.stack([0.05 + x, 0 * x, 1.35 + z], axis=-1))
    pole = [
        Piece(
            tube([(0, 0, 0.05), (0, 0, 2.42)], [0.035, 0.03], sides=12),
            Material("pole", "#e9edf2", roughness=0.3, metallic=0.3),
        ),
        Piece(ellipsoid(0.08, 0.08, 0.08, 14).moved(z=2.48), GOLD),
        Piece(
            lathe([(0, 0), (0.34, 0), (0.30, 0.08), (0.1, 0.12), (0.07, 0.2), (0, 0.2)], 20),
            Material("stone", "#8d93a1", roughness=0.9),
        ),
        *(Piece(box(0.06, 0.05, 0.05, 0.3).moved(0.04, 0, height), DARK) for height in (1.42, 2.23)),
    ]
    flag = add_object(
        "Flag", [*pole, Piece(cloth, Material("cloth", image=_flag_picture(stripes, emblem), roughness=0.8))]
    )
    rest = rest_vertices(flag)
    num_pole = len(rest) - len(cloth.vertices)
    free = np.clip(rest[:, 0] - 0.05, 0, None) / 1.5
    free[:num_pole] = 0.0
    along = 2 * np.pi * (1.25 * free + 0.16 * (rest[:, 2] - 1.35))
    # A travelling wave is a standing sine and a standing cosine, a quarter of a period apart.
    for name, ripple in (("ripple sine", np.sin(along)), ("ripple cosine", np.cos(along))):
        moved = rest.copy()
        moved[:, 1] += 0.33 * free**0.8 * ripple
        moved[:, 2] -= 0.05 * free * ripple
        add_shape_key(flag, name, moved)
    droop = rest.copy()
    swung = rest[num_pole:] - [0.05, 0, 2.3]
    droop[num_pole:] = swung @ rotation("y", 16).T * [0.96, 1, 1] + [0.05, 0, 2.3]
    droop[num_pole:] = np.where(
        free[num_pole:, None] > 0,
        rest[num_pole:] + (droop[num_pole:] - rest[num_pole:]) * free[num_pole:, None],
        rest[num_pole:],
    )
    add_shape_key(flag, "droop", droop)
    n = 72
    gust = 0.8 + wave(n, 1, 0.2)
    weights = {
        "ripple sine": gust * wave(n, 3, 1.0, 0.25),
        "ripple cosine": -gust * wave(n, 3, 1.0),
        "droop": 0.5 + wave(n, 1, 0.5, 0.5),
    }
    add_action("wave", {flag.data.shape_keys: morphs(**weights)})


def _flag_picture(stripes: tuple[str, ...], emblem: str) -> np.ndarray:
    row, column = np.meshgrid(np.arange(120), np.arange(192), indexing="ij")
    picture = np.array([rgb(stripe) for stripe in stripes])[row * len(stripes) // 120]
    angle, far = np.arctan2(column - 95.5, 59.5 - row), np.hypot(column - 95.5, row - 59.5)
    # Distance from the middle to a star's edge in that direction: a line from a tip to an inner corner.
    slice_angle = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    tip, corner = np.array([44.0, 0.0]), 18.0 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    normal = np.array([corner[1] - tip[1], tip[0] - corner[0]])
    inside = far * (np.cos(slice_angle) * normal[0] + np.sin(slice_angle) * normal[1]) < tip @ normal
    return np.asarray(np.where(inside[..., None], rgb(emblem), picture) * 255).round().astype(np.uint8)
