"""One image file or upload -> a square uint8 array. The only place that decodes pictures.

Leaves out: augmentation (see engine/augment.py) and normalisation (each network carries its own).
"""

from __future__ import annotations

import contextlib
import io
import os
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Union

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from iekd.errors import DataError

# Named formats only: Pillow's other readers (EPS above all) start external programs or are rarely exercised.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM", "HEIF")
SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".ppm", ".pgm", ".pbm", ".pnm",
}  # fmt: skip
HEIC = {".heic", ".heif"}  # iPhones'; read if pillow-heif is installed
AVIF = (b"avif", b"avis")  # what files of this format say after their first eight bytes
READABLE = "PNG, JPEG, WebP, BMP, GIF, TIFF, AVIF or PPM"
MAX_PIXELS = 20_000_000
SHRUNK = ("JPEG", "MPO")  # formats that are decoded at an eighth if they are large; telephones write MPO
DEEP = ("I", "I;16", "I;16B", "I;16L", "F")  # Pillow's modes of grey images with more than 8 bits
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # TIFF's tag that says whether 0 is black, and what it is if not
WHITES = (1.0, *(2.0**bits - 1 for bits in range(8, 17)))  # of floating-point numbers up to 1, and of 8 to 16 bits
CROP, PAD, SQUASH = "crop", "pad", "squash"
Fit = Literal["crop", "pad", "squash"]
ENOUGH = 4  # times what is needed: scaling that down smooths it as it would the whole picture

ImageSource = Union[str, Path, bytes, np.ndarray, Image.Image]


@lru_cache(maxsize=1)
def formats() -> tuple[str, ...]:
    """Those of FORMATS that can be read here: AVIF needs Pillow 11.3 or later, HEIF needs pillow-heif."""
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """The endings of files that are read as images."""
    known = frozenset(SUFFIXES) if "AVIF" in formats() else frozenset(SUFFIXES) - {".avif"}
    return known | HEIC if "HEIF" in formats() else known


def head_is_image(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an image that can be read, by the marks of the formats."""
    if head.startswith((b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")):
        return True
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return True
    if head[:2] == b"BM":
        return len(head) > 14 and head[14] in (12, 40, 52, 56, 64, 108, 124)  # bytes of the second header
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"123456":
        return head[2:3].isspace()
    if head[4:8] == b"ftyp":
        return head[8:12] in AVIF or ("HEIF" in formats() and head[8:12] in (b"heic", b"heix", b"mif1"))
    return False


def no_image(head: bytes) -> str:
    """What a file is that begins with these bytes and is no image, and what to do, to follow its name; empty if that is
    not known."""
    begun = head.lstrip().lower()
    if not head:
        return "is empty: it may not have been downloaded yet. Get it again."
    if begun.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS instead of the image. Run git lfs pull."
    if begun.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "is a page of the web instead of an image. Download it again."
    if head[4:8] == b"ftyp" and head[8:12] not in AVIF and "HEIF" not in formats():
        return "is a HEIC photo, whatever its ending. Install pillow-heif, or save it as JPEG."
    return ""


def open_image(source: ImageSource, name: str = "", side: int | None = None, white: float | None = None) -> Image.Image:
    """Decode the first frame of an image, upright, as 8-bit grey ("L") or colour ("RGB").

    Transparent parts become white, as they look on a page.

    Args:
        side: pixels that the shorter side will be scaled down to; a JPEG much larger is decoded at a half, quarter or
            eighth, which is several times as fast.
        white: the value that becomes 255 where an image has more than 8 bits, such as 4095 of 12; None: the first of 1,
            255 and 65535 that no value exceeds.
    Raises:
        DataError: not an image, broken, or larger than 20 million pixels (a large JPEG is decoded at an eighth).
    """
    name = name or (Path(source).name if isinstance(source, (str, Path)) else "the image")
    try:
        if isinstance(source, np.ndarray):
            source = Image.fromarray(source.squeeze(2) if source.ndim == 3 and source.shape[2] == 1 else source)
        if not isinstance(source, Image.Image):
            source = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats())
        if source.format in SHRUNK:
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
        what = no_image(_first_bytes(source)) or f"is not an image that can be read. Use {READABLE}."
        raise DataError(f"'{name}' {what}") from None
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise DataError(f"'{name}' is broken and cannot be read ({error}). Save it again and retry.") from None
    # damaged notes of a camera are no reason to refuse its picture: it is shown as it is stored
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(source, in_place=True)
    return _eight_bit(source, white)


def _first_bytes(source: ImageSource) -> bytes:
    if isinstance(source, (str, Path)):
        with contextlib.suppress(OSError), open(source, "rb") as file:
            return file.read(64)
    return source[:64] if isinstance(source, bytes) else b"?"


def to_array(
    source: ImageSource, resolution: int, channels: int, name: str = "", fit: str = CROP, white: float | None = None
) -> np.ndarray:
    """An image as a square array.

    Args:
        source: anything that `open_image` takes.
        resolution: side of the square in pixels. channels: 1 for grey, 3 for colour.
        name: what to call it in messages.
        fit: what becomes of an image that is not square: its centre is cut out (CROP), black bars are added (PAD), or
            its sides are scaled differently (SQUASH).
        white: see `open_image`.
    Returns:
        (resolution, resolution, channels) uint8.
    Raises:
        DataError: see `open_image`.
    """
    image = open_image(source, name, resolution, white).convert("L" if channels == 1 else "RGB")
    size = (resolution, resolution)
    if image.size != size:
        if fit == SQUASH:
            image = image.resize(size, Image.Resampling.BILINEAR)
        elif fit == PAD:
            image = ImageOps.pad(image, size, Image.Resampling.BILINEAR)
        else:
            image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(resolution, resolution, channels)


class Header(NamedTuple):
    """width, height: pixels. cut: whether it is colour with 16 bits of which Pillow reads 8. lowest: value, if deep.
    several: whether more images follow the first in the file, as in a TIFF of pages; previews do not count.
    """

    width: int
    height: int
    cut: bool
    lowest: float
    several: bool


def look_at(path: str) -> tuple[bool, float]:
    """(whether a file's image is grey, its largest value if it has more than 8 bits, else 0), mostly by its header.

    A broken file says nothing either way: it is grey. It is reported when it is read in full.
    """
    try:
        with Image.open(path, formats=formats()) as image:
            if image.mode not in DEEP:
                return image.mode in ("1", "L"), 0.0
            if image.width * image.height > MAX_PIXELS:
                return True, 0.0
            values = np.asarray(image)
            values = values[np.isfinite(values)]
            return True, max(float(values.max()), 1e-6) if values.size else 0.0
    except Exception:
        return True, 0.0


def header(path: str) -> Header | None:
    """What a file tells before it is decoded; None if it cannot be read. Deep images that may be negative are decoded
    all the same."""
    try:
        with Image.open(path, formats=formats()) as image:
            if image.width * image.height > MAX_PIXELS and image.format not in SHRUNK:
                return None
            encoded = str(image.tile[0].args if image.tile else "")
            cut = image.mode in ("RGB", "RGBA") and ";16" in encoded
            lowest = 0.0
            if image.mode in ("I", "F") and image.width * image.height <= MAX_PIXELS:
                lowest = float(np.nanmin(np.asarray(image)))
            several = image.format not in SHRUNK and bool(getattr(image, "is_animated", False))
            return Header(image.width, image.height, cut, lowest, several)
    except Exception:
        return None


ENDLESS = (b"II", b"MM", b"P")  # TIFF and PPM, whose end says nothing; neither does that of AVIF and HEIC


def may_be_cut_off(path: str) -> bool:
    """Whether the end of a file is not that of its format: it was cut off, or something follows the image. Also of a
    file that begins like no image, such as an empty one."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 12))
            tail = file.read()
    except OSError:
        return False
    if head.startswith(b"\xff\xd8\xff"):
        return not tail.endswith(b"\xff\xd9")
    if head.startswith(b"\x89PNG\r\n"):
        return b"IEND" not in tail
    if head.startswith(b"GIF8"):
        return not tail.endswith(b";")
    if head.startswith(b"RIFF"):
        return int.from_bytes(head[4:8], "little") + 8 > size
    if head.startswith(b"BM"):
        return int.from_bytes(head[2:6], "little") > size
    return not (head.startswith(ENDLESS) or head[4:8] == b"ftyp")


def white_of(largest: float) -> float | None:
    """The white level of a dataset by the largest value in it: what its number of bits can hold; None of 8-bit images.

    Scans of 10, 12 and 14 bits come in files of 16. Scaling each image by itself would make dark scenes bright.
    """
    if largest <= 0:
        return None
    return next((white for white in WHITES if largest <= white), largest)


def _eight_bit(image: Image.Image, white: float | None) -> Image.Image:
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode in DEEP:  # Pillow's own conversion clips instead of scaling
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
        top = white or next((white for white in (1.0, 255.0) if values.max(initial=0) <= white), 65535.0)
        if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow minds this of 8 bits only
            values = top - values
        return Image.fromarray((values.clip(0, top) * (255.0 / top)).round().astype(np.uint8))
    if image.mode == "1":
        return image.convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")
