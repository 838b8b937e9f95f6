"""The Compare tab's section that explains networks: what is shown of an invented result, who may see what, and the
whole of it in a browser with the shipped networks."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ui_helpers import CLIENT, PATIENCE, call, serving

from iekd.config.run import make_config
from iekd.explain.about import HALVES, LRP
from iekd.explain.cka import StageSimilarity
from iekd.explain.explain import ExplainedNetwork, Explanation, Problem
from iekd.explain.flatness import Flatness
from iekd.explain.halves import HalvesWorth
from iekd.explain.maps import Conservation, Faithfulness, RelevanceMaps
from iekd.explain.neurons import ActiveNeurons
from iekd.explain.report import map_arrays, write
from iekd.explain.sample import Sample
from iekd.runs.explained import MADE_FROM, Explained, choose, explainer_of, made_from, read
from iekd.runs.models import demo_models
from iekd.runs.store import Store
from iekd.ui.api.explain import explain
from iekd.ui.render.explain import maps_html, numbers_html
from iekd.ui.rights.access import Access
from iekd.ui.tabs.explain import MAPS_HIDDEN, NOT_EXPLAINED, asked_for, without_options

EVIL = "<img src=x onerror=alert(1)>"
LABELS = ["teacher", "plain", "ie", "ie inheritance", "ie exploration"]


def invented(**changes: Any) -> Explanation:
    """A teacher, a plain student and an IE student with its halves on two images, with numbers that are easy to find.
    The first image is right in all but the plain student, the second in that alone."""
    networks = (
        ExplainedNetwork("teacher", "resnet20", "baseline", "teacher", 0, 94.0, {}),
        ExplainedNetwork("plain", "resnet8", "baseline", "student", 0, 85.0, {}),
        ExplainedNetwork("ie", "resnet8", "ie-ft", "student", 0, 88.0, {"inheritance": 2, "exploration": 2}),
    )
    said = {"teacher": ("cat", "dog"), "plain": ("dog", "dog"), "ie": ("cat", "cat")}
    rng = np.random.default_rng(0)

    def maps(method: str) -> list[RelevanceMaps]:
        return [
            RelevanceMaps(method, name, half, said[name], rng.normal(size=(2, 4, 4)).astype(np.float32),
                          Faithfulness(0.1, 0.4, 0.3 if name != "plain" else 0.05, 0.01),
                          Conservation(0.3, 0.7, 0.001) if method == "lrp" else None)
            for name, _, half in (label.partition(" ") for label in LABELS)
        ]  # fmt: skip

    alike = np.eye(5) + 0.5 * (1 - np.eye(5))
    alike[0, 3] = alike[3, 0] = 0.81
    values = {
        "networks": networks, "class_names": ("cat", "dog"), "sample_size": 512,
        "pictures": Sample(rng.integers(0, 255, (2, 4, 4, 3)).astype(np.uint8), ("1.png", "2.png"), np.array([0, 1])),
        "maps": maps("grad-cam") + maps("lrp"),
        "similarity": [
            StageSimilarity(-1, 256, tuple(LABELS), tuple(map(tuple, alike.tolist()))),
            StageSimilarity(-2, 256, tuple(LABELS[:3]), ((1.0, 0.7, None), (0.7, 1.0, 0.6), (None, 0.6, 1.0))),
        ],
        "neurons": [ActiveNeurons(-1, n, 100, 40.0 + i, 0.4 + i / 100, 4, int(i == 1)) for i, n in enumerate(LABELS)],
        "flatness": [
            Flatness(n, 128, (0.0, 0.4), (0, 1), (), (0.5, 1.0 + i), (0.0, 0.1), (90.0, 50.0))
            for i, n in enumerate(LABELS[:3])
        ],
        "halves": [HalvesWorth("ie", "ie", 512, 85.2, 61.3, 59.7, ((82.0, 88.0), (57.0, 65.0), (55.0, 64.0)))],
    }  # fmt: skip
    return Explanation(**{**values, **changes})


def explained(found: Explanation) -> Explained:
    arrays = map_arrays(found)
    return Explained(json.loads(json.dumps(found.to_json())), arrays["images"], [m.maps for m in found.maps])


def text_of(html: str) -> str:
    """What a reader sees."""
    return " ".join(unescape(re.sub(r"<svg.*?</svg>|<[^>]*>", " ", html, flags=re.DOTALL)).split())


def test_every_network_and_half_has_a_map_of_each_kind_for_each_image() -> None:
    html = maps_html(explained(invented()))
    assert html.count('class="map"') == 2 * 5 * 2
    assert len(re.findall(r'src="(data:[^"]+)" alt="">', html)) == 2 * 5 * 3, "two maps over the grey image"
    text = text_of(html)
    for title in ("Teacher", "Plain student", "IE student", "Inheritance half", "Exploration half"):
        assert title in text
    assert "✗ dog" in text
    assert "only the IE student is right on 1 of them, only the plain student on 1" in text
    assert "0.30 ± 0.01" in text
    assert "part of the score (70.0 % in the teacher, 70.0 % in the plain student and 70.0 % in the IE student)" in text
    assert "the Grad-CAM maps of the plain student and the LRP maps of the plain student cannot be told" in text


def test_texts_of_images_and_networks_are_escaped() -> None:
    found = invented(class_names=(EVIL, "dog"), problems=[Problem(LRP, "ie", EVIL)])
    evil = replace(found, pictures=replace(found.pictures, names=(EVIL, EVIL), unreadable=(EVIL,)))
    for html in (maps_html(explained(evil)), maps_html(explained(evil), own=True), numbers_html(explained(evil))):
        assert "<img src=x" not in html
    assert "&lt;img src=x" in maps_html(explained(evil))


def test_the_sentences_say_what_the_numbers_say() -> None:
    text = text_of(numbers_html(explained(invented())))
    for sentence in (
        "0.50 for the plain student, 0.50 for the IE student, 0.81 for the inheritance half and 0.50 for the",
        "The inheritance half is closer to the teacher, as it was trained to be.",
        "The IE student classifies 85.2 % of 512 test images correctly, its inheritance half alone 61.3 %",
        "an image activates 40.0 % in the teacher, 41.0 % in the plain student",
        "Silent for all images: 1 channel of the plain student.",
        "from 0.50 to 3.00 (± 0.10) for the IE student. Of the two students, the plain student is in the flatter",
    ):
        assert sentence in text.replace("\N{NO-BREAK SPACE}", " ")


def test_the_sentences_do_not_say_more_than_the_numbers() -> None:
    found = invented()
    wide = [replace(one, deviation=(0.0, 3.0)) for one in found.flatness]
    cka = found.similarity[0]
    values = [list(row) for row in cka.values]
    values[0][3] = values[0][4] = 0.5
    same = replace(cka, values=tuple(map(tuple, values)))
    text = text_of(numbers_html(explained(replace(found, flatness=wide, similarity=[same]))))
    assert "neither can be called flatter" in text
    assert "equally close to the teacher" in text
    values[0][4] = 0.7
    other = replace(cka, values=tuple(map(tuple, values)))
    text = text_of(numbers_html(explained(replace(found, similarity=[other]))))
    assert "The exploration half is closer to the teacher, although" in text
    maps = [
        replace(m, faithfulness=replace(m.faithfulness, score=-0.5) if m.network == "teacher" else m.faithfulness)
        for m in found.maps
    ]
    text = text_of(maps_html(explained(replace(found, maps=maps))))
    assert "the LRP maps of the teacher are worse than a random order, and the Grad-CAM maps of the plain" in text
    none = [replace(m, faithfulness=Faithfulness(0.1, 0.1, -0.001, 0.5)) for m in found.maps]
    text = text_of(maps_html(explained(replace(found, maps=none))))
    assert "none of the maps can be told from a random order" in text
    assert "\N{MINUS SIGN}0.00" not in text
    lossy = [(m.conservation and replace(m, conservation=Conservation(0.3, 0.6, 0.1))) or m for m in found.maps]
    assert "do not rely on these maps" in text_of(maps_html(explained(replace(found, maps=lossy))))
    one = replace(found, pictures=found.pictures.first(1))
    assert "One image is too little" in text_of(maps_html(explained(one)))


def test_what_does_not_apply_says_why_and_the_rest_is_shown() -> None:
    found = invented()
    without = replace(
        found,
        networks=found.networks[1:2],
        maps=[maps for maps in found.maps if maps.network == "plain" and maps.method == "grad-cam"],
        similarity=[], neurons=[one for one in found.neurons if one.name == "plain"], flatness=[], halves=[],
        problems=[
            Problem(LRP, "plain", "LRP has no rule for 'gelu', which 'plain' computes."),
            Problem(HALVES, "", "None of these networks has inheritance and exploration halves."),
        ],
    )  # fmt: skip
    maps, numbers = (text_of(html(explained(without))) for html in (maps_html, numbers_html))
    assert "LRP of the plain student: LRP has no rule for 'gelu', which the plain student computes." in maps
    assert "None of these networks has inheritance and exploration halves." in numbers
    assert "There is no teacher here" in numbers
    assert "41.0" in numbers
    some = replace(found, maps=[m for m in found.maps if (m.method, m.network) != ("lrp", "teacher")])
    assert maps_html(explained(some)).count("LRP does not apply") == 2  # in each image's place
    blind = maps_html(explained(replace(found, maps=[m for m in found.maps if m.network != "plain"])))
    assert blind.count('class="verdict') == 2 * 2, "nobody knows what a network without maps predicts"
    assert "Test images on which" not in text_of(blind)


def test_a_network_alone_is_compared_with_nothing() -> None:
    found = invented()
    only = replace(found, networks=found.networks[1:2], maps=[], neurons=[], flatness=[], halves=[],
                   similarity=[StageSimilarity(-1, 256, ("plain",), ((1.0,),))])  # fmt: skip
    html = numbers_html(explained(only))
    assert "There is no teacher to compare with." in text_of(html)
    assert "Last stage" not in html, "a table of one network is empty"


def test_only_some_of_many_own_images_get_maps_and_the_page_says_so() -> None:
    found = explained(replace(invented(), pictures=replace(invented().pictures, unreadable=("'a.png' is broken.",))))
    assert "Maps of the first 3 of 40 images" in text_of(maps_html(found, own=True, given=40))
    assert "Maps of the first" not in text_of(maps_html(found, own=True, given=3))


def test_addresses_name_a_source_and_a_student() -> None:
    assert asked_for(":ie-ft") == ("", "ie-ft")
    assert asked_for("20261129-012815-e18404/1:ie-at+kd") == ("20261129-012815-e18404/1", "ie-at+kd")
    assert asked_for("nonsense") == ("", "nonsense")


class Asker:
    """Somebody who opens the page."""

    def __init__(self, name: str) -> None:
        self.session_hash, self.headers, self.cookies, self.client = name, {}, {}, None


def stored_run(root: Path, dataset: str) -> tuple[Store, str]:
    """A run with saved models, whose explanation is stored."""
    store = Store(root)
    run, handle = store.create(make_config(dataset=dataset, methods=("baseline", "ie-ft")))
    os.close(handle)
    for name in ("teacher", "baseline-seed0", "ie-ft-seed0"):
        (run.path / "models" / name).mkdir(parents=True)
        (run.path / "models" / name / "model.json").write_text("{}")
        (run.path / "models" / name / "model.safetensors").write_bytes(b"")
    return store, run.id


def begun(store: Store, run_id: str, access: Access, student: str = "") -> dict[str, Any]:
    """What opening the section shows, by the component's id."""
    import gradio as gr

    from iekd.ui.tabs.explain import explain_part

    with gr.Blocks():
        part = explain_part(store, access, gr.Dropdown([]), [gr.JSON(), gr.JSON(), gr.JSON()], lambda *_: [])
    updates = part.begin(run_id, student, Asker("one"))
    return {component.elem_id: value for component, value in updates.items()}


def test_a_stranger_sees_numbers_and_no_maps_of_somebodys_own_images(pictures: Path, tmp_path: Path) -> None:
    store, run_id = stored_run(tmp_path / "runs", f"folder:{pictures}")
    owner, stranger = Access(), Access(public=True)
    assert NOT_EXPLAINED in unescape(begun(store, run_id, stranger)["explain-status"])
    assert not (store.get(run_id).path / "explained").exists(), "a stranger has nothing computed"
    explainer = explainer_of(store)
    chosen = choose(store, run_id)
    folder = explainer._folder(chosen)
    write(invented(), folder, save_maps=True)
    (folder / MADE_FROM).write_text(json.dumps(made_from(chosen.models.values())))
    (folder / "explain.md").write_text(f"'{pictures}' is gone.")
    for access, sees in ((owner, True), (stranger, False)):
        shown = begun(store, run_id, access)
        assert ("data:image" in shown["explain-maps"]) == sees
        assert ("/explained/" in shown["explain-maps"]) == sees
        assert (MAPS_HIDDEN in unescape(shown["explain-maps"])) == (not sees)
        assert "85.2" in shown["explain-numbers"]
        assert shown["explained"] == f"{run_id}:ie-ft"
        told = explain(SimpleNamespace(_store=store, _access=access), run_id, "", Asker("one"))
        assert (str(pictures) in told["text"]) == sees, "where the images are is nobody's business"
        assert f"{pictures.name}' is gone" in told["text"]
        assert bool(told["address"]) == sees
    shutil.rmtree(folder)
    with pytest.raises(Exception, match="not there any more"):
        read(folder)


def test_a_run_of_a_plain_student_alone_can_be_opened(tmp_path: Path) -> None:
    """Gradio refuses every event of a list whose value is not among its choices, also that which looks for the end."""
    store, run_id = stored_run(tmp_path / "runs", "fashion-mnist-sample")
    shutil.rmtree(store.get(run_id).path / "models" / "ie-ft-seed0")
    chosen = choose(store, run_id)
    folder = explainer_of(store)._folder(chosen)
    write(invented(), folder, save_maps=True)
    (folder / MADE_FROM).write_text(json.dumps(made_from(chosen.models.values())))
    shown = begun(store, run_id, Access())
    assert "85.2" in shown["explain-numbers"]
    assert shown["explain-who"].choices == []
    assert shown["explain-who"].preprocess(shown["explain-who"].value) is None


def test_the_page_names_no_options_of_the_command_line() -> None:
    said = "There are no test images. cifar10 is not here. '--dataset cifar10' downloads it. Give some, with --images."
    assert without_options(said) == "There are no test images. cifar10 is not here."


def test_what_cannot_be_explained_is_said(tmp_path: Path) -> None:
    store, run_id = stored_run(tmp_path / "runs", "fashion-mnist-sample")
    assert "no student" in begun(store, run_id, Access(), "nobody")["explain-status"]
    assert "no run" in begun(store, "20200101-000000-aaaaaa", Access())["explain-status"].lower()


@pytest.fixture(scope="module")
def explaining(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page over a run that consists of the shipped networks."""
    root = tmp_path_factory.mktemp("explained")
    store = Store(root / "runs")
    run, handle = store.create(
        make_config(dataset="fashion-mnist-sample", methods=("baseline", "ie-ft"), name="Shipped")
    )
    os.close(handle)
    for name, folder in demo_models().items():
        shutil.copytree(folder, run.path / "models" / (name if name == "teacher" else f"{name}-seed0"))
    run.write_status(replace(run.status, state="finished"))
    with serving(store.root, IEKD_CACHE_DIR=str(root / "cache")) as url:
        yield f"{url}/?run={run.id}"


def opened(browser: Any, address: str, width: int) -> tuple[Any, list[str]]:
    page, errors = browser.new_page(viewport={"width": width, "height": 900}), []
    page.set_default_timeout(1000 * PATIENCE)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(address)
    return page, errors


@pytest.mark.browser
def test_from_a_run_to_its_maps_and_without_the_server_from_image_to_image(browser: Any, explaining: str) -> None:
    page, errors = opened(browser, explaining, 1440)
    page.locator("#to-explain").click()
    page.wait_for_selector("#explain-top .explain-status")
    page.wait_for_selector("#explain-maps .map-slide.now")
    titles = page.locator("#explain-maps .map-slide.now figcaption b").all_inner_texts()
    assert titles == ["The image", "Teacher", "Plain student", "IE student", "Inheritance half", "Exploration half"]
    assert page.evaluate("[...document.querySelectorAll('#explain-maps img')].every((i) => i.naturalWidth > 0)")
    assert not page.locator("#explain-cancel").is_visible()

    config = CLIENT.get(f"{explaining.partition('?')[0]}config").json()
    (chip,) = (one["id"] for one in config["components"] if one["props"].get("elem_id") == "chip")
    of_the_chip = {one["id"] for one in config["dependencies"] if one["outputs"] == [chip]}  # its clock goes on
    asked: list[Any] = []

    def note(request: Any) -> None:
        said = (request.post_data_json or {}).get("fn_index") if "/run/" in request.url else request.url
        if said not in of_the_chip and not request.url.startswith("data:"):
            asked.append(said)

    page.on("request", note)
    map_ = page.locator("#explain-maps .map-slide.now .map:visible").first
    before = map_.evaluate("(one) => getComputedStyle(one).opacity")
    page.locator("#explain-maps input[type=range]").fill("20")
    assert (before, map_.evaluate("(one) => getComputedStyle(one).opacity")) == ("0.8", "0.2")
    assert page.locator("#explain-maps output").inner_text() == "20 %"
    page.get_by_role("button", name="LRP", exact=True).click()
    assert (
        page.locator("#explain-maps .map-slide.now .map:visible").evaluate_all(
            "(all) => all.map((one) => one.dataset.of)"
        )
        == ["lrp"] * 5
    )
    page.locator("#explain-maps [data-turn='0']").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#explain-maps .map-slide.now").get_attribute("aria-label").startswith("Image 2 of 8")
    assert asked == []

    zipped = page.locator("#explain-maps .downloads a").first.get_attribute("href")
    packed = CLIENT.get(f"{explaining.partition('?')[0]}{zipped[2:]}")
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert {"explanation/explain.json", "explanation/maps/image-001.png"} <= set(archive.namelist())
    assert CLIENT.get(f"{explaining.partition('?')[0]}explained/guess").status_code == 404
    assert errors == []
    page.close()


def test_programs_get_the_same_as_text_and_zip(explaining: str) -> None:
    url, run_id = explaining.split("/?run=")
    kind, (found,) = call(url, "explain", run_id, "ie-ft")
    assert (kind, found["student"]) == ("complete", "ie-ft")
    assert "## What each half is worth" in found["text"]
    with zipfile.ZipFile(io.BytesIO(CLIENT.get(f"{url}/{found['address']}").content)) as archive:
        assert len(json.loads(archive.read("explanation/explain.json"))["images"]) == 8
    assert call(url, "explain", run_id, "fitnet")[0] == "error"


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_its_address_opens_it_for_everybody_on_every_screen(browser: Any, explaining: str, theme: str) -> None:
    """The second look finds what is stored."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    address, run_id = explaining.split("?run=")
    page, errors = opened(browser, f"{address}?tab=compare&explain={run_id}:ie-ft&__theme={theme}", 1440)
    page.wait_for_selector("#explain-maps .map-slide.now")
    assert page.locator("#explain-numbers table").count() >= 4
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = axe.run(page, context="#explain-top").response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert [(width, one["id"], one["nodes"][0]["html"]) for one in serious] == []
    assert errors == []
    page.close()


@pytest.mark.browser
def test_own_images_get_maps_and_none_is_an_advice(browser: Any, explaining: str) -> None:
    address, run_id = explaining.split("?run=")
    page, errors = opened(browser, f"{address}?tab=compare&explain={run_id}:ie-ft", 1440)
    page.wait_for_selector("#explain-maps .map-slide.now")
    page.locator("#explain-mine").click()
    page.wait_for_selector("#explain-own .problem:has-text('Choose, paste or take')")
    page.locator("#examples [data-example]").first.click()
    page.wait_for_selector("#comparison .answer")
    page.locator("#explain-mine").click()
    page.wait_for_selector("#explain-own .map-slide.now")
    assert page.locator("#explain-own .map-slide").count() == 1
    assert page.locator("#explain-own .map-slide.now .map:visible").count() == 5
    assert page.locator("#explain-maps .map-slide.now").is_visible()
    assert errors == []
    page.close()
