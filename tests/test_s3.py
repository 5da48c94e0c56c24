"""A data root on S3: every stage writes to it, and the reader of the shards reads from it, by real HTTP."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from pipeline.build import BuildOptions, build
from pipeline.cli import EXIT_OK
from pipeline.records import Clip, Done, Sample
from pipeline.storage import Store
from pipeline.tables import Tables
from shards.lint import lint
from training.data.clips import ClipDataset, ClipSettings
from training.data.index import SampleIndex, Selection
from training.data.order import Draw


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket on a server of this test's own."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    boto3.client("s3").create_bucket(Bucket="bucket")
    s3fs.S3FileSystem.clear_instance_cache()
    yield "s3://bucket/set"
    server.stop()


def test_files_are_written_listed_and_removed(bucket: str) -> None:
    store = Store(bucket)
    assert not store.is_local
    assert store.list_files("tables") == []
    with pytest.raises(FileNotFoundError):
        store.read_bytes("tables/a/none.parquet")
    with contextlib.suppress(ZeroDivisionError), store.writer("tables/a/1.parquet") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert not store.exists("tables/a/1.parquet")
    store.write_bytes("tables/a/1.parquet", b"one")
    store.write_bytes("tables/a/1.parquet", b"two!")
    assert (store.read_bytes("tables/a/1.parquet"), store.size("tables/a/1.parquet")) == (b"two!", 4)
    assert store.list_files("tables", ".parquet") == ["tables/a/1.parquet"]
    store.remove("tables/a/1.parquet")
    store.remove("tables/a/1.parquet")
    assert store.list_files("tables") == []


@pytest.mark.blender
@pytest.mark.slow
def test_a_build_on_s3_resumes_lints_and_is_read(bucket: str, few_samples: Path) -> None:
    options = BuildOptions(
        data=bucket, rig="ortho4", quality="preview", size_px=32, workers=2, max_animations=1, quiet=True
    )
    assert build(options, [str(few_samples)]) == EXIT_OK
    tables = Tables(Store(bucket))
    clips, done = tables.rows(Clip), tables.rows(Done)
    assert len(clips) >= 4
    assert lint(tables).findings == []

    assert build(options, [str(few_samples)]) == EXIT_OK
    assert (tables.rows(Clip), tables.rows(Done)) == (clips, done)

    index = SampleIndex.open(bucket, Selection(num_views=4, num_frames=16))
    assert len(index) == len([row for row in tables.rows(Sample) if row.split == "train"]) > 0
    example = ClipDataset(index, ClipSettings(size_px=32), strict=True)[Draw(index=0, place=0)]
    assert example["video"].shape == (4, 16, 3, 32, 32)
