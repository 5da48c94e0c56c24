from dataclasses import replace

import pytest

from fourd.looks import MOST_FADED, MOST_GROWN, MOST_SHRUNK, fit_looks
from fourd.moving import Drawing, MovingGaussians
from fourd.scoring import score_views
from fourd.settings import load_settings
from fourd.video import MultiViewVideo
from tests.fourd import bending_bar

LIT = Drawing(is_lit=True)


@pytest.fixture(scope="module")
def videos() -> list[MultiViewVideo]:
    lit = bending_bar.lit_model(LIT)
    return [bending_bar.video(model=lit), bending_bar.video(2, first_deg=45.0, model=lit)]


def fitted(video: MultiViewVideo, drawing: Drawing, *, colored: bool) -> MovingGaussians:
    canonical = bending_bar.canonical(1500, colored=colored)
    model = MovingGaussians(canonical, bending_bar.Bending(canonical.points, bending_bar.NUM_FRAMES), drawing)
    assert fit_looks(model, [video], load_settings("cpu").static, 0.5) > 30
    own = canonical.gaussians
    assert bool((model.log_scales >= own.log_scales - MOST_SHRUNK - 1e-6).all()), "holes in the surface"
    assert bool((model.log_scales <= own.log_scales + MOST_GROWN + 1e-6).all())
    assert bool((model.opacity_logits >= own.opacity_logits - MOST_FADED - 1e-6).all())
    return model


def test_light_that_is_fitted_at_frame_0_is_right_at_the_others(videos: list[MultiViewVideo]) -> None:
    seen, held_out = videos
    lit, constant = (fitted(seen, drawing, colored=True) for drawing in (LIT, replace(LIT, is_lit=False)))
    assert score_views(lit, held_out).psnr_db > score_views(constant, held_out).psnr_db + 1
    assert constant.light is None
    assert lit.light is not None
    true = bending_bar.lit_model(LIT).light
    assert true is not None
    # Where the lamp stands; how bright it is, colours may take over.
    assert float((lit.light - true)[2:4].detach().abs().max()) < 0.2


def test_colors_of_the_object_stay_where_no_view_shows_it(videos: list[MultiViewVideo]) -> None:
    seen = replace(videos[0], rgba=videos[0].rgba[:, :1], c2w=videos[0].c2w[:, :1], views=(0,))
    known, unknown = (score_views(fitted(seen, LIT, colored=colored), videos[1]) for colored in (True, False))
    assert known.object_psnr_db > unknown.object_psnr_db + 3
