"""One image file or upload -> a square uint8 array. The only place that decodes pictures.

Leaves out: augmentation (see engine/batches.py) and normalisation (each network carries its own).
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Union

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from iekd.errors import DataError

# Named formats only: Pillow's other readers (EPS above all) start external programs or are rarely exercised.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif"}
MAX_PIXELS = 20_000_000
ENOUGH = 4  # times what is needed: scaling that down smooths it as it would the whole picture

ImageSource = Union[str, Path, bytes, np.ndarray, Image.Image]


def open_image(source: ImageSource, name: str = "", side: int | None = None) -> Image.Image:
    """Decode the first frame of a picture, upright, as 8-bit grey ("L") or colour ("RGB").

    Transparent parts become white, as they look on a page.

    side: pixels that the shorter side will be scaled down to; a JPEG much larger is decoded at a half, quarter or
        eighth, which is several times as fast.

    Raises:
        DataError: not an image, broken, or larger than 20 million pixels (a large JPEG is decoded at an eighth).
    """
    name = name or (Path(source).name if isinstance(source, (str, Path)) else "the image")
    try:
        if isinstance(source, np.ndarray):
            source = Image.fromarray(source.squeeze(2) if source.ndim == 3 and source.shape[2] == 1 else source)
        if not isinstance(source, Image.Image):
            source = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
        if source.format in ("JPEG", "MPO"):  # a telephone may put a second picture behind the first
            if source.width * source.height > MAX_PIXELS:
                source.draft(None, (source.width // 8, source.height // 8))
            elif side:
                source.draft(None, (ENOUGH * side, ENOUGH * side))
        if source.width * source.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        source.load()
        if not source.width * source.height:
            raise UnidentifiedImageError
    except Image.DecompressionBombError:
        raise DataError(
            f"'{name}' has more than the {MAX_PIXELS // 10**6} million pixels that are accepted. "
            "Make it smaller and try again."
        ) from None
    except FileNotFoundError:
        raise DataError(f"There is no file '{name}'. Check the path.") from None
    except UnidentifiedImageError:
        raise DataError(f"'{name}' is not an image that can be read. Use PNG, JPEG, WebP, BMP or GIF.") from None
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise DataError(f"'{name}' is broken and cannot be read ({error}). Save it again and retry.") from None
    # damaged notes of a camera are no reason to refuse its picture: it is shown as it is stored
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(source, in_place=True)
    return _eight_bit(source)


def to_array(source: ImageSource, resolution: int, channels: int, name: str = "") -> np.ndarray:
    """A picture as (resolution, resolution, channels) uint8: centre-cropped to a square, then resized."""
    image = open_image(source, name, resolution).convert("L" if channels == 1 else "RGB")
    if image.size != (resolution, resolution):
        image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(resolution, resolution, channels)


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey: Pillow's own conversion clips instead of scaling
        values = np.asarray(image, np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        return Image.fromarray((values.clip(0, top) * (255.0 / top)).round().astype(np.uint8))
    if image.mode == "1":
        return image.convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")
