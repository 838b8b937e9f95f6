"""Relevance maps as pictures: the image, and beside it every map laid over it. Works without torch."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from iekd.explain.maps import RelevanceMaps

SIDE = 150  # pixels of a panel's side, at least
GAP, LINE = 8, 16
OPACITY = 0.8
FULL = 0.98  # share of the pixels whose colour is not the full one
FOR, AGAINST = (214, 39, 40), (31, 119, 180)  # colours of relevance above and below 0
METHODS = {"grad-cam": "Grad-CAM", "lrp": "LRP"}


def overlay(image: np.ndarray, map_: np.ndarray, scale: float, opacity: float = OPACITY) -> np.ndarray:
    """An image in grey with a map over it, (H,W,3) uint8.

    Args:
        image: (H,W,C) uint8. map_: (H,W).
        scale: relevance that gets the full colour.
        opacity: of the full colour, 0..1.
    """
    grey = np.repeat(image.mean(2, keepdims=True), 3, 2)
    colour, strength = _coloured(map_, scale)
    cover = opacity * strength
    return np.asarray((grey * (1 - cover) + colour * cover).round(), np.uint8)


def layer(map_: np.ndarray, scale: float) -> np.ndarray:
    """A map alone, (H,W,4) uint8: its colours, and as alpha how strong they are.

    Drawn with an opacity over an image in grey it gives what `overlay` gives.

    Args:
        map_: (H,W). scale: relevance that gets the full colour.
    """
    colour, strength = _coloured(map_, scale)
    return np.concatenate([colour, (255 * strength).round()], 2).astype(np.uint8)


def _coloured(map_: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(colours (H,W,3), their strength (H,W,1) from 0 to 1)."""
    strength = np.clip(map_ / scale if scale > 0 else np.zeros_like(map_), -1, 1)[:, :, None]
    return np.where(strength > 0, np.array(FOR), np.array(AGAINST)), np.abs(strength)


def full_strength(map_: np.ndarray) -> float:
    """The relevance that gets the full colour: all but the strongest pixels are below it, so a single one dims none."""
    strong = float(np.quantile(np.abs(map_), FULL))
    return strong if strong > 0 else float(np.abs(map_).max())


def common_scale(maps: Sequence[RelevanceMaps], of: RelevanceMaps, picture: int) -> float:
    """The scale of one map among others: that of its network, which its halves share, so strengths can be compared."""
    own = [m.maps[picture] for m in maps if (m.method, m.network) == (of.method, of.network)]
    return max(map(full_strength, own))


def sheet(
    image: np.ndarray, title: str, maps: Sequence[RelevanceMaps], picture: int, opacity: float = OPACITY
) -> Image.Image:
    """One image beside its maps: a row for each method, a column for each network and half.

    The maps of a network and of its halves have one scale in each row, so that their strengths can be compared.

    Args:
        image: (H,W,C) uint8. picture: its place in the maps.
    """
    methods, labels = list(dict.fromkeys(m.method for m in maps)), list(dict.fromkeys(m.label for m in maps))
    zoom = max(1, -(-SIDE // image.shape[0]))
    side, top = image.shape[0] * zoom, 3 * LINE
    width, height = (len(labels) + 1) * (side + GAP) + GAP, top + max(1, len(methods)) * (side + LINE) + GAP
    drawn = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(12)

    def write(x: int, y: int, text: str) -> None:
        while text and font.getlength(text) > side:
            text = text[:-4] + "..." if len(text) > 4 else ""
        pen.text((x, y), text, fill="black", font=font)

    write(GAP, LINE // 2, title)
    original = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    drawn.paste(original.convert("RGB").resize((side, side), Image.Resampling.NEAREST), (GAP, top))
    for found in maps:
        row, column = methods.index(found.method), labels.index(found.label) + 1
        x, y = GAP + column * (side + GAP), top + row * (side + LINE)
        panel = overlay(image, found.maps[picture], common_scale(maps, found, picture), opacity)
        drawn.paste(Image.fromarray(panel).resize((side, side), Image.Resampling.NEAREST), (x, y))
        write(x, y + side, METHODS.get(found.method, found.method))
        if row == 0:
            write(x, LINE // 2, found.label)
            write(x, LINE // 2 + LINE, found.explained[picture])
    return drawn


def sheets(
    images: np.ndarray, titles: Sequence[str], maps: Sequence[RelevanceMaps], opacity: float = OPACITY
) -> list[bytes]:
    """A PNG file for each image (B,H,W,C), see `sheet`."""
    files = []
    for i, (image, title) in enumerate(zip(images, titles, strict=True)):
        file = io.BytesIO()
        sheet(image, title, maps, i, opacity).save(file, "PNG", compress_level=3)
        files.append(file.getvalue())
    return files
