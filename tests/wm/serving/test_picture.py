"""Pictures from strangers: the pixels that were sent, or one line; their size is looked at before they are decoded."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.wm.data.samples import refusal, user_error
from tests.wm.serving.client import encoded
from wm.serving.picture import decode_picture

SIZE = (20, 30)
FRAME = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


def refused(text: str, size: tuple[int, int] | None = SIZE) -> str:
    return user_error(lambda: decode_picture(text, "goal", size))


def saved(image: Image.Image, form: str = "PNG", **how: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_png_is_the_pixels_that_were_sent() -> None:
    for size in (SIZE, None):
        found = decode_picture(encoded(FRAME), "goal", size)
        np.testing.assert_array_equal(found, FRAME)
        assert found.dtype == np.uint8
        assert found.flags.writeable  # torch warns of what is not


def test_base64_in_lines_is_taken() -> None:
    lines = base64.encodebytes(base64.b64decode(encoded(FRAME))).decode()
    assert lines.count("\n") > 1
    np.testing.assert_array_equal(decode_picture(lines, "goal", SIZE), FRAME)


def test_a_jpeg_is_what_pillow_reads() -> None:
    text = encoded(FRAME, "JPEG", quality=90)
    expected = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    np.testing.assert_array_equal(decode_picture(text, "goal", SIZE), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "1", "LA"])
def test_only_rgb_is_taken(mode: str) -> None:
    assert f"expected three colours (RGB), 8 bits each, got Pillow's mode {mode}" in refused(
        saved(Image.new(mode, SIZE[::-1]))
    )
    assert "mode CMYK" in refused(saved(Image.new("CMYK", SIZE[::-1]), "JPEG"))


@pytest.mark.parametrize("form", ["BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_only_png_and_jpeg_are_opened(form: str) -> None:
    assert refused(saved(Image.fromarray(FRAME), form)) == "goal: neither a PNG nor a JPEG"


def test_another_size_says_both() -> None:
    assert refused(encoded(FRAME.swapaxes(0, 1))) == (
        "goal: 20 x 30 pixels (width x height), but the model was trained on 30 x 20"
    )


def test_a_picture_that_asks_to_be_turned_is_refused() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    text = saved(Image.fromarray(FRAME), "JPEG", exif=exif)
    assert refused(text) == "goal: it asks to be turned (EXIF orientation 6); turn its pixels instead"


def bomb(width: int, height: int) -> str:
    """A PNG of a few bytes that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return base64.b64encode(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    ).decode()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_huge_picture_is_refused_by_its_header() -> None:
    assert "4097 x 4000 pixels; expected sides of at most 4096" in refused(bomb(4097, 4000), None)
    assert "at most 4 times the shorter" in refused(bomb(4096, 8), None)
    assert "10000 x 10000" in refused(bomb(10_000, 10_000), None)
    assert "DecompressionBombError" in refused(bomb(60_000, 60_000), None)
    assert "damaged" in refused(bomb(SIZE[1], SIZE[0]))


def test_a_cut_picture_is_damaged() -> None:
    for text in (encoded(FRAME), encoded(FRAME, "JPEG")):
        raw = base64.b64decode(text)
        for length in (20, len(raw) // 2, len(raw) - 60):
            assert refused(base64.b64encode(raw[:length]).decode()).startswith("goal: ")


_WHOLE = [base64.b64decode(encoded(FRAME, form)) for form in ("PNG", "JPEG")]


@given(st.sampled_from(_WHOLE), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes_are_a_picture_or_one_line(whole: bytes, flips: list[tuple[int, int]]) -> None:
    raw = bytearray(whole)
    for place, value in flips:
        raw[place % len(raw)] = value
    line = refusal(lambda: decode_picture(base64.b64encode(bytes(raw)).decode(), "goal", SIZE))
    assert line is None or line.startswith("goal: ")
