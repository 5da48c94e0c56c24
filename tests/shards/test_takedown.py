import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from pipeline.cli import EXIT_MACHINE, EXIT_OK, EXIT_USAGE, main
from pipeline.records import Asset, Clip, Decision, Rejected, Sample, TakeDown
from pipeline.revoked import DenyList, read_revoked
from pipeline.sole_driver import sole_driver
from pipeline.storage import Store
from pipeline.tables import Tables
from shards.cards import CardSettings, last_settings, write_cards
from shards.lint import LintSettings, lint
from shards.pack import Packer
from shards.plan import REVOKED, PackSettings
from shards.takedown import JOURNAL, carry_out, meaning_of, next_version, tombstone
from shards.views import Shard, TruthShard, connect
from tests.conftest import REPOSITORY
from tests.shards.conftest import SMALL, TOYS
from tests.shards.test_truth import add_truth
from tests.shards.toys import Toy, commit, rows_of, shard_bytes

ON = "2026-02-03"
MANY = PackSettings(shard_mb=0.0045, val_share=0.0, test_share=0.0)
"""Two toy assets a shard."""
KILLED = """
import os, sys
from pipeline.storage import Store
left = int(sys.argv[1])
def dying(name):
    real = getattr(Store, name)
    def call(*arguments, **more):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return real(*arguments, **more)
    setattr(Store, name, call)
for name in ("write_bytes", "writer", "remove", "remove_folder"):
    dying(name)
from pipeline.cli import main
code = main(["takedown", *sys.argv[2:]])
print("left", left)
sys.exit(code)
"""


def take_down(tables: Tables, target: str, **more: Any) -> Any:
    tombstone(tables, [meaning_of(tables, target, asked_on=ON, why="its author asked").request])
    return carry_out(tables, on=ON, **more)


def put_blobs(tables: Tables) -> None:
    for asset in tables.rows(Asset):
        tables.store.write_bytes(asset.blob, asset.asset_id.encode())


def state(tables: Tables) -> dict[str, bytes]:
    """Every file but the tables, of which the rows count."""
    skipped = ("tables/", "driver.lock", "takedown.lock")
    return {path: tables.store.read_bytes(path) for path in tables.store.list_files("") if not path.startswith(skipped)}


@pytest.fixture(scope="module")
def two_hundred_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many") / "data"
    tables = Tables(Store(str(root)))
    toys = [Toy(seq=seq, num_animations=1, licence_class="by" if seq % 2 else "cc0") for seq in range(400)]
    rows = [row for toy in toys for row in rows_of(toy)]
    for record in {type(row) for row in rows}:
        name = "current" if record is Decision else "toys"
        tables.write(record, name, [row for row in rows if type(row) is record], made_by="toy@1", made_from="")
    for toy, clip in zip(toys, (row for row in rows if isinstance(row, Clip)), strict=True):
        for view, part in enumerate(clip.parts):
            tables.store.write_bytes(f"{clip.folder}/{part.name}", toy.strip(0, view))
    Packer(tables, MANY).pack()
    put_blobs(tables)
    write_cards(tables, CardSettings(name="Two hundred"))
    return root


@pytest.fixture
def two_hundred(two_hundred_once: Path, tmp_path: Path) -> Tables:
    shutil.copytree(two_hundred_once, tmp_path / "data")
    return Tables(Store(str(tmp_path / "data")))


def served_by_webdataset(root: str) -> Iterator[str]:
    """As docs/shards.md shows it."""
    denied = DenyList(Store(f"{root}/shards"))

    def is_served(sample: dict[str, Any]) -> bool:
        return not denied.has(json.loads(sample["json"])["asset_id"])

    tars = sorted(map(str, Path(root).glob("shards/*/train/*.tar")))
    for sample in webdataset.WebDataset(tars, shardshuffle=False).select(is_served):
        yield json.loads(sample["json"])["asset_id"]


@pytest.mark.timeout(3600)
def test_of_two_hundred_shards_only_those_of_the_asset_are_written_again(two_hundred: Tables) -> None:
    tables = two_hundred
    before = {path: hashlib.sha256(content).hexdigest() for path, content in shard_bytes(tables).items()}
    assert len(before) == 200
    places = {path: Path(tables.store.path(path)).stat().st_ino for path in before}
    gone = Toy(seq=57, num_animations=1, licence_class="by").asset_id
    (shard,) = {row.shard for row in tables.rows(Sample) if row.asset_id == gone}

    early = served_by_webdataset(tables.store.root)
    seen_early = [next(early) for _ in range(3)]
    meant = meaning_of(tables, gone[:12], asked_on=ON)
    assert (meant.request.asset_ids, list(meant.tars), meant.num_samples) == ((gone,), [shard], 1)
    tombstone(tables, [meant.request])
    seen_early += [next(early) for _ in range(3)]
    report = carry_out(tables, on=ON)
    seen_early += list(early)
    assert gone not in seen_early
    assert len(seen_early) == 399
    assert gone not in list(served_by_webdataset(tables.store.root))

    after = {path: hashlib.sha256(content).hexdigest() for path, content in shard_bytes(tables).items()}
    assert {path for path in before if before[path] != after.get(path)} == {shard}
    assert {path for path in after if Path(tables.store.path(path)).stat().st_ino != places[path]} == {shard}
    assert (report.num_samples, report.rewritten, report.removed, report.num_unchanged) == (1, (shard,), (), 199)
    assert lint(tables, LintSettings(workers=1)).findings == []
    changes = json.loads(tables.store.read_bytes(report.changes))
    assert (changes["version"], changes["previous"], changes["num_unchanged_tars"]) == ("1.0.1", "1.0.0", 199)
    assert [(tar["old_sha256"], tar["new_sha256"]) for tar in changes["tars"]] == [(before[shard], after[shard])]


def test_it_leaves_what_packing_without_the_asset_would_have_made(packed: Tables) -> None:
    put_blobs(packed)
    take_down(packed, TOYS[1].asset_id)
    after = shard_bytes(packed)
    rows = packed.rows(Sample), packed.rows(Shard)
    report = Packer(packed, SMALL).pack()
    assert (report.written, report.removed) == ([], [])
    assert shard_bytes(packed) == after
    assert (packed.rows(Sample), packed.rows(Shard)) == rows
    assert TOYS[1].asset_id not in {row.asset_id for row in packed.rows(Sample)}


def test_papers_and_figures_no_longer_know_it(packed: Tables) -> None:
    put_blobs(packed)
    gone = TOYS[1].asset_id
    packed.store.write_bytes("report.html", b"pictures")
    clips = [row for row in packed.rows(Clip) if row.asset_id == gone]
    take_down(packed, gone)
    folder = packed.store.path("shards")
    for paper in ("README.md", "ATTRIBUTION.md", "attribution.parquet", "samples.parquet", "croissant.json"):
        content = Path(folder, paper).read_bytes()
        assert gone.encode() not in content
        assert gone[:12].encode() not in content
    assert gone not in pq.read_table(f"{folder}/samples.parquet")["asset_id"].to_pylist()
    croissant = json.loads(Path(folder, "croissant.json").read_bytes())
    assert (croissant["version"], croissant["name"]) == ("1.0.1", "Toys")
    hashes = {entry["@id"]: entry["sha256"] for entry in croissant["distribution"] if "sha256" in entry}
    assert all(hashlib.sha256(Path(folder, name).read_bytes()).hexdigest() == value for name, value in hashes.items())
    assert not [file for clip in clips for file in packed.store.list_files(clip.folder)]
    assert not packed.store.exists(f"blobs/ab/{gone}.glb")
    assert not packed.store.exists("report.html")
    assert packed.store.exists(f"blobs/ab/{TOYS[2].asset_id}.glb")
    with connect(packed) as con:
        kept, packed_now = con.execute(
            "SELECT count(*) FILTER (keep), count(*) FILTER (shard IS NOT NULL) FROM clips_full"
        ).fetchall()[0]
        revoked = con.execute("SELECT count(*) FROM rejected WHERE reason = 'revoked'").fetchall()[0][0]
    assert revoked == len(clips) == 3
    assert kept - packed_now >= 3


def test_ground_truth_goes_with_the_pictures(tables: Tables) -> None:
    commit(tables, TOYS[:6])
    add_truth(tables, tables.rows(Clip))
    Packer(tables, SMALL).pack()
    write_cards(tables)
    before = {row.shard: row.sha256 for row in tables.rows(TruthShard)}
    report = take_down(tables, TOYS[1].asset_id)
    assert any("/truth/" in path for path in report.rewritten)
    assert lint(tables, LintSettings(workers=1)).findings == []
    after = {row.shard: row.sha256 for row in tables.rows(TruthShard)}
    changed = {path for path in before if before[path] != after.get(path)}
    assert changed == {path for path in (*report.rewritten, *report.removed) if "/truth/" in path}
    assert Packer(tables, SMALL).pack().truth.written == []


def test_the_3d_file_can_be_kept_as_evidence_where_no_stage_looks(packed: Tables) -> None:
    put_blobs(packed)
    gone = TOYS[1].asset_id
    take_down(packed, gone, keep_evidence=True)
    assert packed.store.read_bytes(f"evidence/ab/{gone}.glb") == gone.encode()
    assert not packed.store.exists(f"blobs/ab/{gone}.glb")
    # What was claimed, by whom and when, stays in the tables.
    assert gone in {row.asset_id for row in packed.rows(Asset)}


@pytest.mark.parametrize(
    ("target", "seqs"),
    [
        ("https://example.org/3", {3}),
        ("http://www.EXAMPLE.org/3/", {3}),
        ("Author 1", {1, 4, 7}),
        ("author 1 ", {1, 4, 7}),
        (TOYS[5].asset_id[:14], {5}),
        (f"{TOYS[5].asset_id[:12]}_000_0_0123abcd", {5}),
    ],
)
def test_assets_are_meant_by_id_address_or_author(packed: Tables, target: str, seqs: set[int]) -> None:
    meant = meaning_of(packed, target, asked_on=ON)
    assert set(meant.request.asset_ids) == {TOYS[seq].asset_id for seq in seqs}


def test_copies_of_the_same_geometry_are_pointed_out(tables: Tables) -> None:
    commit(tables, [Toy(seq=0, family="f"), Toy(seq=1, family="f"), Toy(seq=2)])
    meant = meaning_of(tables, Toy(seq=0).asset_id, asked_on=ON)
    assert meant.relatives == (Toy(seq=1).asset_id,)


def test_a_data_set_that_is_gone_altogether_has_no_papers(packed: Tables) -> None:
    for author in range(3):
        take_down(packed, f"Author {author}")
    assert shard_bytes(packed) == {}
    assert {path for path in packed.store.list_files("shards") if "/changes/" not in path} == {
        "shards/CHANGES.md", REVOKED, "shards/card.json",
    }  # fmt: skip
    assert last_settings(packed.store).version == "1.0.3"


def test_later_cards_keep_the_version_and_the_name(packed: Tables) -> None:
    take_down(packed, TOYS[1].asset_id)
    write_cards(packed)
    assert last_settings(packed.store) == CardSettings(name="Toys", version="1.0.1")


def test_a_hand_written_list_is_carried_out_and_kept(packed: Tables) -> None:
    clip = next(clip for clip in packed.rows(Clip) if clip.asset_id == TOYS[5].asset_id)
    buffer = io.BytesIO()
    pq.write_table(pa.table({"clip_id": [clip.clip_id], "ticket": [7]}), buffer)
    packed.store.write_bytes(REVOKED, buffer.getvalue())
    take_down(packed, TOYS[1].asset_id)
    assert clip.clip_id not in {row.clip_id for row in packed.rows(Sample)}
    assert read_revoked(packed.store, REVOKED) == {clip.clip_id, TOYS[1].asset_id}
    assert 7 in pq.read_table(io.BytesIO(packed.store.read_bytes(REVOKED)))["ticket"].to_pylist()


def test_a_damaged_tar_is_not_copied_from(packed: Tables) -> None:
    sample = next(row for row in packed.rows(Sample) if row.asset_id == TOYS[1].asset_id)
    path = Path(packed.store.path(sample.shard))
    content = bytearray(path.read_bytes())
    content[sample.parts[1].offset + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=f"{sample.shard} is damaged"):
        take_down(packed, TOYS[1].asset_id)
    assert path.read_bytes() == bytes(content)
    assert DenyList(packed.store, REVOKED).has(TOYS[1].asset_id)


@pytest.mark.timeout(3600)
def test_killed_at_any_moment_the_same_command_ends_it(packed: Tables, tmp_path: Path) -> None:
    put_blobs(packed)
    target = TOYS[1].asset_id
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1770000000"}
    calm = Path(shutil.copytree(packed.store.root, tmp_path / "calm"))

    def run(root: Path, moment: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, str(moment), target, "--data", str(root), "--why", "asked"]
        return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)

    done = run(calm, 10_000)
    assert done.returncode == EXIT_OK, done.stderr
    moments = 10_000 - int(done.stdout.split()[-1])
    assert moments > 20
    expected = state(Tables(Store(str(calm))))
    rough = Path(shutil.copytree(packed.store.root, tmp_path / "rough"))
    # Each life begins where the one before it was ended.
    for moment in range(2, moments, 5):
        assert run(rough, moment).returncode in (9, EXIT_OK)
    assert run(rough, 10_000).returncode == EXIT_OK
    found = Tables(Store(str(rough)))
    assert state(found) == expected
    assert not found.store.exists(JOURNAL)
    for record in (Sample, Shard, TakeDown, Rejected):
        assert found.rows(record) == Tables(Store(str(calm))).rows(record), record
    assert lint(found, LintSettings(workers=1)).findings == []


def test_while_a_driver_is_at_work_the_tombstone_stands_and_the_rest_waits(
    packed: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    before = shard_bytes(packed)
    with sole_driver(packed.store):
        assert main(["takedown", TOYS[1].asset_id, "--data", packed.store.root]) == EXIT_MACHINE
    assert DenyList(packed.store, REVOKED).has(TOYS[1].asset_id)
    assert shard_bytes(packed) == before
    assert {finding.kind for finding in lint(packed, LintSettings(workers=1)).findings} == {"revoked"}
    # That driver leaves it out when it packs; what changed is told all the same.
    Packer(packed, SMALL).pack()
    after = shard_bytes(packed)
    assert main(["takedown", "--data", packed.store.root]) == EXIT_OK
    assert shard_bytes(packed) == after
    (tar,) = json.loads(packed.store.read_bytes("shards/changes/1.0.1.json"))["tars"]
    assert tar["old_sha256"] == hashlib.sha256(before[f"shards/{tar['tar']}"]).hexdigest()
    assert tar["new_sha256"] == hashlib.sha256(after[f"shards/{tar['tar']}"]).hexdigest()
    assert TOYS[1].asset_id not in {row.asset_id for row in packed.rows(Sample)}


def test_a_dry_run_changes_nothing_and_says_what_would(packed: Tables, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: packed.store.read_bytes(path) for path in packed.store.list_files("")}
    assert main(["takedown", "Author 1", "--data", packed.store.root, "--dry-run"]) == EXIT_OK
    said = capsys.readouterr().out
    assert "3 assets" in said
    assert TOYS[4].asset_id[:12] in said
    assert {path: packed.store.read_bytes(path) for path in packed.store.list_files("")} == before


def test_what_means_nothing_is_refused_unless_it_is_meant_ahead(packed: Tables) -> None:
    for target in ("Nobody", "https://example.org/nothing", "ab" * 32):
        with pytest.raises(SystemExit) as ended:
            main(["takedown", target, "--data", packed.store.root])
        assert ended.value.code == EXIT_USAGE
    assert not packed.rows(TakeDown)
    assert main(["takedown", "Nobody", "--data", packed.store.root, "--ahead"]) == EXIT_OK
    assert [row.value for row in packed.rows(TakeDown)] == ["Nobody"]


@pytest.mark.parametrize(
    ("before", "after"), [("1.0.0", "1.0.1"), ("2.9", "2.10"), ("2026-01", "2026-2"), ("v", "v.1")]
)
def test_the_next_version(before: str, after: str) -> None:
    assert next_version(before) == after
