import hashlib
import io
import random
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.records import Asset, Clip, Decision, LicenceCheck, Probe, Rejected, Sample, StageSettings
from pipeline.storage import Store
from pipeline.tables import Tables
from shards.lint import lint
from shards.pack import NotCuratedError, Packer
from shards.plan import REVOKED, PackSettings
from shards.views import Shard
from tests.shards.conftest import SMALL, TOYS
from tests.shards.toys import Toy, commit, filled, rows_of, shard_bytes


class Killed(BaseException):
    pass


def fresh(tmp_path: Path, name: str, toys: Sequence[Toy] = TOYS) -> Tables:
    tables = Tables(Store(str(tmp_path / name)))
    commit(tables, toys)
    return tables


def index(tables: Tables) -> tuple[list[Sample], list[Shard]]:
    return tables.rows(Sample), tables.rows(Shard)


def inodes(tables: Tables) -> dict[str, int]:
    """Changes when a file is written again."""
    return {path: Path(tables.store.path(path)).stat().st_ino for path in tables.store.list_files("shards", ".tar")}


def kept_and_allowed() -> set[str]:
    rows = [row for toy in TOYS if toy.licence_class != "by-nc" and not toy.noai for row in rows_of(toy)]
    return {row.clip_id for row in rows if isinstance(row, Decision) and row.keep}


def test_every_kept_clip_is_packed_once_and_no_other(packed: Tables) -> None:
    assert sorted(sample.clip_id for sample in packed.rows(Sample)) == sorted(kept_and_allowed())
    assert len(shard_bytes(packed)) > 4
    assert lint(packed).findings == []


def test_members_tell_nothing_of_when_and_where_they_were_packed(packed: Tables) -> None:
    for content in shard_bytes(packed).values():
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                assert (member.mode, member.isreg(), member.pax_headers) == (0o644, True, {})


def test_order_and_number_of_commits_do_not_matter(packed: Tables, tmp_path: Path) -> None:
    shuffled = list(TOYS)
    random.Random(3).shuffle(shuffled)
    other = fresh(tmp_path, "other", shuffled)
    commit(other, shuffled[:4])
    Packer(other, SMALL).pack()
    assert shard_bytes(other) == shard_bytes(packed)
    assert index(other) == index(packed)


@pytest.mark.parametrize("seed", range(2))
def test_streaming_gives_the_same_as_packing_at_the_end(packed: Tables, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    tables, packer = fresh(tmp_path, "streamed", []), None
    left = list(TOYS)
    while left:
        # Assets behind the watermark may be there as well, in any order.
        done, left = left[: rng.randint(1, 4)], left[len(left[: rng.randint(1, 4)]) :]
        commit(tables, done + rng.sample(left, k=min(2, len(left))))
        if packer is None or rng.random() < 0.3:
            packer = Packer(tables, SMALL)
        report = packer.pack(min((toy.seq for toy in left), default=len(TOYS)))
        assert shard_bytes(tables).items() <= shard_bytes(packed).items()
        assert not report.removed
        if rng.random() < 0.5:
            tables.compact(at_least=2)
        left = [toy for toy in TOYS if toy.seq > done[-1].seq]
    before = inodes(tables)
    assert len(before) >= 2
    commit(tables, TOYS)
    assert packer is not None
    packer.pack()
    assert shard_bytes(tables) == shard_bytes(packed)
    assert index(tables) == index(packed)
    assert before.items() <= inodes(tables).items()


def test_packing_again_writes_nothing(packed: Tables) -> None:
    before = inodes(packed)
    report = Packer(packed, SMALL).pack()
    assert (report.written, report.removed, len(report.unchanged)) == ([], [], len(before))
    assert inodes(packed) == before


@pytest.mark.parametrize("die_at", [1, 5, 9])
def test_killed_while_writing_leaves_no_half_shard_and_resumes(
    packed: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, die_at: int
) -> None:
    tables = fresh(tmp_path, "killed")
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "addfile", dying(tarfile.TarFile.addfile, die_at * 3))
        with pytest.raises(Killed):
            Packer(tables, SMALL).pack()
    assert shard_bytes(tables).items() < shard_bytes(packed).items()
    assert lint(tables).findings == []
    Packer(tables, SMALL).pack()
    assert shard_bytes(tables) == shard_bytes(packed)
    assert index(tables) == index(packed)


@pytest.mark.parametrize("die_at", [1, 3, 7])
def test_killed_between_tar_and_index_resumes(
    packed: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, die_at: int
) -> None:
    """Also where older shards stand in the place of the new ones."""
    tables = fresh(tmp_path, "killed")
    Packer(tables, PackSettings(shard_mb=0.004)).pack()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_bytes", dying(Store.write_bytes, die_at))
        with pytest.raises(Killed):
            Packer(tables, SMALL).pack()
    # Shards without an index, and old ones that hold the same as new ones; never an index of what is not there.
    assert {finding.kind for finding in lint(tables).findings} <= {"no_index", "key"}
    Packer(tables, SMALL).pack()
    assert shard_bytes(tables) == shard_bytes(packed)
    assert index(tables) == index(packed)


def dying(function: Callable[..., Any], at: int) -> Callable[..., Any]:
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Killed
        return function(*args, **kwargs)

    return call


def test_what_a_killed_process_left_half_written_is_removed(packed: Tables) -> None:
    half = Path(packed.store.path("shards/by/train/.mv-000000.tar.0123abcd.partial"))
    half.write_bytes(b"half")
    Packer(packed, SMALL).pack()
    assert not half.exists()


def test_a_damaged_clip_stops_packing_and_says_which(tables: Tables) -> None:
    commit(tables, TOYS[:2])
    clip = tables.rows(Clip)[-1]
    tables.store.write_bytes(f"{clip.folder}/v01.webp", b"rot")
    with pytest.raises(RuntimeError, match=f"{clip.folder}/v01.webp is damaged"):
        Packer(tables, SMALL).pack()
    assert shard_bytes(tables) == {}
    assert tables.rows(Sample) == []


def test_an_asset_is_never_split_and_shards_keep_to_their_size(packed: Tables) -> None:
    by_asset: dict[str, set[str]] = {}
    for sample in packed.rows(Sample):
        by_asset.setdefault(sample.asset_id, set()).add(sample.shard)
    assert all(len(shards) == 1 for shards in by_asset.values())
    limit = SMALL.shard_mb * 1e6
    for shard in packed.rows(Shard):
        samples = [sample for sample in packed.rows(Sample) if sample.shard == shard.shard]
        pictures = sum(512 + -(-part.num_bytes // 512) * 512 for row in samples for part in row.parts[1:])
        assert pictures <= limit or shard.num_assets == 1


def test_a_corrected_credit_rewrites_only_the_shard_it_stands_in(packed: Tables) -> None:
    before = shard_bytes(packed)
    packer = Packer(packed, SMALL)
    packer.pack()
    commit(packed, [Toy(seq=1, num_animations=3, title="A much, much longer title than it had before")])
    report = packer.pack()
    assert len(report.written) == 1
    changed = {path for path, content in shard_bytes(packed).items() if content != before[path]}
    assert changed == set(report.written)


def test_what_is_no_longer_kept_leaves_with_its_shards_and_rows(packed: Tables) -> None:
    commit(packed, [Toy(seq=8, licence_class="cc0", num_animations=3, dropped=(0, 1, 2))])
    report = Packer(packed, SMALL).pack()
    assert report.removed == ["shards/cc0/train/mv-000001.tar"]
    assert TOYS[8].asset_id not in {sample.asset_id for sample in packed.rows(Sample)}
    assert report.removed[0] not in {shard.shard for shard in packed.rows(Shard)}
    assert lint(packed).findings == []


def corrected(tables: Tables, toy: Toy, **changes: Any) -> None:
    """As `mv4d licence recheck` would note it."""
    item = next(row for row in rows_of(toy) if isinstance(row, Asset))
    values = {
        "item_id": item.item_id, "spdx": item.spdx, "licence_class": item.licence_class, "noai": item.noai,
        "licence_url": item.licence_url, "attribution": f"corrected {item.title}", "source_status": "live",
        "checked_at": "2026-02-01T00:00:00",
    }  # fmt: skip
    row = filled(LicenceCheck, **{**values, **changes})
    tables.write(LicenceCheck, f"check-{item.item_id}-{row.checked_at}", [row], made_by="toy@1", made_from="")


def test_a_corrected_licence_moves_an_asset_and_nothing_else(packed: Tables) -> None:
    """From CC BY to CC0: its old place stays empty, and it stands behind all others of its new class."""
    before = shard_bytes(packed)
    (old,) = {row.shard for row in packed.rows(Sample) if row.asset_id == TOYS[1].asset_id}
    last = max(path for path in before if path.startswith("shards/cc0/"))
    corrected(packed, TOYS[1], spdx="CC0-1.0", licence_class="cc0", changes=("licence",))
    Packer(packed, SMALL).pack()
    after = shard_bytes(packed)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert old in changed
    assert all(path == old or path >= last for path in changed)
    mine = [row for row in packed.rows(Sample) if row.asset_id == TOYS[1].asset_id]
    assert len(mine) == 3
    assert {row.licence_class for row in mine} == {"cc0"}
    assert lint(packed).findings == []
    assert TOYS[1].asset_id not in {row.name for row in packed.rows(Rejected)}
    # And back again.
    corrected(packed, TOYS[1], changes=("licence",), checked_at="2026-02-02T00:00:00")
    Packer(packed, SMALL).pack()
    assert {row.shard for row in packed.rows(Sample) if row.asset_id == TOYS[1].asset_id} == {old}
    assert set(shard_bytes(packed)) == set(before)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"spdx": "CC-BY-NC-4.0", "licence_class": "by-nc", "changes": ("licence",)}, "licence_not_allowed"),
        ({"spdx": "whatever", "licence_class": "", "changes": ("licence",)}, "licence_not_allowed"),
        ({"noai": True, "changes": ("noai",)}, "noai"),
        ({"source_status": "gone", "changes": ("status",)}, ""),
    ],
)
def test_what_a_recheck_found_takes_an_asset_out_if_it_is_no_longer_admitted(
    packed: Tables, changes: dict[str, Any], reason: str
) -> None:
    before = shard_bytes(packed)
    (shard,) = {row.shard for row in packed.rows(Sample) if row.asset_id == TOYS[1].asset_id}
    corrected(packed, TOYS[1], **changes)
    Packer(packed, SMALL).pack()
    after = shard_bytes(packed)
    assert {path for path in before if before[path] != after.get(path)} == ({shard} if reason else set())
    mine = {row.clip_id for row in packed.rows(Clip) if row.asset_id == TOYS[1].asset_id}
    assert {row.reason for row in packed.rows(Rejected) if row.rejected_id in mine} == ({reason} if reason else set())
    assert lint(packed).findings == []


@pytest.mark.parametrize("column", ["asset_id", "clip_id"])
def test_what_is_revoked_is_left_out_and_only_its_shard_changes(packed: Tables, column: str) -> None:
    before = shard_bytes(packed)
    gone = next(clip for clip in packed.rows(Clip) if clip.asset_id == TOYS[1].asset_id)
    buffer = io.BytesIO()
    pq.write_table(pa.table({column: [getattr(gone, column)], "why": ["asked to"]}), buffer)
    packed.store.write_bytes(REVOKED, buffer.getvalue())
    report = Packer(packed, SMALL).pack()
    assert gone.clip_id not in {sample.clip_id for sample in packed.rows(Sample)}
    assert len(report.written) + len(report.removed) == 1
    after = shard_bytes(packed)
    assert sum(after.get(path) != content for path, content in before.items()) == 1
    reasons = {row.rejected_id: row.reason for row in packed.rows(Rejected, "stage = 'shards.pack'")}
    assert reasons[gone.clip_id] == "revoked"
    assert lint(packed).findings == []

    packed.store.remove(REVOKED)
    Packer(packed, SMALL).pack()
    assert shard_bytes(packed) == before


def test_a_list_of_revoked_ids_without_ids_is_refused(packed: Tables) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": ["x"]}), buffer)
    packed.store.write_bytes(REVOKED, buffer.getvalue())
    with pytest.raises(ValueError, match="neither a column asset_id nor clip_id"):
        Packer(packed, SMALL).pack()


def test_licences_and_opt_outs_are_judged_again(packed: Tables) -> None:
    reasons = {row.rejected_id: row.reason for row in packed.rows(Rejected, "stage = 'shards.pack'")}
    clips = {clip.clip_id: clip.asset_id for clip in packed.rows(Clip)}
    assert {clips[clip_id]: reason for clip_id, reason in reasons.items()} == {
        TOYS[6].asset_id: "licence_not_allowed",
        TOYS[9].asset_id: "noai",
    }
    report = Packer(packed, PackSettings(shard_mb=0.009, allowed_classes=("by-nc", "by"), admit_noai=True)).pack()
    assert {sample.licence_class for sample in packed.rows(Sample)} == {"by", "by-nc"}
    assert set(report.left_out) == {"licence_not_allowed"}
    assert any("/cc0/" in path for path in report.removed)


def test_shards_are_pure_in_licence(packed: Tables) -> None:
    classes = {asset.asset_id: asset.licence_class for asset in packed.rows(Asset)}
    for sample in packed.rows(Sample):
        assert sample.shard.startswith(f"shards/{classes[sample.asset_id]}/{sample.split}/mv-")
        assert sample.licence_class == classes[sample.asset_id]


def test_bytes_listed_twice_are_packed_under_the_licence_of_the_first(tables: Tables) -> None:
    commit(tables, [Toy(seq=4, num_animations=1)])
    (asset,) = tables.rows(Asset)
    for seq, licence_class, item_id in ((9, "cc0", "later"), (2, "by-sa", "earlier")):
        row = type(asset)(**{**vars(asset), "seq": seq, "licence_class": licence_class, "item_id": item_id})
        tables.write(Asset, f"again-{seq}", [row], made_by="toy@1", made_from="")
    assert Packer(tables, SMALL).pack().written == ["shards/by-sa/train/mv-000000.tar"]


def test_a_data_set_that_was_never_curated_is_not_packed(tables: Tables) -> None:
    commit(tables, TOYS[:2], skip=[Decision])
    assert Packer(tables, SMALL).pack(5).written == []
    with pytest.raises(NotCuratedError, match=r"holds 4 clips.*run `mv4d curate` first"):
        Packer(tables, SMALL).pack()


def test_a_clip_without_a_decision_is_not_packed(tables: Tables) -> None:
    commit(tables, TOYS[:1])
    commit(tables, TOYS[1:2], skip=[Decision])
    Packer(tables, SMALL).pack()
    assert {sample.asset_id for sample in tables.rows(Sample)} == {TOYS[0].asset_id}


def test_a_kept_clip_without_its_family_cannot_be_dealt_to_a_split(tables: Tables) -> None:
    commit(tables, TOYS[:1], skip=[Probe])
    with pytest.raises(RuntimeError, match="no row in the table probes"):
        Packer(tables, SMALL).pack()


def test_an_empty_data_root_gives_no_shards(tables: Tables) -> None:
    report = Packer(tables, SMALL).pack()
    assert (report.written, report.num_samples) == ([], 0)


def test_merging_tables_leaves_the_index_in_a_file_a_shard(packed: Tables) -> None:
    fragments = packed.store.list_files("tables/samples")
    packed.compact(at_least=2)
    assert packed.store.list_files("tables/samples") == fragments
    samples = packed.rows(Sample)
    packer = Packer(packed, SMALL)
    assert packer.pack().written == []
    assert packed.rows(Sample) == samples
    packed.compact(at_least=2)
    commit(packed, [Toy(seq=8, licence_class="cc0", num_animations=3, dropped=(0, 1, 2))])
    packer.pack()
    assert len(packed.store.list_files("tables/samples")) == len(shard_bytes(packed))
    assert packed.rows(Sample) == [sample for sample in samples if sample.asset_id != TOYS[8].asset_id]


def test_other_settings_that_change_no_shard_only_change_whose_index_it_is(packed: Tables) -> None:
    before, samples = inodes(packed), packed.rows(Sample)
    wide = PackSettings(shard_mb=0.009, split_seed=SMALL.split_seed, allowed_classes=(*SMALL.allowed_classes, "other"))
    Packer(packed, wide).pack()
    assert inodes(packed) == before
    assert packed.rows(Sample) == samples
    with packed.connect([Sample]) as con:
        makers = con.execute("SELECT DISTINCT made_by FROM samples").fetchall()
    assert makers == [(f"shards.pack@{wide.settings_id}",)]
    assert wide.settings_id in {row.settings_id for row in packed.rows(StageSettings)}


def test_an_object_store_gets_the_same_bytes(packed: Tables) -> None:
    remote = Tables(Store("memory://toys/set"))
    try:
        commit(remote, TOYS)
        packer = Packer(remote, SMALL)
        packer.pack(5)
        packer.pack()
        assert shard_bytes(remote) == shard_bytes(packed)
        assert index(remote) == index(packed)
        assert lint(remote).findings == []
        assert Packer(remote, SMALL).pack().written == []
    finally:
        remote.store.fs.rm("/toys", recursive=True)


def test_one_read_at_an_offset_gives_a_part(packed: Tables) -> None:
    for sample in packed.rows(Sample)[:5]:
        clip = packed.rows(Clip, "clip_id = ?", [sample.clip_id])[0]
        with open(packed.store.path(sample.shard), "rb") as file:
            for part in sample.parts:
                file.seek(part.offset)
                content = file.read(part.num_bytes)
                assert hashlib.sha256(content).hexdigest() == part.sha256
                if part.name != "json":
                    assert content == packed.store.read_bytes(f"{clip.folder}/{part.name}")


def test_a_run_of_bytes_from_the_index_is_a_tar_of_one_sample(packed: Tables) -> None:
    sample = packed.rows(Sample)[3]
    content = packed.store.read_bytes(sample.shard)[sample.offset : sample.offset + sample.num_bytes]
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert tar.getnames() == [f"{sample.sample_key}.{part.name}" for part in sample.parts]


@pytest.mark.parametrize(
    "settings", [{"shard_mb": 0}, {"val_share": -0.1}, {"val_share": 0.5, "test_share": 0.5}, {"allowed_classes": ()}]
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        PackSettings(**settings)
