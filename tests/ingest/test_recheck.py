import dataclasses
import json
from pathlib import Path

import pytest

from ingest.recheck import Recheck, RecheckReport, list_items
from ingest.sources.lists import Lists, Only, Sites
from ingest.sources.manifest import Manifest
from ingest.sources.objaverse import Objaverse
from ingest.sources.sketchfab import Sketchfab
from ingest.sources.source import Source
from ingest.stage import Ingest
from pipeline.cli import EXIT_FINDINGS, EXIT_OK, main
from pipeline.records import Asset, LicenceCheck, Rejected
from pipeline.tables import Tables
from shards.views import connect_to, first_assets
from tests.ingest.sources.collections_web import QUICK, about, serve_objaverse, sites_of, uid
from tests.ingest.sources.test_sketchfab import SECRET, archive, model, offer
from tests.ingest.tiny import triangle_glb
from tests.ingest.web import Web


def take_in(tables: Tables, source: Source, sites: Sites | None = None) -> dict[str, Asset]:
    """List and ingest as the command does, one after the other; gives the assets by name."""
    stage = Ingest(data=tables.store.root, fetch=QUICK, sites=sites or Sites())
    for item in list_items(tables, [source]):
        tables.commit(stage, item.row_id, list(stage.process(item)))
    return {row.name: row for row in tables.rows(Asset)}


def recheck(tables: Tables, sites: Sites | None = None, **how: object) -> RecheckReport:
    return Recheck(tables, sites=sites, fetch=QUICK).run(**how)  # type: ignore[arg-type]


def changes(report: RecheckReport) -> dict[str, tuple[str, ...]]:
    return {check.item_id: check.changes for check in report.changed}


def as_known_now(tables: Tables, asset: Asset) -> Asset:
    with connect_to(tables, (Asset, LicenceCheck)) as con:
        return first_assets(con, [asset.asset_id])[asset.asset_id]


def write_manifest(path: Path, web: Web, rows: dict[str, str]) -> Manifest:
    path.write_text("url,spdx,noai,title\n" + "".join(f"{web.url}{name},{cells}\n" for name, cells in rows.items()))
    return Manifest(path=path)


def test_a_manifest_is_read_again_with_its_files(web: Web, tables: Tables, tmp_path: Path) -> None:
    for number in range(8):
        web.files[f"/{number}.glb"] = triangle_glb(seed=number)
    path = tmp_path / "list.csv"
    rows = {f"/{number}.glb": f"CC-BY-4.0,,T{number}" for number in range(8)}
    assets = {asset.title: asset for asset in take_in(tables, write_manifest(path, web, rows)).values()}
    assert len(assets) == 8
    assert recheck(tables).changed == []
    rows["/1.glb"] = "CC-BY-NC-4.0,,T1"
    rows["/2.glb"] = "CC-BY-4.0,true,T2"
    rows["/3.glb"] = "whatever,,T3"
    del rows["/4.glb"]
    write_manifest(path, web, rows)
    del web.files["/5.glb"]
    web.faults["/6.glb"] = "403"
    web.faults["/7.glb"] = "503"
    report = recheck(tables)
    by_title = {title: asset.item_id for title, asset in assets.items()}
    assert changes(report) == {
        by_title["T1"]: ("licence",),
        by_title["T2"]: ("noai",),
        by_title["T3"]: ("licence",),
        by_title["T4"]: ("status",),
        by_title["T5"]: ("status",),
        by_title["T6"]: ("status",),
        by_title["T7"]: ("status",),
    }
    assert report.checked == {"live": 4, "unlisted": 1, "gone": 1, "private": 1, "unreachable": 1}
    now = as_known_now(tables, assets["T1"])
    assert (now.spdx, now.licence_class) == ("CC-BY-NC-4.0", "by-nc")
    assert "CC-BY-NC-4.0" in now.attribution
    assert now.evidence == "list.csv, line 3"
    assert now.evidence_sha256 != assets["T1"].evidence_sha256
    assert as_known_now(tables, assets["T2"]).noai is True
    assert as_known_now(tables, assets["T3"]).licence_class == ""
    for title in ("T0", "T4", "T5", "T6", "T7"):
        assert as_known_now(tables, assets[title]) == assets[title]
    # The same once more is nothing new.
    assert recheck(tables).changed == []


def test_sketchfab_is_asked_for_each_model(
    web: Web, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKETCHFAB_TOKEN", SECRET)
    sites = Sites(sketchfab=f"{web.url}/v3")
    search = "/v3/search?type=models&downloadable=true&count=24&animated=true"
    web.files[search] = json.dumps({"results": [model(number) for number in range(6)], "next": None}).encode()
    for number in range(6):
        offer(web, number, archive(tmp_path / str(number), f"scene{number}.gltf"))
    assets = take_in(tables, Sketchfab(sites=sites, only=Only(), fetch=QUICK), sites)
    assert len(assets) == 6
    assert assets[uid(1)].evidence == f"{web.url}{search}"
    assert assets[uid(1)].noai_checked_on == assets[uid(1)].checked_on
    now = {
        0: model(0), 1: model(1, license={"slug": "by-nc"}), 2: model(2, tags=[{"name": "NoAI"}]),
        3: model(3, isDownloadable=False), 5: model(5),
    }  # fmt: skip
    for number, answer in now.items():
        web.files[f"/v3/models/{uid(number)}"] = json.dumps(answer).encode()
    web.faults[f"/v3/models/{uid(5)}"] = "401"
    report = recheck(tables, sites)
    assert {check.item_id: (check.source_status, check.changes) for check in report.changed} == {
        assets[uid(1)].item_id: ("live", ("licence",)),
        assets[uid(2)].item_id: ("live", ("noai",)),
        assets[uid(3)].item_id: ("private", ("status",)),
        assets[uid(4)].item_id: ("gone", ("status",)),
        assets[uid(5)].item_id: ("private", ("status",)),
    }
    assert SECRET not in repr(report)


def test_a_model_of_objaverse_is_looked_up_where_it_came_from(web: Web, tables: Tables, tmp_path: Path) -> None:
    serve_objaverse(web, [about(number, animationCount=1) for number in range(3)])
    sites = dataclasses.replace(sites_of(web), sketchfab=f"{web.url}/v3")
    lists = Lists(cache=tmp_path / "cache", fetch=QUICK)
    assets = take_in(tables, Objaverse(lists=lists, sites=sites, only=Only()), sites)
    assert len(assets) == 3
    assert assets[uid(0)].noai_checked_on == assets[uid(0)].checked_on == "2022-12-15"
    assert assets[uid(0)].evidence.endswith("/metadata/000-000.json.gz")
    web.files[f"/v3/models/{uid(0)}"] = json.dumps(model(0)).encode()
    web.files[f"/v3/models/{uid(1)}"] = json.dumps(model(1, tags=[{"slug": "noai"}])).encode()
    report = recheck(tables, sites)
    assert changes(report) == {assets[uid(1)].item_id: ("noai",), assets[uid(2)].item_id: ("status",)}
    assert as_known_now(tables, assets[uid(1)]).noai is True


def test_a_server_that_reserves_its_files_from_ai_is_heard(web: Web, tables: Tables, tmp_path: Path) -> None:
    web.files["/0.glb"] = triangle_glb()
    (asset,) = take_in(tables, write_manifest(tmp_path / "a.csv", web, {"/0.glb": "MIT,,T"})).values()
    web.faults["/0.glb"] = "noai"
    (check,) = recheck(tables).changed
    assert (check.item_id, check.changes, check.source_status) == (asset.item_id, ("noai",), "live")


def test_what_was_claimed_on_the_command_line_stays(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(triangle_glb())
    (tmp_path / "list.csv").write_text("file\na.glb\n")
    (asset,) = take_in(tables, Manifest(path=tmp_path / "list.csv", licence="CC0-1.0")).values()
    assert (asset.evidence, asset.evidence_sha256) == ("command line", "")
    assert recheck(tables).changed == []
    (tmp_path / "a.glb.license").write_text("SPDX-License-Identifier: CC-BY-NC-4.0\n")  # REUSE-IgnoreLine
    (check,) = recheck(tables).changed
    assert (check.spdx, check.evidence) == ("CC-BY-NC-4.0", "a.glb.license")


def test_a_corrected_manifest_corrects_what_was_taken_in_before(tables: Tables, tmp_path: Path) -> None:
    """Its row is a new item; the old one must not go on to be packed under the old claim."""
    (tmp_path / "a.glb").write_bytes(triangle_glb())
    path = tmp_path / "list.csv"

    def listed(spdx: str) -> Asset:
        path.write_text(f"file,spdx\na.glb,{spdx}\n")
        assets = take_in(tables, Manifest(path=path))
        return as_known_now(tables, next(iter(assets.values())))

    assert listed("MIT").licence_class == "permissive"
    assert listed("CC-BY-NC-4.0").licence_class == "by-nc"
    assert [row.reason for row in tables.rows(Rejected)] == ["licence_not_allowed"]
    assert listed("CC-BY-4.0").licence_class == "by"
    assert listed("MIT").licence_class == "permissive"
    before = tables.rows(LicenceCheck)
    assert listed("MIT").licence_class == "permissive"
    assert tables.rows(LicenceCheck) == before


def test_a_dry_run_writes_nothing_and_changes_end_with_1(
    web: Web, tables: Tables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web.files["/0.glb"] = triangle_glb()
    take_in(tables, write_manifest(tmp_path / "a.csv", web, {"/0.glb": "MIT,,T"}))
    arguments = ["licence", "recheck", "--data", tables.store.root, "--fetch.allow_private", "true"]
    assert main(arguments) == EXIT_OK
    write_manifest(tmp_path / "a.csv", web, {"/0.glb": "CC-BY-NC-4.0,,T"})
    before = tables.rows(LicenceCheck)
    assert main([*arguments, "--dry-run"]) == EXIT_FINDINGS
    assert tables.rows(LicenceCheck) == before
    assert "MIT → CC-BY-NC-4.0" in capsys.readouterr().out
    assert main([*arguments, "--older_than_days", "1"]) == EXIT_OK
    assert main(arguments) == EXIT_FINDINGS
