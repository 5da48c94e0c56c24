import dataclasses
import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from torch.utils.data import DataLoader, default_collate

from tests.conftest import REPOSITORY
from tests.training.data.conftest import CHOSEN, SETTINGS, pack
from tests.training.toys import tiny_pipeline
from training.data.clips import ClipDataset
from training.data.index import BrokenSample, SampleIndex
from training.data.latents import AboutLatents, LatentDataset, encode
from training.data.order import BatchesOfRank, Draw, Stream
from training.encoders import Encoders
from training.latents import LatentReport, LatentSettings, LatentWriter, main

CLIPS = replace(SETTINGS, num_variants=2)
WANTED = LatentSettings(clips=CLIPS, selection=CHOSEN, store_as="float32", samples_per_tar=3, num_workers=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders of the true classes, in the layout of diffusers."""
    folder = tmp_path_factory.mktemp("encoders")
    tiny_pipeline(folder).save_pretrained(folder)
    shutil.rmtree(folder / "unet")
    return folder


@pytest.fixture(scope="module")
def encoders(folder: Path) -> Encoders:
    return Encoders.load(folder)


@pytest.fixture(scope="module")
def latents(published: Path, encoders: Encoders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run writes."""
    out = tmp_path_factory.mktemp("latents")
    write(published, out, encoders)
    return out


def write(shards: Path, out: Path, encoders: Encoders, **changes: Any) -> LatentReport:
    return LatentWriter(str(shards), str(out), encoders, replace(WANTED, **changes)).run()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def batches(data: ClipDataset | LatentDataset, *, start: int = 0, num: int = 15, num_workers: int = 0) -> Sequence[Any]:
    stream = Stream(num_samples=len(data), seed=3, shard_starts=data.index.shard_starts, window_shards=2)
    sampler = BatchesOfRank(stream, batch_size=2, num_batches=num, start=start)
    collate = None if isinstance(data, LatentDataset) else list
    return list(DataLoader(data, batch_sampler=sampler, collate_fn=collate, num_workers=num_workers))


def test_batches_of_latents_are_those_of_encoding_on_the_fly(
    published: Path, latents: Path, encoders: Encoders
) -> None:
    clips = ClipDataset(SampleIndex.open(str(published), CHOSEN), CLIPS)
    cached = batches(LatentDataset.open(str(latents), CHOSEN))  # two passes and a half over 12 clips
    for batch, examples in zip(cached, batches(clips), strict=True):
        expected = default_collate([encode(example, encoders) for example in examples])
        assert batch.keys() == expected.keys()
        for name in ("latents", "text", "image_embeds", "cameras"):
            assert torch.equal(batch[name], expected[name]), name
        assert (batch["key"], batch["caption"]) == (expected["key"], expected["caption"])
    assert cached[0]["latents"].shape == (2, 4, 3, 4, 12, 12)
    assert cached[0]["latents"].std() > 0.01


def test_latents_go_on_at_any_place_of_the_stream(latents: Path) -> None:
    data = LatentDataset.open(str(latents), CHOSEN)
    whole, rest = batches(data), batches(data, start=14, num=8, num_workers=2)
    assert [batch["key"] for batch in rest] == [batch["key"] for batch in whole[7:]]
    assert all(torch.equal(a["latents"], b["latents"]) for a, b in zip(rest, whole[7:], strict=True))


def test_the_first_frame_is_the_middle_of_the_vaes_distribution(latents: Path, published: Path, folder: Path) -> None:
    pipeline = tiny_pipeline(folder)
    row = SampleIndex.open(str(published), CHOSEN)[5]
    video = ClipDataset(SampleIndex.open(str(published), CHOSEN), CLIPS).example(row, 1)["video"]
    data = LatentDataset.open(str(latents), CHOSEN)
    found = data.example(data.index[5], 1)
    with torch.no_grad():
        clean = pipeline.vae.encode(video[:, 0]).latent_dist.mean * pipeline.vae.config["scaling_factor"]
        image = pipeline.encode_first_frames(video[None, :, 0] / 2 + 0.5)[0]
        text = pipeline.encode_prompts([found["caption"], ""])
    torch.testing.assert_close(found["latents"][:, 0], clean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found["image_embeds"], image)
    torch.testing.assert_close(found["text"], text[0])
    torch.testing.assert_close(data.empty_text(), text[1])


@pytest.mark.parametrize("store_as", ["float16", "bfloat16"])
def test_two_bytes_a_number_round_and_no_more(
    published: Path, latents: Path, encoders: Encoders, tmp_path: Path, store_as: Any
) -> None:
    write(published, tmp_path, encoders, store_as=store_as)
    exact, rounded = (LatentDataset.open(str(out), CHOSEN)[Draw(index=2, place=2)] for out in (latents, tmp_path))
    for name in ("latents", "text", "image_embeds"):
        whole, half = exact[name], rounded[name]  # type: ignore[literal-required]
        assert torch.equal(half, whole.to(getattr(torch, store_as)))
    assert torch.equal(exact["cameras"], rounded["cameras"])


def test_a_killed_run_goes_on_and_gives_the_same_files(
    published: Path, latents: Path, encoders: Encoders, folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "training.latents", "--data", published, "--out", tmp_path, "--encoders", folder]
    options = {"samples_per_tar": 3, "store_as": "float32", "num_workers": 1, "selection.rigs": "[]"}
    options |= {f"clips.{name}": value for name, value in dataclasses.asdict(CLIPS).items()}
    command += [f"--{name}={value}" for name, value in options.items()]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 200
        while len(list(tmp_path.rglob("*.tar"))) < 2:
            assert process.poll() is None, process.communicate()[1].decode()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "samples.parquet").exists()
    with pytest.raises(FileNotFoundError, match="not finished"):
        LatentDataset.open(str(tmp_path), CHOSEN)
    report = write(published, tmp_path, encoders)
    assert 0 < report.num_encoded < 12
    assert files(tmp_path) == files(latents)
    again = write(published, tmp_path, encoders)
    assert (again.written, again.num_encoded, again.num_samples) == ([], 0, 12)


def test_a_tar_whose_index_did_not_get_there_is_written_again(
    published: Path, latents: Path, encoders: Encoders, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(latents, tmp_path / "out"))
    first = sorted(out.glob("index/*.parquet"))[0]
    first.unlink()
    (out / "samples.parquet").unlink()
    (out / "by" / ".mv.tar.1234.partial").write_bytes(b"half")
    report = write(published, out, encoders)
    assert len(report.written) == 1
    assert files(out) == files(latents)


def test_tasks_share_the_work_and_the_last_one_writes_the_index(
    published: Path, latents: Path, encoders: Encoders, tmp_path: Path
) -> None:
    first = write(published, tmp_path, encoders, task=0, num_tasks=2)
    assert first.missing
    assert not (tmp_path / "samples.parquet").exists()
    second = write(published, tmp_path, encoders, task=1, num_tasks=2)
    assert not second.missing
    assert first.num_samples + second.num_samples == 12
    assert files(tmp_path) == files(latents)


def test_what_is_taken_down_goes_and_nothing_is_encoded_again(
    published: Path, latents: Path, encoders: Encoders, tmp_path: Path
) -> None:
    shards, out = (Path(shutil.copytree(of, tmp_path / of.name)) for of in (published, latents))
    whole = pq.read_table(shards / "samples.parquet")
    asset = whole["asset_id"][0].as_py()
    gone = {row["key"] for row in whole.to_pylist() if row["asset_id"] == asset}
    pq.write_table(pa.table({"asset_id": [asset]}), out / "REVOKED.parquet")
    keys = {row["key"] for row in whole.to_pylist()} - gone
    unseen = LatentDataset.open(str(out), CHOSEN)  # at once, by the list alone
    assert {unseen.index[place].key for place in range(len(unseen))} == keys

    pq.write_table(pa.table({"asset_id": [asset]}), shards / "REVOKED.parquet")
    report = write(shards, out, encoders)
    assert report.num_encoded == 0
    assert report.num_samples == 12 - len(gone)
    left = b"".join(content for name, content in files(out).items() if name.endswith((".tar", ".parquet")))
    assert not [key for key in gone if key.encode() in left]
    write(shards, tmp_path / "anew", encoders)
    assert files(out) == files(tmp_path / "anew")


def test_other_captions_are_encoded_and_pictures_are_not(published: Path, encoders: Encoders, tmp_path: Path) -> None:
    renamed = pack(tmp_path / "renamed", title="A_green_disc")
    write(published, tmp_path / "out", encoders)
    report = write(renamed, tmp_path / "out", encoders)
    assert (report.num_encoded, len(report.unchanged)) == (0, 0)
    write(renamed, tmp_path / "anew", encoders)
    assert files(tmp_path / "out") == files(tmp_path / "anew")
    data = LatentDataset.open(str(tmp_path / "out"), CHOSEN)
    assert "green disc" in data[Draw(index=0, place=0)]["caption"]


def test_broken_samples_keep_their_place_and_are_tried_again(
    published: Path, latents: Path, encoders: Encoders, tmp_path: Path
) -> None:
    shards = Path(shutil.copytree(published, tmp_path / "shards"))
    index = SampleIndex.open(str(shards), CHOSEN)
    row, tar = index[4], shards / index[4].shard
    content = bytearray(tar.read_bytes())
    for part in row.parts.values():
        content[part.offset + 20] ^= 255
    tar.write_bytes(content)
    report = write(shards, tmp_path / "out", encoders, num_workers=1)
    assert report.broken == [row.key]
    data, clips = LatentDataset.open(str(tmp_path / "out"), CHOSEN), ClipDataset(index, CLIPS)
    for place in range(12):
        mine, theirs = data[Draw(index=place, place=place)], clips[Draw(index=place, place=place)]
        assert (mine["key"], mine["num_broken"]) == (theirs["key"], theirs["num_broken"])
        assert torch.equal(mine["latents"], encode(theirs, encoders)["latents"])
    shutil.copy(published / row.shard, tar)
    report = write(shards, tmp_path / "out", encoders)
    assert (report.num_encoded, report.broken) == (1, [])
    assert files(tmp_path / "out") == files(latents)


def test_the_tars_are_webdatasets_with_the_keys_of_the_samples_and_hold_no_pickle(
    latents: Path, published: Path
) -> None:
    names = set()
    keys = []
    for tar in sorted(latents.rglob("*.tar")):
        with tarfile.open(tar) as opened:
            names |= {name.partition(".")[2] for name in opened.getnames()}
        keys += [sample["__key__"] for sample in webdataset.WebDataset(str(tar), shardshuffle=False)]
    assert names == {"json", "text.safetensors", "w00.safetensors", "w01.safetensors"}
    index = SampleIndex.open(str(published), CHOSEN)
    assert keys == [index[place].key for place in range(len(index))]
    assert (latents / "attribution.parquet").read_bytes() == (published / "attribution.parquet").read_bytes()


def test_damaged_latents_are_passed_over(latents: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(latents, tmp_path / "out"))
    data = LatentDataset.open(str(out), CHOSEN)
    row = data.index[0]
    content = bytearray((out / row.shard).read_bytes())
    content[row.parts["w00.safetensors"].offset + 100] ^= 1
    (out / row.shard).write_bytes(content)
    assert data[Draw(index=0, place=0)]["key"] == data.index[1].key
    with pytest.raises(BrokenSample, match="checksum"):
        LatentDataset.open(str(out), CHOSEN, strict=True)[Draw(index=0, place=0)]


def test_latents_of_other_settings_or_encoders_are_not_mixed(
    published: Path, latents: Path, encoders: Encoders, folder: Path, tmp_path: Path
) -> None:
    before = files(latents)
    with pytest.raises(ValueError, match="store_as"):
        write(published, latents, encoders, store_as="float16")
    with pytest.raises(ValueError, match="clips"):
        write(published, latents, encoders, clips=replace(CLIPS, seed=9))
    changed = dataclasses.replace(encoders, vae=Encoders.load(folder).vae)
    with torch.no_grad():
        next(changed.vae.parameters()).mul_(1.5)
    with pytest.raises(ValueError, match="encoders"):
        write(published, latents, changed)
    assert files(latents) == before
    for content in (b"{", b"[]", json.dumps({"format": "mv4d-latents/9"}).encode()):
        (tmp_path / "latents.json").write_bytes(content)
        with pytest.raises(ValueError, match="does not describe latents"):
            LatentDataset.open(str(tmp_path), CHOSEN)


def test_another_split_goes_beside_the_first(published: Path, encoders: Encoders, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(published, tmp_path / "shards"))
    table = pq.read_table(shards / "samples.parquet")
    tars = table["shard"].to_pylist()
    moved = ["val" if shard == tars[-1] else "train" for shard in tars]
    pq.write_table(table.set_column(table.column_names.index("split"), "split", [moved]), shards / "samples.parquet")
    write(shards, tmp_path / "out", encoders)
    write(shards, tmp_path / "out", encoders, selection=replace(CHOSEN, split="val"))
    report = write(shards, tmp_path / "out", encoders)
    assert (report.written, report.removed) == ([], [])
    of_split = {
        split: len(LatentDataset.open(str(tmp_path / "out"), replace(CHOSEN, split=split)))
        for split in ("train", "val")
    }
    assert of_split == {"train": moved.count("train"), "val": moved.count("val")}


@pytest.mark.parametrize(
    "change",
    [{"clips": SETTINGS}, {"clips": replace(CLIPS, num_views=2)}, {"samples_per_tar": 0}, {"task": 2, "num_tasks": 2}],
)
def test_impossible_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"num_variants|views|at least|task"):
        replace(WANTED, **change)


def test_the_command_says_what_is_wrong(
    published: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended_with(*options: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([f"--out={tmp_path}", *options])
        return int(ended.value.code or 0), " ".join(capsys.readouterr().err.split())

    code, said = ended_with(f"--data={published}", f"--encoders={tmp_path / 'none'}")
    assert (code, "no folder" in said) == (2, True)
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    (broken / "vae" / "config.json").write_text("{")
    code, said = ended_with(f"--data={published}", f"--encoders={broken}")
    assert (code, "holds no AutoencoderKL" in said) == (2, True)
    code, said = ended_with(f"--data={tmp_path}", f"--encoders={folder}")
    assert (code, "mv4d pack" in said) == (2, True)
    code, said = ended_with(f"--data={published}", f"--encoders={folder}", "--clips.num_variants=0")
    assert (code, "num_variants" in said) == (2, True)


def test_about_survives_the_round_trip(latents: Path) -> None:
    about = AboutLatents(clips=CLIPS, encoders="abc")
    store = io.BytesIO(about.to_json())
    assert json.loads(store.getvalue())["clips"]["num_variants"] == 2
    assert LatentDataset.open(str(latents), CHOSEN).about.clips == CLIPS
