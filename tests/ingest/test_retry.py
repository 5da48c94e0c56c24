import csv
from pathlib import Path

import pytest

from ingest.__main__ import main
from pipeline.records import Asset, Rejected
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.ingest.tiny import triangle_glb
from tests.ingest.web import Web

QUICK = ["--fetch.attempts", "2", "--fetch.first_wait_s", "0.01", "--fetch.allow_private", "true", "--quiet", "true"]


@pytest.fixture
def manifest(web: Web, tmp_path: Path) -> Path:
    for number, name in enumerate(("good", "late", "gone")):
        web.files[f"/{name}.glb"] = triangle_glb(seed=number)
    web.faults |= {"/late.glb": "503x3", "/gone.glb": "404"}
    path = tmp_path / "manifest.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["url", "spdx"], *([f"{web.url}/{name}.glb", "CC0-1.0"] for name in ("good", "late", "gone"))]
        )
    return path


def test_failures_are_queued_again_by_cause_and_nothing_else_is(web: Web, manifest: Path, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    tables = Tables(Store(data))
    run = [str(manifest), "--data", data, *QUICK]

    main(run)
    assert sorted(row.reason for row in tables.rows(Rejected)) == ["fetch_failed", "not_found"]
    main(run)
    assert web.asked == {"/good.glb": 1, "/late.glb": 2, "/gone.glb": 1}

    main([*run, "--retry-rejected", "fetch_failed, machine_fault"])
    assert web.asked == {"/good.glb": 1, "/late.glb": 4, "/gone.glb": 1}
    assert [row.reason for row in tables.rows(Rejected)] == ["not_found"]
    assert len(tables.rows(Asset)) == 2


def test_a_reason_that_there_is_not_is_said_at_once(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(manifest), "--data", str(tmp_path / "data"), "--retry-rejected", "bad_luck"])
    assert ended.value.code == 2
    assert "bad_luck" in capsys.readouterr().err
