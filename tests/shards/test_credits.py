from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli import EXIT_FINDINGS, EXIT_OK, EXIT_USAGE, main
from pipeline.records import Sample
from pipeline.storage import Store
from pipeline.tables import Tables
from shards.credits import credits_of_run, credits_of_shards, published
from tests.shards.toys import Toy


def credited(folder: Path) -> set[str]:
    return set(pq.read_table(folder / "attribution.parquet")["asset_id"].to_pylist())


def seen_rows(tables: Tables, samples: list[Sample]) -> pa.Table:
    """As a training run writes them."""
    names = ("key", "asset_id", "title", "spdx", "licence_class", "attribution", "source_url")
    rows = pq.read_table(tables.store.path("shards/samples.parquet")).select(list(names)).to_pylist()
    keys = {sample.sample_key for sample in samples}
    return pa.Table.from_pylist([{**row, "times": 1} for row in rows if row["key"] in keys])


@pytest.mark.parametrize("root", ["", "/shards"])
def test_every_asset_of_a_data_set_is_named_from_the_root_or_a_copy(packed: Tables, tmp_path: Path, root: str) -> None:
    assert main(["attribution", "--data", packed.store.root + root, "--out", str(tmp_path / "out")]) == EXIT_OK
    assert credited(tmp_path / "out") == {row.asset_id for row in packed.rows(Sample)}
    page = (tmp_path / "out" / "ATTRIBUTION.md").read_text()
    assert "8 assets in this data set" in page
    rows = pq.read_table(tmp_path / "out" / "attribution.parquet").to_pylist()
    assert all(row["checked_on"] == "2026-01-31" and row["attribution"] and row["changes"] for row in rows)


def test_of_some_tars_only_their_assets_are_named(packed: Tables, tmp_path: Path) -> None:
    store = published(packed.store.root)
    for patterns in (["by/train/mv-000000.tar"], ["cc0/*"], ["by/train/*.tar", "by-sa/*/mv-000000.tar"]):
        entries = credits_of_shards(store, patterns)
        tars = {path for pattern in patterns for path in Path(store.root).glob(pattern) if path.suffix == ".tar"}
        tars |= {path for path in Path(store.root).rglob("*.tar") if patterns == ["cc0/*"] and "cc0" in path.parts}
        inside = [row for row in packed.rows(Sample) if Path(packed.store.path(row.shard)) in tars]
        assert {entry["asset_id"] for entry in entries} == {row.asset_id for row in inside}
        assert sum(entry["num_samples"] for entry in entries) == len(inside)
    with pytest.raises(ValueError, match=r"no tar .* is called by/mv"):
        credits_of_shards(store, ["by/mv*"])


def test_of_a_run_what_it_saw_is_named_also_after_a_take_down(packed: Tables, tmp_path: Path) -> None:
    samples = packed.rows(Sample)
    shown = [row for row in samples if row.asset_id in {Toy(seq=1).asset_id, Toy(seq=2, licence_class="cc0").asset_id}]
    run = tmp_path / "run"
    run.mkdir()
    pq.write_table(seen_rows(packed, shown[:2]), run / "seen-000000000000.parquet")
    pq.write_table(seen_rows(packed, shown[1:]), run / "seen-000000000002.parquet")
    everything = credits_of_run(str(run), published(packed.store.root))
    assert main(["takedown", Toy(seq=1).asset_id, "--data", packed.store.root]) == EXIT_OK
    for data in ([], ["--data", packed.store.root]):
        assert main(["attribution", "--run", str(run), *data, "--out", str(tmp_path / "out")]) == EXIT_OK
        rows = pq.read_table(tmp_path / "out" / "attribution.parquet").to_pylist()
        assert {row["asset_id"] for row in rows} == {row.asset_id for row in shown}
        assert {row["attribution"] for row in rows} == {entry["attribution"] for entry in everything}
        assert {row["num_samples"] for row in rows} == {entry["num_samples"] for entry in everything} == {2, 3}


def test_an_asset_without_credit_is_an_error(packed: Tables, tmp_path: Path) -> None:
    path = packed.store.path("shards/attribution.parquet")
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    assert main(["attribution", "--data", packed.store.root, "--out", str(tmp_path / "out")]) == EXIT_FINDINGS
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--data", "nowhere"], ["--run", "nowhere"], ["--run", "x", "--shards", "y"]])
def test_what_is_not_there_is_said(tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["attribution", *arguments, "--out", str(tmp_path / "out")])
    assert ended.value.code == EXIT_USAGE


def test_papers_name_where_and_when_a_licence_was_read(packed: Tables) -> None:
    names = pq.read_schema(packed.store.path("shards/attribution.parquet")).names
    assert {
        "spdx", "licence_text", "evidence", "evidence_sha256", "checked_on", "author", "attribution", "source_status",
        "status_checked_on", "noai", "noai_checked_on",
    } <= set(names)  # fmt: skip
    assert Store(packed.store.root).exists("shards/card.json")
