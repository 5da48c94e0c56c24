"""The whole pipeline on real files with real Blender, small: what comes out, and every command on it."""

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.build import BuildOptions, build
from pipeline.cli import COMMANDS, EXIT_FINDINGS, EXIT_OK, EXIT_USAGE, main
from pipeline.demo import outcomes
from pipeline.records import Asset, Clip, Decision, Rejected, Sample, SourceItem
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.blender
SMALL = ["--rig", "front", "--quality", "preview", "--size_px", "48", "--workers", "2", "--quiet", "true"]


@pytest.fixture(scope="module")
def built(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All built-in samples, built small."""
    data = tmp_path_factory.mktemp("built") / "data"
    assert main(["build", str(samples / "manifest.csv"), "--data", str(data), *SMALL]) == EXIT_OK
    return data


def test_every_sample_ends_as_its_note_says(built: Path, samples: Path) -> None:
    found = outcomes(Tables(Store(str(built))), samples / "manifest.csv")
    assert len(found) >= 16
    wrong = [(outcome.name, outcome.expected, outcome.came_to) for outcome in found if not outcome.as_expected]
    assert wrong == []
    assert {"clips", "clips:missing_texture"} < {outcome.came_to for outcome in found}


@pytest.mark.parametrize(
    ("policy", "allow", "classes"),
    [
        ("open", "", {"cc0", "permissive", "by", "by-sa"}),
        ("permissive_only", "", {"cc0", "permissive"}),
        ("research", "", {"cc0", "permissive", "by", "by-sa", "by-nc", "by-nc-sa"}),
        ("custom", "CC-BY-NC-4.0,MIT", {"permissive", "by-nc"}),
    ],
)
def test_what_the_policy_admits_may_be_packed_and_nothing_else(policy: str, allow: str, classes: set[str]) -> None:
    options = BuildOptions(policy=policy, allow=allow)  # type: ignore[arg-type]
    assert set(options.pack.allowed_classes) == classes


def test_every_input_is_accounted_for(built: Path) -> None:
    tables = Tables(Store(str(built)))
    items = {row.item_id for row in tables.rows(SourceItem)}
    fetched = {row.item_id for row in tables.rows(Asset)}
    turned_away = {row.rejected_id for row in tables.rows(Rejected) if row.stage == "ingest"}
    assert fetched | turned_away == items
    assert not fetched & turned_away
    assert {row.clip_id for row in tables.rows(Clip)} == {row.clip_id for row in tables.rows(Decision)}
    assert {row.clip_id for row in tables.rows(Sample)} == {row.clip_id for row in tables.rows(Decision) if row.keep}


def test_a_second_build_does_nothing_and_changes_nothing(
    built: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.glob("clips/**/*.webp")}
    tars = {path: path.read_bytes() for path in built.glob("shards/**/*.tar")}
    assert before
    assert tars
    assert main(["build", str(samples / "manifest.csv"), "--data", str(built), *SMALL]) == EXIT_OK
    assert {path: path.stat().st_mtime_ns for path in built.glob("clips/**/*.webp")} == before
    assert {path: path.read_bytes() for path in built.glob("shards/**/*.tar")} == tars


def assert_all_are_credited(data: Path, out: Path) -> None:
    """Every clip's asset is named with author or source and licence, or no sample shows it."""
    assert main(["attribution", "--data", str(data), "--out", str(out)]) == EXIT_OK
    tables = Tables(Store(str(data)))
    rows = {row["asset_id"]: row for row in pq.read_table(out / "attribution.parquet").to_pylist()}
    packed = {row.clip_id: row.asset_id for row in tables.rows(Sample)}
    excluded = {row.clip_id for row in tables.rows(Clip)} - set(packed)
    turned_away = {row.clip_id for row in tables.rows(Decision) if not row.keep}
    turned_away |= {row.rejected_id for row in tables.rows(Rejected, "stage = 'shards.pack'")}
    assert packed
    assert excluded <= turned_away
    assert set(rows) == set(packed.values())
    page = (out / "ATTRIBUTION.md").read_text()
    for asset_id, row in rows.items():
        assert f"`{asset_id[:12]}`" in page
        assert row["spdx"] in row["attribution"]
        assert row["licence_class"] in ("cc0", "permissive", "by", "by-sa")
        assert row["checked_on"]
        assert row["evidence"]
        assert len(row["evidence_sha256"]) == 64


def test_every_built_in_sample_that_is_packed_is_credited(built: Path, tmp_path: Path) -> None:
    assert_all_are_credited(built, tmp_path / "credits")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_real_asset_that_is_packed_is_credited(real_assets: Path, tmp_path: Path) -> None:
    tiny = ["--rig", "front", "--quality", "preview", "--size_px", "32", "--windows.num_frames", "4"]
    few = ["--max_animations", "1", "--workers", "2", "--quiet", "true"]
    main(["build", str(real_assets / "catalog.csv"), "--data", str(tmp_path / "data"), *tiny, *few])
    assert_all_are_credited(tmp_path / "data", tmp_path / "credits")


def test_what_was_taken_down_does_not_come_back_with_the_next_build(few_samples: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    tiny = ["--rig", "front", "--quality", "preview", "--size_px", "32", "--workers", "2", "--quiet", "true"]
    build_it = ["build", str(few_samples), "--data", str(data), *tiny]
    assert main(build_it) == EXIT_OK
    tables = Tables(Store(str(data)))
    gone = next(row for row in tables.rows(Asset) if row.asset_id == tables.rows(Sample)[0].asset_id)
    assert main(["takedown", gone.asset_id, "--data", str(data)]) == EXIT_OK
    tars = {path: path.read_bytes() for path in data.glob("shards/**/*.tar")}
    assert main(build_it) == EXIT_OK
    assert {path: path.read_bytes() for path in data.glob("shards/**/*.tar")} == tars
    # Other settings make every stage look at everything again.
    assert main([*build_it, "--policy", "research", "--size_px", "40"]) == EXIT_OK
    assert gone.asset_id not in {row.asset_id for row in tables.rows(Sample)}
    assert not (data / gone.blob).exists()
    assert not [clip for clip in tables.rows(Clip) if clip.asset_id == gone.asset_id and (data / clip.folder).exists()]
    assert (data / "report.html").exists()
    assert main(["stats", "--data", str(data)]) == EXIT_OK


def test_stats_show_a_funnel_that_sums(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "--data", str(built)]) == EXIT_OK
    assert "Funnel" in capsys.readouterr().out
    assert (
        main(["stats", "--data", str(built), "--sql", "SELECT count(*) AS n FROM kept", "--format", "json"]) == EXIT_OK
    )
    assert json.loads(capsys.readouterr().out)[0]["n"] > 10
    with pytest.raises(SystemExit) as ended:
        main(["stats", "--data", str(built), "--sql", "SELEC nonsense"])
    assert ended.value.code == EXIT_USAGE


def test_curating_again_shows_what_would_change_and_renders_nothing(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (built / "tables" / "decisions" / "current.parquet").read_bytes()
    arguments = ["curate", "--data", str(built), "--preset", "diffusion4d", "--dry-run"]
    assert main(arguments) == EXIT_OK
    assert "diffusion4d" in capsys.readouterr().out
    assert (built / "tables" / "decisions" / "current.parquet").read_bytes() == before


def test_report_and_lint_and_pack_run_on_what_is_there(built: Path, tmp_path: Path) -> None:
    page = tmp_path / "sheet.html"
    assert main(["report", "--data", str(built), "--out", str(page), "--quiet", "true"]) == EXIT_OK
    assert page.stat().st_size > 100_000
    assert main(["pack", "--data", str(built)]) == EXIT_OK
    assert main(["lint", "--data", str(built)]) == EXIT_OK


def test_lint_ends_with_1_when_a_byte_is_flipped(built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(built / "tables", copy / "tables")
    shutil.copytree(built / "shards", copy / "shards")
    tar = next(copy.glob("shards/**/*.tar"))
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 0xFF
    tar.write_bytes(content)
    assert main(["lint", "--data", str(copy)]) == EXIT_FINDINGS


def test_dry_runs_count_and_estimates_draw_and_neither_writes(
    built: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere, manifest = tmp_path / "nowhere", str(samples / "manifest.csv")
    assert main(["ingest", manifest, "--data", str(nowhere), "--dry-run"]) == EXIT_OK
    assert "licence_not_allowed" in capsys.readouterr().out
    assert main(["build", manifest, "--data", str(nowhere), "--dry-run", *SMALL]) == EXIT_OK
    assert "licence_not_allowed" in capsys.readouterr().out
    assert main(["render", "--data", str(built), "--dry-run", *SMALL[:-2]]) == EXIT_OK
    said = capsys.readouterr().out
    assert "pictures" in said
    assert "core hours" not in said
    assert main(["render", "--data", str(built), "--estimate", *SMALL]) == EXIT_OK
    assert "core hours" in capsys.readouterr().out
    assert main(["build", manifest, "--data", str(nowhere), "--estimate", *SMALL]) == EXIT_OK
    assert "core hours" in capsys.readouterr().out
    assert not nowhere.exists()


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "demo"])
def test_every_command_teaches_by_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"mv4d {command}" in said.split("Examples:")[1]
    assert "--print_config" in said


def test_print_config_can_be_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["render", "--rig", "orbit24", "--size_px", "96", "--print_config"])
    config = tmp_path / "render.yaml"
    config.write_text(capsys.readouterr().out)
    assert "rig: orbit24" in config.read_text()
    with pytest.raises(SystemExit):
        main(["render", "--config", str(config), "--print_config"])
    assert capsys.readouterr().out == config.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        [],
        ["build", "no-such-folder"],
        ["build", "samples", "--rig", "sphere"],
        ["build", "samples", "--size_px", "1"],
        ["build", "samples", "--preset", "no-such-preset"],
        ["curate", "--data", "nothing-here"],
        ["render", "--data", "nothing-here"],
        ["probe", "--data", "nothing-here"],
        ["stats", "--data", "nothing-here", "--query", "no-such-query"],
    ],
)
def test_wrong_usage_ends_with_2_and_says_why(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code: int | str | None = main(arguments)
    except SystemExit as ended:
        code = ended.code
    assert code == EXIT_USAGE


class SlowServer(SimpleHTTPRequestHandler):
    released = threading.Event()

    def do_GET(self) -> None:
        self.released.wait(timeout=120)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def slow_server(samples: Path) -> Iterator[str]:
    SlowServer.released.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SlowServer, directory=str(samples)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    SlowServer.released.set()
    server.shutdown()


def test_a_clip_is_in_a_shard_while_another_asset_is_still_being_fetched(
    samples: Path, slow_server: str, tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "spdx"])
        for name in ("flag.glb", "windmill.glb", "clownfish.glb"):
            writer.writerow([str(samples / name), "CC0-1.0"])
        writer.writerow([f"{slow_server}/jellyfish.glb", "CC0-1.0"])
    data = tmp_path / "data"
    command = [sys.executable, "-m", "pipeline", "build", str(manifest), "--data", str(data), *SMALL]
    command += ["--shard_mb", "0.001", "--fetch.allow_private", "true"]
    with subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        deadline = time.monotonic() + 110
        while not list(data.glob("shards/**/*.tar")) and time.monotonic() < deadline:
            time.sleep(0.2)
        early = list(data.glob("shards/**/*.tar"))
        SlowServer.released.set()
        assert process.wait(timeout=300) == EXIT_OK
    assert early
    assert len(Tables(Store(str(data))).rows(Sample)) == 4


def test_the_whole_pipeline_works_on_an_object_store(few_samples: Path) -> None:
    options = BuildOptions(
        data="memory://build-test", rig="front", quality="preview", size_px=48, workers=2, max_animations=1, quiet=True
    )
    assert build(options, [str(few_samples)]) == EXIT_OK
    tables = Tables(Store("memory://build-test"))
    assert len(tables.rows(Sample)) >= 4
    assert tables.store.exists("shards/README.md")
