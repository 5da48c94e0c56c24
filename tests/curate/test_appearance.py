import numpy as np
import pytest

from curate.appearance import appearance, colourfulness, fingerprint, key_frames, magenta_share, object_pixels
from tests.curate.toys import square, texture


def pixels(*colour: int) -> np.ndarray:
    return np.tile(np.asarray(colour, np.uint8), (100, 1))


def test_only_the_object_counts() -> None:
    frames = square([0, 4, 8], colour=(200, 100, 50))
    frames[..., :3][frames[..., 3] == 0] = 255
    found = object_pixels(frames)
    assert found.shape == (3 * 24 * 24, 3)
    assert (found == (200, 100, 50)).all()


def test_large_pictures_are_sampled() -> None:
    frames = square([0], side_px=256, size_px=1024, colour=(9, 9, 9))
    assert len(object_pixels(frames)) == 64 * 64


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_key_frames_are_first_middle_and_last(count: int) -> None:
    frames = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1).repeat(4, axis=3)
    assert key_frames(frames)[:, 0, 0, 0].tolist() == [0, count // 2, count - 1]


def test_one_colour_is_flat_and_a_texture_is_not() -> None:
    flat = appearance("id", [pixels(128, 128, 128)], "")
    assert flat.contrast == pytest.approx(0.0, abs=1e-6)
    assert flat.luminance_mean == pytest.approx(128 / 255)
    assert appearance("id", [texture(32).reshape(-1, 3)], "").contrast > 0.05


def test_grey_has_no_colour_and_paint_has_much() -> None:
    assert colourfulness(pixels(90, 90, 90)) == 0.0
    vivid = np.concatenate([pixels(255, 0, 0), pixels(0, 0, 255), pixels(0, 255, 0)])
    assert colourfulness(vivid) > 100.0


def test_colourfulness_is_the_papers_formula() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (1000, 3)).astype(np.uint8)
    red, green, blue = colours.T.astype(float)
    rg, yb = red - green, (red + green) / 2 - blue
    expected = np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    assert colourfulness(colours) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("colour", [(255, 0, 255), (140, 5, 140), (90, 0, 95)])
def test_lit_missing_texture_pink_is_found(colour: tuple[int, int, int]) -> None:
    assert magenta_share(np.concatenate([pixels(*colour), pixels(80, 80, 80)])) == 0.5


@pytest.mark.parametrize("colour", [(255, 120, 255), (255, 0, 120), (20, 0, 20), (255, 255, 255), (230, 150, 190)])
def test_other_pinks_are_not(colour: tuple[int, int, int]) -> None:
    assert magenta_share(pixels(*colour)) == 0.0


def test_a_fingerprint_is_equal_for_equal_looks_only() -> None:
    frames = square([0, 4, 8], side_px=40)
    noisy = frames.copy()
    noisy[..., :3] ^= 1
    other = square([0, 4, 8], side_px=40, colour=(20, 200, 90))
    assert fingerprint(frames) == fingerprint(frames.copy())
    assert len(fingerprint(frames)) == 48
    assert fingerprint(other) != fingerprint(frames)
    differing = bin(int(fingerprint(noisy), 16) ^ int(fingerprint(frames), 16)).count("1")
    assert differing <= 6


def test_a_fingerprint_sees_the_motion_too() -> None:
    assert fingerprint(square([0, 4, 8], side_px=40)) != fingerprint(square([0, 0, 0], side_px=40))


def test_what_is_never_seen_has_no_appearance() -> None:
    row = appearance("id", [np.zeros((0, 3), np.uint8)], "00")
    assert np.isnan([row.luminance_mean, row.contrast, row.colourfulness, row.magenta_share]).all()
