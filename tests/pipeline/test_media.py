import numpy as np
import pytest

from pipeline.media import compose, decode_strip, encode_strip


def frames(num_frames: int = 4, size_px: int = 24) -> np.ndarray:
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (num_frames, size_px, size_px, 4), dtype=np.uint8)
    rgba[:, :4, :, 3] = 0
    return rgba


def test_lossless_strip_keeps_alpha_and_every_covered_pixel() -> None:
    before = frames()
    after = decode_strip(encode_strip(before), 4)
    assert np.array_equal(before[..., 3], after[..., 3])
    covered = before[..., 3] > 0
    assert np.array_equal(before[covered], after[covered])


def test_lossy_strip_keeps_alpha_exactly_and_is_smaller() -> None:
    before = frames()
    lossy = encode_strip(before, quality=80)
    assert len(lossy) < len(encode_strip(before))
    assert np.array_equal(before[..., 3], decode_strip(lossy, 4)[..., 3])


def test_same_frames_give_same_bytes() -> None:
    assert encode_strip(frames()) == encode_strip(frames())


def test_a_wrong_frame_count_is_an_error_not_a_guess() -> None:
    with pytest.raises(ValueError, match="does not hold 5 frames"):
        decode_strip(encode_strip(frames(num_frames=4)), 5)


def test_garbage_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a strip"):
        decode_strip(b"RIFFxxxxWEBPnothing", 4)


def test_compose_shows_the_background_only_where_nothing_covers_it() -> None:
    rgba = np.array([[255, 0, 0, 255], [255, 0, 0, 0], [255, 0, 0, 51]], dtype=np.uint8)
    assert compose(rgba, 0.5) == pytest.approx(np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.6, 0.4, 0.4]]), abs=1e-6)
