import csv
import io
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipeline.records import (
    Animation,
    Asset,
    Clip,
    ClipPlan,
    Decision,
    Done,
    Probe,
    Record,
    Rejected,
    Sample,
    SourceItem,
)
from pipeline.storage import Store
from pipeline.tables import Tables
from shards.pack import Packer
from shards.plan import PackSettings
from shards.statistics import FunnelStep, funnel, print_query, print_stats, queries, query_text, shell
from shards.views import connect
from tests.shards.toys import Toy, commit, filled, rows_of

KINDS: tuple[type[Record], ...] = (
    SourceItem,
    Asset,
    Probe,
    Animation,
    ClipPlan,
    Clip,
    Decision,
    Sample,
    Rejected,
    Done,
)


class World:
    """Tables of a data root in which things went as `rng` will have it, with the counts as they should come out."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.rows: list[Record] = []
        self.steps = {number: FunnelStep(number, "", "", "") for number in range(1, 9)}
        for number in range(rng.randint(0, 12)):
            self.item(number)

    def fate(self, step: int, *reasons: str) -> str:
        """`on`, `waiting`, or a reason; counted."""
        fate = self.rng.choice(["on", "on", "on", "waiting", *reasons])
        self.count(step, fate)
        return fate

    def count(self, step: int, fate: str) -> None:
        row = self.steps[step]
        row.num_in += 1
        if fate == "on":
            row.num_on += 1
        elif fate == "waiting":
            row.waiting += 1
        else:
            row.turned_away[fate] = row.turned_away.get(fate, 0) + 1

    def reject(self, stage: str, rejected_id: str, reason: str) -> None:
        self.rows.append(Rejected(rejected_id=rejected_id, stage=stage, reason=reason, detail="d", name="n"))

    def item(self, number: int) -> None:
        item, asset, *_ = rows_of(Toy(seq=number, num_animations=0))
        assert isinstance(item, SourceItem)
        assert isinstance(asset, Asset)
        self.rows.append(item)
        fate = self.fate(1, "not_found", "licence_unknown", "noai")
        if fate not in ("on", "waiting"):
            self.reject("ingest", item.item_id, fate)
        if fate != "on":
            return
        self.rows.append(asset)
        if self.rng.random() < 0.5:  # the row may also be left by a killed writer and its retry
            self.rows.append(asset)
        self.count(2, "on")
        for copy in range(self.rng.choice([0, 0, 1, 2])):
            twin_id = f"{item.item_id}-{copy}"
            self.rows.append(replace(item, item_id=twin_id, seq=100 + number))
            self.rows.append(replace(asset, item_id=twin_id, seq=100 + number))
            self.count(1, "on")
            self.count(2, "duplicate_bytes")
            if self.rng.random() < 0.5:  # marked already
                self.reject("ingest.duplicates", twin_id, "duplicate_bytes")
        self.asset(asset)

    def asset(self, asset: Asset) -> None:
        fate = self.fate(3, "import_failed", "no_mesh")
        if fate not in ("on", "waiting"):
            self.reject("render.probe", asset.asset_id, fate)
        if fate != "on":
            return
        self.rows.append(filled(Probe, asset_id=asset.asset_id, family_id=f"family {asset.seq % 3}"))
        found = self.rng.randint(0, 3)
        bad = self.rng.randint(0, 1)
        for number in range(bad):
            self.reject("render.probe", f"{asset.asset_id[:8]}-bad-{number}", "too_short")
            self.count(5, "too_short")
        self.count(4, "on" if found else "no_animation")
        self.rows.append(
            Done(stage="render.probe", settings_id="s", input_id=asset.asset_id, num_rows=1, num_rejected=bad)
        )
        planner_failed = self.rng.random() < 0.1
        if planner_failed:
            self.reject("render.plan", f"{asset.asset_id}:0", "machine_fault")
        for number in range(found):
            animation_id = f"{asset.asset_id[:8]}-{number}"
            self.rows.append(
                filled(Animation, animation_id=animation_id, asset_id=asset.asset_id, motion_mean=self.rng.random())
            )
            if planner_failed:
                self.count(5, "machine_fault")
            else:
                self.animation(asset, animation_id)

    def animation(self, asset: Asset, animation_id: str) -> None:
        fate = self.fate(5, "too_still", "teleport", "not_drawn")
        if fate not in ("on", "waiting"):
            self.reject("render.plan", animation_id, fate)
        if fate != "on":
            return
        if self.rng.random() < 0.3:  # other settings had turned it away before
            self.reject("render.plan", animation_id, "too_still")
        for rig in range(self.rng.choice([1, 1, 2])):
            clip_id = f"{animation_id}-{rig}"
            ids = {"clip_id": clip_id, "animation_id": animation_id, "asset_id": asset.asset_id}
            self.rows.append(filled(ClipPlan, **ids))
            fate = self.fate(6, "deadline", "blender_crashed")
            if fate not in ("on", "waiting"):
                self.reject("render.draw", clip_id, fate)
            if fate == "on":
                self.rows.append(filled(Clip, **ids, num_views=2, num_frames=4, fps=8.0))
                self.clip(ids)

    def clip(self, ids: dict[str, str]) -> None:
        fate = self.fate(7, "blank", "malformed", "too_still")
        clip_id = ids["clip_id"]
        if fate == "malformed":
            self.reject("curate.score", clip_id, fate)
        elif fate != "waiting":
            reason = "" if fate == "on" else fate
            self.rows.append(Decision(clip_id=clip_id, preset="p@1", keep=not reason, reason=reason, reasons=()))
        if fate != "on":
            return
        fate = self.fate(8, "revoked", "licence_not_allowed")
        if fate not in ("on", "waiting"):
            self.reject("shards.pack", clip_id, fate)
        if fate == "on":
            key = clip_id.replace("-", "_")
            row = {"sample_key": key, "clip_id": clip_id, "asset_id": ids["asset_id"]}
            self.rows.append(filled(Sample, **row, shard="shards/by/train/mv-000000.tar", split="train"))

    def write(self, tables: Tables) -> None:
        """In two fragments a table, some rows in both."""
        for kind in KINDS:
            rows = [row for row in self.rows if type(row) is kind]
            half = len(rows) // 2
            for name, part in (("one", rows[: half + 1]), ("two", rows[half:])):
                if part:
                    tables.write(kind, name, part, made_by="toy@1", made_from="")


def steps_of(tables: Tables) -> list[FunnelStep]:
    with connect(tables) as con:
        return funnel(con)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9))
def test_the_funnel_counts_what_happened_and_sums_up(tmp_path: Path, seed: int) -> None:
    world = World(random.Random(seed))
    tables = Tables(Store(str(tmp_path / str(seed))))
    world.write(tables)
    steps = steps_of(tables)
    assert len(steps) == 8
    for step in steps:
        wanted = world.steps[step.step]
        found = (step.num_in, step.num_on, step.turned_away, step.waiting, step.unknown)
        assert found == (wanted.num_in, wanted.num_on, wanted.turned_away, wanted.waiting, 0), step
        assert step.sums
    for earlier, later in ((0, 1), (1, 2), (2, 3), (5, 6), (6, 7)):
        assert steps[earlier].num_on == steps[later].num_in


@pytest.mark.parametrize(
    ("stray", "step"),
    [
        (Rejected(rejected_id="nobody", stage="ingest", reason="noai", detail="", name=""), 1),
        (filled(Probe, asset_id="nobody"), 3),
        (filled(Animation, animation_id="a", asset_id="nobody"), 4),
        (filled(Clip, clip_id="nobody"), 6),
        (Decision(clip_id="nobody", preset="", keep=True, reason="", reasons=()), 7),
        (filled(Sample, sample_key="k", clip_id="nobody"), 8),
    ],
)
def test_a_row_that_came_from_nowhere_breaks_the_sum(tables: Tables, stray: Record, step: int) -> None:
    commit(tables, [Toy(seq=0)])
    tables.write(type(stray), "stray", [stray], made_by="toy@1", made_from="")
    with connect(tables) as con:
        broken = [row.step for row in funnel(con) if not row.sums]
    assert step in broken
    text = io.StringIO()
    assert not print_stats(tables, Console(file=text, width=200))
    assert "unknown" in text.getvalue()


def test_rows_written_twice_count_once(tables: Tables) -> None:
    commit(tables, [Toy(seq=0)])
    rows = tables.rows(Clip)
    tables.write(Clip, "again", rows, made_by="toy@2", made_from="")
    with connect(tables) as con:
        assert con.execute("SELECT count(*) FROM clips").fetchall() == [(len(rows),)]
        assert con.execute("SELECT count(*) FROM main.clips").fetchall() == [(2 * len(rows),)]
        assert con.execute("SELECT count(*) FROM clips_full").fetchall() == [(len(rows),)]


@pytest.mark.parametrize("name", queries())
def test_every_shipped_query_says_what_it_answers_and_runs_on_nothing(tables: Tables, name: str) -> None:
    assert query_text(name).startswith("-- ")
    assert queries()[name].endswith(".")
    with connect(tables) as con:
        con.execute(query_text(name)).fetchall()


def test_every_shipped_query_runs_on_a_packed_data_root(packed_once: Path) -> None:
    with connect(Tables(Store(str(packed_once)))) as con:
        for name in queries():
            print_query(con, query_text(name), how="json", console=Console(file=io.StringIO()))


def test_figures_are_those_of_the_packed_set(packed_once: Path) -> None:
    tables = Tables(Store(str(packed_once)))
    with connect(tables) as con:
        figures = {row[0]: row[1:] for row in con.execute(query_text("figures")).fetchall()}
        splits = con.execute(query_text("splits")).fetchall()
    samples = tables.rows(Sample)
    clips = {clip.clip_id: clip for clip in tables.rows(Clip)}
    assert figures["multi-view clips"][:3] == (len(clips), len(clips) - 1, len(samples))
    assert figures["single-view videos"][2] == 2 * len(samples)
    assert figures["3D models"][2] == len({row.asset_id for row in samples})
    assert figures["animations a model, mean"][3] == 2.2
    assert figures["bytes of pictures"][2] == sum(p.num_bytes for row in samples for p in clips[row.clip_id].parts)
    assert [row[0] for row in splits] == ["train", "all"]


def test_the_printed_page_fits_a_terminal(packed_once: Path) -> None:
    text = io.StringIO()
    assert print_stats(Tables(Store(str(packed_once))), Console(file=text, width=80))
    page = text.getvalue()
    assert "kept → packed" in page
    assert "2 licence_not_allowed" in page
    assert "█" in page
    assert max(map(len, page.splitlines())) <= 80


def test_an_empty_data_root_has_an_empty_funnel(tables: Tables) -> None:
    text = io.StringIO()
    assert print_stats(tables, Console(file=text, width=100))
    assert "items → licensed and fetched" in text.getvalue()


def test_answers_as_csv_and_json(tables: Tables) -> None:
    sql = "SELECT 1 AS a, 'x,\"y\"' AS b, NULL AS c, 'nan'::DOUBLE AS d, [1, 2] AS e"
    with connect(tables) as con:
        as_csv, as_json = io.StringIO(), io.StringIO()
        print_query(con, sql, how="csv", console=Console(file=as_csv, width=20))
        print_query(con, sql, how="json", console=Console(file=as_json, width=20))
    assert list(csv.reader(io.StringIO(as_csv.getvalue()))) == [
        ["a", "b", "c", "d", "e"],
        ["1", 'x,"y"', "", "nan", "[1, 2]"],
    ]
    assert json.loads(as_json.getvalue()) == [{"a": 1, "b": 'x,"y"', "c": None, "d": None, "e": [1, 2]}]


def test_markup_in_the_data_is_printed_as_it_is(tables: Tables) -> None:
    with connect(tables) as con:
        text = io.StringIO()
        print_query(con, "SELECT '[bold]x[/]' AS title", console=Console(file=text, width=60))
    assert "[bold]x[/]" in text.getvalue()


def test_a_bad_query_is_a_value_error_with_duckdbs_words(tables: Tables) -> None:
    with connect(tables) as con, pytest.raises(ValueError, match="nothing_here"):
        print_query(con, "SELECT * FROM nothing_here")
    with connect(tables) as con, pytest.raises(ValueError, match="empty"):
        print_query(con, " ;")
    with pytest.raises(ValueError, match=r"no query 'nope'; there are: .*funnel"):
        query_text("nope")


def test_the_shell_answers_queries_and_survives_mistakes(tables: Tables) -> None:
    lines = io.StringIO(
        ".tables\n.columns kept\nSELECT 40 +\n 2 AS answer;\nSELECT oops;\n.run bytes\n.nonsense\n"
        ".show bytes\n.queries\n.help\nSELECT 7 AS last"
    )
    text = io.StringIO()
    with connect(tables) as con:
        shell(con, Console(file=text, width=120), lines)
    said = text.getvalue()
    for expected in (
        "clips_full",
        "sample_key",
        "42",
        "oops",
        "rendered clips",
        "SELECT '3D files'",
        "rejects",
        "last",
    ):
        assert expected in said


def test_statistics_of_an_object_store() -> None:
    remote = Tables(Store("memory://stats"))
    commit(remote, [Toy(seq=0), Toy(seq=1, dropped=(0,))])
    Packer(remote, PackSettings()).pack()
    text = io.StringIO()
    assert print_stats(remote, Console(file=text, width=100))
    assert "1 flat" in text.getvalue()
