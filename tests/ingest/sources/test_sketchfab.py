import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ingest.sources.lists import Only, Sites
from ingest.sources.sketchfab import Sketchfab
from ingest.stage import Ingest
from pipeline.records import Asset, Rejected
from tests.ingest.sources.collections_web import QUICK, uid
from tests.ingest.tiny import write_gltf
from tests.ingest.web import Web

SECRET = "s3cret-t0ken"


def sites(web: Web) -> Sites:
    return Sites(sketchfab=f"{web.url}/v3")


def source(web: Web, **only: Any) -> Sketchfab:
    return Sketchfab(sites=sites(web), only=Only(**only), fetch=QUICK)


def model(number: int, **changes: Any) -> dict[str, Any]:
    """As the search lists it."""
    values = {
        "uid": uid(number), "name": f"Thing {number}", "animationCount": 1, "isDownloadable": True,
        "viewerUrl": f"https://sketchfab.com/3d-models/thing-{uid(number)}",
        "license": {"uid": "x", "label": "CC Attribution", "slug": "by"}, "tags": [{"name": "walk"}],
        "categories": [{"name": "Animals & Pets"}], "user": {"username": "ann", "displayName": "Ann"},
    }  # fmt: skip
    return values | changes


def archive(tmp_path: Path, name: str = "scene.gltf") -> bytes:
    folder = tmp_path / "packed"
    write_gltf(folder, name)
    return zipped({path.name: path.read_bytes() for path in folder.iterdir()})


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def offer(web: Web, number: int, content: bytes) -> None:
    """Let a model be downloaded by whoever has the token."""
    path = f"/v3/models/{uid(number)}/download"
    web.files[f"/files/{number}.zip"] = content
    web.files[path] = json.dumps({"gltf": {"url": f"{web.url}/files/{number}.zip", "size": len(content)}}).encode()
    web.tokens[path] = f"Token {SECRET}"


def ingested(web: Web, tmp_path: Path, number: int) -> Asset | Rejected:
    stage = Ingest(data=str(tmp_path / "data"), fetch=QUICK, sites=sites(web), max_bytes=100_000)
    row = next(iter(stage.process(source(web)._item(model(number)))))
    assert isinstance(row, Asset | Rejected)
    return row


def test_the_search_is_followed_over_its_pages(web: Web) -> None:
    first = "/v3/search?type=models&downloadable=true&count=24&q=red+fox&animated=true&tags=walk%2Crun"
    web.files[first] = json.dumps({"results": [model(1), model(2)], "next": f"{web.url}/v3/search?cursor=24"}).encode()
    web.files["/v3/search?cursor=24"] = json.dumps({"results": [model(3), {"uid": None}], "next": None}).encode()
    items = list(source(web, query="red fox", tags="walk, run").items())
    assert [item.title for item in items] == ["Thing 1", "Thing 2", "Thing 3"]
    assert (items[0].spdx, items[0].author, items[0].noai, items[0].tags) == (
        "by", "Ann", False, ("walk", "Animals & Pets"),
    )  # fmt: skip
    assert items[0].uri == f"{web.url}/v3/models/{uid(1)}/download"
    assert len(list(source(web, query="red fox", tags="walk, run", max_items=2).items())) == 2
    assert web.asked["/v3/search?cursor=24"] == 1


def test_a_search_that_is_throttled_waits_and_goes_on(web: Web) -> None:
    path = "/v3/search?type=models&downloadable=true&count=24&animated=true"
    web.files[path] = json.dumps({"results": [model(1)], "next": None}).encode()
    web.faults[path] = "429x1"
    assert len(list(source(web).items())) == 1


@pytest.mark.parametrize("answer", [b"[]", b"{", b'{"results": 3}', b'{"results": [], "next": "https://evil.test/x"}'])
def test_a_search_with_another_answer_is_refused(web: Web, answer: bytes) -> None:
    web.files["/v3/search?type=models&downloadable=true&count=24&animated=true"] = answer
    with pytest.raises(ValueError, match="search"):
        list(source(web).items())


def test_ids_are_looked_up_and_missing_ones_are_told(web: Web, tmp_path: Path) -> None:
    web.files[f"/v3/models/{uid(1)}"] = json.dumps(model(1, tags=[{"name": "NoAI"}])).encode()
    web.files[f"/v3/models/{uid(2)}"] = json.dumps(model(2, animationCount=0)).encode()
    ids = tmp_path / "ids.txt"
    ids.write_text(f"https://sketchfab.com/3d-models/thing-{uid(1)}\n{uid(2)}\n{uid(3)}\n")
    items = list(source(web, ids=str(ids)).items())
    assert [(item.title, item.noai) for item in items[:1]] == [("Thing 1", True)]
    assert [(item.name, item.uri) for item in items[1:]] == [(uid(3), "")]


def test_a_model_is_unpacked_with_its_side_files(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKETCHFAB_TOKEN", SECRET)
    offer(web, 1, archive(tmp_path))
    asset = ingested(web, tmp_path, 1)
    assert isinstance(asset, Asset)
    assert (asset.format, asset.main_file, asset.licence_class) == ("gltf", "asset.gltf", "by")
    assert asset.source_url == f"https://sketchfab.com/3d-models/thing-{uid(1)}"
    # The token went to the API alone, and is in nothing that is kept.
    assert web.sent_tokens == {(f"/v3/models/{uid(1)}/download", f"Token {SECRET}"): 1}
    assert SECRET not in repr(asset)


def test_a_line_end_after_the_token_does_no_harm(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKETCHFAB_TOKEN", f" {SECRET}\n")
    offer(web, 1, archive(tmp_path))
    assert isinstance(ingested(web, tmp_path, 1), Asset)


@pytest.mark.parametrize("token", ["", "another", "an\nother", "änother"])
def test_without_the_right_token_a_login_is_needed(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("SKETCHFAB_TOKEN", token)
    offer(web, 1, archive(tmp_path))
    row = ingested(web, tmp_path, 1)
    assert isinstance(row, Rejected)
    assert row.reason == "login_needed"
    assert "SKETCHFAB_TOKEN" in row.detail
    assert not token or token not in row.detail


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"../evil.gltf": b"{}"}, "unsafe_uri"),
        ({"/etc/evil.gltf": b"{}"}, "unsafe_uri"),
        ({"scene.gltf": b" " * 5_000_000}, "too_large"),
        ({"readme.txt": b"no model"}, "malformed"),
        ({"scene.gltf": b"{", "scene.gltf/x": b""}, "malformed"),
    ],
)
def test_hostile_archives_cost_one_model(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], reason: str
) -> None:
    monkeypatch.setenv("SKETCHFAB_TOKEN", SECRET)
    offer(web, 1, zipped(files))
    row = ingested(web, tmp_path, 1)
    assert isinstance(row, Rejected)
    assert row.reason == reason
    assert not list(tmp_path.rglob("evil*"))


def test_a_truncated_archive_is_malformed(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKETCHFAB_TOKEN", SECRET)
    whole = archive(tmp_path)
    for content in (whole[:-40], whole[: len(whole) // 2], b"PK\x03\x04", b"nothing"):
        offer(web, 1, content)
        row = ingested(web, tmp_path, 1)
        assert isinstance(row, Rejected)
        assert row.reason == "malformed"


def test_a_link_in_an_archive_is_malformed(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKETCHFAB_TOKEN", SECRET)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        link = zipfile.ZipInfo("scene.gltf")
        link.external_attr = 0o120777 << 16
        opened.writestr(link, "/etc/passwd")
    offer(web, 1, buffer.getvalue())
    row = ingested(web, tmp_path, 1)
    assert isinstance(row, Rejected)
    assert row.reason == "malformed"
