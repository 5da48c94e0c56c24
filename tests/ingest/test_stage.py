import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ingest
from ingest.fetch import FetchSettings
from ingest.inspect import Limits
from ingest.stage import Ingest, Tally
from pipeline.reasons import REASONS
from pipeline.records import Asset, Inspection, Rejected, SourceItem
from pipeline.storage import Store
from tests.ingest.tiny import item, png, triangle_glb, write_gltf
from tests.ingest.web import Web

QUICK = FetchSettings(
    attempts=2, first_wait_s=0.01, longest_wait_s=0.02, timeout_s=2.0, deadline_s=5.0, allow_private=True
)


@pytest.fixture
def stage(store: Store) -> Iterator[Ingest]:
    stage = Ingest(data=store.root, fetch=QUICK)
    yield stage
    stage.close()


def asset_of(stage: Ingest, listed: SourceItem) -> Asset:
    rows = list(stage.process(listed))
    assert isinstance(rows[0], Asset), rows
    return rows[0]


def rejected_of(stage: Ingest, listed: SourceItem) -> Rejected:
    (row,) = stage.process(listed)
    assert isinstance(row, Rejected)
    return row


def test_a_glb_becomes_an_asset_and_an_inspection(stage: Ingest, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "fox.glb"
    path.write_bytes(triangle_glb())
    listed = item(path, spdx="by", title="Fox", author="Ann", noai=False, tags=("fox",))
    asset, inspection = stage.process(listed)
    assert isinstance(asset, Asset)
    assert isinstance(inspection, Inspection)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert asset.asset_id == inspection.asset_id == digest
    assert asset.blob == f"blobs/{digest[:2]}/{digest}.glb"
    assert store.read_bytes(asset.blob) == path.read_bytes()
    assert (asset.format, asset.main_file, asset.num_bytes) == ("glb", "", path.stat().st_size)
    assert (asset.spdx, asset.licence_class) == ("CC-BY-4.0", "by")
    assert asset.licence_url == "https://creativecommons.org/licenses/by/4.0/"
    assert "Ann" in asset.attribution
    kept = ("item_id", "seq", "source", "uri", "name", "title", "author", "noai", "checked_on", "tags")
    assert all(getattr(asset, name) == getattr(listed, name) for name in kept)
    assert inspection.animation_names == ("rise",)


def test_again_gives_the_same_rows_and_bytes(stage: Ingest, store: Store, tmp_path: Path) -> None:
    listed = item(write_gltf(tmp_path / "a", image=png(4, 4)))
    first = list(stage.process(listed))
    bytes_before = {name: store.read_bytes(name) for name in store.list_files("blobs")}
    assert list(stage.process(listed)) == first
    assert {name: store.read_bytes(name) for name in store.list_files("blobs")} == bytes_before


def test_a_gltf_is_one_tar_of_what_it_refers_to(stage: Ingest, store: Store, tmp_path: Path) -> None:
    path = write_gltf(tmp_path / "a", image=png(4, 4))
    (tmp_path / "a" / "notes.txt").write_text("not part of it")
    asset = asset_of(stage, item(path))
    assert (asset.format, asset.main_file) == ("gltf", "asset.gltf")
    assert asset.blob == f"blobs/{asset.asset_id[:2]}/{asset.asset_id}.gltf.tar"
    assert hashlib.sha256(store.read_bytes(asset.blob)).hexdigest() == asset.asset_id
    with tarfile.open(store.path(asset.blob)) as tar:
        assert tar.getnames() == ["asset.gltf", "textures/a b.png", "tri.bin"]
        main = tar.extractfile(asset.main_file)
        assert main
        assert main.read() == path.read_bytes()


def test_equal_gltf_folders_are_one_asset_whatever_the_file_is_called(stage: Ingest, tmp_path: Path) -> None:
    first = asset_of(stage, item(write_gltf(tmp_path / "a", "one.gltf")))
    second = asset_of(stage, item(write_gltf(tmp_path / "b", "two.gltf")))
    assert first.asset_id == second.asset_id
    (tmp_path / "b" / "tri.bin").write_bytes((tmp_path / "b" / "tri.bin").read_bytes() + b"more")
    assert asset_of(stage, item(tmp_path / "b" / "two.gltf")).asset_id != first.asset_id


def test_a_gltf_from_the_web_brings_its_side_files(stage: Ingest, web: Web, tmp_path: Path) -> None:
    path = write_gltf(tmp_path / "a", image=png(4, 4))
    local = asset_of(stage, item(path))
    web.files["/x/tri.gltf"] = path.read_bytes()
    web.files["/x/tri.bin"] = (tmp_path / "a" / "tri.bin").read_bytes()
    web.files["/x/textures/a%20b.png"] = png(4, 4)
    web.faults["/x/tri.bin"] = "503x1"
    assert asset_of(stage, item(f"{web.url}/x/tri.gltf")).asset_id == local.asset_id
    del web.files["/x/textures/a%20b.png"]
    rows = list(stage.process(item(f"{web.url}/x/tri.gltf")))
    assert isinstance(rows[1], Inspection)
    assert rows[1].missing_files == ("textures/a b.png",)
    web.faults["/x/tri.bin"] = "503"
    row = rejected_of(stage, item(f"{web.url}/x/tri.gltf"))
    assert (row.reason, "tri.bin" in row.detail) == ("fetch_failed", True)


def test_an_obj_is_one_tar_with_materials_and_textures(stage: Ingest, store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("mtllib a.mtl gone.mtl\nv 0 0 0\n")
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd wood.png\nmap_Ks gone.png\n")
    (tmp_path / "wood.png").write_bytes(png(2, 2))
    asset = asset_of(stage, item(tmp_path / "a.obj"))
    with tarfile.open(store.path(asset.blob)) as tar:
        assert tar.getnames() == ["a.mtl", "asset.obj", "wood.png"]
    (tmp_path / "plain.obj").write_text("v 0 0 0\n")
    assert asset_of(stage, item(tmp_path / "plain.obj")).blob.endswith(".obj")


def test_other_formats_are_stored_by_what_they_are(stage: Ingest, tmp_path: Path) -> None:
    (tmp_path / "scene.usd").write_bytes(b"#usda 1.0\n")
    asset = asset_of(stage, item(tmp_path / "scene.usd"))
    assert (asset.format, asset.blob.endswith(".usda")) == ("usd", True)


def test_a_refused_licence_costs_no_request(stage: Ingest, web: Web) -> None:
    web.files["/a.glb"] = triangle_glb()
    for claims in ({"spdx": "CC-BY-NC-4.0"}, {"spdx": ""}, {"noai": True}):
        rejected_of(stage, item(f"{web.url}/a.glb", **claims))
    assert not web.asked


def test_settings_reach_the_policy(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(triangle_glb())
    nc, opted_out = item(tmp_path / "a.glb", spdx="CC-BY-NC-4.0"), item(tmp_path / "a.glb", noai=True)
    assert rejected_of(Ingest(data=store.root), nc).reason == "licence_not_allowed"
    assert asset_of(Ingest(data=store.root, policy="research"), nc).licence_class == "by-nc"
    assert asset_of(Ingest(data=store.root, allow="MIT, CC-BY-NC-4.0"), nc).licence_class == "by-nc"
    assert rejected_of(Ingest(data=store.root), opted_out).reason == "noai"
    assert asset_of(Ingest(data=store.root, honour_noai=False), opted_out).noai is True


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"expected_sha256": "0" * 64}, "checksum_mismatch"),
        ({"uri": "gone.glb"}, "not_found"),
        ({"uri": ""}, "not_found"),
        ({"uri": "page.glb"}, "not_an_asset"),
        ({"uri": "cut.glb"}, "truncated"),
        ({"uri": "empty.glb", "expected_sha256": "0" * 64}, "empty_file"),
        ({"uri": "alone.gltf"}, "missing_file"),
        ({"uri": "link/tri.gltf"}, "unsafe_uri"),
    ],
)
def test_a_bad_item_is_refused_with_its_name_and_advice(
    stage: Ingest, store: Store, tmp_path: Path, changes: dict[str, str], reason: str
) -> None:
    (tmp_path / "a.glb").write_bytes(triangle_glb())
    (tmp_path / "page.glb").write_bytes(b"<html></html>")
    (tmp_path / "cut.glb").write_bytes(triangle_glb()[:-20])
    (tmp_path / "empty.glb").touch()
    shutil.copy(write_gltf(tmp_path / "whole"), tmp_path / "alone.gltf")
    linked = write_gltf(tmp_path / "link")
    (tmp_path / "secret").write_bytes((linked.parent / "tri.bin").read_bytes())
    (linked.parent / "tri.bin").unlink()
    (linked.parent / "tri.bin").symlink_to(tmp_path / "secret")
    uri = changes.pop("uri", "a.glb")
    row = rejected_of(stage, item(tmp_path / uri if uri else "", name=uri or "row 7", **changes))
    assert row.reason == reason
    assert row.name in row.detail
    assert row.stage == "ingest"
    assert len(row.detail.split("; ")[-1]) > 5
    assert store.list_files("blobs") == []


def test_a_download_cache_of_links_is_read(stage: Ingest, tmp_path: Path) -> None:
    cache = write_gltf(tmp_path / "cache")
    (tmp_path / "seen").mkdir()
    for name in ("tri.gltf", "tri.bin"):
        (tmp_path / "seen" / name).symlink_to(cache.parent / name)
    assert asset_of(stage, item(tmp_path / "seen" / "tri.gltf")).main_file == "asset.gltf"


def test_the_size_limit_counts_side_files(store: Store, tmp_path: Path) -> None:
    path = write_gltf(tmp_path / "a", image=png(4, 4))
    stage = Ingest(data=store.root, max_bytes=path.stat().st_size + 20)
    row = rejected_of(stage, item(path))
    assert (row.reason, "tri.bin" in row.detail) == ("too_large", True)


def test_limits_reach_the_inspection(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(triangle_glb())
    stage = Ingest(data=store.root, limits=Limits(max_duration_s=1.0))
    assert rejected_of(stage, item(tmp_path / "a.glb")).reason == "absurd_duration"


def test_a_full_disk_is_a_fault_of_the_machine(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(triangle_glb())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "blobs").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="blobs"):
        list(Ingest(data=store.root).process(item(tmp_path / "a.glb")))


@pytest.mark.parametrize(
    "settings", [{"policy": "any"}, {"policy": "custom"}, {"allow": "nonsense"}, {"max_bytes": 0}, {"allow": "by-nd"}]
)
def test_bad_settings_are_an_error_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"policy|--allow|max_bytes"):
        Ingest(data="x", **settings)


def test_only_settings_that_change_rows_change_their_id() -> None:
    plain = Ingest(data="a")
    assert Ingest(data="b", fetch=FetchSettings(attempts=9)).settings_id == plain.settings_id
    assert Ingest(data="a", policy="research").settings_id != plain.settings_id
    assert Ingest(data="a", limits=Limits(max_depth=9)).settings_id != plain.settings_id
    assert json.loads(plain.settings)["limits"]["max_depth"] == 800


def test_a_dry_run_counts_and_touches_nothing(store: Store, web: Web, tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(triangle_glb())
    web.files["/b.glb"] = triangle_glb()
    items = [
        item(tmp_path / "a.glb"),
        item(tmp_path / "gone.fbx", spdx="MIT"),
        item(f"{web.url}/b.glb?x=.y"),
        item(f"{web.url}/b.glb"),
        item("", name="row 3"),
        item(tmp_path / "a.glb", spdx="CC-BY-NC-4.0"),
        item(tmp_path / "a.blend", spdx=""),
        item(f"{web.url}/stated.glb", source="other", num_bytes=1234),
    ]
    stage = Ingest(data=store.root, fetch=QUICK)
    size = len(triangle_glb())
    found = stage.dry_run(items)
    assert found.admitted == {
        ("test", "cc0", "glb"): Tally(3, size, 2),
        ("test", "permissive", "fbx"): Tally(1, 0, 1),
        ("test", "cc0", "unknown"): Tally(1, 0, 1),
        ("other", "cc0", "glb"): Tally(1, 1234, 0),
    }
    assert found.turned_away == {
        ("test", "licence_not_allowed", "glb"): Tally(1, 0, 1),
        ("test", "licence_unknown", "blend"): Tally(1, 0, 1),
    }
    assert found.total == Tally(6, size + 1234, 4)
    assert stage.dry_run(items, ask_servers=True).total == Tally(6, 2 * size + 1234, 3)
    assert not web.asked
    assert not (tmp_path / "data").exists()


def test_every_reason_we_give_is_explained() -> None:
    sources = "".join(path.read_text() for path in Path(ingest.__file__).parent.rglob("*.py"))
    given = set(re.findall(r'Refused\(\s*"(\w+)"', sources))
    assert len(given) > 15
    assert given <= REASONS.keys()
