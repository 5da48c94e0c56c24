import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.captions.join import Joined, join_captions
from pipeline.cli import main
from pipeline.records import Asset, Caption, Clip, SourceItem, StageSettings
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.shards.toys import filled

FOX, OWL, RAT = "2a7f866be31e43b89074f304a31ff82d", "90" * 16, "5c" * 32


@pytest.fixture
def filled_tables(tables: Tables) -> Tables:
    """A fox of Sketchfab with two clips, an owl with one, and a rat that is known by its sha256."""
    assets, items, clips = [], [], []
    models = (
        ("fox", f"https://sketchfab.com/3d-models/red-fox-{FOX}", ""),
        ("owl", f"https://sketchfab.com/models/{OWL}", ""),
        ("rat", "https://github.com/some/rat/blob/abc/rat.glb", RAT),
    )
    for seq, (name, url, sha256) in enumerate(models):
        both = {"item_id": name, "seq": seq, "name": name, "source_url": url}
        assets.append(filled(Asset, asset_id=f"asset-{name}", noai=None, **both))
        items.append(filled(SourceItem, expected_sha256=sha256, noai=None, num_bytes=None, **both))
    for clip_id, name in (("c1", "fox"), ("c2", "fox"), ("c3", "owl"), ("c4", "rat")):
        clips.append(filled(Clip, clip_id=clip_id, asset_id=f"asset-{name}", animation_id=f"walk-{clip_id}",
                            intrinsics=(1.0, 1.0, 1.0, 1.0), world_centre=(0.0, 0.0, 0.0)))  # fmt: skip
    for record, rows in ((Asset, assets), (SourceItem, items), (Clip, clips)):
        tables.write(record, "toys", rows, made_by="toys@1", made_from="")
    return tables


def write_csv(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def texts(tables: Tables) -> dict[str, str]:
    return {row.clip_id: row.text for row in tables.rows(Caption)}


def test_cap3ds_list_is_joined_by_uid_and_by_sha256(filled_tables: Tables, tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "Cap3D.csv",
        (FOX, 'A red fox, "walking"'),
        (RAT, "A grey\n  rat"),
        ("f" * 32, "not here"),
        (OWL, " "),
    )
    assert join_captions(filled_tables, path) == Joined("Cap3D", num_rows=3, num_used=2, num_captions=3, num_clips=4)
    rows = {row.clip_id: row for row in filled_tables.rows(Caption)}
    assert {key: row.text for key, row in rows.items()} == {
        "c1": 'A red fox, "walking"', "c2": 'A red fox, "walking"', "c4": "A grey rat",
    }  # fmt: skip
    assert (rows["c1"].kind, rows["c1"].source, rows["c1"].about) == ("file", "Cap3D", f"uid {FOX}")
    assert rows["c4"].about == f"sha256 {RAT}"
    assert [row.stage for row in filled_tables.rows(StageSettings)] == ["caption.file"]


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("uid", FOX, {"c1", "c2"}),
        ("URL", f"https://sketchfab.com/models/{FOX}/", {"c1", "c2"}),
        ("fileIdentifier", f"https://sketchfab.com/3d-models/{FOX}", {"c1", "c2"}),
        ("url", "https://github.com/some/rat/blob/abc/rat.glb", {"c4"}),
        ("asset_id", "asset-owl", {"c3"}),
        ("animation_id", "walk-c2", {"c2"}),
        ("clip_id", "c2", {"c2"}),
        ("sha256", RAT, {"c4"}),
    ],
)
def test_any_id_will_do(column: str, value: str, expected: set[str], filled_tables: Tables, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "list.csv", ("number", column, "Caption"), ("1", value, "words"))
    join_captions(filled_tables, path)
    assert set(texts(filled_tables)) == expected


def test_the_exact_row_counts_before_the_model_and_then_the_first(filled_tables: Tables, tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "list.csv", ("id", "text"), (FOX, "first of the fox"), (FOX, "second"), ("walk-c2", "of the walk")
    )
    join_captions(filled_tables, path)
    assert texts(filled_tables) == {"c1": "first of the fox", "c2": "of the walk"}


def test_a_new_list_of_the_same_name_replaces_the_old_one_alone(filled_tables: Tables, tmp_path: Path) -> None:
    other = Caption(clip_id="c1", kind="model", source="a model", text="seen", about="")
    filled_tables.write(Caption, "model", [other], made_by="caption.model@1", made_from="c1")
    join_captions(filled_tables, write_csv(tmp_path / "a.csv", (FOX, "old")), "ours")
    join_captions(filled_tables, write_csv(tmp_path / "c.csv", (OWL, "of another")), "theirs")
    filled_tables.compact(at_least=2)
    join_captions(filled_tables, write_csv(tmp_path / "b.csv", (RAT, "new")), "ours")
    found = {(row.source, row.clip_id): row.text for row in filled_tables.rows(Caption)}
    assert found == {("ours", "c4"): "new", ("theirs", "c3"): "of another", ("a model", "c1"): "seen"}
    before = found
    join_captions(filled_tables, tmp_path / "b.csv", "ours")
    assert {(row.source, row.clip_id): row.text for row in filled_tables.rows(Caption)} == before


def test_parquet_and_the_command(filled_tables: Tables, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"caption": ["An owl"], "uid": [OWL]}), path)
    root = filled_tables.store.root
    assert main(["caption", "--captions", str(path), "--name", "owls", "--data", root]) == 0
    assert "1 of 4 clips have a caption of 'owls'; 1 of its 1 rows" in " ".join(capsys.readouterr().out.split())
    assert texts(filled_tables) == {"c3": "An owl"}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "no header"),
        ("a.csv", b"one,two,three\n1,2,3\n", "no header"),
        ("a.csv", b"uid,number\n1,2\n", "no column of text"),
        ("a.csv", b"\xff\xfe\x00u\x00i", "UTF-8"),
        ("a.parquet", b"PAR1 or not", "no Parquet file"),
        ("a.txt", b"x", "no list of captions"),
    ],
)
def test_a_list_that_cannot_be_used_is_said_so(
    name: str, content: bytes, says: str, filled_tables: Tables, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        join_captions(filled_tables, tmp_path / name)
    assert name in str(caught.value)
    with pytest.raises(ValueError, match="not there"):
        join_captions(filled_tables, tmp_path / "absent.csv")


def test_the_command_wants_one_of_two(store: Store) -> None:
    for given in ([], ["--captions", "a.csv", "--model", "b"]):
        with pytest.raises(SystemExit):
            main(["caption", "--data", store.root, *given])
