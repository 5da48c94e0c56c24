from pathlib import Path

import pytest

from pipeline.storage import Store
from pipeline.tables import Tables
from shards.cards import write_cards
from shards.pack import Packer
from shards.plan import PackSettings
from tests.shards.toys import Toy, commit
from training.data.clips import ClipSettings
from training.data.index import Selection

NUM_VIEWS, NUM_FRAMES = 8, 7
CHOSEN = Selection(rigs=(), num_views=4, num_frames=3)
SETTINGS = ClipSettings(num_views=4, num_frames=3, size_px=24, fps=4.0, seed=5)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of a data set of 6 assets with two animations each, packed by the real packer."""
    return pack(tmp_path_factory.mktemp("published"))


def pack(root: Path, title: str = "") -> Path:
    """Make and pack the clips; all with one title, or each with its own."""
    tables = Tables(Store(str(root)))
    toys = [
        Toy(seq=seq, licence_class="by" if seq % 2 else "cc0", num_views=NUM_VIEWS, num_frames=NUM_FRAMES, title=title)
        for seq in range(6)
    ]
    commit(tables, toys)
    Packer(tables, PackSettings(shard_mb=0.02, val_share=0.0, test_share=0.0)).pack()
    write_cards(tables)
    return root / "shards"
