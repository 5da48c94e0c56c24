"""Fitted skeletons and the GLBs they are written into."""

from pathlib import Path

import numpy as np
import pytest

from fourd.export.glb import bounding_radius
from fourd.export.skeleton import SkeletonSettings, fit_skeleton
from fourd.export.skinned_glb import write_skinned_glb
from fourd.gltf import Gltf, read_glb
from fourd.objects.static import StaticObject
from tests.fourd.export.objects import bent, local_matrix, static_of, turn_z, write_toy
from tests.fourd.export.test_glb import findings, in_blender


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


def skinned(gltf: Gltf, static: StaticObject, frame: int) -> np.ndarray:
    """Positions of all vertices as a player computes them, (V, 3), the file's world."""
    document = gltf.document
    (animation,) = document["animations"]
    local = [local_matrix(node) for node in document["nodes"]]
    for node in {channel["target"]["node"] for channel in animation["channels"]}:
        now = dict(document["nodes"][node])
        for channel in animation["channels"]:
            if channel["target"]["node"] == node:
                output = animation["samplers"][channel["sampler"]]["output"]
                now[channel["target"]["path"]] = gltf.array(output)[frame]
        local[node] = local_matrix(now)
    vertices = np.zeros((len(static.vertices), 3))
    for primitive in static.primitives:
        node = document["nodes"][primitive.node]
        skin = document["skins"][node["skin"]]
        binds = gltf.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        moves = np.stack([local[joint] for joint in skin["joints"]]) @ binds
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
        shown = toy.scale * np.stack([x, -z, y], axis=1) + toy.offset
        worst = max(worst, float(np.linalg.norm(shown - track, axis=1).max()) / radius)
    assert worst == pytest.approx(report.max_error, abs=1e-4)
    assert 0 < report.mean_error < report.max_error < 0.05
    assert report.num_bones <= 12
    assert [node.get("name") for node in gltf.document["nodes"][:5]] == [
        "toy", "body", "head", "left arm", "right arm",
    ]  # fmt: skip
    assert findings(report.path)["numErrors"] == 0


@pytest.mark.blender
def test_blender_plays_the_bones(toy: StaticObject, tmp_path: Path) -> None:
    bending = bent(toy.vertices, 5)
    settings = SkeletonSettings(max_bones=12)
    path = write_skinned_glb(toy, bending, 8.0, tmp_path / "toy.glb", settings).path
    skeleton = fit_skeleton(bending, settings)
    assert ((skeleton.weights > 0.1).sum(axis=1) > 1).any()
    seen = in_blender(path, 8.0, len(bending), tmp_path)
    for frame, track in zip(seen["frames"], skeleton.posed(toy.vertices.astype(np.float64)), strict=True):
        for node, name in {1: "body", 2: "head", 3: "left arm", 4: "right arm"}.items():
            used = np.unique(np.concatenate([part.vertices for part in toy.primitives if part.node == node]))
            shown = toy.scale * np.array(frame[name]) + toy.offset
            apart = np.linalg.norm(shown[:, None] - track[used][None], axis=2)
            assert max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 1e-4
