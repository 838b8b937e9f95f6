"""The exported page in a real browser: it answers as torch does, reads pictures as training did, asks no other host.

The runtime is npm's package onnxruntime-web: a folder named in IEKD_ORT_WEB, or fetched with `npm pack`.
"""

from __future__ import annotations

import base64
import functools
import io
import os
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import ARGUMENTS, find_browser
from PIL import Image
from ui_helpers import PATIENCE, ROOT, wait_until

from iekd import data
from iekd.data.decoding import to_array
from iekd.export.web import PageNetwork, export_page, write_page
from iekd.export.web_runtime import CDN, PINNED, SCRIPT, VERSION, WASM
from iekd.inference.compare import compare
from iekd.models.artifact import ModelCard, load_model

CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
SHIPPED = [
    ROOT / "checkpoints" / f"fashion-mnist-{n}" for n in ("resnet20-teacher", "resnet8-baseline", "resnet8-ie-ft")
]
TITLES = ["Teacher", "Plain student", "IE-FT student"]
IMAGES = 100

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with onnxruntime-web."""
    if given := os.environ.get("IEKD_ORT_WEB"):
        return Path(given)
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("onnxruntime-web is needed: install npm, or name its folder in IEKD_ORT_WEB.")
    folder = tmp_path_factory.mktemp("npm")
    done = subprocess.run(
        [npm, "pack", f"onnxruntime-web@{VERSION}"], cwd=folder, capture_output=True, text=True, check=False
    )
    packed = next(folder.glob("*.tgz"), None)
    if packed is None:
        pytest.skip(
            f"onnxruntime-web cannot be fetched by npm ({done.stderr.strip()[-200:]}); IEKD_ORT_WEB can name it."
        )
    with tarfile.open(packed) as archive:
        for name in (SCRIPT, WASM):
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None
            (folder / name).write_bytes(member.read())
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, runtime: Path) -> Path:
    """A page of the shipped networks with a runtime of its own."""
    made = tmp_path_factory.mktemp("export") / "page"
    sample = data.load("fashion-mnist-sample")
    few = replace(sample, test=sample.test.take(np.arange(200)))  # the certificates' accuracy is another test's concern
    export_page(SHIPPED, made, dataset=few, license="mit", runtime=runtime)
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=find_browser(), args=[*ARGUMENTS, *CAMERA])
        yield found
        found.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    made = context.new_page()
    made.set_default_timeout(1000 * PATIENCE)
    yield made
    context.close()


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(folder) as url:
        yield url


@pytest.fixture
def page(tab: Any, address: str) -> Any:
    """The page with its networks loaded and the first example answered."""
    tab.goto(address)
    tab.wait_for_selector("#answer:not([hidden])")
    return tab


class served:  # noqa: N801
    """A folder on a port of this machine, by Python's plain server; ends with the block."""

    def __init__(self, folder: Path) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def probabilities(source: Path, images: np.ndarray) -> np.ndarray:
    """What torch says of (N,H,W,C) uint8: (N,K)."""
    import torch

    from iekd.models.normalise import Normalise

    model, card = load_model(source)
    with torch.inference_mode():
        pixels = torch.from_numpy(images.copy()).permute(0, 3, 1, 2)
        found: np.ndarray = model(Normalise(card.mean, card.std)(pixels)).logits.softmax(1).numpy()
    return found


def file_of(image: Image.Image, name: str, kind: str = "PNG", **how: Any) -> dict[str, Any]:
    """A file as Playwright chooses it."""
    written = io.BytesIO()
    image.save(written, kind, **how)
    return {"name": name, "mimeType": f"image/{kind.lower()}", "buffer": written.getvalue()}


def held_out_image(row: int) -> Image.Image:
    return Image.fromarray(data.load("fashion-mnist-sample").test.images[row].squeeze())


def choose(page: Any, *files: dict[str, Any]) -> None:
    """Choose files, and wait until they are answered or refused."""
    before = done(page)
    page.set_input_files("#files", list(files))
    wait_until(lambda: done(page) == before + len(files))


def done(page: Any) -> int:
    """Pictures that are answered or refused. The page allows no `eval`, and so no wait_for_function."""
    return int(page.evaluate("document.querySelectorAll('#history tbody tr, .problem').length"))


def rows(page: Any) -> dict[str, list[tuple[str, int]]]:
    """File name -> (class, percent) of every network, as the page's list has them."""
    found = {}
    for name, cells in page.evaluate(
        "[...document.querySelectorAll('#history tbody tr')].map((row) => "
        "[row.querySelector('button').title, [...row.querySelectorAll('td')].map((cell) => cell.textContent)])"
    ):
        parsed = [re.fullmatch(r"(.+) (<?\d+) %", cell) for cell in cells]
        found[name] = [(m[1], int(m[2].strip("<"))) for m in parsed if m]
    return found


def photo(width: int, height: int) -> Image.Image:
    """Smooth colours, hard edges and noise, as in photographs."""
    rng = np.random.default_rng(width)
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([120 + 80 * np.sin(3 * x / width + k) * np.cos(4 * y / height * k) for k in (1, 2, 3)], -1)
    for _ in range(20):
        middle, radius = rng.uniform(0, (width, height)), rng.uniform(0.02, 0.2) * min(width, height)
        pixels[(x - middle[0]) ** 2 + (y - middle[1]) ** 2 < radius**2] = rng.uniform(0, 255, 3)
    pixels += rng.normal(0, 12, (height, width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_it_answers_100_test_images_as_torch_does_and_asks_no_other_host(tab: Any, address: str) -> None:
    asked: list[str] = []
    tab.context.on("request", lambda request: asked.append(request.url))
    tab.goto(address)
    tab.wait_for_selector("#answer:not([hidden])")
    images = data.load("fashion-mnist-sample").test.images[:IMAGES]
    choose(tab, *(file_of(Image.fromarray(image.squeeze()), f"{i:03}.png") for i, image in enumerate(images)))
    found = rows(tab)
    names = data.load("fashion-mnist-sample").class_names
    for column, source in enumerate(SHIPPED):
        expected = probabilities(source, images)
        for i, row in enumerate(expected):
            label, percent = found[f"{i:03}.png"][column]
            assert label == names[row.argmax()], f"{source.name}, image {i}"
            assert abs(percent - 100 * row.max()) < 0.51, f"{source.name}, image {i}"
    assert len(found) == IMAGES + 1  # and the example that the page begins with
    assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []
    assert {url.removeprefix(address) for url in asked} >= {f"runtime/{SCRIPT}", f"runtime/{WASM}"}


def test_the_page_itself_may_ask_no_other_host(page: Any) -> None:
    """ "Nothing is uploaded" is a rule of the browser, not a promise of the script."""
    with served(ROOT / "checkpoints") as other:
        asked = page.evaluate(
            "(url) => fetch(url, {mode: 'no-cors', method: 'POST', body: 'x'}).then(() => 'sent', () => 'refused')",
            other,
        )
    assert asked == "refused"


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_pictures_are_read_as_in_training(page: Any, fit: str) -> None:
    """The pixels that a network gets. Mean difference below half of one of 255 steps for a JPEG that is scaled down a
    lot, which Pillow decodes smaller in a way of its own; none for everything else."""
    turned = Image.Exif()
    turned[0x112] = 6  # orientation: to be turned by 90 degrees
    clear = photo(300, 200).convert("RGBA")
    clear.putalpha(photo(200, 300).resize((300, 200)).convert("L"))
    wide, tall = photo(640, 300), photo(333, 700)
    exact = [
        (file_of(wide, "wide.png"), 64, 3), (file_of(tall, "tall.png"), 64, 3), (file_of(wide, "grey.png"), 28, 1),
        (file_of(tall, "tall.jpg", "JPEG", quality=90), 96, 3), (file_of(clear, "clear.png"), 32, 3),
        (file_of(tall, "turned.png", exif=turned), 48, 3), (file_of(photo(17, 23), "small.png"), 32, 3),
        (file_of(wide.quantize(64), "palette.png"), 32, 3), (file_of(wide, "x.webp", "WEBP", lossless=True), 32, 3),
        (file_of(tall, "turned.jpg", "JPEG", quality=90, exif=turned), 96, 3),
    ]  # fmt: skip
    near = [
        (file_of(photo(1600, 1200), "large.jpg", "JPEG", quality=85), 64, 3),
        (file_of(photo(900, 1300), "large-turned.jpg", "JPEG", quality=85, exif=turned), 32, 3),
        (file_of(photo(1301, 977).convert("L"), "large-grey.jpg", "JPEG", quality=85), 28, 1),
    ]
    for (file, size, channels), most in [(case, 0.0) for case in exact] + [(case, 0.5) for case in near]:
        expected = to_array(file["buffer"], size, channels, fit=fit)
        seen = page.evaluate(
            """async ([text, how]) => {
              const file = new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]);
              return Array.from(Pixels.seen(await Pixels.open(file, 'it'), how));
            }""",
            [base64.b64encode(file["buffer"]).decode(), {"size": size, "channels": channels, "fit": fit}],
        )
        difference = abs(np.array(seen, np.int64).reshape(expected.shape) - expected)
        assert difference.mean() <= most, f"{file['name']}: {difference.mean():.3f}, at most {difference.max()}"


def test_a_colour_network_answers_photographs(tab: Any, tmp_path: Path, runtime: Path) -> None:
    """With weights drawn at random: what counts is that the same picture gives the same answer."""
    import torch

    from iekd.models.artifact import save_model
    from iekd.models.registry import build

    torch.manual_seed(0)
    model = build("resnet8", 4, 3)
    card = ModelCard(
        "resnet8", ("folder:/home/me/pets",), ("ant", "bee", "cat", "<b>dog</b>"), 3, 32, (0.5,) * 3, (0.25,) * 3, None,
        params=78_000, fit="pad",
    )  # fmt: skip
    save_model(tmp_path / "model", model, card)
    export_page([tmp_path / "model"], tmp_path / "page", runtime=runtime)
    files = [file_of(photo(400 + 40 * i, 300), f"{i}.jpg", "JPEG", quality=90) for i in range(5)]
    with served(tmp_path / "page") as url:
        tab.goto(url)
        tab.wait_for_selector("[data-state=ready]")
        assert "pets" in tab.inner_text("h1")
        assert "/home/me" not in tab.content()
        choose(tab, *files)
        found = rows(tab)
        assert tab.inner_text(".said strong") in card.class_names  # also where a class looks like HTML
    for file in files:
        expected = probabilities(tmp_path / "model", to_array(file["buffer"], 32, 3, fit="pad")[None])[0]
        (label, percent) = found[file["name"]][0]
        assert label == card.class_names[expected.argmax()]
        assert abs(percent - 100 * expected.max()) < 1.5


def test_every_network_is_shown_with_size_time_and_accuracy(page: Any) -> None:
    choose(page, file_of(held_out_image(3), "3.png"))
    cards = page.locator(".network")
    assert cards.locator("h3").all_inner_texts() == TITLES
    for i, source in enumerate(SHIPPED):
        card, facts = ModelCard.read(source), cards.nth(i).locator("dl").inner_text()
        assert f"{card.params:,}" in facts
        assert f"{card.accuracy:.2f} %" in facts
        assert re.search(r"\d ms", facts)
        bars = cards.nth(i).locator("li").all_inner_texts()
        assert len(bars) == 5
        assert all(re.search(r"\d %$", bar) for bar in bars)
    assert "3.5 × smaller" in cards.nth(1).inner_text()


def test_an_example_is_marked_right_or_wrong(page: Any) -> None:
    sample = data.load("fashion-mnist-sample")
    first = [int(np.flatnonzero(sample.test.labels == k)[0]) for k in range(10)]
    for k in (6, 9):
        before = done(page)
        page.locator("#examples button").nth(k).click()
        wait_until(lambda before=before: done(page) == before + 1)
        assert page.inner_text("#picture figcaption") == f"It is: {sample.class_names[k]}"
        for i, source in enumerate(SHIPPED):
            right = probabilities(source, sample.test.images[first[k]][None]).argmax() == k
            assert page.locator(".network .mark").nth(i).inner_text().startswith("✓ right" if right else "✗ wrong")


def test_what_is_unlike_the_training_images_is_marked_as_in_compare(page: Any) -> None:
    rng = np.random.default_rng(0)
    pictures = {f"test{row}.png": held_out_image(row) for row in range(25)}
    pictures |= {f"noise{i}.png": Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)) for i in range(5)}
    models = dict(zip(("teacher", "baseline", "ie-ft"), SHIPPED, strict=True))
    files = {name: file_of(picture, name) for name, picture in pictures.items()}
    compared = compare(models, [(name, io.BytesIO(file["buffer"])) for name, file in files.items()])
    expected = {result.name: result.unlike for result in compared}
    assert 5 <= sum(map(bool, expected.values())) < 20
    choose(page, *files.values())
    lines = page.locator("#history tbody tr").all()
    marked = {line.locator("button").get_attribute("title"): line.locator(".unlike").count() for line in lines}
    assert {name: bool(marked[name]) for name in files} == {name: bool(words) for name, words in expected.items()}
    for name in ("noise0.png", next(name for name, words in expected.items() if not words)):
        page.locator(f"#history button[title='{name}']").click()
        assert page.inner_text("#unlike") == expected[name]
        assert page.locator("#unlike").is_visible() == bool(expected[name])


def test_a_photograph_on_white_is_swapped_as_in_compare(page: Any) -> None:
    dark = np.asarray(held_out_image(5))
    choose(page, file_of(Image.fromarray(dark), "dark.png"), file_of(Image.fromarray(255 - dark), "white.png"))
    page.locator("#history button", has_text="white.png").click()
    assert "bright and dark swapped" in page.inner_text("#seen-words")
    found = rows(page)
    assert found["dark.png"] == found["white.png"]


def test_a_picture_is_pasted(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    picture = base64.b64encode(file_of(held_out_image(7), "7.png")["buffer"]).decode()
    page.evaluate(
        """async (text) => {
          const file = new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], {type: 'image/png'});
          await navigator.clipboard.write([new ClipboardItem({'image/png': file})]);
        }""",
        picture,
    )
    page.keyboard.press("Control+V")
    wait_until(lambda: done(page) == 2)
    expected = probabilities(SHIPPED[0], np.asarray(held_out_image(7))[None, ..., None])[0].argmax()
    assert page.inner_text(".said strong") == data.load("fashion-mnist-sample").class_names[expected]
    page.evaluate("() => navigator.clipboard.writeText('words')")
    page.keyboard.press("Control+V")
    assert "no image in the clipboard" in page.locator(".problem").inner_text()


def test_pictures_are_dropped(page: Any) -> None:
    dropped = page.evaluate_handle(
        """(text) => {
          const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
          const data = new DataTransfer();
          data.items.add(new File([bytes], 'dropped.png', {type: 'image/png'}));
          return data;
        }""",
        base64.b64encode(file_of(held_out_image(8), "8.png")["buffer"]).decode(),
    )
    page.dispatch_event("h1", "drop", {"dataTransfer": dropped})
    wait_until(lambda: done(page) == 2)
    assert "dropped.png" in rows(page)


def test_what_cannot_be_read_is_named_and_the_others_are_answered(page: Any) -> None:
    good = file_of(held_out_image(1), "good.png")
    half = file_of(photo(200, 200), "half.png")
    half["buffer"] = half["buffer"][: len(half["buffer"]) // 3]
    text = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    deep = file_of(Image.fromarray(np.full((9, 9), 3000, np.uint16)), "scan.png")
    bomb = file_of(Image.new("L", (5000, 4100)), "bomb.png")
    choose(page, text, half, deep, bomb, good)
    problems = page.locator(".problem").all_inner_texts()
    for name, word in (
        ("notes.txt", "Use PNG"),
        ("half.png", "broken"),
        ("scan.png", "16 bits"),
        ("bomb.png", "20 million"),
    ):
        assert any(name in problem and word in problem for problem in problems), (name, problems)
    assert "good.png" in rows(page)


def test_the_camera_answers_live_and_takes_a_picture(page: Any) -> None:
    page.click("#camera")
    page.wait_for_selector("#answer.live")
    page.click("#shoot")
    wait_until(lambda: done(page) == 2)
    assert any("camera" in name for name in rows(page))
    assert page.evaluate(
        "document.querySelector('#video').srcObject.getTracks().every((t) => t.readyState === 'ended')"
    )


def test_a_browser_without_webassembly_is_told_so(tab: Any, address: str) -> None:
    tab.add_init_script("delete window.WebAssembly")
    tab.goto(address)
    tab.wait_for_selector("[data-state=broken]")
    assert "no WebAssembly" in tab.inner_text("#problems")


def test_a_page_opened_as_a_file_says_what_to_do(tab: Any, folder: Path) -> None:
    tab.goto((folder / "index.html").as_uri())
    tab.wait_for_selector("[data-state=broken]")
    assert "python -m http.server" in tab.inner_text("#problems")


def test_a_file_that_is_missing_or_was_changed_is_named(tab: Any, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    script, teacher = copy / "runtime" / SCRIPT, next((copy / "models").glob("*teacher.onnx"))
    script.write_bytes(script.read_bytes() + b"\n")  # as a careless or hostile host would
    with served(copy) as url:
        tab.goto(url)
        tab.wait_for_selector("[data-state=broken]")
        assert SCRIPT in tab.inner_text("#problems")
    shutil.copyfile(folder / "runtime" / SCRIPT, script)
    teacher.unlink()
    with served(copy) as url:  # another port: nothing comes from the browser's cache
        tab.goto(url)
        tab.wait_for_selector("[data-state=broken]")
        assert teacher.name in tab.inner_text("#problems")


def test_without_a_copy_the_page_loads_the_pinned_version(tab: Any, tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder / "models", tmp_path / "models")
    files = sorted((tmp_path / "models").glob("*.onnx"))
    write_page(tmp_path, [PageNetwork(file, ModelCard.read(of)) for file, of in zip(files, SHIPPED, strict=True)])
    asked = []

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        name = route.request.url.rsplit("/", 1)[1]
        headers = {"Access-Control-Allow-Origin": "*"}
        route.fulfill(body=(folder / "runtime" / name).read_bytes(), headers=headers)

    tab.context.route(f"{CDN}/**", answer)
    with served(tmp_path) as url:
        tab.goto(url)
        tab.wait_for_selector("[data-state=ready], [data-state=broken]")
        if (folder / "runtime" / SCRIPT).stat().st_size == PINNED[SCRIPT][0]:
            choose(tab, file_of(held_out_image(0), "0.png"))
            assert len(rows(tab)["0.png"]) == 3
        else:  # IEKD_ORT_WEB names another version, which is not what the page expects
            assert SCRIPT in tab.inner_text("#problems")
    assert {f"{CDN}/npm/onnxruntime-web@{VERSION}/dist/{name}" for name in (SCRIPT, WASM)} == set(asked)


def test_on_a_phone_nothing_is_wider_than_the_screen_and_dark_is_dark(browser: Any, address: str) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(
            viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True, is_mobile=True
        )
        phone = context.new_page()
        phone.set_default_timeout(1000 * PATIENCE)
        phone.goto(address)
        phone.wait_for_selector("#answer:not([hidden])")
        choose(phone, file_of(held_out_image(2), "a picture with a very long name that has no end in sight at all.png"))
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390
        colour = phone.evaluate("getComputedStyle(document.body).backgroundColor")
        shades[scheme] = sum(map(int, re.findall(r"\d+", colour)[:3]))
        context.close()
    assert shades["dark"] < 120
    assert shades["light"] > 600
