"""Fixtures that every stage's tests share."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

from pipeline.storage import Store
from pipeline.tables import Tables

REPOSITORY = Path(__file__).resolve().parents[1]

# How long an example takes is a matter of the machine's mood.
hypothesis.settings.register_profile("mv4d", deadline=None)
hypothesis.settings.load_profile("mv4d")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty data root in a folder."""
    return Store(str(tmp_path / "data"))


@pytest.fixture
def tables(store: Store) -> Tables:
    """The tables of an empty data root."""
    return Tables(store)


@pytest.fixture(scope="session")
def real_assets() -> Path:
    """A folder of real animated assets with `catalog.csv`; tests that want it are skipped without it."""
    folder = Path(os.environ.get("MV4D_ASSETS", REPOSITORY.parent / "shared" / "assets"))
    if not (folder / "catalog.csv").exists():
        pytest.skip("no real assets: set MV4D_ASSETS to a folder with a catalog.csv")
    return folder


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in samples: a folder with `manifest.csv`."""
    folder = tmp_path_factory.mktemp("samples")
    subprocess.run(
        [sys.executable, "-m", "render.blender.make_samples", str(folder)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


@pytest.fixture(scope="session")
def few_samples(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of a few samples that draw quickly: good ones in three formats, a duplicate, and bad ones."""
    wanted = {
        "toy_robot.glb", "windmill.glb", "flag.glb", "ball/ball.gltf", "helicopter.fbx", "snowman.glb", "vase.glb",
        "truncated.glb", "clownfish.glb", "clownfish_again.glb", "blue_tang.glb",
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("few")
    path = folder / "manifest.csv"
    with (samples / "manifest.csv").open(newline="") as whole, path.open("w", newline="") as part:
        reader = csv.DictReader(whole)
        writer = csv.DictWriter(part, reader.fieldnames or [])
        writer.writeheader()
        for line in reader:
            if line["file"] in wanted:
                writer.writerow({**line, "file": str(samples / line["file"]), "title": line["file"]})
    return path
