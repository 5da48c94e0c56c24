"""Fixtures that every stage's tests share."""

import os
from pathlib import Path

import pytest

from pipeline.storage import Store
from pipeline.tables import Tables

REPOSITORY = Path(__file__).resolve().parents[1]


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
