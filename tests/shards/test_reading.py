"""The shards as others read them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from pipeline.media import decode_strip
from pipeline.records import Clip, Sample
from pipeline.tables import Tables
from tests.shards.toys import NUM_FRAMES, SIZE_PX, strip


def paths(tables: Tables) -> list[str]:
    return [str(tables.store.path(path)) for path in tables.store.list_files("shards", ".tar")]


def test_with_tarfile(packed: Tables) -> None:
    members: dict[str, bytes] = {}
    for path in paths(packed):
        with tarfile.open(path) as tar:
            members |= {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    samples = packed.rows(Sample)
    assert set(members) == {f"{row.sample_key}.{part.name}" for row in samples for part in row.parts}
    for sample in samples:
        record = json.loads(members[f"{sample.sample_key}.json"])
        (clip,) = packed.rows(Clip, "clip_id = ?", [sample.clip_id])
        assert (record["clip_id"], record["fps"]) == (clip.clip_id, clip.fps)
        frames = decode_strip(members[f"{sample.sample_key}.v01.webp"], record["num_frames"])
        assert frames.shape == (NUM_FRAMES, SIZE_PX, SIZE_PX, 4)


def test_with_webdataset(packed: Tables) -> None:
    found = {}
    for sample in webdataset.WebDataset(paths(packed), shardshuffle=False):
        assert {"json", "v00.webp", "v01.webp"} <= set(sample)
        image = Image.open(io.BytesIO(sample["v00.webp"]))
        found[sample["__key__"]] = image.size
        assert np.asarray(image.convert("RGBA"))[..., 3].any()
    assert set(found) == {row.sample_key for row in packed.rows(Sample)}
    assert set(found.values()) == {(SIZE_PX, SIZE_PX * NUM_FRAMES)}


def test_with_huggingface_datasets(packed: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "webdataset", data_files={"train": paths(packed)}, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert set(loaded["__key__"]) == {row.sample_key for row in packed.rows(Sample)}
    for row in loaded:
        assert row["json"]["key"] == row["__key__"]
        assert np.array(row["json"]["cameras"]["c2w"]).shape == (2, 1, 4, 4)
        assert row["v00.webp"].size == (SIZE_PX, SIZE_PX * NUM_FRAMES)


def test_the_strips_are_the_very_bytes_that_were_rendered(packed: Tables) -> None:
    with tarfile.open(paths(packed)[0]) as tar:
        contents = {tar.extractfile(member).read() for member in tar if member.name.endswith(".webp")}  # type: ignore[union-attr]
    rendered = {strip(seq * 100 + action * 10 + view) for seq in range(10) for action in range(3) for view in range(2)}
    assert contents <= rendered
