import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from pipeline.records import Animation, ClipPlan, Rejected
from pipeline.running import RunOptions, run_stages
from pipeline.storage import Store
from pipeline.tables import Tables
from render.look import QUALITIES, Look, Quality
from render.plan import AnimatedAsset, Gate, Plan
from render.rigs import RIGS
from tests.render.rows import animation, probe


def rows_of(plan: Plan, *animations: Animation) -> list[ClipPlan | Rejected]:
    return list(plan.process(AnimatedAsset(probe=probe(), animations=animations)))


def reasons(plan: Plan, *animations: Animation) -> list[str]:
    """`plan` or the reason for each animation."""
    return [row.reason if isinstance(row, Rejected) else "plan" for row in rows_of(plan, *animations)]


PLAN = Plan(data="/nowhere")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "plan"),
        ({"finite": False}, "non_finite"),
        ({"duration_s": 0.1}, "too_short"),
        ({"motion_p95": 0.0, "motion_mean": 0.0}, "too_still"),
        ({"motion_p95": 0.004, "motion_mean": 0.0005}, "too_still"),
        ({"motion_p95": 0.008, "motion_mean": 0.003}, "plan"),  # a breathing idle
        ({"motion_p95": 0.0, "motion_mean": 0.004}, "plan"),  # one small part goes far
        ({"max_jump": 5.0, "jump_ratio": 100.0}, "teleport"),
        ({"max_jump": 0.7, "jump_ratio": 2.2}, "plan"),  # always fast
        ({"max_jump": 0.2, "jump_ratio": 20.0}, "plan"),  # one short hop
        ({"max_stretch": 100.0}, "distorted"),
        ({"travel": 5.0}, "leaves_frame"),
        ({"rigid_share": 1.0}, "rigid_only"),
    ],
)
def test_the_gate(changes: dict[str, Any], reason: str) -> None:
    assert reasons(PLAN, animation(**changes)) == [reason]


def test_what_is_rigid_is_drawn_if_that_is_wanted() -> None:
    plan = Plan(data="/nowhere", gate=Gate(allow_rigid=True))
    assert reasons(plan, animation(rigid_share=1.0)) == ["plan"]


def test_a_refusal_names_the_animation_the_number_and_the_limit() -> None:
    (row,) = rows_of(PLAN, animation(3, travel=5.0))
    assert isinstance(row, Rejected)
    assert row.rejected_id == animation(3).animation_id
    assert row.detail == "travel 5.00 > 3.0"
    assert row.name == "blobs/a.glb: action 3"


def test_every_animation_ends_as_a_plan_or_a_refusal() -> None:
    many = [
        animation(index, window, travel=9.0 if index % 5 == 0 else 1.0, motion_id=f"m{index % 17}{window}")
        for index in range(40)
        for window in range(1 + index % 2)
    ]
    rows = rows_of(PLAN, *many)
    ids = [row.rejected_id if isinstance(row, Rejected) else row.animation_id for row in rows]
    assert ids == [row.animation_id for row in many]
    found = reasons(PLAN, *many)
    assert {"plan", "leaves_frame", "duplicate_animation", "not_drawn"} == set(found)


def test_at_most_six_actions_are_drawn_with_all_their_windows() -> None:
    many = [animation(index, window) for index in range(20) for window in range(2)]
    plans = [row for row in rows_of(PLAN, *many) if isinstance(row, ClipPlan)]
    assert len({plan.action_index for plan in plans}) == 6
    assert len(plans) == 12
    assert reasons(Plan(data="/nowhere", max_animations=0), *many) == ["plan"] * 40


def test_refused_actions_do_not_use_up_the_draw() -> None:
    many = [animation(index, travel=9.0 if index < 14 else 1.0) for index in range(20)]
    assert reasons(PLAN, *many) == ["leaves_frame"] * 14 + ["plan"] * 6


def test_the_seed_chooses_and_a_newcomer_displaces_at_most_one() -> None:
    many = [animation(index) for index in range(30)]

    def drawn(plan: Plan, animations: list[Animation]) -> set[int]:
        return {row.action_index for row in rows_of(plan, *animations) if isinstance(row, ClipPlan)}

    assert drawn(PLAN, many) == drawn(PLAN, many)
    assert drawn(Plan(data="/nowhere", seed=1), many) != drawn(PLAN, many)
    assert len(drawn(PLAN, many) - drawn(PLAN, [*many, animation(30)])) <= 1


def test_of_equal_motions_the_first_that_passes_is_drawn() -> None:
    same: dict[str, Any] = {"motion_id": "m"}
    rows = rows_of(PLAN, animation(0, travel=9.0, **same), animation(1, **same), animation(2, **same))
    assert [getattr(row, "reason", "plan") for row in rows] == ["leaves_frame", "plan", "duplicate_animation"]
    assert isinstance(rows[2], Rejected)
    assert "'action 1'" in rows[2].detail


def test_ids_depend_on_all_that_decides_the_pixels_and_on_nothing_else() -> None:
    def clip_id(plan: Plan) -> str:
        (row,) = rows_of(plan, animation())
        assert isinstance(row, ClipPlan)
        return row.clip_id

    base = clip_id(PLAN)
    assert clip_id(Plan(data="/elsewhere", max_animations=3, gate=Gate(max_travel=4.0))) == base
    others = [
        Plan(data="/nowhere", seed=1),
        Plan(data="/nowhere", rig="ortho4"),
        Plan(data="/nowhere", quality="high"),
        Plan(data="/nowhere", size_px=128),
        Plan(data="/nowhere", cameras=dataclasses.replace(PLAN.cameras, radius=3.5)),
        Plan(data="/nowhere", look=dataclasses.replace(PLAN.look, ambient_strength=0.1)),
    ]
    assert len({base, *map(clip_id, others)}) == 7


@pytest.mark.parametrize("rig", sorted(RIGS))
def test_a_plan_says_what_its_rig_needs(rig: str) -> None:
    (row,) = rows_of(Plan(data="/nowhere", rig=rig), animation())  # type: ignore[arg-type]
    assert isinstance(row, ClipPlan)
    frames = {"orbit24": 24, "diffusion4d": 24}.get(rig, 16)
    assert (row.num_frames, row.fps) == (frames, frames / 2.0)
    assert row.num_views == {"mv16": 16, "ortho4": 4, "front": 1, "random": 8, "diffusion4d": 6}.get(rig, 2)
    assert np.isfinite([row.azimuth_deg, row.elevation_deg]).all()
    assert Quality.of(json.loads(row.settings)["quality"]) == QUALITIES["standard"]
    assert (row.blob, row.format) == ("blobs/a.glb", "glb")


def test_first_draws_the_files_first_action_and_nothing_in_its_place() -> None:
    many = [animation(index) for index in range(5)]
    first = Plan(data="/nowhere", choose="first", max_animations=1, seed=3)
    assert reasons(first, *many) == ["plan", *["not_drawn"] * 4]
    assert reasons(first, animation(0, travel=9.0), *many[1:]) == ["leaves_frame", *["not_drawn"] * 4]


def pictures(*letters: str) -> Look:
    return Look(lights="hdri", hdris=tuple(sorted(f"{letter * 64}.hdr" for letter in letters)))


def chosen(look: Look, number: int) -> tuple[str, str]:
    """Clip id and picture of a clip."""
    (row,) = rows_of(Plan(data="/nowhere", look=look), animation(number))
    assert isinstance(row, ClipPlan)
    (picture,) = json.loads(row.settings)["look"]["hdris"]
    return row.clip_id, picture


def test_each_clip_has_its_own_picture_by_lot_and_another_picture_another_id() -> None:
    of_three = [chosen(pictures("a", "b", "c"), number) for number in range(30)]
    assert {picture for _, picture in of_three} == set(pictures("a", "b", "c").hdris)
    for number, (clip_id, picture) in enumerate(of_three):
        assert (chosen(pictures(picture[0]), number)[0] == clip_id) is True
        assert chosen(pictures("d"), number)[0] != clip_id


def test_a_picture_that_is_added_takes_only_the_clips_it_wins() -> None:
    before = [chosen(pictures("a", "b"), number) for number in range(40)]
    after = [chosen(pictures("a", "b", "c"), number) for number in range(40)]
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert 5 <= len(changed) <= 22
    assert {picture for _, picture in changed} == {f"{'c' * 64}.hdr"}


def test_pictures_have_to_be_taken_in_before_planning() -> None:
    with pytest.raises(ValueError, match="taken into the data root"):
        Plan(data="/nowhere", look=Look(lights="hdri", hdri_folder="skies"))


def test_inputs_are_the_assets_with_their_animations_in_order() -> None:
    rows = [animation(1), animation(0, 1), probe(), animation(0, 0), animation(5, asset_id="b")]
    (item,) = Plan.inputs(rows)
    assert [(row.action_index, row.window) for row in item.animations] == [(0, 0), (0, 1), (1, 0)]


def test_animations_that_were_measured_later_are_planned_too(store: Store) -> None:
    def planned(*animations: Animation) -> tuple[set[str], int]:
        options = RunOptions(data=store.root, workers=1, quiet=True)
        items = iter(Plan.inputs([probe(), *animations]))
        state = run_stages(options, [Plan(data=store.root, rig="front")], items, heading="plan")
        plans = Tables(store).rows(ClipPlan)
        return {row.animation_id for row in plans}, state.stages["render.plan"].resumed

    two_seconds = animation(0, animation_id="2" * 16, motion_id="2")
    one_second = animation(0, animation_id="1" * 16, motion_id="1", duration_s=1.0)
    assert planned(two_seconds) == ({"2" * 16}, 0)
    assert planned(two_seconds) == ({"2" * 16}, 1)
    assert planned(one_second) == ({"1" * 16, "2" * 16}, 0)  # as `mv4d render --windows.window_s 1` goes by these alone
    assert planned(two_seconds, one_second) == ({"1" * 16, "2" * 16}, 0)
    assert planned(one_second, two_seconds) == ({"1" * 16, "2" * 16}, 1)


def test_bad_settings_are_refused() -> None:
    cases: tuple[dict[str, Any], ...] = ({"size_px": 4}, {"max_animations": -1}, {"rig": "round"}, {"quality": "best"})
    for bad in cases:
        with pytest.raises(ValueError, match=r"need|no such"):
            Plan(data="/nowhere", **bad)
    with pytest.raises(ValueError, match="limits"):
        Gate(max_travel=-1.0)


@pytest.mark.parametrize(("rig", "most"), [("mv16", 1023), ("orbit24", 682)])
def test_a_strip_that_webp_cannot_hold_is_refused_at_once(rig: Any, most: int) -> None:
    Plan(data="", rig=rig, size_px=most)
    with pytest.raises(ValueError, match=str(most)):
        Plan(data="", rig=rig, size_px=most + 1)
