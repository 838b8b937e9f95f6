"""Pictures of every kind over real HTTP: the right answer or one sentence, and the server stays small."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from ui_helpers import CLIENT, serving

HTML = b"<!doctype html><script>alert(1)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16"><script>alert(1)</script></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n(/etc/passwd) run\n%%EOF\n"


@pytest.fixture(scope="module")
def page(runs_dir: Path, finished_run: str) -> Iterator[tuple[str, psutil.Process]]:
    server = serving(runs_dir)
    with server as url:
        yield url, psutil.Process(server.process.pid)


def ask(url: str, run_id: str, name: str, content: bytes) -> dict[str, Any]:
    """What the server says of one uploaded file."""
    sent = CLIENT.post(f"{url}/gradio_api/upload", files={"files": (name, content)}, timeout=60)
    assert sent.status_code == 200, sent.text
    file = {"path": sent.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    event = CLIENT.post(f"{url}/gradio_api/call/compare", json={"data": [run_id, [file]]})
    answer = CLIENT.get(f"{url}/gradio_api/call/compare/{event.json()['event_id']}", timeout=60).text
    assert "event: complete" in answer, answer
    (image,) = json.loads(answer.split("data: ")[-1])[0]["images"]
    return dict(image)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def disc(pictures: Path) -> Image.Image:
    return Image.open(pictures / "test" / "disc" / "0.png").convert("L")


def test_the_same_picture_in_every_coat_gets_the_same_answer(
    page: tuple[str, psutil.Process], finished_run: str, disc: Image.Image
) -> None:
    url, _ = page
    colour = disc.convert("RGB")
    rotated = Image.Exif()
    rotated[0x0112] = 6  # to be turned by 90 degrees: a disc stays a disc
    deep = Image.fromarray(np.asarray(disc).astype(np.uint16) * 257)
    coats = {
        "grey.png": encoded(disc, "PNG"), "rgb.png": encoded(colour, "PNG"),
        "rgba.png": encoded(colour.convert("RGBA"), "PNG"),
        "palette.gif": encoded(colour, "GIF"), "deep.png": encoded(deep, "PNG"),
        "cmyk.jpg": encoded(colour.convert("CMYK"), "JPEG", quality=95),
        "turned.jpg": encoded(colour, "JPEG", quality=95, exif=rotated),
        "lossless.webp": encoded(colour, "WEBP", lossless=True),
        "animated.gif": encoded(colour, "GIF", save_all=True, append_images=[Image.new("RGB", colour.size)]),
    }  # fmt: skip
    first = ask(url, finished_run, "plain.png", coats["grey.png"])["predictions"]["teacher"][0]["label"]
    for name, content in coats.items():
        found = ask(url, finished_run, name, content)
        assert "error" not in found, (name, found)
        assert found["predictions"]["teacher"][0]["label"] == first, name


def test_what_is_no_picture_is_one_sentence(
    page: tuple[str, psutil.Process], finished_run: str, disc: Image.Image
) -> None:
    url, _ = page
    whole = encoded(disc, "PNG")
    for name, content in {
        "cut.png": whole[: len(whole) // 2], "empty.png": b"", "page.png": HTML, "vector.svg": SVG, "vector.png": SVG,
        "print.eps": EPS, "print.png": EPS, "noise.jpg": bytes(range(256)) * 8,
        "<img src=x onerror=alert(1)>.png": HTML,
    }.items():  # fmt: skip
        found = ask(url, finished_run, name, content)
        assert found["predictions"] == {}, name
        assert found["error"].endswith("."), found
        assert "\n" not in found["error"]
        assert "Traceback" not in found["error"]


def test_giant_pictures_are_refused_and_cost_no_memory(
    page: tuple[str, psutil.Process], finished_run: str, disc: Image.Image
) -> None:
    url, process = page
    ask(url, finished_run, "warm-up.png", encoded(disc, "PNG"))
    bombs = [encoded(Image.new("1", (side, side)), "PNG") for side in (13_000, 30_000)]
    before = process.memory_info().rss
    for bomb in bombs * 3:
        assert len(bomb) < 2_000_000
        assert "million pixels" in ask(url, finished_run, "bomb.png", bomb)["error"]
    assert process.memory_info().rss - before < 100e6
