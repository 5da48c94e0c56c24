"""Readers that run while something is taken down, with real data loaders."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from torch.utils.data import DataLoader

from pipeline.cli import EXIT_OK, main
from pipeline.storage import Store
from pipeline.tables import Tables
from shards.cards import write_cards
from shards.pack import Packer
from shards.plan import PackSettings
from shards.takedown import carry_out, meaning_of, tombstone
from tests.shards.toys import Toy, commit
from tests.training.data.conftest import CHOSEN, NUM_FRAMES, NUM_VIEWS, SETTINGS
from training.data.clips import ClipDataset
from training.data.index import BrokenSample, SampleIndex
from training.data.order import BatchesOfRank, Draw, Stream
from training.data.seen import credited_rows, times_shown, write_seen
from training.data.stream import TarStream


@pytest.fixture(scope="module")
def packed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root of 6 assets with two samples each, several assets a tar."""
    root = tmp_path_factory.mktemp("packed") / "root"
    tables = Tables(Store(str(root)))
    commit(tables, [Toy(seq=seq, num_views=NUM_VIEWS, num_frames=NUM_FRAMES) for seq in range(6)])
    Packer(tables, PackSettings(shard_mb=0.1, val_share=0.0, test_share=0.0)).pack()
    write_cards(tables)
    return root


@pytest.fixture
def tables(packed_once: Path, tmp_path: Path) -> Tables:
    """A data root of one's own."""
    return Tables(Store(str(shutil.copytree(packed_once, tmp_path / "root"))))


def reader(tables: Tables, *, strict: bool = False) -> ClipDataset:
    return ClipDataset(SampleIndex.open(tables.store.root, CHOSEN), SETTINGS, strict=strict)


def served(dataset: ClipDataset, num_workers: int, num_batches: int = 9) -> Iterator[str]:
    """Keys of three passes in the order of training."""
    batches = BatchesOfRank(Stream(num_samples=len(dataset), seed=3), batch_size=4, num_batches=num_batches)
    ahead = 1 if num_workers else None
    for batch in DataLoader(dataset, batch_sampler=batches, num_workers=num_workers, prefetch_factor=ahead):
        yield from batch["key"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_readers_from_before_and_after_serve_no_sample_of_it(tables: Tables, num_workers: int) -> None:
    dataset = reader(tables)
    all_keys = {dataset.index[place].key for place in range(12)}
    asset_id = dataset.index[0].asset_id
    gone = {dataset.index[place].key for place in range(12) if dataset.index[place].asset_id == asset_id}
    assert len(gone) == 2

    early = served(dataset, num_workers, num_batches=30)
    before = [next(early) for _ in range(8)]
    tombstone(tables, [meaning_of(tables, asset_id, asked_on="2026-02-03").request])
    # What a worker had read ahead is not called back: one batch here, and one under way.
    in_flight = [next(early) for _ in range(8 if num_workers else 0)]
    from_now = [next(early) for _ in range(24)]
    assert not gone & set(from_now)
    report = carry_out(tables, on="2026-02-03")
    assert report.rewritten
    rest = list(early)
    assert len(before) + len(in_flight) + len(from_now) + len(rest) == 120
    assert set(from_now + rest) == all_keys - gone

    late = reader(tables)
    assert len(late) == 10
    assert set(served(late, num_workers)) == all_keys - gone


def test_a_reader_finds_what_has_moved_within_a_rewritten_tar(tables: Tables) -> None:
    dataset = reader(tables)
    first = dataset.index[0]
    neighbour = next(
        place
        for place in range(12)
        if dataset.index[place].shard == first.shard and dataset.index[place].asset_id != first.asset_id
    )
    before = dataset[Draw(index=neighbour, place=neighbour)]
    dataset._reader.close()
    tombstone(tables, [meaning_of(tables, first.asset_id, asked_on="2026-02-03").request])
    carry_out(tables, on="2026-02-03")
    after = dataset[Draw(index=neighbour, place=neighbour)]
    assert (after["key"], after["num_broken"]) == (before["key"], 0)
    assert after["video"].equal(before["video"])


def test_an_evaluation_does_not_silently_change(tables: Tables) -> None:
    dataset = reader(tables, strict=True)
    tombstone(tables, [meaning_of(tables, dataset.index[0].asset_id, asked_on="2026-02-03").request])
    with pytest.raises(BrokenSample, match="taken down"):
        dataset[Draw(index=0, place=0)]


def test_tars_in_a_row_pass_over_it(tables: Tables) -> None:
    tars = sorted(map(str, Path(tables.store.root).glob("shards/*/train/*.tar")))
    index = SampleIndex.open(tables.store.root, CHOSEN)
    gone = index[0].asset_id
    stream = iter(TarStream(tars, SETTINGS, shards=f"{tables.store.root}/shards"))
    keys = [next(stream)["key"]]
    tombstone(tables, [meaning_of(tables, gone, asked_on="2026-02-03").request])
    keys += [example["key"] for example in stream]
    assert keys[0] == index[0].key
    assert set(keys[1:]) == {index[place].key for place in range(12) if index[place].asset_id != gone}


def test_what_a_run_was_shown_is_counted_by_places_of_the_stream() -> None:
    stream = Stream(num_samples=7, seed=5)
    for start, end in ((0, 0), (0, 3), (2, 7), (3, 25), (14, 21)):
        expected = [0] * 7
        for place in range(start, end):
            expected[stream[place].index] += 1
        assert times_shown(stream, start, end).tolist() == expected
    with pytest.raises(ValueError, match="start <= end"):
        times_shown(stream, 3, 2)


def test_a_run_names_all_that_it_was_shown(tables: Tables, tmp_path: Path) -> None:
    rows, dataset = credited_rows(tables.store.root, CHOSEN), reader(tables)
    stream = Stream(num_samples=12, seed=3)
    shown = [dataset[stream[place]]["key"] for place in range(5)]
    run = tmp_path / "run"
    run.mkdir()
    assert write_seen(str(run), rows, stream, start=0, end=5) == "seen-000000000000.parquet"
    asset_id = rows["asset_id"][stream[0].index].as_py()
    assert main(["takedown", asset_id, "--data", tables.store.root]) == EXIT_OK
    # It went on with another sample in the place of one that was taken down meanwhile.
    examples = [dataset[stream[place]] for place in range(5, 9)]
    stand_ins = {example["key"] for example in examples if example["num_broken"]}
    write_seen(str(run), rows, stream, start=5, end=9, stand_ins=stand_ins)
    assert main(["attribution", "--run", str(run), "--out", str(tmp_path / "out")]) == EXIT_OK
    asset_of = dict(zip(rows["key"].to_pylist(), rows["asset_id"].to_pylist(), strict=True))
    credited = set(pq.read_table(tmp_path / "out" / "attribution.parquet")["asset_id"].to_pylist())
    assert {asset_of[key] for key in [*shown, *(example["key"] for example in examples)]} <= credited
    assert asset_id in credited
    with pytest.raises(ValueError, match="12 rows for a stream of 7"):
        write_seen(str(run), rows, Stream(num_samples=7), start=0, end=1)
