"""The folder of a page: what is in it, what it says, and what is refused. tests/ui/test_web_page.py opens it."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from iekd.data import Dataset, Split, load
from iekd.export.web import EXAMPLES, choose_examples, export_page
from iekd.export.web_runtime import SCRIPT, WASM, integrity
from iekd.models.artifact import ModelCard


class Page(HTMLParser):
    """What a browser makes of index.html: the elements, and the data for the script."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.data, self.inside, self.elements, self.text = "", "", [], {}
        self.feed((folder / "index.html").read_text("utf-8"))
        self.data = json.loads(self.data)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = dict(attributes).get("id", tag)

    def handle_data(self, text):
        self.text[self.inside] = self.text.get(self.inside, "") + text
        if self.inside == "page-data":
            self.data += text

    def handle_endtag(self, tag):
        self.inside = ""


@pytest.fixture(scope="session")
def runtime(tmp_path_factory) -> Path:
    """A folder laid out as npm's package is, with other contents: nothing is run here."""
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package" / "dist").mkdir(parents=True)
    for name in (SCRIPT, WASM, "ort.all.min.js"):
        (folder / "package" / "dist" / name).write_bytes(name.encode())
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory, saved) -> list[Path]:
    """A teacher and two students."""
    folder = tmp_path_factory.mktemp("models")
    place = {"datasets": ("folder:/home/me/pets",), "command": "iekd train --dataset folder:/home/me/pets"}
    return [
        saved(folder / "teacher", "resnet14", role="teacher", **place),
        saved(folder / "plain", "resnet8", **place),
        saved(folder / "ie", "resnet8", method="ie-ft+kd", accuracy=None, **place),
    ]


@pytest.fixture(scope="session")
def folder(tmp_path_factory, models, tiny, runtime) -> Path:
    made = tmp_path_factory.mktemp("out") / "page"
    export_page(models, made, dataset=tiny, license="mit", runtime=runtime)
    return made


def with_classes(names: tuple[str, ...], labels: list[int]) -> Dataset:
    """A dataset whose test images are grey, each as bright as its row."""
    images = np.broadcast_to(np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (len(labels), 4, 4, 1))
    split = Split(images, np.array(labels, np.int64))
    return Dataset("drawn", names, split, split)


def test_everything_that_the_page_names_is_in_the_folder_and_nothing_else_is(folder):
    page = Page(folder)
    named = {"index.html", "README.md", ".gitattributes", "worker.js"}
    named |= {
        a[key] for _, a in page.elements for key in ("src", "href") if a.get(key) and not a[key].startswith("data:")
    }
    named |= {n["file"] for n in page.data["networks"]} | {e["file"] for e in page.data["examples"]}
    named |= {page.data["runtime"]["base"] + f["name"] for f in page.data["runtime"]["files"]}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    beside = {name for name in there if re.search(r"^models/.*(certificate\.(json|md)|use_it\.py)$", name)}
    assert len(beside) == 9  # three of each network
    assert there - beside == named


def test_sizes_and_hashes_are_those_of_the_files(folder):
    page = Page(folder)
    for network in page.data["networks"]:
        assert network["bytes"] == (folder / network["file"]).stat().st_size
    for file in page.data["runtime"]["files"]:
        data = (folder / "runtime" / file["name"]).read_bytes()
        assert (file["bytes"], file["integrity"]) == (len(data), integrity(data))


def test_the_networks_are_named_in_order_with_what_their_cards_say(folder, models):
    shown = Page(folder).data["networks"]
    assert [n["title"] for n in shown] == ["Teacher", "Plain student", "IE-FT + KD student"]
    for network, source in zip(shown, models, strict=True):
        card = ModelCard.read(source)
        assert (network["params"], network["accuracy"]) == (card.params, card.accuracy)
    assert [n["teacher"] for n in shown] == [True, False, False]


def test_the_teacher_decides_what_is_unlike_its_training_images_where_it_can(saved, tmp_path):
    """Else the students. A network that was saved without a threshold decides nothing."""
    onnx = pytest.importorskip("onnx")
    teacher = [saved(tmp_path / f"teacher {t}", "resnet8", role="teacher", energy_threshold=t) for t in (2.5, None)]
    student = saved(tmp_path / "student", "resnet8", energy_threshold=1.5)
    for folders, below, said in (
        ([teacher[0], student], [2.5, None], "the teacher is less sure"),
        ([teacher[1], student], [None, 1.5], "the network is less sure"),
        ([teacher[1]], [None], ""),
    ):
        page = tmp_path / f"page {below}"
        export_page(folders, page)
        data = Page(page).data
        assert [n["unlike"] and n["unlike"]["below"] for n in data["networks"]] == below
        assert said in data["unlike"]
        assert bool(data["unlike"]) == bool(said)
    network = Page(tmp_path / "page [2.5, None]").data["networks"][0]
    file = (tmp_path / "page [2.5, None]" / network["file"]).read_bytes()
    changed = onnx.load_from_string(file + base64.b64decode(network["unlike"]["append"]))
    assert [output.name for output in changed.graph.output] == ["probabilities", network["unlike"]["logits"]]
    assert len(onnx.load_from_string(file).graph.output) == 1, "the file itself has one output"


def test_places_of_this_machine_are_nowhere_in_the_folder(folder):
    for path in folder.rglob("*"):
        assert not path.is_file() or b"/home/me" not in path.read_bytes(), path
    assert "pets" in Page(folder).text["h1"]


def test_the_folder_is_a_static_space(folder):
    from huggingface_hub import SpaceCard

    found = SpaceCard.load(folder / "README.md").data
    assert (found.sdk, found.app_file, found.license) == ("static", "index.html", "mit")
    assert found.title == Page(folder).text["h1"]
    assert len(found.short_description) <= 60
    for colour in (found.colorFrom, found.colorTo):
        assert colour in {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert "*.onnx filter=lfs" in (folder / ".gitattributes").read_text()


def test_with_its_own_runtime_the_page_may_ask_nobody_else(folder, models, tmp_path):
    def allowed(page: Page) -> str:
        policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
        return re.search(r"connect-src ([^;]*)", policy)[1]

    assert allowed(Page(folder)) == "'self'"
    assert "http" not in json.dumps(Page(folder).data)
    export_page(models[1:2], tmp_path / "page")
    assert allowed(Page(tmp_path / "page")) == "'self' https://cdn.jsdelivr.net"
    assert not (tmp_path / "page" / "runtime").exists()


def test_names_that_look_like_html_stay_names(saved, tmp_path):
    names = ("</script><b>x</b>", "a & b", "ü")
    source = saved(tmp_path / "model", "resnet8", class_names=names)
    export_page([source], tmp_path / "page", title="<i>mine</i> & yours")
    page = Page(tmp_path / "page")
    assert tuple(page.data["classes"]) == names
    assert page.text["h1"] == page.text["title"] == "<i>mine</i> & yours"
    assert not {tag for tag, _ in page.elements} & {"b", "i"}


def test_the_examples_are_the_first_test_images_of_the_classes_in_order():
    dataset = with_classes(("a", "b", "c"), [1, 1, 0, 0, 1])  # none of "c"
    shown = choose_examples(dataset)
    assert [(e.label, int(e.image[0, 0, 0])) for e in shown] == [("a", 2), ("b", 0)]
    many = with_classes(tuple(map(str, range(101))), list(range(101)))
    assert [int(e.label) for e in choose_examples(many)] == [0, 11, 22, 33, 44, 56, 67, 78, 89, 100]
    assert len(choose_examples(many)) == EXAMPLES


def test_examples_of_a_folder_are_read_from_its_files(picture_folder, tiny):
    dataset = load(f"folder:{picture_folder}", resolution=16, image_memory=1e-6)
    shown = choose_examples(dataset)
    assert [e.label for e in shown] == ["blue", "green", "red"]
    for k, example in enumerate(shown):
        assert np.array_equal(example.image, tiny.test.images[np.flatnonzero(tiny.test.labels == k)[0]])


def test_models_of_other_classes_are_refused_and_nothing_is_left(models, saved, tmp_path, refuses):
    other = saved(tmp_path / "other", "resnet8", class_names=("cat", "dog", "eel"))
    refuses(lambda: export_page([models[0], other], tmp_path / "page"), "Plain student", "Teacher", "same classes")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_what_is_there_is_not_overwritten(models, tmp_path, refuses):
    (tmp_path / "page").mkdir()
    refuses(lambda: export_page(models[:1], tmp_path / "page"), tmp_path / "page", "remove")


def test_a_folder_without_the_runtime_is_refused_before_anything_is_exported(models, tmp_path, runtime, refuses):
    said = []
    (tmp_path / "empty").mkdir()
    refuses(
        lambda: export_page(models, tmp_path / "page", runtime=tmp_path / "empty", say=said.append), SCRIPT, "npm pack"
    )
    half = tmp_path / "half"
    half.mkdir()
    (half / SCRIPT).write_bytes(b"")
    refuses(lambda: export_page(models, tmp_path / "page", runtime=half, say=said.append), WASM)
    assert said == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "half"]


@pytest.mark.parametrize("place", ["", "package", "package/dist"])
def test_the_runtime_is_found_wherever_npm_has_put_it(models, tmp_path, runtime, place):
    export_page(models[1:2], tmp_path / "page", runtime=runtime / place)
    assert {path.name for path in (tmp_path / "page" / "runtime").iterdir()} == {SCRIPT, WASM}


def test_every_network_is_checked_on_the_test_images(models, tiny, tmp_path):
    test = replace(tiny, test=tiny.test.take(np.arange(30)))
    found = export_page(models, tmp_path / "page", dataset=test)
    assert [c.test_images for c in found] == [30, 30, 30]
    assert all(c.difference < 1e-4 for c in found)
    written = json.loads((tmp_path / "page" / "models" / "0-teacher.certificate.json").read_text())
    assert written["accuracy"] == found[0].accuracy
