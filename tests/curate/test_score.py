import numpy as np
import pytest

from curate.score import Score
from pipeline.media import strip_name
from pipeline.records import Appearance, Asset, Clip, ImageMotion, Rejected, Visibility
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.curate.toys import NUM_FRAMES, clip_of, draw, filled, score_and_commit, square

SLIDE = tuple(range(NUM_FRAMES))


def scored(store: Store, clip: Clip, **settings: float) -> tuple[ImageMotion, Visibility, Appearance]:
    motion, visibility, appearance = Score(data=store.root, **settings).process(clip)  # type: ignore[arg-type]
    assert isinstance(motion, ImageMotion)
    assert isinstance(visibility, Visibility)
    assert isinstance(appearance, Appearance)
    return motion, visibility, appearance


def test_every_judgement_of_a_clip_is_measured(store: Store) -> None:
    clip = draw(store, clip_of(), [square(SLIDE)] * 4)
    motion, visibility, appearance = scored(store, clip)
    assert {motion.clip_id, visibility.clip_id, appearance.clip_id} == {clip.clip_id}
    assert motion.m_object > 0.01
    assert motion.ssim_still < 0.95
    assert motion.flow_px == pytest.approx(4.0, rel=0.2)
    assert visibility.coverage_mean == pytest.approx((24 / 64) ** 2)
    assert appearance.contrast > 0.05


def test_scoring_twice_gives_the_same_rows(store: Store) -> None:
    clip = draw(store, clip_of(), [square(SLIDE)] * 4)
    assert scored(store, clip) == scored(store, clip)


def test_motion_is_the_mean_over_views_and_ssim_the_front_views(store: Store) -> None:
    still, moving = square((0,) * NUM_FRAMES), square(SLIDE)
    front_moves, _, _ = scored(store, draw(store, clip_of(clip_id="front"), [moving, still, still, still]))
    back_moves, _, _ = scored(store, draw(store, clip_of(clip_id="back"), [still, still, moving, still]))
    assert front_moves.m == pytest.approx(back_moves.m)
    assert front_moves.ssim_still < 0.95
    assert back_moves.ssim_still == pytest.approx(1.0)


def test_an_orbit_is_measured_against_its_frozen_twin(store: Store) -> None:
    clip = clip_of(orbit=True)
    turning = square(SLIDE)
    still, _, _ = scored(store, draw(store, clip, [turning, turning]))
    assert still.m == 0.0
    assert still.ssim_still == pytest.approx(1.0)
    moved = square([2 * step for step in SLIDE])
    moving, _, _ = scored(store, draw(store, clip, [moved, turning]))
    assert moving.m > 0.001
    assert moving.flow_px > 1.0


def test_flow_is_taken_in_few_views_and_the_rest_in_all(store: Store) -> None:
    views = [square(SLIDE)] * 7 + [square((0,) * NUM_FRAMES)]
    clip = draw(store, clip_of(num_views=8), views)
    few, _, _ = scored(store, clip, max_flow_views=2)
    every, _, _ = scored(store, clip, max_flow_views=8)
    assert few.m == every.m
    assert every.flow_px == pytest.approx(few.flow_px * 7 / 8, rel=0.01)


def test_another_background_is_another_score_with_its_own_settings_id(store: Store) -> None:
    clip = draw(store, clip_of(), [square(SLIDE, colour=(0, 0, 0))] * 4)
    grey, _, _ = scored(store, clip)
    white, _, _ = scored(store, clip, background=1.0)
    assert white.m == pytest.approx(4 * grey.m, rel=0.02)
    assert Score(data="x").settings_id != Score(data="x", background=1.0).settings_id
    assert Score(data="x").settings_id == Score(data="elsewhere").settings_id


def test_a_strip_that_does_not_decode_is_bad_data(store: Store) -> None:
    clip = draw(store, clip_of(), [square(SLIDE)] * 4)
    path = f"{clip.folder}/{strip_name(2)}"
    store.write_bytes(path, store.read_bytes(path)[:100])
    (row,) = Score(data=store.root).process(clip)
    assert isinstance(row, Rejected)
    assert (row.rejected_id, row.stage, row.reason) == (clip.clip_id, "curate.score", "malformed")
    assert "view 2" in row.detail


def test_a_strip_of_another_size_is_bad_data(store: Store) -> None:
    clip = draw(store, clip_of(), [square(SLIDE, size_px=32, side_px=16)] * 4)
    (row,) = Score(data=store.root).process(clip)
    assert isinstance(row, Rejected)
    assert "(32, 32), expected (64, 64)" in row.detail


def test_a_strip_that_is_not_there_is_the_machines_fault(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        list(Score(data=store.root).process(clip_of()))


def test_rows_reach_the_tables(store: Store, tables: Tables) -> None:
    score_and_commit(tables, draw(store, clip_of(), [square(SLIDE)] * 4))
    assert len(tables.rows(ImageMotion)) == len(tables.rows(Visibility)) == len(tables.rows(Appearance)) == 1
    assert tables.done(Score(data=store.root)) == {clip_of().clip_id}


def test_its_inputs_are_clips() -> None:
    clip = clip_of()
    assert Score.inputs([filled(Asset), clip]) == [clip]


@pytest.mark.parametrize("settings", [{"background": 1.5}, {"background": float("nan")}, {"max_flow_views": 0}])
def test_bad_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Score(data="x", **settings)  # type: ignore[arg-type]


def test_an_object_that_is_never_seen_is_scored(store: Store) -> None:
    clip = draw(store, clip_of(), [np.zeros((NUM_FRAMES, 64, 64, 4), np.uint8)] * 4)
    motion, visibility, appearance = scored(store, clip)
    assert (motion.m_object, visibility.coverage_max) == (0.0, 0.0)
    assert np.isnan(appearance.contrast)
