import math

import pytest
import torch

from training.model.positions import TimeCode, sin1d, sin2d


def test_the_time_code_is_the_formula() -> None:
    code = sin1d(32, 40)
    for position in (0, 1, 31):
        for channel in range(40):
            angle = position / 10000 ** (2 * (channel // 2) / 40)
            wanted = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
            assert float(code[position, channel]) == pytest.approx(wanted, abs=1e-12)


def test_the_pixel_code_is_the_formula() -> None:
    height, width, channels = 3, 5, 24
    code = sin2d(height, width, channels, torch.device("cpu"), torch.float64).unflatten(0, (height, width))
    half = channels // 2
    for row in range(height):
        for column in range(width):
            for channel in range(channels):
                position, length = (row, height) if channel < half else (column, width)
                place = channel % half
                angle = (position + 1) / (length + 1e-6) * 2 * math.pi / 10000 ** (2 * (place // 2) / half)
                wanted = math.sin(angle) if place % 2 == 0 else math.cos(angle)
                assert float(code[row, column, channel]) == pytest.approx(wanted, abs=1e-12)


def test_a_picture_of_twice_the_size_gets_the_same_range_of_codes() -> None:
    small = sin2d(4, 4, 8, torch.device("cpu"), torch.float64).unflatten(0, (4, 4))
    large = sin2d(8, 8, 8, torch.device("cpu"), torch.float64).unflatten(0, (8, 8))
    torch.testing.assert_close(large[1::2, 1::2], small, atol=1e-5, rtol=0)


def test_a_code_needs_a_channel_for_each_sine_and_cosine_of_both_axes() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        sin2d(2, 2, 6, torch.device("cpu"), torch.float32)


def test_more_frames_than_a_checkpoint_has_rows_go_on_with_the_formula() -> None:
    code = TimeCode(16, 4)
    torch.testing.assert_close(code(9), sin1d(9, 16).float())


def test_the_stored_rows_are_used_as_they_were_loaded() -> None:
    code = TimeCode(16, 4)
    code.pe.fill_(7.0)
    assert bool((code(6)[:4] == 7).all())
    torch.testing.assert_close(code(6)[4:], sin1d(6, 16).float()[4:])
