"""Animated GLBs: what is in them, what a validator says, and what Blender makes of them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourd.export.errors import ExportError
from fourd.export.glb import GlbSettings, write_animated_glb
from fourd.gltf import Gltf, read_glb
from fourd.objects.static import StaticObject, bounding_radius
from tests.fourd.export.objects import bent, static_of, turn_z, write_toy

REPOSITORY = Path(__file__).resolve().parents[3]
EVERY_FRAME = GlbSettings(key_tolerance=0.0)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> StaticObject:
    return static_of(write_toy(tmp_path_factory.mktemp("toy") / "toy.glb"))


def played(gltf: Gltf, static: StaticObject, second: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """What a player shows: positions of all vertices (V, 3) and unit normals by primitive, in the object's space."""
    document = gltf.document
    weights = {}
    if "animations" in document:
        (animation,) = document["animations"]
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            times, values = gltf.array(sampler["input"])[:, 0], gltf.array(sampler["output"])
            rows = values.reshape(len(times), -1)
            node = channel["target"]["node"]
            weights[node] = np.array([np.interp(second, times, column) for column in rows.T])
    vertices, normals = static.vertices.astype(np.float64), []
    for primitive in static.primitives:
        entry = document["meshes"][document["nodes"][primitive.node]["mesh"]]["primitives"][primitive.primitive]
        blend = {name: gltf.array(entry["attributes"][name]).astype(np.float64) for name in ("POSITION", "NORMAL")}
        for weight, target in zip(weights.get(primitive.node, ()), entry.get("targets", ()), strict=True):
            for name in target:
                blend[name] = blend[name] + weight * gltf.array(target[name])
        matrix = primitive.object_from_primitive
        vertices[primitive.vertices] = blend["POSITION"] @ matrix[:3, :3].T + matrix[:3, 3]
        turned = blend["NORMAL"] @ np.linalg.inv(matrix[:3, :3])
        normals.append(turned / np.linalg.norm(turned, axis=1, keepdims=True))
    return vertices, normals


@pytest.mark.parametrize("quantise", [False, True])
def test_it_plays_the_tracks_at_their_times(toy: StaticObject, tmp_path: Path, quantise: bool) -> None:
    tracks = bent(toy.vertices)
    settings = GlbSettings(key_tolerance=1e-3, quantise=quantise)
    report = write_animated_glb(toy, tracks, 8.0, tmp_path / "toy.glb", settings)
    gltf = read_glb(report.path)
    radius = bounding_radius(toy.vertices)
    errors = [np.abs(played(gltf, toy, t / 8.0)[0] - tracks[t]).max() / radius for t in range(len(tracks))]
    assert errors[0] < 1e-6
    assert max(errors) < 1e-3
    assert report.max_error < 1e-3
    assert report.size_bytes == report.path.stat().st_size
    assert ("extensionsRequired" in gltf.document) == quantise


def test_the_rest_of_the_file_stays_as_it_was(toy: StaticObject, tmp_path: Path) -> None:
    before = read_glb(toy.source)
    after = read_glb(write_animated_glb(toy, bent(toy.vertices), 8.0, tmp_path / "toy.glb").path)
    assert after.binary[: len(before.binary)] == before.binary
    for name in ("materials", "textures", "images", "scenes", "scene"):
        assert after.document[name] == before.document[name]
    for was, now in zip(before.document["nodes"], after.document["nodes"], strict=True):
        assert {**was, "mesh": 0} == {**now, "mesh": 0}
    meshes = after.document["meshes"]
    assert [meshes[node["mesh"]]["name"] for node in after.document["nodes"][1:]] == ["torso", "skull", "arm", "arm"]


def test_two_nodes_with_one_mesh_move_each_in_its_own_way(toy: StaticObject, tmp_path: Path) -> None:
    left = next(primitive for primitive in toy.primitives if primitive.node == 3)
    tracks = np.repeat(toy.vertices[None], 3, axis=0)
    tracks[2, left.vertices, 2] += 0.1
    report = write_animated_glb(toy, tracks, 8.0, tmp_path / "toy.glb")
    assert report.moving_nodes == (3,)
    nodes = read_glb(report.path).document["nodes"]
    assert nodes[3]["mesh"] != nodes[4]["mesh"]
    assert played(read_glb(report.path), toy, 0.25)[0] == pytest.approx(tracks[2], abs=1e-6)


@pytest.mark.parametrize("quantise", [False, True])
def test_normals_turn_with_a_turning_object(toy: StaticObject, tmp_path: Path, quantise: bool) -> None:
    turn = turn_z(0.7)
    tracks = np.stack([toy.vertices, toy.vertices @ turn.T.astype(np.float32)])
    path = tmp_path / "toy.glb"
    gltf = read_glb(write_animated_glb(toy, tracks, 1.0, path, GlbSettings(quantise=quantise)).path)
    for before, after in zip(played(gltf, toy, 0.0)[1], played(gltf, toy, 1.0)[1], strict=True):
        assert after == pytest.approx(before @ turn.T, abs=0.01 if quantise else 1e-3)


def test_normals_of_a_stretched_ball_are_those_of_the_ellipsoid_and_meet_at_the_seam(
    toy: StaticObject, tmp_path: Path
) -> None:
    stretch = np.array([1.0, 1.0, 1.6])
    tracks = np.stack([toy.vertices, toy.vertices * stretch]).astype(np.float32)
    gltf = read_glb(write_animated_glb(toy, tracks, 1.0, tmp_path / "toy.glb").path)
    (place,) = [k for k, primitive in enumerate(toy.primitives) if primitive.node == 2]
    before, after = (played(gltf, toy, second)[1][place] for second in (0.0, 1.0))
    exact = before / stretch
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    assert np.degrees(np.arccos(np.clip((exact * after).sum(axis=1), -1, 1))).max() < 6.0
    naive = np.degrees(np.arccos(np.clip((exact * before).sum(axis=1), -1, 1))).max()
    assert naive > 12.0
    owners = toy.primitives[place].vertices
    for vertex in np.unique(owners):
        assert np.ptp(after[owners == vertex], axis=0).max() < 1e-4


def test_hard_edges_stay_hard(toy: StaticObject, tmp_path: Path) -> None:
    tracks = bent(toy.vertices, 5)
    gltf = read_glb(write_animated_glb(toy, tracks, 1.0, tmp_path / "toy.glb", EVERY_FRAME).path)
    arm = next(k for k, primitive in enumerate(toy.primitives) if primitive.node == 3)
    vertices, normals = played(gltf, toy, 1.0)
    corners = vertices[toy.primitives[arm].vertices].reshape(6, 4, 3)
    sides = normals[arm].reshape(6, 4, 3)
    for side, quad in zip(sides, corners, strict=True):
        # The fourth corner may leave the plane of the others, so each is compared with the faces it is a corner of.
        faces = np.cross(quad[[1, 2]] - quad[0], quad[[2, 3]] - quad[0])
        faces *= np.sign((faces * side[0]).sum(axis=1, keepdims=True)) / np.linalg.norm(faces, axis=1, keepdims=True)
        assert side[1] == pytest.approx(faces[0], abs=2e-3)
        assert side[3] == pytest.approx(faces[1], abs=2e-3)


def test_fewer_keys_and_sparse_targets_make_smaller_files(toy: StaticObject, tmp_path: Path) -> None:
    time = np.linspace(0, 1, 17)[:, None, None]
    tracks = (toy.vertices + time * np.array([0.0, 0.0, 0.3])).astype(np.float32)
    whole = write_animated_glb(toy, tracks, 8.0, tmp_path / "whole.glb", GlbSettings(key_tolerance=0.0))
    few = write_animated_glb(toy, tracks, 8.0, tmp_path / "few.glb")
    assert few.keys == (0, 16)
    assert len(whole.keys) > 4
    assert few.size_bytes - few.source_bytes < 0.4 * (whole.size_bytes - whole.source_bytes)
    bending = bent(toy.vertices)
    dense = write_animated_glb(toy, bending, 8.0, tmp_path / "dense.glb", EVERY_FRAME)
    small = write_animated_glb(
        toy, bending, 8.0, tmp_path / "small.glb", GlbSettings(key_tolerance=1e-3, quantise=True)
    )
    assert small.size_bytes < dense.size_bytes
    ear = np.repeat(toy.vertices[None], 2, axis=0)
    ear[1, int(ear[0, :, 2].argmax())] += 0.05
    sparse = read_glb(write_animated_glb(toy, ear, 8.0, tmp_path / "ear.glb").path)
    assert played(sparse, toy, 1 / 8)[0] == pytest.approx(ear[1], abs=1e-5)
    head = sparse.document["meshes"][1]["primitives"][0]["targets"][0]["POSITION"]
    assert sparse.document["accessors"][head]["sparse"]["count"] < 20


def test_smoothing_is_told_apart_in_the_error(toy: StaticObject, tmp_path: Path) -> None:
    tracks = bent(toy.vertices)
    tracks[1:] += 0.003 * np.random.default_rng(0).normal(size=tracks[1:].shape).astype(np.float32)
    smooth = GlbSettings(smooth_tolerance=0.005, key_tolerance=5e-4)
    report = write_animated_glb(toy, tracks, 8.0, tmp_path / "toy.glb", smooth)
    assert 0.001 < report.max_error <= 0.0055 + 1e-6


def broken_tracks(toy: StaticObject, fault: str) -> np.ndarray:
    tracks = bent(toy.vertices)
    if fault == "not_finite":
        tracks[3, 5, 1] = np.nan
    elif fault == "other object":
        tracks = tracks[:, :-1]
    elif fault == "frame 0":
        tracks = tracks + 0.1
    elif fault == "one frame":
        tracks = tracks[:1]
    return tracks


@pytest.mark.parametrize("fault", ["not_finite", "other object", "frame 0", "one frame"])
def test_tracks_that_do_not_belong_are_refused_and_nothing_is_written(
    toy: StaticObject, tmp_path: Path, fault: str
) -> None:
    with pytest.raises(ExportError, match=r"toy\.glb") as caught:
        write_animated_glb(toy, broken_tracks(toy, fault), 8.0, tmp_path / "out.glb")
    assert caught.value.reason == ("not_finite" if fault == "not_finite" else "mismatch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda document: document["nodes"][1].update(skin=0), "unsupported"),
        (lambda document: document["nodes"].pop(), "mismatch"),
        (lambda document: document["accessors"][0].update(count=3), "mismatch"),
        (lambda document: document["accessors"][1].update(componentType=1), "malformed"),
        (lambda document: document["bufferViews"][5].update(byteOffset=10**12), "malformed"),
        (lambda document: document["accessors"][1].update(type=["VEC3"]), "malformed"),
    ],
)
def test_a_source_that_is_not_as_it_was_is_refused(
    toy: StaticObject, tmp_path: Path, edit: Callable[[dict[str, Any]], object], reason: str
) -> None:
    gltf = read_glb(toy.source)
    edit(gltf.document)
    gltf.write(tmp_path / "edited.glb")
    with pytest.raises(ExportError, match=r"edited\.glb") as caught:
        write_animated_glb(replace(toy, source=tmp_path / "edited.glb"), bent(toy.vertices), 8.0, tmp_path / "out.glb")
    assert caught.value.reason == reason
    assert not (tmp_path / "out.glb").exists()


@pytest.mark.parametrize("content", [b"", b"glTF", b"<html>" * 9, b"glTF\x02\0\0\0\xff\xff\xff\x7f" + b"\0" * 20])
def test_what_is_no_glb_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "no.glb").write_bytes(content)
    with pytest.raises(ExportError, match=r"no\.glb"):
        read_glb(tmp_path / "no.glb")


def findings(path: Path) -> dict[str, Any]:
    """What the Khronos validator says of a GLB."""
    page = REPOSITORY / "fourd" / "viewer" / "page"
    if shutil.which("node") is None or not (page / "node_modules" / "gltf-validator").exists():
        pytest.skip("no gltf-validator: `make setup-test` installs it where npm is")
    program = (
        "const fs = await import('node:fs');"
        "const {default: validator} = await import('gltf-validator');"
        "const report = await validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])));"
        "console.log(JSON.stringify(report.issues));"
    )
    command = ["node", "--input-type=module", "-e", program, str(path)]
    done = subprocess.run(command, cwd=page, check=True, capture_output=True, text=True, timeout=60)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("settings", [GlbSettings(), EVERY_FRAME, GlbSettings(quantise=True, key_tolerance=1e-3)])
def test_the_khronos_validator_finds_no_fault(toy: StaticObject, tmp_path: Path, settings: GlbSettings) -> None:
    tracks = bent(toy.vertices)
    left = next(primitive for primitive in toy.primitives if primitive.node == 3)
    tracks[:, left.vertices] = toy.vertices[left.vertices]  # one node stands still
    path = write_animated_glb(toy, tracks, 8.0, tmp_path / "toy.glb", settings).path
    issues = findings(path)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]
    gltf = read_glb(path)
    gltf.document["animations"][0]["channels"][0]["target"]["node"] = 99
    gltf.write(tmp_path / "broken.glb")
    assert findings(tmp_path / "broken.glb")["numErrors"] > 0


READ_IN_BLENDER = """
import json, sys
import bpy
import numpy as np
path, out, fps, num_frames = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.context.scene.render.fps = int(fps * 3)
bpy.ops.import_scene.gltf(filepath=path)
frames = []
for frame in range(num_frames):
    bpy.context.scene.frame_set(frame * 3)
    graph = bpy.context.evaluated_depsgraph_get()
    points = {}
    for thing in bpy.data.objects:
        if thing.type == "MESH":
            mesh = thing.evaluated_get(graph).data
            flat = np.empty(len(mesh.vertices) * 3, np.float32)
            mesh.vertices.foreach_get("co", flat)
            matrix = np.array(thing.matrix_world)
            points[thing.name] = (flat.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]).tolist()
    frames.append(points)
names = {thing.name: [slot.name for slot in thing.material_slots] for thing in bpy.data.objects if thing.type == "MESH"}
parents = {thing.name: thing.parent and thing.parent.name for thing in bpy.data.objects}
textures = sorted(image.size[0] for image in bpy.data.images)
armatures = [
    {it.name: [it.parent and it.parent.name, list(it.head_local), list(it.tail_local)] for it in armature.bones}
    for armature in bpy.data.armatures
]
found = {"frames": frames, "materials": names, "parents": parents, "textures": textures, "armatures": armatures}
json.dump(found, open(out, "w"))
"""


def in_blender(path: Path, fps: float, num_frames: int, folder: Path) -> dict[str, Any]:
    out = folder / "blender.json"
    command = [sys.executable, "-c", READ_IN_BLENDER, str(path), str(out), str(fps), str(num_frames)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=120)
    result: dict[str, Any] = json.loads(out.read_text())
    return result


@pytest.mark.blender
@pytest.mark.parametrize("quantise", [False, True])
def test_blender_plays_the_tracks(toy: StaticObject, tmp_path: Path, quantise: bool) -> None:
    tracks = bent(toy.vertices)
    settings = GlbSettings(quantise=quantise)
    path = write_animated_glb(toy, tracks, 8.0, tmp_path / "toy.glb", settings).path
    seen = in_blender(path, 8.0, len(tracks), tmp_path)
    assert seen["parents"] == {
        "toy": None, "body": "toy", "head": "toy", "left arm": "toy", "right arm": "toy",
    }  # fmt: skip
    assert set(seen["materials"]["body"]) == {"red cloth", "blue steel"}
    assert seen["textures"] == [8, 8]
    radius = bounding_radius(toy.vertices)
    names = {1: "body", 2: "head", 3: "left arm", 4: "right arm"}
    for frame, track in zip(seen["frames"], tracks, strict=True):
        for node, name in names.items():
            used = np.unique(np.concatenate([part.vertices for part in toy.primitives if part.node == node]))
            shown = toy.object_from_world(np.array(frame[name]))
            apart = np.linalg.norm(shown[:, None] - track[used][None], axis=2)
            assert max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 1e-3 * radius
