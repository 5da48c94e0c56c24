"""Ground truth in tars beside the shards: same keys, same order, nothing else moved."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import cv2
import mlcroissant
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from pipeline.records import Clip, Part, Sample, Truth
from pipeline.storage import Store
from pipeline.tables import Tables
from pipeline.truth_media import FORMAT, decode_values, encode_map, encode_tracks, map_name, scale_between
from shards.cards import CardSettings, write_cards
from shards.lint import lint
from shards.pack import Packer
from shards.plan import REVOKED
from shards.truth import truth_path
from shards.views import TruthSample, TruthShard, connect_to, rows
from tests.shards.conftest import SMALL
from tests.shards.toys import shard_bytes

DEPTH = scale_between(2.0, 4.0)


def depths(clip: Clip, view: int) -> np.ndarray:
    """Made-up depths, another for each clip and view; none in the upper half."""
    seed = int(clip.clip_id[:6], 16) + view
    values = np.random.default_rng(seed).uniform(2.0, 4.0, (clip.num_frames, clip.height, clip.width))
    values[:, : clip.height // 2] = np.nan
    return values


def add_truth(tables: Tables, clips: list[Clip]) -> None:
    """As `render.truth` would leave it: depth and tracks."""
    for clip in clips:
        files = {
            map_name(view, "depth"): encode_map(DEPTH.stored(depths(clip, view))) for view in range(clip.num_views)
        }
        tetrahedron = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        positions = np.linspace(0.0, 0.5, clip.num_frames)[:, None, None] + tetrahedron
        triangles = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
        tracks = {"tracks.npz": encode_tracks(positions, triangles, np.zeros(4), np.zeros(4))}
        for name, contents, scale in (("depth", files, DEPTH), ("tracks", tracks, scale_between(-1.0, 1.0))):
            for file, content in contents.items():
                tables.store.write_bytes(f"{clip.folder}/{file}", content)
            row = Truth(
                clip_id=clip.clip_id,
                name=name,
                format=FORMAT,
                folder=clip.folder,
                parts=tuple(
                    Part(name=file, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
                    for file, content in contents.items()
                ),
                offset=scale.offset,
                step=scale.step,
                names=(),
                mask_iou=0.99,
                num_seen=7,
            )
            tables.write(Truth, f"toy-{name}-{clip.clip_id}", [row], made_by="toy@1", made_from=clip.clip_id)


@pytest.fixture(scope="module")
def with_truth_once(packed_once: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A data root of which all clips but every fourth have ground truth, added after packing and packed again."""
    root = tmp_path_factory.mktemp("truth") / "data"
    shutil.copytree(packed_once, root)
    tables = Tables(Store(str(root)))
    before = shard_bytes(tables)
    add_truth(tables, [clip for number, clip in enumerate(tables.rows(Clip)) if number % 4])
    report = Packer(tables, SMALL).pack()
    assert report.truth.written
    assert not report.written
    return root, before


@pytest.fixture
def with_truth(with_truth_once: tuple[Path, dict[str, bytes]], tmp_path: Path) -> Tables:
    """Its tables, to do with as one likes."""
    shutil.copytree(with_truth_once[0], tmp_path / "truth")
    return Tables(Store(str(tmp_path / "truth")))


def indexed(tables: Tables) -> tuple[list[TruthSample], list[TruthShard]]:
    return tables.rows(TruthSample), tables.rows(TruthShard)


def keys_of(tables: Tables, path: str) -> list[str]:
    with tarfile.open(tables.store.path(path)) as tar:
        names = [name.partition(".")[0] for name in tar.getnames()]
    return list(dict.fromkeys(names))


def test_adding_ground_truth_leaves_every_shard_as_it_was(with_truth_once: tuple[Path, dict[str, bytes]]) -> None:
    root, before = with_truth_once
    after = shard_bytes(Tables(Store(str(root))))
    assert {path: after[path] for path in before} == before
    assert len(after) > len(before)


def test_each_tar_has_the_keys_of_its_shard_in_their_order(with_truth: Tables) -> None:
    _, shards = indexed(with_truth)
    assert {row.name for row in shards} == {"depth", "tracks"}
    for row in shards:
        assert row.shard == truth_path(row.of_shard, row.name)
        assert keys_of(with_truth, row.shard) == keys_of(with_truth, row.of_shard)
    assert sum(row.num_missing for row in shards) > 0


def test_two_tars_are_read_side_by_side_with_plain_webdataset(with_truth: Tables) -> None:
    clips = {clip.clip_id: clip for clip in with_truth.rows(Clip)}
    num_values = 0
    for row in (row for row in indexed(with_truth)[1] if row.name == "depth"):
        main, side = (
            webdataset.WebDataset(str(with_truth.store.path(path)), shardshuffle=False)
            for path in (row.of_shard, row.shard)
        )
        for sample, truth in zip(main, side, strict=True):
            assert sample["__key__"] == truth["__key__"]
            record, how = json.loads(sample["json"]), json.loads(truth["json"])
            assert (how["clip_id"], how["licence"]) == (record["clip_id"], record["licence"])
            for view in range(len(how["parts"])):
                stored = cv2.imdecode(np.frombuffer(truth[f"v{view:02d}.depth.png"], np.uint8), cv2.IMREAD_UNCHANGED)
                wanted = depths(clips[how["clip_id"]], view).reshape(stored.shape)
                values = how["offset"] + how["step"] * stored.astype(np.float64)
                assert np.array_equal(stored == 0, np.isnan(wanted))
                assert np.abs(values - wanted)[stored > 0].max() <= how["step"] / 2 + 1e-9
                num_values += int((stored > 0).sum())
    assert num_values > 0


def test_one_part_is_read_by_its_place_in_the_index(with_truth: Tables) -> None:
    clips = {clip.clip_id: clip for clip in with_truth.rows(Clip)}
    row = next(row for row in indexed(with_truth)[0] if row.name == "depth" and len(row.parts) > 1)
    part = next(part for part in row.parts if part.name == "v01.depth.png")
    with with_truth.store.open(row.shard) as file:
        file.seek(part.offset)
        content = file.read(part.num_bytes)
    assert hashlib.sha256(content).hexdigest() == part.sha256
    clip = clips[row.clip_id]
    values = decode_values(content, clip.num_frames, DEPTH)
    assert np.nanmax(np.abs(values - depths(clip, 1))) < 2e-5


def test_packing_again_changes_nothing_and_from_nothing_gives_the_same_bytes(with_truth: Tables) -> None:
    before = shard_bytes(with_truth)
    again = Packer(with_truth, SMALL).pack()
    assert [again.written, again.truth.written, again.truth.removed] == [[], [], []]
    for path in with_truth.store.list_files("shards", ".tar"):
        with_truth.store.remove(path)
    Packer(with_truth, SMALL).pack()
    assert shard_bytes(with_truth) == before


def test_what_is_taken_down_is_gone_from_the_ground_truth_too(with_truth: Tables) -> None:
    victim = next(row for row in indexed(with_truth)[0] if len(row.parts) > 1)
    content = pa.BufferOutputStream()
    pq.write_table(pa.table({"asset_id": [victim.asset_id]}), content)
    with_truth.store.write_bytes(REVOKED, content.getvalue().to_pybytes())
    Packer(with_truth, SMALL).pack()
    assert victim.asset_id not in {row.asset_id for row in indexed(with_truth)[0]}
    for path in with_truth.store.list_files("shards", ".tar"):
        assert victim.sample_key.encode() not in with_truth.store.read_bytes(path)
    assert not lint(with_truth).findings


def test_ground_truth_whose_rows_are_gone_is_removed(with_truth: Tables) -> None:
    for path in with_truth.store.list_files("tables/truth", ".parquet"):
        if "toy-tracks" in path:
            with_truth.store.remove(path)
    report = Packer(with_truth, SMALL).pack()
    assert report.truth.removed
    assert all(".tracks." in path for path in report.truth.removed)
    assert {row.name for row in indexed(with_truth)[1]} == {"depth"}
    assert not lint(with_truth).findings


def test_lint_finds_nothing_in_what_was_packed(with_truth: Tables) -> None:
    report = lint(with_truth)
    assert not report.findings
    assert report.num_truth_shards == len(indexed(with_truth)[1])
    assert report.num_samples == len(with_truth.rows(Sample))


def test_lint_finds_a_changed_byte_a_lost_shard_and_a_file_in_the_wrong_place(with_truth: Tables) -> None:
    store = with_truth.store
    changed, orphaned, moved = [row.shard for row in indexed(with_truth)[1] if row.name == "depth"][:3]
    content = bytearray(store.read_bytes(changed))
    content[len(content) // 2] ^= 1
    store.write_bytes(changed, bytes(content))
    beside = next(row.of_shard for row in indexed(with_truth)[1] if row.shard == orphaned)
    store.remove(beside)
    for path in store.list_files("tables/samples", ".parquet"):
        if beside.removeprefix("shards/").removesuffix(".tar").replace("/", ".") in path:
            store.remove(path)
    elsewhere = moved.replace(f"shards/{moved.split('/')[1]}/", "shards/by-nc/")
    store.write_bytes(elsewhere, store.read_bytes(moved))
    found = {(finding.shard, finding.kind) for finding in lint(with_truth).findings}
    assert (changed, "bytes") in found
    assert (orphaned, "truth") in found
    assert {(elsewhere, "purity"), (elsewhere, "no_index")} <= found


def test_a_damaged_file_is_not_packed(with_truth: Tables) -> None:
    row = next(row for row in with_truth.rows(Truth) if row.name == "depth")
    with_truth.store.write_bytes(f"{row.folder}/{row.parts[0].name}", b"x")
    for path in with_truth.store.list_files("shards", ".depth.tar"):
        with_truth.store.remove(path)
    with pytest.raises(RuntimeError, match="is damaged"):
        Packer(with_truth, SMALL).pack()


def test_the_card_says_what_there_is_and_its_snippet_runs(with_truth: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cards(with_truth, CardSettings(name="Toys"))
    card = with_truth.store.read_bytes("shards/README.md").decode()
    section = card[card.index("## Ground truth") : card.index("## Files")]
    assert "`depth`" in section
    (snippet,) = [block.split("```")[0] for block in section.split("```python\n")[1:]]
    monkeypatch.chdir(with_truth.store.path("shards"))
    seen: dict[str, object] = {}
    exec(snippet, seen)
    assert isinstance(seen["values"], np.ndarray)
    with connect_to(with_truth, (TruthSample,)) as con:
        parquet = with_truth.store.path("shards/truth.parquet")
        (count,) = rows(con, "SELECT count(*) AS n FROM read_parquet(?)", [parquet])
    assert count["n"] == len(indexed(with_truth)[0])


def test_croissant_describes_the_tars_of_ground_truth_and_only_then(with_truth: Tables, packed: Tables) -> None:
    write_cards(with_truth, CardSettings(name="Toys"))
    dataset = mlcroissant.Dataset(jsonld=with_truth.store.path("shards/croissant.json"))
    assert dataset.metadata.ctx.issues.errors == set()
    samples, shards = indexed(with_truth)
    read = [(record["truth/key"].decode(), record["truth/name"].decode()) for record in dataset.records("truth")]
    assert sorted(read) == sorted((row.sample_key, row.name) for row in samples)
    content = json.loads(with_truth.store.read_bytes("shards/croissant.json"))
    entries = {entry["@id"]: entry for entry in content["distribution"]}
    for path in ("shards/truth.parquet", *(row.shard for row in shards)):
        entry = entries[path.removeprefix("shards/")]
        assert entry["sha256"] == hashlib.sha256(with_truth.store.read_bytes(path)).hexdigest()
    for name, suffix in (("depth", "depth.png"), ("tracks", "tracks.npz")):
        within = entries[f"truth-{name}"]["containedIn"]
        tars = [entry["@id"] for entry in (within if isinstance(within, list) else [within])]
        assert tars == [row.shard.removeprefix("shards/") for row in shards if row.name == name]
        assert entries[f"truth-{name}"]["includes"] == f"*.{suffix}"
        with tarfile.open(with_truth.store.path(f"shards/{tars[-1]}")) as tar:
            assert any(member.endswith(f".{suffix}") for member in tar.getnames())
    plain = json.loads(packed.store.read_bytes("shards/croissant.json"))
    assert "truth" not in {entry["@id"] for entry in plain["recordSet"]}
    assert not any("truth" in entry["@id"] for entry in plain["distribution"])
