import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.sources.manifest import Manifest
from pipeline.records import SourceItem
from tests.ingest.tiny import glb, triangle

SHA = "ab" * 32


def listed(path: Path, content: str | bytes) -> list[SourceItem]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(Manifest(path=path).items())


def test_columns_go_by_many_names(tmp_path: Path) -> None:
    (item,) = listed(
        tmp_path / "a.csv",
        "\ufeffFile,License,License-Text,Creator,SHA256,NoAI,Name,Category,URL,Checked On\n"
        f'sub/fox.glb,CC-BY-4.0,"free, with credit",Ann,sha256:{SHA.upper()},false,Fox,"cat, dog",https://h/fox,2025-05-05T10:00\n',
    )
    assert item.uri == str(tmp_path / "sub" / "fox.glb")
    assert (item.name, item.title, item.author) == ("sub/fox.glb", "Fox", "Ann")
    assert (item.spdx, item.licence_text) == ("CC-BY-4.0", "free, with credit")
    assert (item.expected_sha256, item.noai, item.tags) == (SHA, False, ("cat", "dog"))
    assert (item.source_url, item.checked_on) == ("https://h/fox", "2025-05-05")
    assert item.source == str(tmp_path / "a.csv")


def test_a_url_alone_is_the_file(tmp_path: Path) -> None:
    a, b = listed(tmp_path / "a.csv", "file,url,spdx\n,https://h/a.glb,MIT\nb.glb,https://h/page,MIT\n")
    assert (a.uri, a.source_url) == ("https://h/a.glb", "")
    assert (b.uri, b.source_url) == (str(tmp_path / "b.glb"), "https://h/page")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_all_formats_say_the_same(tmp_path: Path, suffix: str) -> None:
    rows: list[dict[str, Any]] = [
        {"file": "a.glb", "spdx": "MIT", "noai": True, "title": "A", "tags": "x,y"},
        {"file": "b.glb", "spdx": None, "noai": None, "title": None, "tags": None},
    ]
    path = tmp_path / f"list.{suffix}"
    if suffix == "csv":
        path.write_text('file,spdx,noai,title,tags\na.glb,MIT,true,A,"x,y"\nb.glb,,,,\n')
    elif suffix == "jsonl":
        rows[0]["tags"] = ["x", "y"]
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    a, b = Manifest(path=path, label="list").items()
    assert (a.uri, a.spdx, a.noai, a.title, a.tags) == (str(tmp_path / "a.glb"), "MIT", True, "A", ("x", "y"))
    assert (b.spdx, b.noai, b.title, b.tags, b.source) == ("", None, "b", (), "list")


def test_a_row_without_a_place_is_an_item_of_its_own(tmp_path: Path) -> None:
    items = listed(tmp_path / "a.csv", "file,spdx\n,MIT\n,MIT\n")
    assert [(item.uri, item.name) for item in items] == [("", "a.csv:2"), ("", "a.csv:3")]
    assert len({item.item_id for item in items}) == 2


def test_a_silent_row_lets_the_file_speak_and_then_the_default(tmp_path: Path) -> None:
    root, buffer = triangle()
    (tmp_path / "plain.glb").write_bytes(glb(root, buffer))
    root["asset"]["extras"] = {
        "license": "CC-BY-NC-4.0 (http://creativecommons.org/licenses/by-nc/4.0/)",
        "author": "Ann",
    }
    (tmp_path / "spoken.glb").write_bytes(glb(root, buffer))
    (tmp_path / "a.csv").write_text("file\nplain.glb\nspoken.glb\n")
    plain, spoken = Manifest(path=tmp_path / "a.csv", licence="CC0-1.0", noai=True).items()
    assert (plain.spdx, plain.noai) == ("CC0-1.0", True)
    assert (spoken.spdx, spoken.author) == ("CC-BY-NC-4.0", "Ann")


def test_rows_are_read_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"file": "a.glb"}\nnot json\n')
    items = Manifest(path=tmp_path / "a.jsonl").items()
    assert next(items).name == "a.glb"
    with pytest.raises(ValueError, match="line 2"):
        next(items)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "line 1: no column .* name one `file`"),
        ("a.csv", "colour,spdx\nred,MIT\n", "found colour, spdx"),
        ("a.csv", "file,spdx\na.glb,MIT,more\n", "line 2: 1 cells more .* quotes"),
        ("a.csv", 'file,spdx\n"a.glb,MIT\n', "line 2"),
        ("a.csv", b"file,spdx\n\xff.glb,MIT\n", "not UTF-8"),
        ("a.csv", "file,sha256\na.glb,123\n", "line 2: `sha256` .* 64 hexadecimal"),
        ("a.csv", "file,noai\na.glb,perhaps\n", "line 2: `noai` .* true, false"),
        ("a.csv", "file,checked_on\na.glb,1.2.2025\n", "line 2: `checked_on`"),
        ("a.jsonl", '{"file": "a.glb"}\n[1]\n', "line 2: no JSON object"),
        ("a.jsonl", '{"file": {"path": "a.glb"}}\n', "line 1: `file` is not text"),
        ("a.jsonl", "[" * 100_000, "line 1"),
        ("a.parquet", "no parquet", "is no Parquet file"),
        ("a.txt", "file\n", "ends in .csv"),
    ],
)
def test_a_bad_manifest_says_where_and_what_to_do(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        listed(tmp_path / name, content)
    assert str(tmp_path / name) in str(error.value)


def test_a_missing_manifest_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not there"):
        Manifest(path=tmp_path / "a.csv")
