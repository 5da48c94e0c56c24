import csv
import json
from pathlib import Path

import pytest

from ingest.sources.lists import Lists, Only
from ingest.sources.objaverse import Objaverse, uid_of
from ingest.stage import Ingest
from pipeline.records import Asset, Rejected
from pipeline.storage import Store
from tests.ingest.sources.collections_web import QUICK, about, serve_objaverse, sites_of, uid
from tests.ingest.web import Web


def source(web: Web, tmp_path: Path, **only: object) -> Objaverse:
    return Objaverse(
        lists=Lists(cache=tmp_path / "cache", fetch=QUICK),
        sites=sites_of(web),
        only=Only(**only),  # type: ignore[arg-type]
    )


def titles(found: Objaverse) -> list[str]:
    return sorted(item.title for item in found.items())


def test_animated_objects_come_with_their_pages_metadata(web: Web, tmp_path: Path) -> None:
    serve_objaverse(web, [about(number) for number in range(6)])
    items = sorted(source(web, tmp_path).items(), key=lambda item: item.title)
    assert [item.title for item in items] == ["Thing 1", "Thing 3", "Thing 5"]
    first = items[0]
    assert first.uri == f"{sites_of(web).objaverse}/glbs/000-000/{uid(1)}.glb"
    assert (first.name, first.spdx, first.author) == (uid(1), "by", "Ann 1")
    assert first.source_url == f"https://sketchfab.com/3d-models/thing-1-{uid(1)}"
    assert first.tags == ("Walk", "animals-pets")
    assert first.checked_on == "2022-12-15"
    assert titles(source(web, tmp_path, animated=False)) == [f"Thing {number}" for number in range(6)]


def test_the_lists_are_downloaded_once(web: Web, tmp_path: Path) -> None:
    serve_objaverse(web, [about(number) for number in range(6)])
    for _ in range(2):
        list(source(web, tmp_path).items())
    assert set(web.asked.values()) == {1}


def test_tags_categories_and_a_number_choose(web: Web, tmp_path: Path) -> None:
    dance = {"tags": [{"name": "Dance"}], "categories": [{"name": "people"}]}
    serve_objaverse(
        web, [about(1), about(3, **dance), about(5, **dance), about(7, tags=None, categories="x", user=None)]
    )
    assert titles(source(web, tmp_path, tags="dance, jump")) == ["Thing 3", "Thing 5"]
    assert titles(source(web, tmp_path, categories="animals-pets")) == ["Thing 1"]
    assert len(titles(source(web, tmp_path, tags="dance", max_items=1))) == 1
    assert len(titles(source(web, tmp_path))) == 4


@pytest.mark.parametrize("kind", ["txt", "json", "csv"])
def test_an_id_list_costs_only_its_own_metadata_and_tells_what_is_missing(web: Web, tmp_path: Path, kind: str) -> None:
    serve_objaverse(web, [about(number) for number in (1, 3, 5, 7)])
    ids = [f"https://sketchfab.com/3d-models/thing-7-{uid(7)}", f"{uid(5)}.glb", "f" * 32, uid(7)]
    path = tmp_path / f"ids.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["score", "uid"], *((number, text) for number, text in enumerate(ids))])
    else:
        path.write_text(json.dumps(ids) if kind == "json" else "\n".join(ids))
    items = list(source(web, tmp_path, ids=str(path)).items())
    assert {item.title for item in items[:2]} == {"Thing 5", "Thing 7"}
    assert [(item.name, item.uri) for item in items[2:]] == [("f" * 32, "")]
    assert not [path for path in web.asked if path.endswith("000-000.json.gz")]
    (row,) = Ingest(data=str(tmp_path / "data"), fetch=QUICK).process(items[2])
    assert isinstance(row, Rejected)
    assert row.reason == "not_found"


def test_objects_become_assets_and_noai_is_honoured(web: Web, tmp_path: Path) -> None:
    serve_objaverse(
        web, [about(1), about(3, tags=[{"name": "NoAI"}]), about(5, license="by-nc"), about(7, license="ed")]
    )
    stage = Ingest(data=str(tmp_path / "data"), fetch=QUICK)
    items = sorted(source(web, tmp_path).items(), key=lambda item: item.title)
    rows = [next(iter(stage.process(item))) for item in items]
    assert isinstance(rows[0], Asset)
    assert rows[0].licence_class == "by"
    assert "Ann 1" in rows[0].attribution
    assert Store(str(tmp_path / "data")).exists(rows[0].blob)
    reasons = [row.reason for row in rows[1:] if isinstance(row, Rejected)]
    assert reasons == ["noai", "licence_not_allowed", "licence_not_allowed"]


@pytest.mark.parametrize("content", [b"<html>please log in", b"\x1f\x8bnot gzip", b""])
def test_a_broken_list_is_said_and_not_kept(web: Web, tmp_path: Path, content: bytes) -> None:
    web.files["/datasets/allenai/objaverse/resolve/main/object-paths.json.gz"] = content
    with pytest.raises(ValueError, match="object-paths"):
        list(source(web, tmp_path).items())
    serve_objaverse(web, [about(1)])
    assert titles(source(web, tmp_path)) == ["Thing 1"]


def test_a_list_that_is_not_there_is_said(web: Web, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be had"):
        list(source(web, tmp_path).items())
    with pytest.raises(ValueError, match="is not there"):
        source(web, tmp_path, ids=str(tmp_path / "none.txt"))


def test_uids_are_found_in_urls_and_file_names() -> None:
    for text in (
        uid(1),
        f"{uid(1)}.glb",
        f"glbs/000-001/{uid(1)}.glb",
        f"https://sketchfab.com/3d-models/a-b-{uid(1)}/",
    ):
        assert uid_of(text) == uid(1)
