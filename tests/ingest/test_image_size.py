import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ingest.image_size import image_size
from tests.ingest.tiny import png


def size_of(content: bytes) -> tuple[int, int] | None:
    return image_size(lambda offset, count: content[offset : offset + count])


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (640, 2)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("WEBP", {"lossless": True}),
     ("WEBP", {"exif": b"Exif\0\0x"})],
)  # fmt: skip
def test_the_header_agrees_with_pillow(size: tuple[int, int], kind: str, options: dict[str, object]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, kind, **options)
    assert size_of(buffer.getvalue()) == size


def test_a_jpeg_with_a_long_comment_first_is_read() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 6)).save(buffer, "JPEG", comment=b"x" * 60_000)
    assert size_of(buffer.getvalue()) == (5, 6)


def test_a_bomb_is_read_without_decoding() -> None:
    assert size_of(png(40_000, 50_000)) == (40_000, 50_000)


def test_ktx2_is_read() -> None:
    head = b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(8) + (512).to_bytes(4, "little") + (256).to_bytes(4, "little")
    assert size_of(head + bytes(40)) == (512, 256)


@given(st.sampled_from([b"", png(3, 4), b"\xff\xd8", b"RIFF....WEBPVP8X", b"\xabKTX 20\xbb"]), st.binary(max_size=200))
def test_any_bytes_give_a_size_or_none(head: bytes, rest: bytes) -> None:
    found = size_of(head + rest)
    assert found is None or (found[0] >= 0 and found[1] >= 0)
