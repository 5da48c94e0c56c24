"""Builds that nothing disturbed, to compare with."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.builds import finish, start

REAL = (
    "Horse.glb", "Clownfish.glb", "Crab.glb", "Manta_ray.glb", "RiggedSimple.glb", "BoxAnimated.glb",
    "CesiumMilkTruck.glb", "AnimatedMorphSphere.glb", "KhronosFox.glb", "SketchfabFoxDraco.glb", "character.glb",
    "motionbuilder_sausage_rrss_7700_binary.fbx", "Cow.fbx", "boxman.blend", "BirchTree_3.glb", "hostile/truncated.glb",
    "hostile/constant_animation.glb", "hostile/missing_texture.glb", "hostile/draco.glb",
)  # fmt: skip
"""Every format and kind of animation, and some that must be turned away; all quick to draw."""


FEW = (
    "flag.glb", "windmill.glb", "ball/ball.gltf", "helicopter.fbx", "truncated.glb", "clownfish.glb",
    "clownfish_again.glb",
)  # fmt: skip


def _part_of(manifest: Path, names: Sequence[str], target: Path) -> Path:
    with manifest.open(newline="") as whole, target.open("w", newline="") as part:
        reader = csv.DictReader(whole)
        writer = csv.DictWriter(part, reader.fieldnames or [])
        writer.writeheader()
        writer.writerows({**row, "file": str(manifest.parent / row["file"])} for row in reader if row["file"] in names)
    return target


@pytest.fixture(scope="session")
def few(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of the quickest samples: three formats, one file twice, and one that is broken."""
    return _part_of(samples / "manifest.csv", FEW, tmp_path_factory.mktemp("few") / "manifest.csv")


@pytest.fixture(scope="session")
def calm(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root of an undisturbed build of them."""
    data = tmp_path_factory.mktemp("calm") / "data"
    finish(start(few, data))
    return data


@pytest.fixture(scope="session")
def real_manifest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of some real assets, or of all built-in samples where there are none."""
    try:
        real_assets: Path = request.getfixturevalue("real_assets")
    except pytest.skip.Exception:
        samples: Path = request.getfixturevalue("samples")
        return samples / "manifest.csv"
    return _part_of(real_assets / "catalog.csv", REAL, tmp_path_factory.mktemp("real") / "manifest.csv")


@pytest.fixture(scope="session")
def calm_real(real_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root of an undisturbed build of the real assets."""
    data = tmp_path_factory.mktemp("calm-real") / "data"
    finish(start(real_manifest, data), timeout_s=900)
    return data
