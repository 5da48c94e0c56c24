import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.rendered.listing import Claims
from tests.ingest.rendered.scene import SHA256, UIDS
from tests.ingest.sources.collections_web import QUICK, about, serve_objaverse, sites_of, uid
from tests.ingest.web import Web


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("header", "value", "key"),
    [
        ("uid", UIDS[0], UIDS[0]),
        ("url", f"https://sketchfab.com/3d-models/a-fox-{UIDS[0]}", UIDS[0]),
        ("fileIdentifier", f"https://sketchfab.com/3d-models/{UIDS[0]}", UIDS[0]),
        ("sha256", SHA256, SHA256),
    ],
)
def test_a_table_of_models_goes_by_any_name(header: str, value: str, key: str, tmp_path: Path) -> None:
    path = write(tmp_path / "models.csv", f"{header},license,author\n{value},CC0-1.0,Ann\n")
    known = Claims(licences=path).read([key])
    assert (known[key].spdx, known[key].author, known[key].evidence) == ("CC0-1.0", "Ann", "models.csv, line 2")


def test_annotations_of_objaverse_xl_are_such_a_table(tmp_path: Path) -> None:
    page = "https://github.com/some/rat/blob/0123abc/rat.glb"
    table = pa.table({"fileIdentifier": [page], "source": ["github"], "license": ["MIT License"], "sha256": [SHA256]})
    pq.write_table(table, tmp_path / "github.parquet")
    about = Claims(licences=str(tmp_path / "github.parquet")).read([SHA256])[SHA256]
    assert (about.spdx, about.source_url) == ("MIT License", page)


def test_the_first_list_that_knows_a_model_counts(tmp_path: Path) -> None:
    first = write(tmp_path / "a.csv", f"uid,license\n{UIDS[0]},CC0-1.0\n")
    second = write(tmp_path / "b.csv", f"uid,license\n{UIDS[0]},MIT\n{UIDS[1]},MIT\n")
    known = Claims(licences=f"{first}, {second}").read(UIDS)
    assert [known[uid].spdx for uid in UIDS[:2]] == ["CC0-1.0", "MIT"]
    assert UIDS[2] not in known


def test_a_table_without_models_is_said_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "title,license\nFox,MIT\n")
    with pytest.raises(ValueError, match="which model is meant"):
        Claims(licences=path).read(UIDS)
    with pytest.raises(ValueError, match=r"absent\.csv is not there"):
        Claims(licences=str(tmp_path / "absent.csv")).read(UIDS)


def test_objaverse_and_then_sketchfab_are_asked(web: Web, tmp_path: Path) -> None:
    serve_objaverse(web, [about(1), about(2, license="by-nc", animationCount=0)])
    live = about(3, license={"slug": "cc0"}, tags=[{"name": "NoAI"}])
    web.files[f"/v3/models/{uid(3)}"] = json.dumps(live).encode()
    claims = Claims(licences="objaverse,sketchfab", sites=sites_of(web), fetch=QUICK)
    known = claims.read([uid(1), uid(2), uid(3), uid(4), SHA256], cache=tmp_path)
    assert [(known[uid(number)].spdx, known[uid(number)].noai) for number in (1, 2, 3)] == [
        ("by", None), ("by-nc", None), ("cc0", True),
    ]  # fmt: skip
    assert not known.keys() & {uid(4), SHA256}
    assert web.asked[f"/v3/models/{uid(1)}"] == 0, "Objaverse knew it"
