"""A picture that came over the network."""

from __future__ import annotations

import base64
import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

from wm.serving.refused import malformed

MAX_SIDE, MAX_ASPECT = 4096, 4  # where the checkpoint does not say the size: what bounds memory instead
_FORMATS = ("PNG", "JPEG")  # Pillow knows dozens more, some of them through other programs
_ORIENTATION, _UPRIGHT = 0x0112, 1  # of EXIF
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


def decode_picture(text: str, key: str, size: tuple[int, int] | None) -> np.ndarray:
    """Base64 of a PNG or JPEG -> uint8 (H, W, 3), RGB. Its size is read from its header, before a pixel is decoded.

    Args:
        key: names it in errors.
        size: the height and width that it must have, px; None: any up to 4096 a side, at most four times as long as wide.

    Raises:
        Refused: it is no picture, a damaged one, or not what was asked for.
    """
    try:
        with Image.open(io.BytesIO(_bytes_of(text, key)), formats=_FORMATS) as image:
            _check_size(image.width, image.height, key, size)
            if image.mode != "RGB":
                raise malformed(f"{key}: expected three colours (RGB), 8 bits each, got Pillow's mode {image.mode}")
            turned = image.getexif().get(_ORIENTATION, _UPRIGHT)
            if turned != _UPRIGHT:
                raise malformed(f"{key}: it asks to be turned (EXIF orientation {turned}); turn its pixels instead")
            return np.array(image)
    except UnidentifiedImageError as error:
        raise malformed(f"{key}: neither a PNG nor a JPEG") from error
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        line = (str(error).splitlines() or [""])[0][:120]
        raise malformed(f"{key}: a damaged picture ({type(error).__name__}: {line})") from error


def _bytes_of(text: str, key: str) -> bytes:
    if text.startswith("data:"):
        raise malformed(f"{key}: a data URL; send what follows its comma")
    try:
        raw = base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)  # tools break its lines
    except ValueError as error:
        raise malformed(f"{key}: not base64 ({error})") from error
    if not raw:
        raise malformed(f"{key}: empty; expected base64 of a PNG or JPEG")
    return raw


def _check_size(width: int, height: int, key: str, size: tuple[int, int] | None) -> None:
    if size is not None and (height, width) != size:
        raise malformed(
            f"{key}: {width} x {height} pixels (width x height), but the model was trained on {size[1]} x {size[0]}"
        )
    if max(width, height) > min(MAX_SIDE, MAX_ASPECT * min(width, height)):
        raise malformed(
            f"{key}: {width} x {height} pixels; expected sides of at most {MAX_SIDE}, the longer at most {MAX_ASPECT} times the "
            "shorter"
        )
