"""The landing page: images chosen by the rule, the numbers of the networks, and pictures dropped anywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ui_helpers import PATIENCE, ROOT

from iekd import data
from iekd.errors import UserError
from iekd.inference.classifier import open_classifier
from iekd.inference.showcase import FILE, SHOWN, chosen_rows, make_showcase, read_showcase, write_showcase
from iekd.models.artifact import ModelCard
from iekd.runs.models import demo_models
from iekd.ui.render.demo import demo_html

CHECKPOINTS = ROOT / "checkpoints"


def test_rows_are_the_first_of_each_kind_in_their_proportion():
    plain = np.array([0, 0, 1, 0, 1, 0, 1, 0, 0, 0], bool)
    taught = np.array([1, 1, 0, 1, 1, 0, 0, 1, 1, 1], bool)  # 6 gains, 2 losses
    assert chosen_rows(plain, taught, 4) == [0, 1, 2, 3]
    assert chosen_rows(plain, taught, 100) == [0, 1, 2, 3, 6, 7, 8, 9]
    assert chosen_rows(plain, plain, 4) == []
    assert chosen_rows(taught, plain, 4) == [0, 1, 2, 3], "a student that loses more shows more losses"
    assert chosen_rows(taught, taught ^ (np.arange(10) == 9), 4) == [9]


def test_the_shipped_showcase_is_what_the_shipped_networks_say():
    """Made again from the weights, up to the last image that is shown; tests/models holds the accuracies to them."""
    show = read_showcase(CHECKPOINTS)
    assert show is not None
    assert len(show.shown) == SHOWN
    test = data.load(show.dataset).test
    assert show.both + show.gained + show.lost + show.neither == show.images == len(test)
    first = show.shown[-1].index + 1
    probabilities, names = {}, ()
    for name, folder in show.models.items():
        classifier = open_classifier(CHECKPOINTS / folder)
        names = classifier.card.class_names
        probabilities[name] = classifier.probabilities(test.images[:first])
        if name != "teacher":
            right, of_all = show.both + (show.lost if name == "baseline" else show.gained), classifier.card.accuracy
            assert show.tested == show.images, "of a sample, its accuracy would be near the card's"
            assert round(100 * right / show.images, 2) == of_all
    plain, taught = (probabilities[name].argmax(1) == test.labels[:first] for name in ("baseline", show.taught))
    gains = round(SHOWN * show.gained / (show.gained + show.lost))
    rule = [*np.flatnonzero(taught & ~plain)[:gains], *np.flatnonzero(plain & ~taught)[: SHOWN - gains]]
    assert [one.index for one in show.shown] == sorted(rule)
    for one in show.shown:
        assert one.label == names[test.labels[one.index]]
        for name, top in one.predictions.items():
            found = probabilities[name][one.index]
            assert [label for label, _ in top] == [names[k] for k in np.argsort(-found)[: len(top)]]
            np.testing.assert_allclose([p for _, p in top], np.sort(found)[::-1][: len(top)], atol=1e-3)


def test_a_showcase_counts_what_the_networks_say():
    labels = np.array([0, 1, 1, 0])
    sure = np.eye(2, dtype=np.float32)
    said = {"teacher": sure[labels], "baseline": sure[[0, 0, 1, 1]], "ie-ft": sure[[0, 1, 0, 1]]}
    made = make_showcase("two", {name: name for name in said}, said, labels, ("a", "b"))
    assert (made.images, made.both, made.gained, made.lost, made.neither) == (4, 1, 1, 1, 1)
    assert [(one.index, one.label) for one in made.shown] == [(1, "b"), (2, "b")]
    assert made.shown[0].predictions["baseline"] == [("a", 1.0), ("b", 0.0)]


def test_the_page_takes_its_numbers_from_the_cards(monkeypatch, tmp_path):
    html = demo_html()
    for folder in read_showcase(CHECKPOINTS).models.values():
        assert f"{ModelCard.read(CHECKPOINTS / folder).accuracy:.1f} %" in html
    copied = shutil.copytree(CHECKPOINTS, tmp_path / "checkpoints")
    card = copied / "fashion-mnist-resnet8-ie-ft" / "model.json"
    card.write_text(card.read_text().replace('"accuracy": 87.99', '"accuracy": 12.34'))
    monkeypatch.setenv("IEKD_CHECKPOINTS_DIR", str(copied))
    assert "12.3 %" in demo_html()


@pytest.fixture
def with_ft(tmp_path, monkeypatch):
    """The shipped networks, and the IE student once more as one of FT; the demo is on fewer images than the cards."""
    copied = shutil.copytree(CHECKPOINTS, tmp_path / "checkpoints")
    show = read_showcase(CHECKPOINTS)
    shutil.copytree(copied / show.models["ie-ft"], copied / "ft")
    card = copied / "ft" / "model.json"
    card.write_text(card.read_text().replace('"method": "ie-ft"', '"method": "ft"').replace("87.99", "88.25"))
    models = {
        "teacher": show.models["teacher"],
        "baseline": show.models["baseline"],
        "ft": "ft",
        "ie-ft": show.models["ie-ft"],
    }
    labels, sure = np.arange(20) % 10, np.eye(10, dtype=np.float32)
    said = dict.fromkeys(models, sure[labels]) | {"baseline": sure[np.where(labels == 3, 5, labels)]}
    write_showcase(copied, make_showcase(show.dataset, models, said, labels, tuple("abcdefghij"), 10_000))
    monkeypatch.setenv("IEKD_CHECKPOINTS_DIR", str(copied))
    return copied


def test_further_students_stand_beside_the_two(with_ft):
    show = read_showcase(with_ft)
    assert (show.taught, show.tested, show.images, show.gained, show.lost) == ("ie-ft", 10_000, 20, 2, 0)
    html = demo_html()
    assert "Accuracy on 10,000 test images" in html
    assert "Of 20 test images" in html
    assert "The FT student is of the same size too" in html
    ladder = html[html.index('class="ladder"') :]
    order = [ladder.index(text) for text in ("94.4 %", "88.2 %", "88.0 %", "85.7 %")]
    assert order == sorted(order), "a student that is better than the IE student stands above it"
    assert html.count("<h3>FT student</h3>") == len(show.shown)


def test_compare_opens_with_the_networks_of_the_demo(with_ft):
    shutil.copytree(with_ft / "ft", with_ft / "a-later-one")
    assert {name: path.name for name, path in demo_models().items()} == read_showcase(with_ft).models
    shutil.rmtree(with_ft / "ft")
    assert list(demo_models()) == ["teacher", "baseline", "ft", "ie-ft"], "what is left, by their cards"


def test_a_file_that_names_no_ie_student_is_damaged_and_compare_does_without(with_ft):
    text = (with_ft / FILE).read_text()
    for damage in (text.replace('"ie-ft"', '"at"'), text.replace('"baseline"', '"plain"'), "{"):
        (with_ft / FILE).write_text(damage)
        with pytest.raises(UserError, match=r"showcase\.py"):
            read_showcase(with_ft)
        assert demo_html() == ""
        assert list(demo_models()) == ["teacher", "baseline", "ft", "ie-ft"]


def test_an_older_file_and_networks_for_other_classes(with_ft):
    values = json.loads((with_ft / FILE).read_text())
    values.pop("tested")
    (with_ft / FILE).write_text(json.dumps(values))
    assert read_showcase(with_ft).tested == 20
    (with_ft / FILE).unlink()
    card = with_ft / "ft" / "model.json"
    card.write_text(card.read_text().replace('"Bag"', '"Hat"'))
    assert list(demo_models()) == ["teacher", "baseline", "ie-ft"], "not a student for other classes"


def test_without_the_networks_or_the_file_there_is_no_landing_page(monkeypatch, tmp_path):
    monkeypatch.setenv("IEKD_CHECKPOINTS_DIR", str(tmp_path))
    assert demo_html() == ""
    shutil.copy(CHECKPOINTS / FILE, tmp_path)
    assert demo_html() == ""
    (tmp_path / FILE).write_text('{"shown": [{}]}')
    with pytest.raises(UserError, match=r"benchmarks/showcase\.py"):
        read_showcase(tmp_path)
    assert demo_html() == ""


@pytest.fixture
def landing(browser: Any, server: str) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(server)
    page.wait_for_selector("html[data-opened] .slide.now")
    yield page
    context.close()


@pytest.mark.browser
def test_it_opens_with_pictures_and_turns_without_moving(landing: Any) -> None:
    show = read_showcase(CHECKPOINTS)
    box = landing.locator(".turn").bounding_box()
    seen = []
    for _ in show.shown:
        seen.append(landing.locator(".slide.now figcaption b").inner_text())
        landing.get_by_role("button", name="Next image").click()
    assert seen == [one.label for one in show.shown]
    assert landing.locator(".turn .at").inner_text() == "1", "after the last comes the first"
    assert landing.locator(".turn").bounding_box() == box
    landing.locator(".strip button").nth(4).click()
    assert landing.locator(".turn .at").inner_text() == "5"
    landing.keyboard.press("ArrowRight")
    assert landing.locator(".strip button[aria-pressed=true]").get_attribute("data-slide") == "5"


DROP = """async ([kind, bytes]) => {
  const given = new DataTransfer();
  given.items.add(new File([new Uint8Array(bytes)], 'mine.png', {type: 'image/png'}));
  const init = {bubbles: true, cancelable: true};
  const event = kind === 'paste'
    ? new ClipboardEvent('paste', {clipboardData: given, ...init})
    : new DragEvent('drop', {dataTransfer: given, ...init});
  document.querySelector('.demo h2').dispatchEvent(event);
}"""


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_from_anywhere_on_the_page_is_answered(landing: Any, kind: str, pictures: Path) -> None:
    for picture in sorted((pictures / "test" / "disc").iterdir())[:2]:
        landing.evaluate("document.querySelector('#demo-answer .answers')?.remove()")
        landing.evaluate(DROP, [kind, list(picture.read_bytes())])
        landing.wait_for_selector("#demo-answer .answer .said")
        assert landing.locator("#demo-answer .answer").count() == 1
    assert landing.locator("#demo-answer .answer .said").count() == 3


@pytest.mark.browser
def test_its_buttons_lead_to_the_form(landing: Any) -> None:
    landing.locator("#to-train").click()
    landing.wait_for_selector("#start:visible")
    assert "tab=train" in landing.url
    landing.get_by_role("tab", name="Demo").click()
    landing.locator("#to-own").click()
    landing.wait_for_selector("#f-folder:visible")
    landing.reload()
    landing.wait_for_selector("#start:visible")
    assert not landing.locator(".slide.now").is_visible()


@pytest.mark.browser
def test_a_phone_shows_it_without_scrolling_sideways(landing: Any) -> None:
    landing.set_viewport_size({"width": 390, "height": 800})
    assert landing.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert landing.locator("#demo .verdict").first.is_visible()
