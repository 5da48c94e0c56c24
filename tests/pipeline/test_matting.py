import numpy as np
import pytest

from pipeline.matting import cut_out, rim_colour
from pipeline.media import compose

GREY = (0.5, 0.5, 0.5)


def ring(size_px: int = 64, centre: float = 31.3, radii: tuple[float, float] = (9.0, 22.0)) -> np.ndarray:
    """A shaded ring with a soft edge: exact alpha. Shape (height, width, 4), uint8."""
    y, x = np.mgrid[:size_px, :size_px]
    away = np.hypot(x - centre, y - centre)
    alpha = np.clip(away - radii[0] + 0.5, 0, 1) * np.clip(radii[1] + 0.5 - away, 0, 1)
    colour = np.stack([200 + x / 2, 30 + y, 90 + 0 * x], axis=-1)
    return np.rint(np.concatenate([colour, 255 * alpha[..., None]], axis=-1)).clip(0, 255).astype(np.uint8)


def on_grey(rgba: np.ndarray, noise: float = 0.0) -> np.ndarray:
    shown = compose(rgba) + np.random.default_rng(0).normal(0, noise, (*rgba.shape[:2], 3))
    return np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize(("noise", "allowed"), [(0.0, 0.004), (0.01, 0.006)])
def test_alpha_comes_back_with_its_edge_and_its_hole(noise: float, allowed: float) -> None:
    truth = ring()
    found = cut_out(on_grey(truth, noise), GREY)
    error = np.abs(found[..., 3].astype(float) - truth[..., 3]) / 255
    assert error.mean() < allowed
    assert found[31, 31, 3] == found[0, 0, 3] == 0
    # The edge is soft, and its colour is the object's, not one mixed with grey.
    mixed = (truth[..., 3] > 100) & (truth[..., 3] < 200)
    assert mixed.sum() > 20
    assert error[mixed].mean() < 0.15
    assert np.abs(found[mixed][:, :3].astype(float) - truth[mixed][:, :3]).mean() < 25


def test_over_the_same_background_the_picture_is_as_before() -> None:
    shown = on_grey(ring())
    again = np.rint(compose(cut_out(shown, GREY)) * 255)
    assert np.abs(again - shown).max() <= 13  # the tolerance
    assert np.abs(again - shown).mean() < 0.2


def test_any_background_and_any_stack_of_pictures() -> None:
    truth = ring()
    white = np.rint(compose(truth, 1.0) * 255).astype(np.uint8)
    stack = np.stack([np.stack([white, white[::-1]])])
    found = cut_out(stack, (1.0, 1.0, 1.0))
    assert found.shape == (1, 2, 64, 64, 4)
    np.testing.assert_array_equal(found[0, 0], cut_out(white, (1.0, 1.0, 1.0)))
    # Upside down but for ties between equally near pixels.
    assert np.abs(found[0, 1].astype(int) - found[0, 0][::-1]).max() < 25


def test_background_coloured_parts_inside_stay_and_specks_go() -> None:
    truth = ring(radii=(-1.0, 22.0))
    shown = on_grey(truth)
    shown[30:32, 30:32] = 128  # an eye of grey: smaller than any hole
    shown[2, 2] = 250
    found = cut_out(shown, GREY)
    assert (found[30:32, 30:32, 3] == 255).all()
    assert found[2, 2, 3] == 0


def test_an_empty_picture_is_empty() -> None:
    assert not cut_out(np.full((16, 16, 3), 128, np.uint8), GREY).any()


def test_the_rim_tells_the_background_and_how_even_it_is() -> None:
    colour, spread = rim_colour(np.full((2, 16, 16, 3), (255, 250, 10), np.uint8))
    assert colour == pytest.approx((1.0, 250 / 255, 10 / 255))
    assert spread == 0.0
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    assert rim_colour(noise)[1] > 0.2


def test_a_tolerance_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="tolerance"):
        cut_out(np.zeros((4, 4, 3), np.uint8), GREY, tolerance=0.6)
