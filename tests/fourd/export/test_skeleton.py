"""Fitted skeletons and the GLBs they are written into."""

from pathlib import Path

import numpy as np
import pytest

from fourd.export.joints import hang_together
from fourd.export.skeleton import Skeleton, SkeletonSettings, fit_skeleton
from fourd.export.skinned_glb import write_skinned_glb
from fourd.gltf import Gltf, read_glb
from fourd.objects.static import StaticObject, bounding_radius
from tests.fourd.export.objects import bent, local_matrix, static_of, turn_z, write_toy
from tests.fourd.export.test_glb import findings, in_blender

NO_FACES = np.zeros((0, 3), np.int64)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> StaticObject:
    return static_of(write_toy(tmp_path_factory.mktemp("toy") / "toy.glb"))


def robot(static: StaticObject, num_frames: int = 6) -> np.ndarray:
    """Head and arms turn about themselves, each in its own way, while the body stands."""
    tracks = np.repeat(static.vertices[None].astype(np.float64), num_frames, axis=0)
    for node, most in ((2, 1.2), (3, -0.8), (4, 0.5)):
        mine = np.unique(np.concatenate([part.vertices for part in static.primitives if part.node == node]))
        middle = static.vertices[mine].mean(axis=0)
        for frame in range(num_frames):
            turn = turn_z(most * frame / (num_frames - 1))
            tracks[frame, mine] = (static.vertices[mine] - middle) @ turn.T + middle + [0, 0, 0.02 * frame]
    return tracks.astype(np.float32)


def test_what_moves_in_rigid_parts_is_found_exactly(toy: StaticObject) -> None:
    tracks = robot(toy)
    skeleton = fit_skeleton(tracks, SkeletonSettings(max_bones=16, tolerance=1e-4))
    assert skeleton.rotations.shape[1] <= 16
    assert np.abs(skeleton.posed(toy.vertices) - tracks).max() < 2e-4
    assert np.allclose(skeleton.weights.sum(axis=1), 1)
    assert (skeleton.weights >= 0).all()
    assert np.allclose(np.linalg.det(skeleton.rotations), 1)
    assert np.array_equal(skeleton.rotations[0], np.broadcast_to(np.eye(3), skeleton.rotations[0].shape))


def test_blended_weights_of_a_bending_bar_are_recovered() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, size=(400, 3)) * [1.0, 0.1, 0.1]
    share = np.clip((points[:, :1] + 0.3) / 0.6, 0, 1)
    tracks = np.stack([points * (1 - share) + (points @ turn_z(angle).T) * share for angle in np.linspace(0, 1, 6)])
    skeleton = fit_skeleton(tracks, SkeletonSettings(max_bones=2, tolerance=0.0, num_rounds=30))
    assert np.linalg.norm(skeleton.posed(points) - tracks, axis=2).max() < 0.02
    alone = fit_skeleton(tracks, SkeletonSettings(max_bones=1))
    assert np.linalg.norm(alone.posed(points) - tracks, axis=2).max() > 0.2


@pytest.mark.timeout(120)
def test_splitting_ends_where_no_bone_would_help_any_more(toy: StaticObject) -> None:
    skeleton = fit_skeleton(robot(toy), SkeletonSettings(max_bones=256, tolerance=0.0, num_rounds=1))
    assert np.abs(skeleton.posed(toy.vertices) - robot(toy)).max() < 2e-4


def poses(gltf: Gltf, frame: int) -> list[np.ndarray]:
    """Where the nodes are at a frame as a player has them, (4, 4) each, the file's world."""
    document = gltf.document
    (animation,) = document["animations"]
    nodes = [dict(node) for node in document["nodes"]]
    for channel in animation["channels"]:
        output = animation["samplers"][channel["sampler"]]["output"]
        nodes[channel["target"]["node"]][channel["target"]["path"]] = gltf.array(output)[frame]
    world: list[np.ndarray] = [np.eye(4)] * len(nodes)

    def visit(number: int, parent: np.ndarray) -> None:
        world[number] = parent @ local_matrix(nodes[number])
        for child in nodes[number].get("children", ()):
            visit(child, world[number])

    for number in document["scenes"][document.get("scene", 0)]["nodes"]:
        visit(number, np.eye(4))
    return world


def skinned(gltf: Gltf, static: StaticObject, frame: int) -> np.ndarray:
    """Positions of all vertices as a player computes them, (V, 3), the file's world."""
    document, world = gltf.document, poses(gltf, frame)
    vertices = np.zeros((len(static.vertices), 3))
    for primitive in static.primitives:
        node = document["nodes"][primitive.node]
        skin = document["skins"][node["skin"]]
        binds = gltf.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        moves = np.stack([world[joint] for joint in skin["joints"]]) @ binds
        attributes = document["meshes"][node["mesh"]]["primitives"][primitive.primitive]["attributes"]
        points = gltf.array(attributes["POSITION"])
        joints, weights = gltf.array(attributes["JOINTS_0"]), gltf.array(attributes["WEIGHTS_0"])
        blend = np.einsum("nk,nkij->nij", weights, moves[joints])
        vertices[primitive.vertices] = np.einsum("nij,nj->ni", blend[:, :3, :3], points) + blend[:, :3, 3]
    return vertices


def test_the_file_plays_what_the_report_says_and_the_validator_finds_no_error(
    toy: StaticObject, tmp_path: Path
) -> None:
    tracks = bent(toy.vertices, 5)
    report = write_skinned_glb(toy, tracks, 4.0, tmp_path / "toy.glb", SkeletonSettings(max_bones=12))
    gltf = read_glb(report.path)
    radius, worst = bounding_radius(toy.vertices), 0.0
    for frame, track in enumerate(tracks):
        x, y, z = skinned(gltf, toy, frame).T
        shown = toy.object_from_world(np.stack([x, -z, y], axis=1))
        worst = max(worst, float(np.linalg.norm(shown - track, axis=1).max()) / radius)
    assert worst == pytest.approx(report.max_error, abs=1e-4)
    assert 0 < report.mean_error < report.max_error < 0.05
    assert report.num_bones <= 12
    assert 0 < report.joint_error < 0.05
    assert [node.get("name") for node in gltf.document["nodes"][:5]] == [
        "toy", "body", "head", "left arm", "right arm",
    ]  # fmt: skip
    assert findings(report.path)["numErrors"] == 0


def test_bones_of_the_file_are_one_tree_whose_joints_hold(toy: StaticObject, tmp_path: Path) -> None:
    report = write_skinned_glb(toy, robot(toy), 4.0, tmp_path / "toy.glb", SkeletonSettings(max_bones=12))
    gltf = read_glb(report.path)
    nodes = gltf.document["nodes"]
    (root,) = next(node for node in nodes if node.get("name") == "skeleton")["children"]
    bones = gltf.document["skins"][0]["joints"]
    above = {child: bone for bone in bones for child in nodes[bone].get("children", ())}
    assert set(above) == set(bones) - {root}
    at_rest, radius = poses(gltf, 0), bounding_radius(toy.vertices) / toy.object_from_world.scale
    for frame in range(6):
        now = poses(gltf, frame)
        for child, parent in above.items():
            carried = now[parent] @ np.linalg.inv(at_rest[parent]) @ at_rest[child][:, 3]
            assert np.linalg.norm(carried - now[child][:, 3]) < 3 * report.joint_error * radius + 1e-6


def limbs(pieces: np.ndarray, shares: np.ndarray, turns: list[list[np.ndarray]]) -> tuple[Skeleton, np.ndarray]:
    """A skeleton as a fit would find it, and points.

    Args:
        pieces: Points, shape (V, 3).
        shares: Weights, shape (V, B), at most four of a point.
        turns: For each frame and bone a pose, shape (4, 4).
    """
    order = np.argsort(-shares, axis=1, kind="stable")[:, :4]
    order = np.pad(order, ((0, 0), (0, 4 - order.shape[1])))
    weights = np.take_along_axis(shares, order, axis=1)
    weights[:, shares.shape[1] :] = 0.0
    moves = np.array(turns)
    skeleton = Skeleton(rotations=moves[..., :3, :3], translations=moves[..., :3, 3], joints=order, weights=weights)
    return skeleton, pieces


def about(point: tuple[float, float, float], turn: np.ndarray) -> np.ndarray:
    """A turn (3, 3) about a point as (4, 4)."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, point - turn @ point
    return pose


def test_an_arm_hangs_together_at_its_hinges() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, size=(3000, 3)) * [1.0, 0.1, 0.1]
    # Hinges lie at an edge of the arm, as knees do, and not in the middle of what both bones hold.
    elbow, wrist = (-0.3, 0.1, 0.0), (0.4, -0.1, 0.0)
    later = [np.clip((points[:, 0] - hinge[0]) / 0.1 + 0.5, 0, 1) for hinge in (elbow, wrist)]
    shares = np.stack([1 - later[0], later[0] * (1 - later[1]), later[0] * later[1]], axis=1)
    turns = []
    for angle in np.linspace(0, 1, 6):
        lower = about(elbow, turn_z(angle))
        turns.append([np.eye(4), lower, lower @ about(wrist, turn_z(-0.7 * angle))])
    before, _ = limbs(points, shares[:, [2, 0, 1]], [[last, first, middle] for first, middle, last in turns])
    arranged, tree = hang_together(before, points, NO_FACES)
    assert tree.parents.tolist() == [-1, 0, 0]
    heads = sorted(tree.heads[1:].tolist())
    # Along the hinge any point would do: the middle of the arm is taken.
    assert np.linalg.norm(np.array(heads) - [elbow, wrist], axis=1).max() < 0.02
    assert tree.apart.max() < 0.005
    assert np.allclose(tree.tails[0], tree.heads[1:].mean(axis=0))
    assert np.allclose(arranged.posed(points), before.posed(points))


def test_legs_hang_on_the_hips_and_not_on_each_other() -> None:
    rng = np.random.default_rng(0)
    hips = rng.uniform([-0.3, -0.15, 0.0], [0.3, 0.15, 0.4], size=(1500, 3))
    legs = [rng.uniform([low, -0.1, -1.0], [low + 0.28, 0.1, 0.0], size=(1000, 3)) for low in (-0.29, 0.01)]
    points = np.concatenate([hips, *legs])
    # No points are in the crease, so that the legs are nearer to each other than to the hips.
    points = points[np.abs(points[:, 2]) > 0.03]
    # Both legs hold the hips a little, and at the groin each other.
    hanging = np.clip(0.5 - points[:, 2] / 0.1, 0, 1)
    right = np.clip(0.5 + points[:, 0] / 0.05, 0, 1)
    shares = np.stack([1 - hanging, hanging * (1 - right), hanging * right], axis=1)
    turns = [
        [np.eye(4), about((0, 0, 0), turn_x(angle)), about((0, 0, 0), turn_x(-angle))]
        for angle in 0.6 * np.sin(np.linspace(0, 6, 9))
    ]
    _, tree = hang_together(*limbs(points, shares, turns), NO_FACES)
    assert tree.parents.tolist() == [-1, 0, 0]
    assert sorted(np.sign(tree.heads[1:, 0])) == [-1, 1]


def test_a_hand_hangs_on_the_arm_it_shares_surface_with_and_not_on_the_hip_beside_it() -> None:
    rng = np.random.default_rng(0)
    trunk = rng.uniform([-0.4, -0.2, -1.0], [0.4, 0.2, 0.9], size=(6000, 3))
    shoulder = rng.uniform([0.4, -0.1, 0.75], [0.65, 0.1, 0.9], size=(600, 3))
    arm = rng.uniform([0.52, -0.08, -0.45], [0.65, 0.08, 0.75], size=(1500, 3))
    hand = rng.uniform([0.42, -0.08, -0.9], [0.65, 0.08, -0.55], size=(1000, 3))
    points = np.concatenate([trunk, shoulder, arm, hand])
    x, _, z = points.T
    outside = x > 0.4
    # No points are in the crease of the wrist, so that the hand is nearer to the hip than to the arm.
    hanging = np.clip(0.5 - (z + 0.5) / 0.3, 0, 1) * outside
    lifted = np.clip((x - 0.4) / 0.1, 0, 1) * outside * (z > 0.5) + outside * (z <= 0.5)
    shares = np.stack([1 - lifted, lifted * (1 - hanging), lifted * hanging], axis=1)
    # The arm turns about its own length: at the wrist the hand goes with the trunk as well as with the arm.
    wrist, turns = (0.58, 0.0, -0.5), []
    for angle in 0.6 * np.sin(np.linspace(0, 6, 9)):
        twist = about(wrist, turn_z(angle))
        turns.append([np.eye(4), twist, twist @ about(wrist, turn_x(2 * angle))])
    _, tree = hang_together(*limbs(points, shares, turns), NO_FACES)
    assert tree.parents.tolist() == [-1, 0, 1]
    assert np.allclose(tree.heads[2, 1:], wrist[1:], atol=0.02)  # along the hinge any point would do


def test_separate_pieces_hang_on_those_beside_them() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform([low, 0, 0], [low + 0.48, 0.4, 0.4], size=(400, 3)) for low in (0, 0.5, 1)])
    shares = np.repeat(np.eye(3), 400, axis=0)
    # A fit also finds weights that nothing on the surface speaks for.
    shares[:20] = [0.95, 0.0, 0.05]
    turns = [
        [about((0.5, 0, 0), turn_z(-angle)), np.eye(4), about((1.0, 0, 0), turn_z(angle))]
        for angle in np.linspace(0, 0.8, 5)
    ]
    _, tree = hang_together(*limbs(points, shares, turns), NO_FACES)
    assert tree.parents.tolist() == [-1, 0, 0]
    assert np.allclose(sorted(tree.heads[1:, 0]), [0.5, 1.0], atol=0.02)


def test_parts_that_move_alike_and_lie_apart_get_a_bone_each() -> None:
    rng = np.random.default_rng(0)
    trunk = rng.uniform([-1, -0.1, 0], [1, 0.1, 0.3], size=(2000, 3))
    legs = [rng.uniform([x - 0.1, -0.1, -0.8], [x + 0.1, 0.1, 0], size=(800, 3)) for x in (-0.8, 0.8)]
    points = np.concatenate([trunk, *legs])
    still = np.clip(0.5 - points[:, 2] / 0.1, 0, 1) * (np.abs(np.abs(points[:, 0]) - 0.8) < 0.12)
    shares = np.stack([1 - still, still], axis=1)
    turns = [[about((0, 0, 0), turn_x(angle)), np.eye(4)] for angle in np.linspace(0, 0.5, 5)]
    before, _ = limbs(points, shares, turns)
    arranged, tree = hang_together(before, points, NO_FACES)
    assert tree.parents.tolist() == [-1, 0, 0]
    assert np.allclose(sorted(tree.heads[1:, 0]), [-0.8, 0.8], atol=0.05)
    assert np.allclose(arranged.posed(points), before.posed(points))
    for leg, side in ((1, tree.heads[1, 0]), (2, tree.heads[2, 0])):
        mine = ((arranged.joints == leg) & (arranged.weights > 0)).any(axis=1)
        assert (points[mine, 0] * side > 0).all()


def turn_x(angle: float) -> np.ndarray:
    return np.array([[1.0, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])


def test_bones_that_nothing_follows_are_left_out() -> None:
    points = np.random.default_rng(0).normal(size=(50, 3))
    shares = np.zeros((50, 3))
    shares[:25, 0] = shares[25:, 2] = 1.0
    turns = [[np.eye(4)] * 3, [np.eye(4), about((5, 0, 0), turn_z(3.0)), about((0, 0, 0), turn_z(0.5))]]
    arranged, tree = hang_together(*limbs(points, shares, turns), NO_FACES)
    assert tree.parents.tolist() == [-1, 0]
    assert np.allclose(arranged.posed(points), limbs(points, shares, turns)[0].posed(points))


@pytest.mark.blender
def test_blender_plays_the_bones(toy: StaticObject, tmp_path: Path) -> None:
    bending = bent(toy.vertices, 5)
    settings = SkeletonSettings(max_bones=12)
    path = write_skinned_glb(toy, bending, 8.0, tmp_path / "toy.glb", settings).path
    skeleton = fit_skeleton(bending, settings)
    assert ((skeleton.weights > 0.1).sum(axis=1) > 1).any()
    seen = in_blender(path, 8.0, len(bending), tmp_path)
    (bones,) = seen["armatures"]
    assert len(bones) == skeleton.rotations.shape[1]
    assert [parent for parent, _, _ in bones.values()].count(None) == 1
    parents = [parent for parent, _, _ in bones.values()]
    only_children = [bone for bone in bones.values() if parents.count(bone[0]) == 1 and bone[0]]
    assert only_children
    for parent, head, _ in only_children:
        # A bone ends where its only child begins.
        assert np.allclose(bones[parent][2], head, atol=1e-4)
    for frame, track in zip(seen["frames"], skeleton.posed(toy.vertices.astype(np.float64)), strict=True):
        for node, name in {1: "body", 2: "head", 3: "left arm", 4: "right arm"}.items():
            used = np.unique(np.concatenate([part.vertices for part in toy.primitives if part.node == node]))
            shown = toy.object_from_world(np.array(frame[name]))
            apart = np.linalg.norm(shown[:, None] - track[used][None], axis=2)
            assert max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 1e-4
