"""What the Blender child wrote is checked before it is used."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from render.casting import Caster, points_of
from render.protocol import BadAsset, Opacity, Pose, Traced
from render.surfaces import Cover, Moving, read_moving

SQUARE = np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]], dtype="<f4")
TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]], dtype="<i4")
SOLID = Opacity(front=[1.0], back=[1.0], picture="", width=0, height=0, wrap="repeat", nearest=False)
HOLE = np.array([[255, 0], [0, 255]], dtype=np.uint8)
EYE = np.array([0.0, -3.0, 0.0])


def written(folder: Path, *, opacity: Opacity = SOLID, **files: Any) -> Traced:
    """A square in two poses, the second moved upwards; some of its files may be others."""
    contents: dict[str, np.ndarray] = {
        "positions_000": SQUARE,
        "positions_001": SQUARE + np.array([0, 0, 0.5], dtype="<f4"),
        "triangles_000": TRIANGLES,
        "objects_000": np.zeros(2, dtype="<i4"),
        "materials_000": np.zeros(2, dtype="<i4"),
        "uvs_000": (SQUARE[TRIANGLES][:, :, [0, 2]] / 2 + 0.5).astype("<f4"),
        "holes": HOLE,
        **files,
    }
    for name, values in contents.items():
        (folder / name).write_bytes(np.ascontiguousarray(values).tobytes())
    poses = [Pose(num_vertices=4, num_triangles=2, surface=0)] * 2
    return Traced(
        poses=poses, same_vertices=True, object_names=["square"], material_names=["paint"], opacities=[opacity]
    )


def moving(folder: Path, **changes: Any) -> Moving:
    return read_moving(folder, written(folder, **changes), num_poses=2, normals=False)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    found = moving(tmp_path)
    assert np.array_equal(found.poses[0].positions, SQUARE)
    assert found.poses[1].surface is found.poses[0].surface
    assert found.reach == pytest.approx(np.sqrt(1 + 1.5**2))


def link_out(folder: Path) -> None:
    (folder / "positions_000").unlink()
    (folder / "positions_000").symlink_to("/etc/passwd")


def pipe(folder: Path) -> None:
    (folder / "positions_000").unlink()
    os.mkfifo(folder / "positions_000")


def cut(folder: Path) -> None:
    os.truncate(folder / "triangles_000", 20)


def lost(folder: Path) -> None:
    (folder / "materials_000").unlink()


@pytest.mark.parametrize("spoil", [link_out, pipe, cut, lost])
def test_a_file_that_is_none_costs_the_asset(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    traced = written(tmp_path)
    spoil(tmp_path)
    with pytest.raises(BadAsset, match="blender_crashed"):
        read_moving(tmp_path, traced, num_poses=2, normals=False)


@pytest.mark.parametrize(
    "files",
    [
        {"positions_000": np.full_like(SQUARE, np.nan)},
        {"positions_001": np.full_like(SQUARE, 1e9)},
        {"triangles_000": TRIANGLES + 2},
        {"triangles_000": -TRIANGLES},
        {"objects_000": np.ones(2, dtype="<i4")},
        {"materials_000": np.full(2, -2, dtype="<i4")},
    ],
)
def test_numbers_out_of_range_cost_the_asset(tmp_path: Path, files: dict[str, np.ndarray]) -> None:
    with pytest.raises(BadAsset, match="not what was ordered"):
        moving(tmp_path, **files)


@pytest.mark.parametrize(
    "told",
    [
        {"poses": []},
        {"poses": [Pose(num_vertices=4, num_triangles=2, surface=1)] * 2},
        {"poses": [Pose(num_vertices=-4, num_triangles=2, surface=0)] * 2},
        {"poses": [Pose(num_vertices="4", num_triangles=2, surface=0)] * 2},  # type: ignore[arg-type]
        {"material_names": []},
        {"object_names": []},
        {"opacities": [dataclasses.replace(SOLID, front=[float("nan")])]},
        {"opacities": [dataclasses.replace(SOLID, picture="../positions_000", width=1, height=48)]},
        {"opacities": [dataclasses.replace(SOLID, wrap="wobble")]},
        {"opacities": [dataclasses.replace(SOLID, front=[1.0] * 256)]},
    ],
)
def test_a_reply_that_makes_no_sense_costs_the_asset(tmp_path: Path, told: dict[str, Any]) -> None:
    traced = dataclasses.replace(written(tmp_path), **told)
    with pytest.raises(BadAsset, match="not what was ordered"):
        read_moving(tmp_path, traced, num_poses=2, normals=False)


def rays(*targets: tuple[float, float]) -> np.ndarray:
    """From the eye towards points of the square, given by x and z."""
    return np.array([[x, 0.0, z] for x, z in targets]) - EYE


def test_a_ray_meets_the_square_where_it_should(tmp_path: Path) -> None:
    found = moving(tmp_path)
    caster = Caster(found)
    hits = caster.cast(0, EYE, rays((0.5, -0.7), (0.999, 0.999), (1.01, 0.0)))
    assert hits.triangle.tolist()[2] == -1
    both = hits.only(np.array([0, 1]))
    assert points_of(both, found.poses[0]) == pytest.approx(np.array([[0.5, 0, -0.7], [0.999, 0, 0.999]]), abs=1e-6)
    assert points_of(both, found.poses[1]) == pytest.approx(np.array([[0.5, 0, -0.2], [0.999, 0, 1.499]]), abs=1e-6)
    assert (caster.cast(1, EYE, rays((0.0, -0.9))).triangle == -1).all()


def test_a_one_sided_square_is_not_there_from_behind(tmp_path: Path) -> None:
    one_sided = dataclasses.replace(SOLID, back=[0.0])
    caster = Caster(moving(tmp_path, opacity=one_sided))
    assert (caster.cast(0, EYE, rays((0.1, 0.2))).triangle >= 0).all()
    assert (caster.cast(0, -EYE, -rays((0.1, 0.2))).triangle == -1).all()


def test_a_ray_goes_through_the_holes_of_a_picture(tmp_path: Path) -> None:
    """Two by two: solid at the bottom left and the top right."""
    opacity = dataclasses.replace(SOLID, picture="holes", width=2, height=2, nearest=True)
    table = np.linspace(0, 1, 256).tolist()
    holes = dataclasses.replace(opacity, front=table, back=table)
    behind = np.concatenate([SQUARE, SQUARE + np.array([0, 0.5, 0], dtype="<f4")])
    traced = written(
        tmp_path,
        opacity=holes,
        positions_000=behind,
        positions_001=behind,
        triangles_000=np.concatenate([TRIANGLES, TRIANGLES + 4]).astype("<i4"),
        objects_000=np.array([0, 0, 1, 1], dtype="<i4"),
        materials_000=np.array([0, 0, 1, 1], dtype="<i4"),
        uvs_000=np.tile(SQUARE[TRIANGLES][:, :, [0, 2]] / 2 + 0.5, (2, 1, 1)).astype("<f4"),
    )
    traced = dataclasses.replace(
        traced,
        poses=[Pose(num_vertices=8, num_triangles=4, surface=0)] * 2,
        object_names=["holes", "behind"],
        material_names=["holes", "paint"],
        opacities=[holes, SOLID],
    )
    found = read_moving(tmp_path, traced, num_poses=2, normals=False)
    hits = Caster(found).cast(0, EYE, rays((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)))
    assert found.poses[0].surface.objects[hits.triangle].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("wrap", "wanted"), [("repeat", [255, 0]), ("extend", [0, 255]), ("clip", [0, 0]), ("mirror", [0, 255])]
)
def test_beyond_its_edge_a_picture_goes_on_as_told(wrap: str, wanted: list[int]) -> None:
    cover = Cover(front=np.ones(1), back=np.ones(1), values=HOLE, wrap=wrap, nearest=True)
    assert cover._looked_up(np.array([[1.25, 0.25], [1.25, 0.75]])).tolist() == wanted
