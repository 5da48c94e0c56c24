import json
import re
from pathlib import Path
from typing import Any

import pytest

from curate.report import PAGE, UNREADABLE, ReportSettings, write_report
from curate.rules import Preset, Rule, load_preset
from curate.scores_view import SCORES
from pipeline.records import Asset, Rejected, SourceItem
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.curate.toys import NUM_FRAMES, Root, clip_of, draw, filled, square

STILL = Rule(reason="too_still", score="m_object", drop_if="<", threshold=0.01, low=0, high=1, help="")
OUT = Rule(reason="out_of_frame", score="border_touch", drop_if=">", threshold=0.1, low=0, high=1, help="")
PRESET = Preset(name="test", description="", rules=(STILL, OUT))


def page_data(path: str | Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', Path(path).read_text())
    assert found
    return dict(json.loads(found[1]))


def shown(tables: Tables, **settings: Any) -> dict[str, Any]:
    return page_data(write_report(tables, PRESET, ReportSettings(**settings), quiet=True))


def ids(data: dict[str, Any]) -> list[str]:
    return [clip["id"] for clip in data["clips"]]


@pytest.fixture
def root(tables: Tables) -> Root:
    return Root(tables)


def add_drawn(root: Root, clip_id: str, seq: int = 0, **scores: float) -> None:
    root.add_simple(clip_id, seq, **scores)
    draw(root.tables.store, clip_of(clip_id=clip_id), [square(range(NUM_FRAMES))] * 4)


def test_the_page_shows_clips_with_scores_rules_rejects_and_funnel(root: Root) -> None:
    for seq, name in enumerate(["fox.glb", "text.html"]):
        root.add(filled(SourceItem, item_id=f"item {seq}", seq=seq, name=name))
    root.add_asset("fox", 0, missing_textures=("skin.png",), title="A fox", author="Ann", spdx="CC-BY-4.0")
    root.add_animation("walk", "fox", action_name="Walk", looped=True, rigid_share=0.25)
    root.add(filled(Rejected, rejected_id="item 1", stage="ingest", reason="not_an_asset", name="text.html"))
    root.add(filled(Rejected, rejected_id="sit", stage="render.plan", reason="too_still", name="fox.glb: sit"))
    root.add_animation("sit", "fox")
    root.add_clip("clip", "walk", "fox", m_object=0.5)
    draw(root.tables.store, clip_of(clip_id="clip"), [square(range(NUM_FRAMES))] * 4)

    data = shown(root.tables, heading="Foxes")
    (clip,) = data["clips"]
    assert (clip["title"], clip["animation"], clip["author"], clip["licence"]) == ("A fox", "Walk", "Ann", "CC-BY-4.0")
    assert dict(zip(data["scores"], clip["scores"], strict=True))["rigid_share"] == 0.25
    assert set(data["scores"]) == set(SCORES)
    assert set(clip["tags"]) == {"looped", "missing_texture"}
    assert (clip["views"], clip["frames"]) == (4, NUM_FRAMES)
    assert [rule["reason"] for rule in data["rules"]] == ["too_still", "out_of_frame"]
    assert data["preset"] == PRESET.preset_id
    assert {(reject["name"], reject["reason"]) for reject in data["rejects"]} == {
        ("text.html", "not_an_asset"),
        ("fox.glb: sit", "too_still"),
    }
    assert "login wall" in next(r["advice"] for r in data["rejects"] if r["reason"] == "not_an_asset")
    steps = [(step["num_in"], step["num_out"], step["losses"]) for step in data["funnel"]]
    assert steps == [(2, 1, {"not_an_asset": 1}), (1, 2, {}), (2, 1, {"too_still": 1}), (1, 1, {})]


def test_clips_stand_in_the_order_of_the_input(root: Root) -> None:
    for seq, clip_id in enumerate("cab"):
        add_drawn(root, clip_id, seq)
    assert ids(shown(root.tables)) == ["c", "a", "b"]


def test_a_full_page_shows_dropped_clips_of_every_reason_and_kept_ones(root: Root) -> None:
    for seq in range(6):
        add_drawn(root, f"kept {seq}", seq)
        add_drawn(root, f"still {seq}", seq + 10, m_object=0.0)
    add_drawn(root, "strays", 20, border_touch=1.0)
    data = shown(root.tables, max_clips=4, heading="Data")
    assert sorted(ids(data)) == ["kept 0", "still 0", "still 1", "strays"]
    assert ids(shown(root.tables, max_clips=4)) == ids(data)
    everything = shown(root.tables, max_clips=100)
    assert len(everything["clips"]) == 13


def test_a_full_page_says_so(root: Root) -> None:
    for seq in range(3):
        add_drawn(root, f"clip {seq}", seq)
        root.add(filled(Rejected, rejected_id=str(seq), stage="ingest", reason="noai"))
    path = write_report(root.tables, PRESET, ReportSettings(max_clips=2, max_rejects=1, heading="Data"), quiet=True)
    assert "Data (shown: 2 of 3 clips, 1 of 3 rejects)" in Path(path).read_text()
    path = write_report(root.tables, PRESET, ReportSettings(heading="Data"), quiet=True)
    assert "shown:" not in Path(path).read_text().split("</h1>")[0]


def test_all_dropped_clips_are_shown_if_there_is_room(root: Root) -> None:
    for seq in range(8):
        add_drawn(root, f"kept {seq}", seq)
    for seq in range(3):
        add_drawn(root, f"still {seq}", seq + 10, m_object=0.0)
    assert {clip for clip in ids(shown(root.tables, max_clips=4)) if "still" in clip} == {
        "still 0",
        "still 1",
        "still 2",
    }


def test_a_picture_that_cannot_be_read_costs_only_itself(root: Root) -> None:
    add_drawn(root, "good", 0)
    root.add_simple("bad", 1)
    data = shown(root.tables)
    assert [UNREADABLE in clip["tags"] for clip in data["clips"]] == [False, True]


def test_many_frames_fit_by_smaller_pictures(root: Root) -> None:
    root.add_asset("a", 0)
    root.add_animation("m", "a")
    clip = clip_of(clip_id="long", animation_id="m", asset_id="a", num_views=1, num_frames=300, size_px=8)
    root.add(draw(root.tables.store, clip, [square([0] * 300, side_px=4, size_px=8, left_px=2)]))
    root.add_scores("long")
    assert shown(root.tables, thumb_px=64)["clips"][0]["frames"] == 300


def test_an_asset_listed_twice_shows_its_clips_once(root: Root) -> None:
    add_drawn(root, "clip")
    root.add(filled(Asset, item_id="again", asset_id="asset of clip", seq=7))
    assert ids(shown(root.tables)) == ["clip"]


def test_an_empty_data_root_has_a_page(tables: Tables) -> None:
    data = page_data(write_report(tables, load_preset("default"), quiet=True))
    assert (data["clips"], data["rejects"], data["funnel"]) == ([], [], [])


def test_the_page_goes_where_it_is_told(root: Root, tmp_path: Path) -> None:
    add_drawn(root, "clip")
    assert write_report(root.tables, PRESET, quiet=True) == root.tables.store.path(PAGE)
    out = tmp_path / "deep" / "sheet.html"
    assert write_report(root.tables, PRESET, ReportSettings(out=str(out)), quiet=True) == str(out)
    assert page_data(out)["clips"]


def test_a_remote_data_root_gets_its_page(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}")
    root = Root(Tables(store))
    add_drawn(root, "clip")
    assert write_report(root.tables, PRESET, quiet=True) == f"{store.root}/{PAGE}"
    assert store.read_bytes(PAGE).startswith(b"<!")


@pytest.mark.parametrize("settings", [{"max_clips": 0}, {"max_rejects": -1}, {"thumb_px": 4}])
def test_bad_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        ReportSettings(**settings)  # type: ignore[arg-type]
