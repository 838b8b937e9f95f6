"""Example images of a dataset, with their classes: as a strip, and for the Compare tab to choose from."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from html import escape

import numpy as np
from PIL import Image

from iekd import data
from iekd.errors import UserError
from iekd.ui.render.template import html_text

MOST_THUMBNAILS = 12


def thumbnails_html(name: str) -> str:
    """A strip of example images with their classes, or a note on a dataset that is not downloaded yet."""
    try:
        name = data.prepare(name)
        if not data.source_of(name).at_hand(name):
            note = data.describe(name).note
            said = html_text("Not on this machine yet: {note} when the run starts, then kept.", note=note)
            return f'<p class="note">{said}</p>'
        pictures = examples(name, 1)[:MOST_THUMBNAILS]
    except UserError:
        return ""  # the form says it already
    shown = "".join(
        f'<figure><img src="{url}" alt=""><figcaption>{escape(label)}</figcaption></figure>'
        for url, _, label in pictures
    )
    return f'<div class="thumbs">{shown}</div>'


def examples(name: str, per_class: int) -> list[tuple[str, np.ndarray, str]]:
    """(data URL, image (H,W,C) uint8, class) of a few test images, read again each time if the files may change."""
    changes = data.describe(name).fingerprint
    return _examples.__wrapped__(name, per_class) if changes else _examples(name, per_class)


@lru_cache(maxsize=8)
def _examples(name: str, per_class: int) -> list[tuple[str, np.ndarray, str]]:
    found = data.thumbnails(name, per_class)
    step = max(1, len(found) // 24)  # of a hundred classes, a few
    return [(data_url(image), image, label) for image, label in found[::step]]


def data_url(image: np.ndarray) -> str:
    """An (H,W,C) uint8 image as a PNG inside an address."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "PNG")
    return file_url(buffer.getvalue())


def file_url(content: bytes) -> str:
    """A PNG or JPEG file inside an address."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def smaller(image: np.ndarray, side: int) -> np.ndarray:
    """An (H,W,C) uint8 image that is at most `side` wide and high."""
    if max(image.shape[:2]) <= side:
        return image
    drawn = Image.fromarray(image.squeeze())
    drawn.thumbnail((side, side))
    found = np.asarray(drawn)
    return found if found.ndim == 3 else found[:, :, None]
