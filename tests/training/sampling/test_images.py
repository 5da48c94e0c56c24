import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.toys import pictures
from training.sampling.images import eight_bit, view_pictures


def test_every_form_of_the_same_pictures_gives_the_same_tensor() -> None:
    bytes_ = (pictures(items=2, views=3) * 255).round().to(torch.uint8)
    arrays = bytes_.permute(0, 1, 3, 4, 2).numpy()
    pil = [[Image.fromarray(view) for view in item] for item in arrays]
    wanted = bytes_.float() / 255
    for form in (bytes_, wanted, arrays, arrays / np.float32(255), pil):
        torch.testing.assert_close(view_pictures(form), wanted)
    torch.testing.assert_close(view_pictures(pil[0]), wanted[:1])
    torch.testing.assert_close(view_pictures(arrays[0]), wanted[:1])


def test_transparent_parts_become_the_background() -> None:
    rgba = np.zeros((1, 4, 4, 4), np.uint8)
    rgba[0, 1:3, 1:3] = (255, 0, 0, 255)
    rgba[0, 0, 1] = (255, 255, 255, 51)
    from_array = view_pictures(rgba)
    assert from_array[0, 0, :, 3, 3].tolist() == [0.5, 0.5, 0.5]
    assert from_array[0, 0, :, 1, 1].tolist() == [1.0, 0.0, 0.0]
    assert from_array[0, 0, 0, 0, 1] == pytest.approx(0.2 + 0.8 * 0.5)
    torch.testing.assert_close(view_pictures([Image.fromarray(rgba[0])]), from_array)
    # One picture without alpha among others does not matter.
    mixed = view_pictures([Image.fromarray(rgba[0]), Image.new("RGB", (4, 4), (128, 128, 128))])
    assert mixed.shape == (1, 2, 3, 4, 4)


def test_a_white_background_is_noticed() -> None:
    """Animate3D was trained on grey, fails on white, and does not say so."""
    with pytest.warns(UserWarning, match=r"corners of the pictures are at 1\.00"):
        view_pictures(torch.ones(4, 3, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        view_pictures(pictures())
        view_pictures(torch.ones(4, 3, 8, 8), background=1.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(4, 2, 8, 8), "3 or 4 channels"),
        (torch.zeros(3, 8, 8), "views by"),
        (torch.full((4, 3, 8, 8), -1.0), r"0\.\.1"),
        (torch.full((4, 3, 8, 8), 255.0), r"0\.\.1"),
        (torch.full((4, 3, 8, 8), float("nan")), r"0\.\.1"),
        ([], "no pictures"),
        ([Image.new("RGB", (8, 8)), Image.new("RGB", (8, 9))], "same size"),
        ([[Image.new("RGB", (8, 8))], [Image.new("RGB", (8, 8))] * 2], "same views"),
    ],
)
def test_what_is_no_picture_is_refused(bad: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        view_pictures(bad)  # type: ignore[arg-type]


def test_pictures_are_resized_to_a_square() -> None:
    flat = torch.full((1, 2, 3, 10, 14), 0.5)
    assert torch.allclose(view_pictures(flat, size_px=16), torch.full((1, 2, 3, 16, 16), 0.5))


def test_bytes_and_back() -> None:
    shown = pictures(items=1, views=2)
    found = np.stack(eight_bit(shown))
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2) / 255, shown[0].numpy(), atol=0.5 / 255 + 1e-6)
