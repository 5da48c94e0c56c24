import cv2
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


def squares(*sides_px: int, size_px: int = 96) -> np.ndarray:
    """Dark squares with their corners along the diagonal, apart from each other. Shape (height, width, 4), uint8."""
    rgba, start = np.zeros((size_px, size_px, 4), np.uint8), 3
    for side_px in sides_px:
        rgba[start : start + side_px, start : start + side_px] = (60, 40, 20, 255)
        start += side_px + 3
    return rgba


def test_specks_of_a_network_s_noise_go() -> None:
    truth = ring(96, 47.3, (15.0, 33.0))
    shown, rng = on_grey(truth, 0.01), np.random.default_rng(1)
    far = np.argwhere(cv2.dilate(truth[..., 3], np.ones((17, 17))) == 0)
    for y, x in far[rng.choice(len(far), 25)]:
        shown[y : y + 4, x : x + 5] = rng.integers(0, 255, 3)
    clean = cut_out(on_grey(truth, 0.01), GREY)
    assert (np.abs(shown / 255 - 0.5).max(axis=-1) > 0.05).sum() > (clean[..., 3] > 0).sum() + 150
    np.testing.assert_array_equal(cut_out(shown, GREY), clean)


@pytest.mark.parametrize(
    ("sides_px", "kept"),
    [
        ((40, 40), [True, True]),
        ((50, 8), [True, True]),  # 2.6 % of the largest
        ((50, 7), [True, False]),  # 1.96 %
        ((7, 50, 9, 7), [False, True, True, False]),
        ((7,), [True]),
    ],
)
def test_loose_parts_stay_if_they_are_no_specks_beside_the_largest(sides_px: tuple[int, ...], kept: list[bool]) -> None:
    truth = squares(*sides_px)
    found = cut_out(on_grey(truth), GREY)
    _, labels = cv2.connectedComponents(truth[..., 3])
    areas = [int((found[labels == number, 3] == 255).sum()) for number in range(1, len(sides_px) + 1)]
    assert areas == [side**2 * stays for side, stays in zip(sides_px, kept, strict=True)]
    assert not found[labels == 0].any()


def test_each_picture_has_a_largest_part_of_its_own() -> None:
    near, far = squares(80), squares(6)
    found = cut_out(np.stack([on_grey(near), on_grey(far)]), GREY)
    np.testing.assert_array_equal(found[1], far)


def test_an_empty_picture_is_empty() -> None:
    assert not cut_out(np.full((16, 16, 3), 128, np.uint8), GREY).any()
    assert not cut_out(on_grey(squares(1, 1)), GREY).any()


def test_the_rim_tells_the_background_and_how_even_it_is() -> None:
    colour, spread = rim_colour(np.full((2, 16, 16, 3), (255, 250, 10), np.uint8))
    assert colour == pytest.approx((1.0, 250 / 255, 10 / 255))
    assert spread == 0.0
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    assert rim_colour(noise)[1] > 0.2


def test_a_tolerance_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="tolerance"):
        cut_out(np.zeros((4, 4, 3), np.uint8), GREY, tolerance=0.6)
