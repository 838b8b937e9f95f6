"""In a real browser: cards of classes are filled with images, and what is on them becomes a dataset."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import ARGUMENTS, find_browser
from PIL import Image
from ui_helpers import PATIENCE, serving

pytestmark = pytest.mark.browser
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # Chromium's own test picture
SEND = """([selector, kind, name, bytes, folder]) => {
  const file = new File([new Uint8Array(bytes)], name, {type: name.endsWith('.txt') ? 'text/plain' : 'image/png'});
  const transfer = new DataTransfer();
  transfer.items.add(file);
  const event = kind === 'paste'
    ? new ClipboardEvent('paste', {clipboardData: transfer, bubbles: true, cancelable: true})
    : new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true});
  if (folder) {  // a browser gives no script a folder that the script itself made up
    const inside = [{isFile: true, name, file: (done) => done(file)}];
    const around = (name, inside) =>
      ({isFile: false, name, createReader: () => ({readEntries: (done) => done(inside.splice(0))})});
    const entry = folder.split('/').reduceRight((inner, name) => [around(name, inner)], inside)[0];
    const items = [{webkitGetAsEntry: () => entry}];
    Object.defineProperty(event, 'dataTransfer', {value: {files: [], items}});
  }
  document.querySelector(selector).dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The cards on a page over a folder of runs, `page.runs`."""
    from playwright.sync_api import sync_playwright

    root = tmp_path_factory.mktemp("runs")
    with serving(root) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=[*ARGUMENTS, *CAMERA])
        made = browser.new_page()
        made.set_default_timeout(1000 * PATIENCE)
        made.runs, made.address = root, f"{url}/?tab=train"
        yield made
        browser.close()


@pytest.fixture
def cards(page: Any) -> Any:
    """The page with two empty cards."""
    page.goto(page.address)
    page.locator("#f-dataset label", has_text="Your own images").click()
    page.wait_for_selector(".class-card")
    return page


def png(size: tuple[int, int] = (20, 20), colour: Any = (200, 30, 30), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


def send(page: Any, selector: str, kind: str, name: str = "a.png", content: bytes = b"", folder: str = "") -> None:
    """Drop or paste a file, or a folder with it; pets/cats is a folder within another."""
    page.evaluate(SEND, [selector, kind, name, list(content or png()), folder])


def choose(card: Any, *files: tuple[str, bytes]) -> None:
    given = [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files]
    card.locator("input[type=file]").set_input_files(given)


def has(card: Any, count: int) -> None:
    card.locator(".card-count", has_text=f"{count} image").wait_for()


def sent(page: Any) -> list[Path]:
    """What was uploaded and unpacked."""
    return sorted(page.runs.glob(".pictures/*"))


def said(page: Any, text: str) -> None:
    page.locator(".card-said", has_text=text).wait_for()


def test_images_come_by_choice_drop_paste_and_camera_and_become_a_dataset(cards: Any) -> None:
    first, second = cards.locator(".class-card").nth(0), cards.locator(".class-card").nth(1)
    assert cards.locator(".card-use").is_disabled()
    first.locator("input[type=text]").fill("große Äpfel")
    choose(first, *((f"{i}.png", png(colour=(i, 9, 9))) for i in range(5)))
    has(first, 5)
    choose(first, ("wide.png", png((3000, 1500), (0, 0, 255, 128), "RGBA")))
    has(first, 6)
    second.locator("input[type=text]").fill("pears")
    for i in range(3):
        send(cards, ".class-card:nth-child(2)", "drop", content=png(colour=(9, i, 9)))
        has(second, i + 1)
    second.locator("input[type=text]").focus()
    for i in range(3, 6):
        send(cards, "body", "paste", content=png(colour=(9, i, 9)))
        has(second, i + 1)
    second.get_by_label("Remove image 1 of pears").click()
    has(second, 5)
    send(cards, ".card-add", "drop", content=png(colour=(9, 9, 200)), folder="plums")
    third = cards.locator(".class-card").nth(2)
    has(third, 1)
    assert third.locator("input[type=text]").input_value() == "plums"
    third.get_by_role("button", name="Camera").click()
    third.locator("video").wait_for()
    hold = third.get_by_role("button", name="Hold to take pictures")
    cards.wait_for_function("() => document.querySelector('.card-camera video').videoWidth > 0")
    hold.hover()
    cards.mouse.down()
    has(third, 4)
    cards.mouse.up()
    said(cards, "much alike")
    third.get_by_role("button", name="Close camera").click()
    taken = int(third.locator(".card-count").inner_text().split()[0])
    cards.locator(".card-use").click()
    cards.wait_for_selector(f"#uploaded .note:has-text('images.zip: {11 + taken} images of 3 classes')")
    (folder,) = (cards.runs / ".pictures").iterdir()
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"große Äpfel", "pears", "plums"}
    sizes = {path.name: Image.open(path) for path in sorted((folder / "große Äpfel").iterdir())}
    (wide,) = [image for image in sizes.values() if image.width > 20]
    assert wide.size == (1024, 512), "smaller before it is sent"
    assert abs(wide.convert("RGB").getpixel((9, 9))[0] - 127) < 4, "half blue on white"
    cards.wait_for_selector("#forecast:has-text('3 classes')")


def test_folders_within_a_dropped_folder_are_the_classes(cards: Any) -> None:
    send(cards, ".card-add", "drop", content=png(colour=(9, 9, 200)), folder="pets/cats")
    first = cards.locator(".class-card").nth(0)  # an empty one
    has(first, 1)
    assert first.locator("input[type=text]").input_value() == "cats"
    send(cards, ".card-add", "drop", content=png(), folder="dataset/train/cats")
    said(cards, "dataset has its own split")
    has(first, 1)


def test_what_cannot_be_used_is_said_and_nothing_is_sent(cards: Any) -> None:
    first, second = cards.locator(".class-card").nth(0), cards.locator(".class-card").nth(1)
    before = sent(cards)
    use = cards.locator(".card-use")
    send(cards, ".class-card", "drop", "notes.txt", b"not an image")
    said(cards, "'notes.txt' is not an image and was left out.")
    choose(first, ("a.png", png()))
    has(first, 1)
    use.click()
    said(cards, "Fill at least two classes")
    choose(second, ("a.png", png()))
    has(second, 1)
    second.locator("input[type=text]").fill("class 1 ")
    use.click()
    said(cards, "Two classes are called 'class 1'")
    second.locator("input[type=text]").fill("either/or")
    use.click()
    said(cards, "'either/or' cannot be the name of a class")
    second.locator("input[type=text]").fill("b")
    cards.locator(".card-add").click()
    use.click()
    said(cards, "'Class 3' has no images")
    cards.get_by_label("Remove Class 3").click()
    assert cards.locator(".class-card").count() == 2
    assert sent(cards) == before


def test_a_camera_that_may_not_be_used_is_explained(cards: Any) -> None:
    refuse = "async () => { throw new DOMException('no', 'NotAllowedError'); }"
    cards.evaluate(f"() => {{ navigator.mediaDevices.getUserMedia = {refuse}; }}")
    cards.get_by_role("button", name="Camera").first.click()
    said(cards, "this page was not allowed to")


def test_the_cards_keep_their_images_when_the_form_is_built_again(cards: Any) -> None:
    """As Gradio does when somebody comes back from a run."""
    choose(cards.locator(".class-card").first, ("a.png", png()), ("b.png", png(colour=(1, 1, 1))))
    has(cards.locator(".class-card").first, 2)
    cards.evaluate("() => document.querySelector('#class-cards').replaceChildren()")
    has(cards.locator(".class-card").first, 2)


def test_a_broken_image_of_a_known_kind_is_left_to_the_server(cards: Any) -> None:
    """A browser that cannot read HEIC says nothing about whether the file is broken."""
    first, second = cards.locator(".class-card").nth(0), cards.locator(".class-card").nth(1)
    good = [(f"{i}.png", png(colour=(i, 9, 9))) for i in range(5)]
    choose(first, *good, ("broken.heic", b"no image"))
    has(first, 6)
    choose(second, *good)
    has(second, 5)
    cards.locator(".card-use").click()
    cards.wait_for_selector("#uploaded .note:has-text('images of 2 classes'), #uploaded .problem")
    assert "heic" in cards.locator("#uploaded").inner_text()
