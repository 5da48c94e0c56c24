import hashlib
from pathlib import Path

import pytest

from ingest.sources.manifest import Manifest
from ingest.stage import Ingest
from pipeline.backends import RetryPolicy, Task, run_task
from pipeline.records import Asset, Rejected, SourceItem, TakeDown
from pipeline.revoked import DenyList, same_page
from pipeline.storage import Store
from pipeline.tables import Tables
from render.probe import ProbeAsset
from shards.takedown import meaning_of, tombstone
from tests.ingest.sources.collections_web import QUICK
from tests.ingest.tiny import triangle_glb, write_gltf
from tests.ingest.web import Web


def ingest(tables: Tables, item: SourceItem) -> Asset | Rejected:
    row = next(iter(Ingest(data=tables.store.root, fetch=QUICK).process(item)))
    assert isinstance(row, Asset | Rejected)
    return row


def taken_in(tables: Tables, path: Path, rows: str) -> list[Asset]:
    path.write_text(f"file,spdx,author,source_url\n{rows}")
    found = []
    for item in Manifest(path=path).items():
        asset = ingest(tables, item)
        assert isinstance(asset, Asset)
        tables.write(Asset, item.item_id, [asset], made_by="ingest@1", made_from=item.item_id)
        found.append(asset)
    return found


def take_down(tables: Tables, target: str) -> None:
    tombstone(tables, [meaning_of(tables, target, asked_on="2026-02-03").request])


def listed(path: Path, rows: str) -> SourceItem:
    path.write_text(f"file,spdx,author,source_url\n{rows}")
    (item,) = Manifest(path=path).items()
    return item


def test_the_bytes_do_not_come_in_again_under_any_name(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(triangle_glb(seed=1))
    (asset,) = taken_in(tables, tmp_path / "l.csv", "a.glb,MIT,Ann,\n")
    tables.store.remove(asset.blob)
    take_down(tables, asset.asset_id)
    (tmp_path / "b.glb").write_bytes(triangle_glb(seed=1))
    row = ingest(tables, listed(tmp_path / "m.csv", "b.glb,CC0-1.0,Bob,\n"))
    assert isinstance(row, Rejected)
    assert row.reason == "revoked"
    assert not tables.store.list_files("blobs")
    (tmp_path / "b.glb").write_bytes(triangle_glb(seed=2))
    assert isinstance(ingest(tables, listed(tmp_path / "m.csv", "b.glb,CC0-1.0,Ann,\n")), Asset)


def test_an_asset_of_several_files_is_known_by_its_tar(tables: Tables, tmp_path: Path) -> None:
    write_gltf(tmp_path / "x", "tri.gltf")
    (asset,) = taken_in(tables, tmp_path / "l.csv", "x/tri.gltf,MIT,Ann,\n")
    assert asset.blob.endswith(".tar")
    take_down(tables, asset.asset_id)
    row = ingest(tables, listed(tmp_path / "m.csv", "x/tri.gltf,MIT,Ann,\n"))
    assert isinstance(row, Rejected)
    assert row.reason == "revoked"


def test_an_address_stays_closed_whatever_is_behind_it(web: Web, tables: Tables, tmp_path: Path) -> None:
    web.files["/a.glb"] = triangle_glb(seed=1)
    (asset,) = taken_in(tables, tmp_path / "l.csv", f"{web.url}/a.glb,MIT,Ann,https://h.org/a\n")
    take_down(tables, asset.asset_id)
    web.files |= {"/a.glb": triangle_glb(seed=2), "/other.glb": triangle_glb(seed=3)}
    before = web.asked["/a.glb"]
    for rows in (f"{web.url}/a.glb,MIT,Ann,\n", f"{web.url}/other.glb,MIT,Ann,https://h.org/a/\n"):
        row = ingest(tables, listed(tmp_path / "m.csv", rows))
        assert isinstance(row, Rejected)
        assert row.reason == "revoked"
    # Refused before a byte is asked for.
    assert web.asked["/a.glb"] == before
    assert isinstance(ingest(tables, listed(tmp_path / "m.csv", f"{web.url}/other.glb,MIT,Ann,\n")), Asset)


def test_a_page_that_others_share_stays_open(tables: Tables, tmp_path: Path) -> None:
    for seed in range(3):
        (tmp_path / f"{seed}.glb").write_bytes(triangle_glb(seed=seed))
    first, _ = taken_in(
        tables, tmp_path / "l.csv", "0.glb,MIT,Ann,https://h.org/all\n1.glb,MIT,Ann,https://h.org/all\n"
    )
    take_down(tables, first.asset_id)
    row = ingest(tables, listed(tmp_path / "m.csv", "2.glb,MIT,Ann,https://h.org/all\n"))
    assert isinstance(row, Asset)


def test_nothing_of_an_author_comes_in_again(tables: Tables, tmp_path: Path) -> None:
    for seed in range(3):
        (tmp_path / f"{seed}.glb").write_bytes(triangle_glb(seed=seed))
    taken_in(tables, tmp_path / "l.csv", "0.glb,MIT,Ann,\n1.glb,MIT,Bob,\n")
    take_down(tables, "Ann")
    assert [row.asset_ids for row in tables.rows(TakeDown)] == [(hashlib.sha256(triangle_glb(seed=0)).hexdigest(),)]
    row = ingest(tables, listed(tmp_path / "m.csv", "2.glb,MIT,ann ,\n"))
    assert isinstance(row, Rejected)
    assert isinstance(ingest(tables, listed(tmp_path / "m.csv", "2.glb,MIT,Bob,\n")), Asset)


def test_no_stage_works_on_what_was_taken_down(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(triangle_glb(seed=1))
    (asset,) = taken_in(tables, tmp_path / "l.csv", "a.glb,MIT,Ann,\n")
    take_down(tables, asset.asset_id)
    stage = ProbeAsset(data=tables.store.root)
    task = Task(number=0, stage_index=0, input_id=asset.asset_id, item=asset)
    (row,) = run_task(tables, [stage], task, RetryPolicy(), tables.commit).rows
    assert isinstance(row, Rejected)
    assert (row.reason, row.rejected_id, row.stage) == ("revoked", asset.asset_id, "render.probe")
    assert tables.done(stage) == {asset.asset_id}


def test_the_list_is_heard_at_once_also_on_an_object_store(tables: Tables) -> None:
    for store in (tables.store, Store("memory://heard")):
        denied = DenyList(store, "shards/REVOKED.parquet", remote_every_s=0.0)
        assert not denied.has("a" * 64)
        for digit in "ab":
            request = meaning_of(Tables(store), digit * 64, kind="asset", asked_on="2026-02-03").request
            tombstone(Tables(store), [request])
            assert denied.has("c", digit * 64)
        assert denied.has("a" * 64)
        assert not denied.has("c" * 64)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://sketchfab.com/3d-models/fox-" + "ab" * 16, "http://www.sketchfab.com/models/" + "ab" * 16, True),
        ("https://sketchfab.com/3d-models/fox-" + "ab" * 16, "https://evil.org/models/" + "ab" * 16, False),
        ("https://h.org/a/#top", "https://H.org/a", True),
        ("https://h.org/a?id=1", "https://h.org/a?id=2", False),
        ("https://h.org/a", "https://h.org/A", False),
        ("", "", False),
    ],
)
def test_pages_are_told_apart(one: str, other: str, same: bool) -> None:
    assert same_page(one, other) is same
