"""Ground truth of real clips, checked by reprojection and against Blender's own pictures and passes."""

import dataclasses
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.cameras import project
from pipeline.records import Rejected, Truth
from pipeline.storage import Store
from pipeline.truth_media import PASSES, SEEN, Tracks
from render.draw import Render
from render.rigs import RigName
from render.truth import GroundTruth
from tests.conftest import REPOSITORY
from tests.render.raster import Raster, rasterise
from tests.render.rows import asset_of
from tests.render.tiny_gltf import TinyGltf
from tests.render.truth_examples import BLENDER, SIZE_PX, Example, made

pytestmark = pytest.mark.blender

EXAMPLES: dict[str, tuple[str, RigName]] = {
    "skinned, fixed cameras": ("CesiumMan.glb", "ortho4"),
    "skinned, moving cameras": ("RiggedFigure.glb", "orbit16"),
    "morph targets, moving cameras": ("AnimatedMorphSphere.glb", "orbit16"),
    "rigid parts, fixed cameras": ("character.glb", "ortho4"),
    "bent quads of a .blend, fixed cameras": ("Shark.blend", "ortho4"),
}


@pytest.fixture(scope="module")
def close_blender() -> Iterator[None]:
    yield
    Render(data="/nowhere", blender=BLENDER).close()
    GroundTruth(data="/nowhere", passes=("depth",)).close()


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda name: name.replace(" ", "_"))
def example(
    request: pytest.FixtureRequest, real_assets: Path, tmp_path_factory: pytest.TempPathFactory, close_blender: None
) -> Example:
    file, rig = EXAMPLES[request.param]
    store = Store(str(tmp_path_factory.mktemp("truth") / "data"))
    content = (real_assets / file).read_bytes()
    return made(store, asset_of(store, content, suffix=file.rpartition(".")[2], name=file), rig)


def frames_of(example: Example) -> list[tuple[int, int]]:
    """A few pictures: (view, frame)."""
    last = example.clip.num_frames - 1
    return [(0, 0), (1, 1), (example.clip.num_views - 1, last - 1)]


def rastered(example: Example, view: int, frame: int) -> tuple[Raster, Tracks]:
    tracks = example.tracks()
    positions = tracks.positions[example.pose(view, frame)].astype(np.float64)
    camera = example.c2w(view, frame)
    return rasterise(positions, tracks.triangles, camera, example.clip.intrinsics, SIZE_PX), tracks


def test_all_passes_are_there_and_agree_with_the_pictures(example: Example) -> None:
    assert set(example.truth) == set(PASSES)
    assert not example.rejected
    for row in example.truth.values():
        assert row.mask_iou > 0.95
        assert row.num_seen > 0
        for part in row.parts:
            assert len(example.store.read_bytes(f"{row.folder}/{part.name}")) == part.num_bytes


def test_only_pixels_on_the_silhouette_differ_from_the_pictures(example: Example) -> None:
    for view in range(example.clip.num_views):
        alpha, seen = example.alpha(view), ~np.isnan(example.map("depth", view))
        assert not (seen & (alpha == 0)).any()
        inner = alpha == 255
        for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            inner &= np.roll(alpha, shift, axis=(1, 2)) == 255
        assert inner.any()
        assert seen[inner].mean() > 0.999


def test_a_z_buffer_of_the_tracks_shows_the_same_surface(example: Example) -> None:
    for view, frame in frames_of(example):
        raster, tracks = rastered(example, view, frame)
        depth = example.map("depth", view)[frame]
        seen, drawn = ~np.isnan(depth), raster.triangle >= 0
        assert (seen ^ drawn).sum() <= 0.02 * drawn.sum() + 2
        both = seen & drawn
        close = np.abs(depth - raster.depth)[both] < 2e-3
        assert close.mean() > 0.98  # tracks have the triangles of the first frame, for quads that bend too
        same = both & (np.abs(depth - raster.depth) < 2e-3)
        objects, materials = example.map("object", view)[frame], example.map("material", view)[frame]
        assert (objects[same] == tracks.objects[raster.triangle[same]]).mean() > 0.99
        assert (materials[same] == tracks.materials[raster.triangle[same]]).mean() > 0.99


def test_flow_leads_to_where_the_tracks_go(example: Example) -> None:
    """Each pixel's surface point by the z-buffer, moved by the tracks, projected: under half a pixel, always."""
    clip, worst, count = example.clip, 0.0, 0
    for view, frame in frames_of(example):
        raster, tracks = rastered(example, view, frame)
        depth = example.map("depth", view)[frame]
        same = np.abs(depth - raster.depth) < 1e-3
        rows, columns = np.nonzero(same)
        for name in ("flow_forward", "flow_backward", "view_flow_forward", "view_flow_backward"):
            flow, state = (found[frame] for found in example.flow(name, view))
            step = 1 if name.endswith("forward") else -1
            there = ((view + step) % clip.num_views, frame) if name.startswith("view_") else (view, frame + step)
            if not 0 <= there[1] < clip.num_frames:
                assert not state.any()
                continue
            corners = tracks.triangles[raster.triangle[rows, columns]]
            weights = raster.weights[rows, columns]
            points = np.einsum("rc,rcx->rx", weights, tracks.positions[example.pose(*there)][corners])
            target = project(points, example.c2w(*there), clip.intrinsics)[:, :2]
            error = np.linalg.norm(target - np.stack([columns, rows], axis=1) - 0.5 - flow[rows, columns], axis=1)
            # Where two surfaces touch, the z-buffer may have taken the other one.
            assert (error < 0.5).mean() > 0.995
            worst, count = max(worst, float(np.quantile(error, 0.99))), count + len(error)
    assert count > 500
    assert worst < 0.1


def test_depth_leads_to_where_flow_between_views_leads(example: Example) -> None:
    """Without the tracks: depth of one view, projected into the next, is where the flow says."""
    clip, num_views = example.clip, example.clip.num_views
    if example.pose(1, 1) != example.pose(0, 1):
        pytest.skip("the views of an orbit show different poses")
    for view in range(num_views):
        flow, state = example.flow("view_flow_forward", view)
        other = (view + 1) % num_views
        other_depth = example.map("depth", other)
        for frame in range(clip.num_frames):
            points, rows, columns = example.unprojected(view, frame)
            target = project(points, example.c2w(other, frame), clip.intrinsics)
            error = target[:, :2] - np.stack([columns, rows], axis=1) - 0.5 - flow[frame, rows, columns]
            assert np.abs(error).max() < 0.1
            seen = state[frame, rows, columns] == SEEN
            column, row = np.floor(target[seen, :2]).astype(int).T
            patch = [
                other_depth[frame, np.clip(row + y, 0, SIZE_PX - 1), np.clip(column + x, 0, SIZE_PX - 1)]
                for x in (-1, 0, 1)
                for y in (-1, 0, 1)
            ]
            # What is seen is not behind anything, as far as the pixels around it can tell.
            # A pixel is 0.034 wide there, and the surface may be steep.
            assert (target[seen, 2] <= np.max(np.nan_to_num(patch, nan=9.0), axis=0) + 0.1).all()


def test_flow_there_and_back_again_ends_where_it_began(example: Example) -> None:
    """Forward flow, then the backward flow found there: half a pixel, and what the surface's slope adds."""
    errors = []
    for view in range(example.clip.num_views):
        forward, state = example.flow("flow_forward", view)
        backward, _ = example.flow("flow_backward", view)
        for frame in range(example.clip.num_frames - 1):
            rows, columns = np.nonzero(state[frame] == SEEN)
            target = np.stack([columns, rows], axis=1) + 0.5 + forward[frame, rows, columns]
            column, row = np.floor(target).astype(int).T
            back = backward[frame + 1, row, column]
            errors.append(np.linalg.norm(forward[frame, rows, columns] + back, axis=1))
    found = np.concatenate(errors)
    assert np.nanmedian(found) < 0.25
    assert np.isnan(found).mean() < 0.1


def test_coordinates_are_the_surface_at_the_first_frame(example: Example) -> None:
    clip = example.clip
    for view in range(clip.num_views):
        coordinates = example.map("coordinates", view)
        points, rows, columns = example.unprojected(view, 0)
        assert np.abs(coordinates[0, rows, columns] - points).max() < 5e-4
        pixels = project(coordinates[0, rows, columns], example.c2w(view, 0), clip.intrinsics)[:, :2]
        assert np.abs(pixels - np.stack([columns, rows], axis=1) - 0.5).max() < 0.05
    raster, tracks = rastered(example, 0, 2)
    coordinates = example.map("coordinates", 0)[2]
    same = np.abs(example.map("depth", 0)[2] - raster.depth) < 1e-3
    corners = tracks.positions[0][tracks.triangles[raster.triangle[same]]]
    error = np.linalg.norm(np.einsum("rc,rcx->rx", raster.weights[same], corners) - coordinates[same], axis=1)
    assert np.quantile(error, 0.98) < 2e-3


def test_normals_are_unit_and_turn_with_the_camera(example: Example) -> None:
    for view in range(example.clip.num_views):
        world, camera = example.map("normal", view), example.map("camera_normal", view)
        for frame in (0, example.clip.num_frames - 1):
            seen = ~np.isnan(world[frame, ..., 0])
            assert np.abs(np.linalg.norm(world[frame][seen], axis=1) - 1).max() < 0.01
            turned = world[frame][seen] @ example.c2w(view, frame)[:3, :3]
            assert np.abs(turned - camera[frame][seen]).max() < 0.02
            assert (camera[frame][seen][:, 2] < 0.05).mean() > 0.97  # towards the camera


def test_every_vertex_projects_into_the_mask_and_none_before_the_depth(example: Example) -> None:
    tracks, clip, view = example.tracks(), example.clip, 1  # fins are thinner than pixels from the front
    for frame in range(clip.num_frames):
        depth = example.map("depth", view)[frame]
        rows, columns = np.nonzero(~np.isnan(depth))
        positions = tracks.positions[example.pose(view, frame)].astype(np.float64)
        used = project(positions[np.unique(tracks.triangles)], example.c2w(view, frame), clip.intrinsics)
        gaps = np.abs(used[:, None, :2] - np.stack([columns, rows], axis=1) - 0.5).max(axis=-1) - 0.5
        # To the square of the nearest covered pixel. The tips of thin parts cover no pixel's centre.
        assert np.quantile(gaps.min(axis=1), 0.97) < 0.5
        inside = used[(used[:, :2] >= 1).all(axis=1) & (used[:, :2] < SIZE_PX - 1).all(axis=1)]
        column, row = np.floor(inside[:, :2]).astype(int).T
        around = np.stack([depth[row + y, column + x] for x in (-1, 0, 1) for y in (-1, 0, 1)])
        full = ~np.isnan(around).any(axis=0)
        if full.any():
            # A pixel is 0.034 wide there, and an edge may stand out between the centres.
            assert (inside[full, 2] > around[:, full].min(axis=0) - 0.034).mean() > 0.99


def test_the_same_bytes_again_in_another_child(example: Example) -> None:
    stage = GroundTruth(data=example.store.root, passes=PASSES)
    before = {part.name: part.sha256 for row in example.truth.values() for part in row.parts}
    stage.close()
    again = list(stage.process(example.item))
    assert {part.name: part.sha256 for row in again if isinstance(row, Truth) for part in row.parts} == before


def test_cycles_own_depth_and_normals_agree(example: Example, tmp_path: Path) -> None:
    """Blender's Z and normal passes, sampled at the pixels' centres."""
    shot = {
        "asset": str(example.store.path(example.item.plan.blob)),
        "plan": dataclasses.asdict(example.item.plan),
        "view": 1,
        "frame": 1,
        "out": str(tmp_path),
    }
    command = [sys.executable, "-m", "tests.render.cycles_passes", json.dumps(shot)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(tmp_path / "passes.npz")
    depth, normal = example.map("depth", 1)[1], example.map("normal", 1)[1]
    both = ~np.isnan(depth) & (found["depth"] < 100)
    assert both.sum() > 0.98 * (found["depth"] < 100).sum() - 2
    assert np.quantile(np.abs(depth - found["depth"])[both], 0.98) < 1e-4
    if example.item.plan.format == "blend":
        return  # its normal map shows in Cycles' normals
    ours, theirs = normal[both], found["normal"][both]
    lengths = np.linalg.norm(ours, axis=1) * np.maximum(np.linalg.norm(theirs, axis=1), 1e-9)
    angle = np.degrees(np.arccos(np.clip(np.einsum("pc,pc->p", ours, theirs) / lengths, -1, 1)))
    assert np.quantile(angle, 0.95) < 0.5


def quad(document: TinyGltf, material: int, centre: tuple[float, float, float], size: float = 0.9) -> dict[str, Any]:
    """A primitive: a square that looks towards +z of glTF, the viewer."""
    x, y, z = centre
    half = size / 2
    points = [[x - half, y - half, z], [x + half, y - half, z], [x + half, y + half, z], [x - half, y + half, z]]
    uvs = [[0.0, 2.0], [2.0, 2.0], [2.0, 0.0], [0.0, 0.0]]
    return {
        "attributes": {"POSITION": document.accessor(points, "VEC3"), "TEXCOORD_0": document.accessor(uvs, "VEC2")},
        "indices": document.accessor([0, 1, 2, 0, 2, 3], "SCALAR"),
        "material": material,
    }


def cutouts() -> TinyGltf:
    """Squares in two rows: one with holes before a full one, one-sided ones that face us or not, and mirrored ones."""
    document = TinyGltf()
    holes = np.zeros((8, 8, 4), dtype=np.uint8)
    holes[...] = (200, 90, 40, 255)
    holes[2:6, 2:6, 3] = 0
    content = io.BytesIO()
    Image.fromarray(holes, "RGBA").save(content, "PNG")
    picture = document.texture(bufferView=document.view(content.getvalue()), mimeType="image/png")
    masked = document.material((1, 1, 1), pbrMetallicRoughness=picture, alphaMode="MASK", alphaCutoff=0.3)
    full = document.material((0.2, 0.5, 0.8))
    one_sided = document.material((0.3, 0.8, 0.3), doubleSided=False)
    mesh = document.document["meshes"]
    mesh.append({"primitives": [quad(document, masked, (-1.0, 0.5, 0.15)), quad(document, full, (-1.0, 0.5, -0.15))]})
    mesh.append({"primitives": [quad(document, one_sided, (0.0, 0.0, 0.0))]})
    top = document.node(children=[])
    for child in (
        {"mesh": 0, "name": "holes"},
        {"mesh": 1, "name": "towards", "translation": [0.0, 0.5, 0.0]},
        {"mesh": 1, "name": "away", "translation": [1.0, 0.5, 0.0], "rotation": [0.0, 1.0, 0.0, 0.0]},
        {"mesh": 1, "name": "mirrored towards", "translation": [-0.5, -0.5, 0.0], "scale": [-1.0, 1.0, 1.0]},
        {"mesh": 1, "name": "mirrored away", "translation": [0.5, -0.5, 0.0], "scale": [1.0, 1.0, -1.0]},
    ):
        document.node(top, **child)
    document.animate("nod", (top, "translation", [0.0, 1.0, 2.0], [[0, 0, 0], [0.3, 0.2, 0.1], [0, 0.4, 0]]))
    return document


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, close_blender: None) -> Example:
    store = Store(str(tmp_path_factory.mktemp("odd") / "data"))
    return made(store, asset_of(store, cutouts().bytes()), "ortho4")


def test_instances_holes_and_hidden_backs_are_as_in_the_pictures(odd: Example) -> None:
    assert odd.truth["depth"].mask_iou > 0.95
    objects = odd.truth["object"].names
    assert len(objects) == 5  # four of them instances of one mesh
    seen = {
        view: {
            objects[int(number)] for number in np.unique(odd.map("object", view)[~np.isnan(odd.map("object", view))])
        }
        for view in (0, 2)
    }
    assert {"holes", "towards", "mirrored towards"} <= seen[0]
    assert {"holes", "away", "mirrored away"} <= seen[2]
    assert not {"away", "mirrored away"} & seen[0]
    assert not {"towards", "mirrored towards"} & seen[2]


def test_through_a_hole_one_sees_what_is_behind_it(odd: Example) -> None:
    """A quarter of the masked square is holes, and it stands before the full one."""
    materials, depth = odd.map("material", 0)[0], odd.map("depth", 0)[0]
    whole = odd.map("object", 0)[0] == odd.truth["object"].names.index("holes")
    masked, full = sorted(np.unique(materials[whole]), key=lambda number: float(np.nanmean(depth[materials == number])))
    assert np.nanmean(depth[materials == full]) > np.nanmean(depth[materials == masked]) + 0.05
    rows, columns = np.nonzero(materials == masked)
    inside = materials[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert 0.15 < (inside == full).mean() < 0.35


def test_where_vertices_come_and_go_only_what_needs_them_is_turned_away(
    real_assets: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (real_assets / "BoxAnimated.glb").read_bytes()
    found = made(store, asset_of(store, content), "front", num_frames=2, passes=("depth",))
    stage = GroundTruth(data=store.root, passes=PASSES)
    trace = GroundTruth._trace

    def changed(self: GroundTruth, *order: Any) -> Any:
        return dataclasses.replace(trace(self, *order), same_vertices=False)

    monkeypatch.setattr(GroundTruth, "_trace", changed)
    rows = list(stage.process(found.item))
    stage.close()
    made_ = {row.name for row in rows if isinstance(row, Truth)}
    turned_away = {row.rejected_id.partition(":")[2] for row in rows if isinstance(row, Rejected)}
    assert made_ == {"depth", "normal", "camera_normal", "object", "material"}
    assert turned_away == set(PASSES) - made_


def test_a_folder_of_gltf_files_is_unpacked_as_for_drawing(real_assets: Path, store: Store) -> None:
    folder = real_assets / "AnimatedCube"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(folder, arcname=".")
    asset = asset_of(store, packed.getvalue(), suffix="tar", main_file="AnimatedCube.gltf")
    example = made(store, dataclasses.replace(asset, format="gltf"), "front", num_frames=2, passes=("depth", "tracks"))
    assert example.truth["depth"].mask_iou > 0.95
    assert example.tracks().positions.shape[0] == 2
