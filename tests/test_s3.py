"""A data root on S3: every stage writes to it, and the reader of the shards reads from it, by real HTTP."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from pipeline.build import BuildOptions, build
from pipeline.cli import EXIT_OK, main
from pipeline.records import Asset, Clip, Done, Rejected, Sample, Truth
from pipeline.storage import Store
from pipeline.tables import Tables
from shards.lint import lint
from tests.ingest.tiny import triangle_glb
from tests.ingest.web import Web, serve
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
    # What one server of this process holds, the next one has too.
    yield f"s3://bucket/{uuid.uuid4().hex}"
    server.stop()


@pytest.fixture
def web(bucket: str) -> Iterator[Web]:
    """A server of files, past any proxy as the bucket's."""
    with serve() as web:
        yield web


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


def test_downloads_are_stored_resumed_and_queued_again(bucket: str, web: Web, tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(12)]
    web.files |= {f"/{name}.glb": triangle_glb(seed=number) for number, name in enumerate(names)}
    web.faults |= {"/m3.glb": "503x2", "/m5.glb": "404"}
    listed = tmp_path / "list.csv"
    listed.write_text("url,spdx\n" + "".join(f"{web.url}/{name}.glb,CC0-1.0\n" for name in names))
    size = len(triangle_glb())
    run = [
        "ingest", str(listed), "--data", bucket, "--quiet", "true", "--fetch.private_hosts", web.url[len("http://") :],
        "--fetch.attempts", "2", "--fetch.first_wait_s", "0.01",
    ]  # fmt: skip
    tables = Tables(Store(bucket))
    assert main([*run, "--fetch.byte_budget", str(5 * size)]) == EXIT_OK
    assert 5 <= len(tables.rows(Asset)) <= 6
    assert main(run) == EXIT_OK
    assert {row.name: row.reason for row in tables.rows(Rejected)} == {
        f"{web.url}/m3.glb": "fetch_failed",
        f"{web.url}/m5.glb": "not_found",
    }
    assert main([*run, "--retry-rejected", "fetch_failed"]) == EXIT_OK
    assert [row.reason for row in tables.rows(Rejected)] == ["not_found"]
    assets = tables.rows(Asset)
    assert len(assets) == 11
    assert {Store(bucket).size(asset.blob) for asset in assets} == {asset.num_bytes for asset in assets}
    assert {path: number for path, number in web.asked.items() if number > 1} == {"/m3.glb": 3}


@pytest.mark.blender
@pytest.mark.slow
def test_a_build_on_s3_resumes_lints_and_is_read(bucket: str, few_samples: Path) -> None:
    look = {"rig": "ortho4", "quality": "preview", "size_px": 32, "max_animations": 1, "passes": "depth"}
    options = BuildOptions(data=bucket, workers=2, quiet=True, **look)  # type: ignore[arg-type]
    assert build(options, [str(few_samples)]) == EXIT_OK
    tables = Tables(Store(bucket))
    clips, done = tables.rows(Clip), tables.rows(Done)
    assert len(clips) >= 4
    assert len(tables.rows(Truth)) == len(clips)
    assert lint(tables).findings == []

    # Each stage alone finds its work done there, and so does the whole.
    drawn = [f"--{name}={value}" for name, value in look.items()]
    for command in (["ingest", str(few_samples)], ["probe"], ["render", *drawn]):
        assert main([*command, "--data", bucket, "--quiet", "true"]) == EXIT_OK, command
    for command in (["curate"], ["pack"], ["lint"], ["report"], ["stats"]):
        assert main([*command, "--data", bucket]) == EXIT_OK, command
    assert (tables.rows(Clip), tables.rows(Done)) == (clips, done)

    assert build(options, [str(few_samples)]) == EXIT_OK
    assert (tables.rows(Clip), tables.rows(Done)) == (clips, done)

    index = SampleIndex.open(bucket, Selection(num_views=4, num_frames=16))
    assert len(index) == len([row for row in tables.rows(Sample) if row.split == "train"]) > 0
    example = ClipDataset(index, ClipSettings(size_px=32), strict=True)[Draw(index=0, place=0)]
    assert example["video"].shape == (4, 16, 3, 32, 32)
