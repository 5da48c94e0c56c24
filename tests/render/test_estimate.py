from collections.abc import Sequence
from dataclasses import replace
from math import pi
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.records import Clip, ClipPlan, Rejected, Truth
from pipeline.storage import Store
from pipeline.truth_media import passes_of
from render.draw import Render
from render.estimate import (
    Interval,
    PlannedClip,
    Trial,
    calibrate,
    count,
    estimate,
    evenly,
    foresee,
    mean_box_px,
    print_estimate,
    spread,
)
from render.plan import AnimatedAsset, Plan
from render.probe import ProbeAsset
from render.rigs import RigName
from render.truth import DrawnClip, GroundTruth
from tests.render.rows import animation, asset_of, probe


def plan_of(asset_id: str = "a" * 64, rig: RigName = "mv16", size_px: int = 100) -> ClipPlan:
    item = AnimatedAsset(probe=probe(asset_id=asset_id), animations=(animation(asset_id=asset_id),))
    (plan,) = Plan(data="unused", rig=rig, size_px=size_px).process(item)
    assert isinstance(plan, ClipPlan)
    return plan


def clip(number: int, box_px: float = 3000.0, num_images: int = 0) -> PlannedClip:
    asset_id = f"{number:064d}"
    return PlannedClip(
        plan=plan_of(asset_id), probe=replace(probe(asset_id=asset_id), num_images=num_images), box_px=box_px
    )


def trial(of: PlannedClip, picture_s: float, load_s: float = 0.5) -> Trial:
    return Trial(clip=of, load_s=load_s, picture_s=picture_s, picture_bytes=1000 * picture_s, on_gpu=False)


def test_counts_are_exact_and_sum_up() -> None:
    still = animation(animation_id="1" * 16, motion_mean=0.0, motion_p95=0.0)
    moving = animation(animation_id="2" * 16)
    counts = count(Plan(data="unused"), [AnimatedAsset(probe=probe(), animations=(still, moving))])
    assert (counts.num_assets, counts.num_animations, len(counts.clips)) == (1, 2, 1)
    assert counts.turned_away == {"too_still": 1}
    assert counts.num_pictures == 16 * 16


def test_a_flat_box_seen_from_the_front_covers_what_geometry_says() -> None:
    flat = animation(box_min=(-1.0, 0.0, -1.0), box_max=(1.0, 0.0, 1.0))
    # A square in the unit sphere has sides of sqrt(2); from 3 away with a lens of 40 degrees, 15 degrees from above.
    px = mean_box_px(plan_of(rig="front", size_px=100), flat)
    assert px == pytest.approx(2 * (100 / (2 * 3 * 0.36397)) ** 2, rel=0.08)
    assert mean_box_px(plan_of(rig="front", size_px=200), flat) == pytest.approx(4 * px)


def test_a_thin_object_covers_less_than_a_thick_one() -> None:
    thin = animation(box_min=(-0.1, -0.1, -1.0), box_max=(0.1, 0.1, 1.0))
    thick = animation(box_min=(-1.0, -1.0, -1.0), box_max=(1.0, 1.0, 1.0))
    assert mean_box_px(plan_of(), thin) < mean_box_px(plan_of(), thick) / 4 < 100**2 * pi


def test_what_was_tried_counts_as_measured_and_the_rest_by_its_pixels() -> None:
    small, large, untried = clip(1, 1000.0), clip(2, 4000.0), clip(3, 2000.0)
    rate = 2e-5
    trials = [trial(small, rate * small.work), trial(large, 3 * rate * large.work)]
    found = estimate([small, large, untried], trials)
    pictures = 256 * (rate * small.work + 3 * rate * large.work + 2 * rate * untried.work)
    assert found.seconds.value == pytest.approx(pictures + 3 * 0.5, rel=1e-6)
    assert found.num_bytes.value == pytest.approx(1000 * pictures)
    assert found.num_trials == 2


def test_ground_truth_is_part_of_the_whole_and_said_by_itself() -> None:
    clips = [clip(1, 1000.0), clip(2, 4000.0)]
    plain = [trial(entry, 2e-5 * entry.work) for entry in clips]
    without = estimate(clips, plain)
    assert (without.truth_seconds, without.truth_bytes) == (Interval(value=0.0, error=0.0),) * 2
    found = estimate(clips, [replace(entry, truth_s=0.5 * entry.picture_s, truth_bytes=300.0) for entry in plain])
    assert found.truth_seconds.value == pytest.approx(0.5 * 256 * 2e-5 * sum(entry.work for entry in clips))
    assert found.truth_bytes.value == pytest.approx(2 * 256 * 300.0)
    assert found.seconds.value == pytest.approx(without.seconds.value + found.truth_seconds.value)
    assert found.num_bytes.value == pytest.approx(without.num_bytes.value + found.truth_bytes.value)
    assert found.seconds.error > without.seconds.error


@pytest.mark.blender
def test_what_passes_take_is_foreseen_from_some_pictures(
    store: Store, real_assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asset = asset_of(store, (real_assets / "CesiumMan.glb").read_bytes())
    rows = list(ProbeAsset(data=store.root).process(asset))
    plan = Plan(data=store.root, rig="ortho4", quality="preview", size_px=48)
    render = Render(data=store.root)
    truth = GroundTruth(data=store.root, passes=passes_of("depth,flow,tracks"))
    clips = count(plan, Plan.inputs([row for row in rows if not isinstance(row, Rejected)])).clips
    found = estimate(clips, calibrate(render, clips, truth, quiet=True))
    assert not store.list_files("clips")
    num_bytes, truth_bytes = 0, 0
    for planned in clips:
        (drawn,) = render.process(planned.plan)
        assert isinstance(drawn, Clip)
        num_bytes += sum(part.num_bytes for part in drawn.parts)
        for row in truth.process(DrawnClip(plan=planned.plan, clip=drawn)):
            assert isinstance(row, Truth)
            truth_bytes += sum(part.num_bytes for part in row.parts)
    render.close()
    # Longer steps from frame to frame than in the clip, and half as many frames.
    assert found.truth_bytes.value == pytest.approx(truth_bytes, rel=0.25)
    assert found.num_bytes.value == pytest.approx(num_bytes + truth_bytes, rel=0.25)
    assert 0 < found.truth_seconds.value < found.seconds.value
    print_estimate(found, 1, Console())
    assert "of which ground truth" in capsys.readouterr().out


def test_the_interval_shrinks_with_more_trials_and_holds_the_truth() -> None:
    clips = [clip(number) for number in range(60)]
    true = [0.02 + 0.02 * (number * 7 % 10) / 10 for number in range(60)]

    def found(tried: Sequence[int]) -> tuple[float, float]:
        rates = {clips[number].plan.asset_id: true[number] / clips[number].work for number in tried}
        interval = foresee(clips, rates)
        return interval.value, interval.error

    few, many = found(range(0, 60, 12)), found(range(0, 60, 3))
    assert many[1] < few[1]
    for value, error in (few, many):
        assert abs(value - 256 * sum(true)) < error
    assert found(range(60))[0] == pytest.approx(256 * sum(true))


def test_without_a_trial_there_is_no_estimate() -> None:
    with pytest.raises(ValueError, match="no clip could be drawn"):
        estimate([clip(1)], [])


def test_trials_are_spread_over_sizes_and_any_beginning_of_them_is() -> None:
    clips = [clip(number, box_px=1000.0 + 10 * number, num_images=number % 2) for number in range(100)]
    chosen = spread(clips, 20)
    assert len({entry.plan.asset_id for entry in chosen}) == 20
    for beginning in (chosen[:5], chosen):
        assert {entry.probe.num_images for entry in beginning} == {0, 1}
        middle = sum(entry.box_px for entry in beginning) / len(beginning)
        assert middle == pytest.approx(1495, rel=0.12)
    assert len(spread(clips[:3], 20)) == 3
    assert len(spread([clips[0], clips[0]], 20)) == 1


def test_indices_are_evenly_spread() -> None:
    assert evenly(16, 8) == [1, 3, 5, 7, 9, 11, 13, 15]
    assert evenly(3, 8) == [0, 1, 2]
    assert evenly(16, 2) == [4, 12]


def test_an_interval_is_told_to_two_digits_of_its_error() -> None:
    assert Interval(value=1234.5678, error=56.78).text() == "1235 ± 57"
    assert Interval(value=7200.0, error=360.0).text(1 / 3600) == "2.00 ± 0.10"
    together = Interval(value=2.0, error=3.0) + Interval(value=5.0, error=4.0)
    assert (together.value, together.error) == (7.0, 5.0)


def test_however_many_clips_there_are_the_interval_is_as_wide_as_the_trials_disagree() -> None:
    clips = [clip(number) for number in range(500)]
    rates = {entry.plan.asset_id: rate for entry, rate in zip(clips[:4], (1.0, 2.0, 3.0, 2.0), strict=True)}
    interval = foresee(clips, rates)
    # The four differ by 0.41 of their mean, which is so uncertain by half of that.
    assert interval.error / interval.value == pytest.approx(1.96 * 0.41 / 2, rel=0.05)
