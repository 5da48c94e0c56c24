import io

import av
import numpy as np
import pytest

from pipeline.mp4 import encode_mp4


def gradient(num_frames: int = 6, height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    shown = [np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 40 * t)], -1) for t in range(num_frames)]
    return np.stack(shown).astype(np.uint8)


def decoded(content: bytes) -> tuple[np.ndarray, float, str]:
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.codec_context.pix_fmt == "yuv420p"
        # BT.709, said in the file: matrix, primaries.
        assert (int(stream.codec_context.colorspace), int(stream.codec_context.color_primaries)) == (1, 1)
        return np.stack(frames), float(stream.average_rate or 0), stream.codec_context.name


def test_a_browsers_video_with_the_colours_that_went_in() -> None:
    shown = gradient()
    frames, fps, codec = decoded(encode_mp4(shown, 8.0))
    assert (codec, fps) == ("h264", 8.0)
    assert frames.shape == shown.shape
    assert np.abs(frames.astype(int) - shown).mean() < 2.5


def test_equal_frames_give_equal_bytes_and_others_do_not() -> None:
    shown = gradient()
    assert encode_mp4(shown, 8.0) == encode_mp4(shown.copy(), 8.0)
    assert encode_mp4(shown, 8.0) != encode_mp4(shown[::-1], 8.0)


def test_odd_sides_are_lengthened() -> None:
    frames, fps, _ = decoded(encode_mp4(gradient(height=31, width=25), 7.5))
    assert frames.shape[1:3] == (32, 26)
    assert fps == 7.5


@pytest.mark.parametrize(
    ("frames", "fps"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), 8.0),
        (np.zeros((2, 8, 8, 4), np.uint8), 8.0),
        (np.zeros((2, 8, 8, 3), np.float32), 8.0),
        (np.zeros((1, 2, 5000, 3), np.uint8), 8.0),
        (np.zeros((2, 8, 8, 3), np.uint8), 0.0),
    ],
)
def test_what_is_no_video_is_refused(frames: np.ndarray, fps: float) -> None:
    with pytest.raises(ValueError, match="need"):
        encode_mp4(frames, fps)
