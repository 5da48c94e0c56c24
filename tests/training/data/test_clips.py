import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.cameras import look_at_origin
from pipeline.media import compose
from tests.shards.toys import shape_frames
from tests.training.data.conftest import CHOSEN, NUM_FRAMES, NUM_VIEWS, SETTINGS
from training.cameras import camera_vectors
from training.data.clips import ClipDataset, ClipRecord, ClipSettings, Example, choose_frames, choose_views
from training.data.index import BrokenSample, SampleIndex
from training.data.order import BatchesOfRank, Draw, Stream
from training.data.stream import TarStream


def dataset(published: Path, **changes: object) -> ClipDataset:
    return ClipDataset(SampleIndex.open(str(published), CHOSEN), replace(SETTINGS, **changes))  # type: ignore[arg-type]


def test_an_example_shows_the_drawn_views_and_frames(published: Path) -> None:
    examples = dataset(published)
    record_of = {
        (seq, action): [shape_frames(seq * 100 + action * 10 + view, NUM_FRAMES) for view in range(NUM_VIEWS)]
        for seq in range(6)
        for action in range(2)
    }
    for place in range(12):
        row, example = examples.index[place], examples[Draw(index=place, place=place)]
        seq, action = int(row.title.split()[1]), int(row.action[-3:])
        rng = SETTINGS.rng(row.key, 0)
        frames = choose_frames(NUM_FRAMES, 8.0, SETTINGS, rng)
        views = SETTINGS.views(ClipRecord.parse(examples.read(row, "json")), 0)
        pictures = np.stack([compose(record_of[seq, action][view][frames]) for view in views])
        expected = torch.from_numpy(pictures).permute(0, 1, 4, 2, 3) * 2 - 1
        torch.testing.assert_close(example["video"], expected, atol=2 / 255, rtol=0)
        cameras = np.stack([look_at_origin(360.0 * view / NUM_VIEWS, 15.0, 3.0) for view in views])
        np.testing.assert_allclose(example["cameras"], camera_vectors(cameras), atol=1e-6)


def test_views_are_a_quarter_turn_apart_from_any_first_one() -> None:
    for turn in range(8):
        assert np.array_equal(choose_views(16, 4, turn), turn % 4 + np.array([0, 4, 8, 12]))
    with pytest.raises(BrokenSample):
        choose_views(6, 4, 0)


def test_passes_show_all_ways_to_choose_views_in_turn(published: Path) -> None:
    examples = dataset(published, num_variants=2)
    of_pass = [examples[Draw(index=3, place=3 + 12 * number)] for number in range(4)]
    assert not torch.equal(of_pass[0]["cameras"], of_pass[1]["cameras"])
    for number in (2, 3):
        assert torch.equal(of_pass[number]["video"], of_pass[number - 2]["video"])
        assert torch.equal(of_pass[number]["cameras"], of_pass[number - 2]["cameras"])
    firsts = {
        int(SETTINGS.views(ClipRecord.parse(examples.read(examples.index[place], "json")), 0)[0]) for place in range(12)
    }
    assert firsts == {0, 1}


def test_what_is_drawn_for_a_clip_does_not_depend_on_the_order(published: Path) -> None:
    examples = dataset(published, background="random")
    first, other = examples[Draw(index=4, place=0)], examples[Draw(index=4, place=11)]
    assert torch.equal(first["video"], other["video"])


def test_frames_follow_the_frame_rate_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    sixteen = ClipSettings()
    starts = {int(choose_frames(48, 24.0, sixteen, rng)[0]) for _ in range(60)}
    assert starts == {0, 1, 2}
    assert np.array_equal(np.unique(np.diff(choose_frames(48, 24.0, sixteen, rng))), [3])
    assert np.array_equal(choose_frames(16, 8.0, sixteen, rng), np.arange(16))
    assert np.array_equal(np.diff(choose_frames(20, 24.0, sixteen, rng)), np.ones(15))
    strides = {int(np.diff(choose_frames(80, 24.0, replace(sixteen, stride_jitter=1), rng))[0]) for _ in range(60)}
    assert strides == {2, 3, 4}
    with pytest.raises(BrokenSample):
        choose_frames(15, 8.0, sixteen, rng)


def test_worker_processes_change_nothing(published: Path) -> None:
    examples = dataset(published, background="random")
    stream = Stream(num_samples=len(examples), seed=1)

    def batches(num_workers: int) -> list[Example]:
        sampler = BatchesOfRank(stream, batch_size=2, num_batches=9)
        return list(DataLoader(examples, batch_sampler=sampler, num_workers=num_workers))

    for alone, together in zip(batches(0), batches(2), strict=True):
        assert alone["key"] == together["key"]
        assert torch.equal(alone["video"], together["video"])
        assert torch.equal(alone["cameras"], together["cameras"])


def test_the_same_clip_differs_from_pass_to_pass(published: Path) -> None:
    examples = dataset(published)
    videos = [examples[Draw(index=0, place=place)]["video"] for place in range(0, 120, 12)]
    assert any(not torch.equal(videos[0], video) for video in videos[1:])


@pytest.mark.parametrize(("background", "level"), [("grey", 0.0), ("white", 1.0), ("black", -1.0)])
def test_backgrounds(published: Path, background: str, level: float) -> None:
    example = dataset(published, background=background)[Draw(index=0, place=0)]
    assert example["video"][0, 0, :, 0, 0].tolist() == pytest.approx([level] * 3, abs=1e-6)


def test_other_sizes_are_resized_after_composing(published: Path) -> None:
    small = dataset(published, size_px=12, background="white")[Draw(index=0, place=0)]["video"]
    full = dataset(published, background="white")[Draw(index=0, place=0)]["video"]
    assert small.shape == (4, 3, 3, 12, 12)
    pooled = torch.nn.functional.avg_pool2d(full.flatten(0, 1), 2).unflatten(0, (4, 3))
    torch.testing.assert_close(small, pooled, atol=1e-5, rtol=0)


def test_a_broken_sample_is_replaced_and_counted(
    published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "shards"))
    examples = dataset(folder)
    row = examples.index[0]
    content = bytearray((folder / row.shard).read_bytes())
    for part in row.parts.values():
        content[part.offset + 5] ^= 255
    (folder / row.shard).write_bytes(content)
    example = examples[Draw(index=0, place=0)]
    assert example["key"] == examples.index[1].key
    assert example["num_broken"] == 1
    assert row.key in caplog.text
    with pytest.raises(BrokenSample):
        ClipDataset(examples.index, SETTINGS, strict=True)[Draw(index=0, place=0)]


def test_plain_webdataset_gives_every_sample_once(published: Path) -> None:
    tars = [str(path) for path in sorted(published.rglob("*.tar"))]
    keys = [example["key"] for example in TarStream(tars, SETTINGS)]
    index = SampleIndex.open(str(published), CHOSEN)
    assert keys == [index[place].key for place in range(len(index))]
    shuffled = [example["key"] for example in TarStream(tars, SETTINGS, shuffle=4, seed=1)]
    assert sorted(shuffled) == sorted(keys)
    assert shuffled != keys
