import os
import shutil
from pathlib import Path

import pytest

from pipeline.storage import Store
from pipeline.tables import Tables
from shards.cards import CardSettings, write_cards
from shards.pack import Packer
from shards.plan import PackSettings
from tests.shards.toys import Toy, commit

# Read when the libraries are imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

SMALL = PackSettings(shard_mb=0.009, allowed_classes=("cc0", "permissive", "by", "by-sa"))
"""Three to four toy clips a shard."""

TOYS = [
    Toy(seq=0, num_animations=1),
    Toy(seq=1, num_animations=3),
    Toy(seq=2, licence_class="cc0"),
    Toy(seq=3, num_animations=2, dropped=(1,)),
    Toy(seq=4, licence_class="by-sa", num_animations=3),
    Toy(seq=5, num_animations=2),
    Toy(seq=6, licence_class="by-nc"),
    Toy(seq=7, num_animations=1),
    Toy(seq=8, licence_class="cc0", num_animations=3),
    Toy(seq=9, num_animations=2, noai=True),
]


@pytest.fixture(scope="session")
def packed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with packed toys and cards; not to be changed."""
    root = tmp_path_factory.mktemp("packed") / "data"
    tables = Tables(Store(str(root)))
    commit(tables, TOYS)
    Packer(tables, SMALL).pack()
    write_cards(tables, CardSettings(name="Toys"))
    return root


@pytest.fixture
def packed(packed_once: Path, tmp_path: Path) -> Tables:
    """The tables of a data root with packed toys, to do with as one likes."""
    shutil.copytree(packed_once, tmp_path / "packed")
    return Tables(Store(str(tmp_path / "packed")))
