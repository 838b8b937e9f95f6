"""A page of a comparison as one picture, to put into slides: drawn with Pillow, on white. No Gradio."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from iekd.inference.compare_uploads import ComparedImage
from iekd.language import _
from iekd.results.agreement import Answered
from iekd.ui.render.comparison import PAGE, ModelColumn, ViewedComparison, colour_of

EDGE, ROW, THUMB = 24, 84, 64  # pixels
NAMES, COLUMN = 260, 210  # widths of the names, and of a model
INK, SOFT, LINE, GOOD, BAD = "#0f172a", "#64748b", "#e2e8f0", "#15803d", "#b91c1c"


def comparison_png(found: ViewedComparison, columns: Mapping[str, ModelColumn], page: int) -> bytes:
    """The rows that are on view: the image, what the networks see, and each model's best class and its probability.

    Args:
        columns: by name of the model. page: from 0.
    """
    page = min(page, max(0, len(found.rows) - 1) // PAGE)
    rows = [i for i in found.rows[page * PAGE : (page + 1) * PAGE] if not found.images[i].result.error]
    models = list(found.of.models)
    left = EDGE + 2 * (THUMB + 8) + NAMES
    width, height = left + COLUMN * len(models) + EDGE, 2 * EDGE + ROW + ROW * len(rows)
    drawn = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(drawn)
    small, middle, large = map(_font, (14, 17, 20))
    for k, name in enumerate(models):
        x = left + COLUMN * k
        pen.text((x, EDGE), _cut(pen, columns[name].title, large, COLUMN - 16), INK, large)
        pen.text((x, EDGE + 26), _cut(pen, columns[name].detail, small, COLUMN - 16), SOFT, small)
        pen.rectangle((x, EDGE + 50, x + COLUMN - 16, EDGE + 53), colour_of(columns[name].style))
    head = _("Image, and as the networks see it") if rows else _("No image is in this group.")
    pen.text((EDGE, EDGE), head, SOFT, small)
    for at, i in enumerate(rows):
        y = EDGE + ROW + at * ROW
        pen.line((EDGE, y - 10, width - EDGE, y - 10), LINE)
        _image(drawn, found.images[i], y)
        _name(pen, (EDGE + 2 * (THUMB + 8), y), found.images[i], found.answers[i], (middle, small))
        for k, name in enumerate(models):
            _answer(pen, (left + COLUMN * k, y), found.images[i], found.answers[i], name, (middle, small))
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG")
    return buffer.getvalue()


def _image(drawn: Image.Image, image: ComparedImage, y: int) -> None:
    for k, content in enumerate((image.result.original or image.seen, image.seen)):
        shown = Image.open(io.BytesIO(content)).convert("RGB")
        scale = THUMB / max(shown.size)
        size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
        way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
        drawn.paste(shown.resize(size, way), (EDGE + k * (THUMB + 8), y))


def _name(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], image: ComparedImage, answer: Answered, fonts: Sequence[_Font]
) -> None:
    pen.text(at, _cut(pen, image.label, fonts[0], NAMES - 16), INK, fonts[0])
    if answer.right:
        right = _("It is: {label}", label=answer.right)
        pen.text((at[0], at[1] + 24), _cut(pen, right, fonts[1], NAMES - 16), SOFT, fonts[1])


def _answer(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], image: ComparedImage, answer: Answered, name: str,
    fonts: Sequence[_Font],
) -> None:  # fmt: skip
    label, score = image.result.predictions[name].top[0]
    pen.text(at, _cut(pen, label, fonts[0], COLUMN - 16), INK, fonts[0])
    mark, colour = (_("right"), GOOD) if answer.is_right(name) else (_("wrong"), BAD)
    if not answer.right:
        mark, colour = "", SOFT
    pen.text((at[0], at[1] + 24), f"{score:.0%} {mark}".strip(), colour, fonts[1])


_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def _font(size: int) -> _Font:
    """DejaVu Sans where it is installed, which has more of the world's letters than Pillow's own font."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def _cut(pen: ImageDraw.ImageDraw, text: str, font: _Font, width: int) -> str:
    """A text that fits, its end replaced by dots."""
    text = " ".join(text.split())
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(f"{text}...", font) > width:
        text = text[:-1]
    return f"{text}..."
