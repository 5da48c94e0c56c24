import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.tables import OldTable
from tests.training.data.conftest import CHOSEN
from training.data.index import BrokenSample, SampleIndex, Selection, ShardReader
from training.data.seen import credited_rows


def test_every_sample_is_there_once_in_the_order_of_the_shards(published: Path) -> None:
    index = SampleIndex.open(str(published), CHOSEN)
    rows = [index[place] for place in range(len(index))]
    in_tars = []
    for tar in sorted(published.rglob("*.tar")):
        with tarfile.open(tar) as file:
            in_tars += [name.removesuffix(".json") for name in file.getnames() if name.endswith(".json")]
    assert [row.key for row in rows] == in_tars
    assert len({row.shard for row in rows}) > 2


def test_the_data_root_will_do_as_well(published: Path) -> None:
    assert len(SampleIndex.open(str(published.parent), CHOSEN)) == len(SampleIndex.open(str(published), CHOSEN)) == 12


def test_parts_are_read_exactly(published: Path) -> None:
    index, reader = SampleIndex.open(str(published), CHOSEN), ShardReader(str(published))
    for place in range(len(index)):
        row = index[place]
        with tarfile.open(published / row.shard) as tar:
            for name, part in row.parts.items():
                member = tar.extractfile(f"{row.key}.{name}")
                assert member is not None
                assert reader.read(row.shard, part) == member.read()


def test_a_remote_store_is_read_by_ranges(published: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(published), "/set", recursive=True)
    index = SampleIndex.open("memory://set", CHOSEN)
    row = index[3]
    record = json.loads(ShardReader("memory://set").read(row.shard, row.parts["json"]))
    assert record["key"] == row.key
    memory.rm("/set", recursive=True)


def test_sql_selects(published: Path) -> None:
    everything = SampleIndex.open(str(published), CHOSEN)
    half = SampleIndex.open(
        str(published), Selection(rigs=(), num_views=4, num_frames=3, where="\"action\" = 'Walk.001'")
    )
    assert [half[place].key for place in range(len(half))] == [
        everything[place].key for place in range(len(everything)) if everything[place].action == "Walk.001"
    ]
    free = SampleIndex.open(str(published), Selection(rigs=(), num_frames=3, licence_classes=("cc0",)))
    assert len(free) == 6


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (Selection(rigs=("mv16",), num_frames=3), "no sample"),
        (Selection(rigs=(), num_frames=3, num_views=3), "no sample"),
        (Selection(rigs=(), num_frames=8), "no sample"),
        (Selection(rigs=(), num_frames=3, where="motion >"), "not understood"),
        (
            Selection(rigs=(), num_frames=3, where="key IN (FROM read_csv('/etc/passwd'))"),
            "not understood",
        ),
    ],
)
def test_a_selection_that_cannot_be_is_refused(published: Path, selection: Selection, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SampleIndex.open(str(published), selection)


def test_no_index_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="mv4d pack"):
        SampleIndex.open(str(tmp_path), CHOSEN)


@pytest.mark.parametrize("column", ["caption", "rig", "parts"])
def test_a_data_set_of_an_older_version_is_said_to_be_one(published: Path, tmp_path: Path, column: str) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "shards"))
    whole = pq.read_table(folder / "samples.parquet")
    index = SampleIndex.open(str(folder), CHOSEN)
    pq.write_table(whole.drop_columns([column]), folder / "samples.parquet")
    for read in (lambda: SampleIndex.open(str(folder), CHOSEN), index.moved):
        with pytest.raises(
            ValueError, match=rf"samples\.parquet in .*older version of mv4d, without {column}: make it"
        ):
            read()


def test_credits_of_a_data_set_of_an_older_version(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "shards"))
    pq.write_table(pq.read_table(folder / "samples.parquet").drop_columns(["spdx"]), folder / "samples.parquet")
    with pytest.raises(OldTable, match="without spdx:"):
        credited_rows(str(folder), CHOSEN)


def test_what_was_taken_down_after_packing_is_not_trained_on(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "shards"))
    whole = pq.read_table(folder / "samples.parquet")
    asset, clip = whole["asset_id"][0].as_py(), whole["clip_id"][11].as_py()
    buffer = io.BytesIO()
    pq.write_table(pa.table({"asset_id": [asset, None], "clip_id": [None, clip]}), buffer)
    (folder / "REVOKED.parquet").write_bytes(buffer.getvalue())
    index = SampleIndex.open(str(folder), CHOSEN)
    gone = {row["key"] for row in whole.to_pylist() if row["asset_id"] == asset or row["clip_id"] == clip}
    assert len(gone) == 3
    assert {index[place].key for place in range(len(index))} == set(whole["key"].to_pylist()) - gone


def test_flipped_bytes_are_noticed(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "shards"))
    index = SampleIndex.open(str(folder), CHOSEN)
    row = index[0]
    part = row.parts["v00.webp"]
    content = bytearray((folder / row.shard).read_bytes())
    content[part.offset + 30] ^= 1
    (folder / row.shard).write_bytes(content)
    with pytest.raises(BrokenSample, match="checksum"):
        ShardReader(str(folder)).read(row.shard, part)


def test_a_reader_goes_to_another_process_and_opens_anew(published: Path) -> None:
    index, reader = SampleIndex.open(str(published), CHOSEN), ShardReader(str(published), max_open=1)
    for place in (0, 11, 0):
        row = index[place]
        content = reader.read(row.shard, row.parts["json"])
        sent = pickle.loads(pickle.dumps(reader))
        assert sent.read(row.shard, row.parts["json"]) == content
        assert len(reader._open) == 1
