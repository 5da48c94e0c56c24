"""Frames -> an MP4 that every browser plays: H.264, 4:2:0, BT.709."""

import io
from fractions import Fraction

import av
import numpy as np

MAX_SIDE_PX = 4096
"""What H.264 decoders commonly take."""


def encode_mp4(frames: np.ndarray, fps: float, *, crf: int = 16) -> bytes:
    """A video file; the same frames give the same bytes.

    Args:
        frames: Shape (frame, height, width, 3), uint8 sRGB. An odd side is lengthened by a copy of its last line.
        fps: Frames a second.
        crf: Of x264: 0 loses nothing, 16 looks the same, 51 is the worst.

    Raises:
        ValueError: No frames, or none that a video can hold.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or frames.size == 0:
        raise ValueError(f"need frames by height by width by 3 of uint8, got {frames.shape} of {frames.dtype}")
    height, width = frames.shape[1:3]
    if max(height, width) > MAX_SIDE_PX or fps <= 0:
        raise ValueError(f"need sides up to {MAX_SIDE_PX} px and fps > 0, got {width} x {height} at {fps}")
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    # `faststart` would need the file twice, and a buffer has no name.
    with av.open(buffer, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = even.shape[2], even.shape[1], "yuv420p"
        # One thread: how the work is divided shows in the bytes.
        stream.codec_context.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "medium", "x264-params": BT709}
        for picture in even:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


BT709 = "colorprim=bt709:transfer=bt709:colormatrix=bt709"
"""Said in the file: a player that is not told guesses by the size."""
