"""The Compare tab without a browser: pages, filters, right answers, downloads, and who may do what."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image
from ui_helpers import CLIENT, TOKEN, call

from iekd.errors import UserError
from iekd.inference.compare import ImageResult
from iekd.inference.compare_uploads import ComparedImage, ComparedModel, ComparedUploads
from iekd.inference.predict import Prediction
from iekd.models.artifact import ModelCard
from iekd.results.agreement import ALL, ALL_WRONG, DIFFER
from iekd.runs.store import Store
from iekd.ui.render.comparison import LISTED, PAGE, ModelColumn, View, comparison_html, viewed
from iekd.ui.rights.access import Access, AccessError
from iekd.ui.tabs import compare_images
from iekd.ui.tabs.compare import compare_files, compare_tab, first_images, results_html, uploaded_models
from iekd.ui.tabs.compare_images import MOST_KEPT, MOST_LINKS, MOST_OF_VISITORS, Comparisons, Wanted


def compared(count: int, classes: int = 3, right: str = "") -> ComparedUploads:
    """Two models of which the second says another class for every third image."""
    names = tuple(f"class <{k}>" for k in range(classes))
    cards = {
        name: ModelCard("resnet8", ("x",), names, 3, 8, (0.5,) * 3, (0.2,) * 3, None, 1, method=name)
        for name in ("baseline", "ie-ft")
    }  # fmt: skip
    images = []
    for i in range(count):
        said = {"baseline": names[0], "ie-ft": names[1 if i % 3 == 0 else 0]}
        predictions = {name: Prediction([(label, 0.9)], 1.0) for name, label in said.items()}
        shares = dict.fromkeys(said, (0.9, 0.1))
        result = ImageResult(f"{i}.png", None, False, predictions, None, right, names[:2], shares)
        images.append(ComparedImage(f"key{i}", f"{i}.png", result, 8))
    return ComparedUploads({name: ComparedModel(card, 1024) for name, card in cards.items()}, tuple(images), {})


COLUMNS = {"baseline": ModelColumn("Plain student"), "ie-ft": ModelColumn("IE-FT")}


def test_hundreds_of_images_are_shown_a_page_at_a_time() -> None:
    of = compared(5 * PAGE + 7)
    shown = []
    for page in range(6):
        html = comparison_html(of, COLUMNS, View(page=page))
        keys = [key for key in (f"key{i}" for i in range(len(of.images))) if f'data-key="{key}"' in html]
        assert len(keys) <= PAGE
        assert f"of {len(of.images)}</span>" in html
        shown += keys
    assert shown == [image.key for image in of.images]
    assert comparison_html(of, COLUMNS, View(page=99)) == comparison_html(of, COLUMNS, View(page=5))


def test_a_filter_is_paged_by_itself_and_one_that_lacks_right_answers_shows_all() -> None:
    of = compared(3 * PAGE)
    html = comparison_html(of, COLUMNS, View(DIFFER))
    assert html.count('<li class="answer"') == PAGE
    assert "Next" not in html
    assert viewed(of, View(ALL_WRONG)).show == ALL
    assert html.count("disabled") == html.count("needs right answers") + html.count("needs a teacher") == 3


def test_right_answers_are_marked_counted_and_can_be_taken_back() -> None:
    of = compared(3)
    told = View(right={"key0": "class <1>", "key1": "class <2>", "key2": "no class at all", "other": "class <0>"})
    summary = viewed(of, told).summary
    assert (summary.labelled, dict(summary.right)) == (2, {"baseline": 0, "ie-ft": 1})
    html = comparison_html(of, COLUMNS, told)
    assert (html.count("✓ right"), html.count("✗ wrong")) == (1, 3)
    assert "<option selected>class &lt;1&gt;</option>" in html
    assert 'class="mark' not in comparison_html(compared(3), COLUMNS), "all may agree and be wrong"
    from_folders = compared(3, right="class <0>")
    assert viewed(from_folders, View(right={"key0": ""})).summary.labelled == 2


def test_many_classes_are_typed_and_not_repeated_in_every_row() -> None:
    html = comparison_html(compared(PAGE, LISTED + 1), COLUMNS)
    assert "<select" not in html
    assert html.count("<option>") == LISTED + 1


@pytest.mark.parametrize(
    "sent",
    [None, 3, "x", [], {"show": ["all"], "page": "2", "right": 7}, {"page": True}, {"page": -1, "right": {"a": 3}},
     {"show": "<b>", "page": 1e9}],
)  # fmt: skip
def test_anything_that_a_page_sends_is_a_view(sent: object) -> None:
    assert View.read(sent) == View()


def test_a_view_has_limits() -> None:
    told = View.read({"show": DIFFER, "page": 2, "right": {f"{i}" * 300: "x" * 300 for i in range(6000)}})
    assert (told.show, told.page, len(told.right) <= 5000) == (DIFFER, 2, True)
    assert max(map(len, told.right)) <= 200


def test_comparisons_in_memory_are_few_and_computed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(models: dict[str, Path], *_: object) -> ComparedUploads:
        asked.append(next(iter(models)))
        return compared(2)

    monkeypatch.setattr(compare_images, "ask_models", ask)
    kept, first = Comparisons(), Wanted({"0": tmp_path}, ())
    kept.get(first)
    word = kept.link(first, COLUMNS, View())
    assert word == kept.link(first, COLUMNS, View()) != kept.link(first, COLUMNS, View(page=1))
    kept.get(first)
    assert asked == ["0"]
    assert kept.file(word, "comparison.csv").decode().startswith("image,")
    for i in range(1, MOST_KEPT + 1):
        kept.get(Wanted({str(i): tmp_path}, ()))
    with pytest.raises(UserError, match="not in memory any more"):
        kept.file(word, "comparison.csv")
    last = Wanted({str(MOST_KEPT): tmp_path}, ())
    words = [kept.link(last, COLUMNS, View(page=i)) for i in range(MOST_LINKS + 1)]
    with pytest.raises(UserError):
        kept.file(words[0], "comparison.json")
    with pytest.raises(UserError):
        kept.file(words[-1], "../secret")


def test_an_upload_that_was_gone_is_read_when_it_is_back(tmp_path: Path) -> None:
    gone = Wanted({"0": tmp_path}, (tmp_path / "0.png",)).key
    (tmp_path / "0.png").write_bytes(b"")
    assert Wanted({"0": tmp_path}, (tmp_path / "0.png",)).key != gone


@pytest.fixture(scope="module")
def packed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images of two classes in folders, and one that is none."""
    path = tmp_path_factory.mktemp("packed") / "shapes.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("disc", "cross"):
            for file in sorted((pictures / "test" / name).iterdir())[:4]:
                archive.write(file, f"{name}/{file.name}")
        archive.writestr("disc/broken.png", b"nothing")
    return path


def test_the_page_offers_what_it_shows_as_files(finished_run: str, runs_dir: Path, packed: Path) -> None:
    html = results_html(Store(runs_dir), finished_run, [str(packed)], None, [], view=View(DIFFER))
    word = html.partition('href="./compared/')[2].partition("/")[0]
    rows = list(csv.DictReader(io.StringIO(compare_images.comparisons.file(word, "comparison.csv").decode())))
    assert [row["right"] for row in rows if not row["error"]] == ["disc"] * 4 + ["cross"] * 4
    told = json.loads(compare_images.comparisons.file(word, "comparison.json"))
    expected = compare_files(Store(runs_dir), finished_run, [str(packed)])
    assert told == expected
    assert told["summary"]["broken"] == 1
    assert [row["teacher prediction"] for row in rows if not row["error"]] == [
        image["predictions"]["teacher"][0]["label"] for image in told["images"] if not image.get("error")
    ]
    picture = Image.open(io.BytesIO(compare_images.comparisons.file(word, "comparison.png")))
    assert picture.format == "PNG"
    assert picture.width > 600


def test_programs_choose_models_right_answers_and_a_filter(server: str, finished_run: str, packed: Path) -> None:

    with packed.open("rb") as file:
        stored = CLIENT.post(f"{server}/gradio_api/upload", files={"files": ("shapes.zip", file)}).json()[0]
    sent = [{"path": stored, "meta": {"_type": "gradio.FileData"}}]
    models = [f"{finished_run}/teacher", f"{finished_run}/ie-ft-seed0", "fashion-mnist-resnet8-ie-ft"]
    kind, (found,) = call(server, "compare", finished_run, sent, models, ["cross"] * 3, "all")
    assert kind == "complete"
    assert list(found["summary"]["right"]) == models[:2]
    assert "do not know the same classes" in found["not_compared"][models[2]]
    assert [image.get("right") for image in found["images"]]== [
        *["cross"] * 3, "disc", *["cross"] * 4, None,
    ]  # fmt: skip
    kind, (some,) = call(server, "compare", finished_run, sent, models, [], "differ")
    assert len(some["images"]) == some["summary"]["differ"]
    for values, said in (
        ([models[:1], [], "differ"], "needs two models"), ([models, ["dics"], ""], "'dics' is none of the classes"),
        ([models, ["disc"] * 10, ""], "10 right answers"), ([["nobody"], [], ""], "no run 'nobody'"),
        ([models, [], "wrong"], "Unknown filter 'wrong'"),
    ):  # fmt: skip
        kind, error = call(server, "compare", finished_run, sent, *values)
        assert (kind, said in error["error"]) == ("error", True), error
    assert CLIENT.get(f"{server}/compared/guess/comparison.csv").status_code == 404


def test_strangers_upload_no_models_and_compare_fewer_images(guarded: str, finished_run: str, packed: Path) -> None:

    with packed.open("rb") as file:
        stored = CLIENT.post(f"{guarded}/gradio_api/upload", files={"files": ("m.onnx", file)}).json()[0]
    sent = [{"path": stored, "meta": {"_type": "gradio.FileData"}}]
    kind, error = call(guarded, "compare", finished_run, sent, [], [], "", sent)
    assert (kind, "whoever runs this page" in error["error"]) == ("error", True)
    kind, answer = call(guarded, "compare", finished_run, sent, [], [], "", sent, **{"x-iekd-token": TOKEN})
    assert kind == "complete"
    assert "damaged or no ONNX file" in answer[0]["not_compared"]["m.onnx"]
    stranger = SimpleNamespace(headers={}, cookies={}, client=None)
    assert uploaded_models(Access(public=True), stranger, None) == ((), MOST_OF_VISITORS)
    with pytest.raises(AccessError):
        uploaded_models(Access(public=True), stranger, ["m.onnx"])


def test_an_uploaded_model_is_compared_beside_the_others(
    finished_run: str, runs_dir: Path, packed: Path, tmp_path: Path
) -> None:
    """A zip as the page gives it for download. An own name that is taken gets a number."""
    store = Store(runs_dir)
    folder = store.get(finished_run).model_folders["ie-ft-seed0"]
    zips = [tmp_path / place / "mine.zip" for place in ("one", "two")]
    for path in zips:
        path.parent.mkdir()
        with zipfile.ZipFile(path, "w") as archive:
            for part in ("model.safetensors", "model.json"):
                archive.write(folder / part, f"ie-ft-seed0/{part}")
    files, refs = list(map(str, zips)), [f"{finished_run}/ie-ft-seed0"]
    found = compare_files(store, finished_run, [str(packed)], refs, files)
    assert list(found["summary"]["right"]) == [*refs, "mine.zip", "mine.zip (2)"]
    assert found["summary"]["differ"] == 0
    html = results_html(store, finished_run, [str(packed)], None, [], refs, files, View())
    assert html.count("IE-FT") >= 3
    assert str(tmp_path) not in html
    (tmp_path / "notes.onnx").write_bytes(b"no model")
    html = results_html(store, finished_run, [str(packed)], None, [], [], [str(tmp_path / "notes.onnx")], View())
    assert "problem" in html
    assert str(tmp_path) not in html
    assert "No model is chosen" in results_html(store, finished_run, [str(packed)], None, [], [], [], View())


def test_explain_gets_the_first_images_of_a_zip(finished_run: str, runs_dir: Path, packed: Path) -> None:
    found = first_images(Store(runs_dir), finished_run, [str(packed)], None, [])
    assert [name for name, _ in found] == [f"{i}.png" for i in range(4)] * 2


def test_examples_of_somebodys_own_images_are_shown_only_to_who_may_have_them(
    finished_run: str, runs_dir: Path
) -> None:  # fmt: skip
    """The run was trained on a folder of this machine."""
    store, asker = Store(runs_dir), SimpleNamespace(headers={}, cookies={}, client=None, session_hash="one")
    for access, sees in ((Access(), True), (Access(public=True), False)):
        with gr.Blocks() as page:
            tab = compare_tab(store, access)
        handlers = {known.fn.__name__: known.fn for known in page.fns.values() if known.fn is not None}
        assert ("data-example" in tab.open(store, finished_run, asker)[tab.examples]) == sees
        assert ("data-example" in handlers["change_source"](finished_run, asker)[tab.examples]) == sees
        answered = handlers["answer"](finished_run, None, None, None, None, [0, 1], None, asker)
        assert ("data:image" in answered) == sees, "nor are they for whoever sends their numbers"
        told = handlers["begin_own"](finished_run, "", None, None, [0], asker) if not sees else {}
        assert sees or any("Choose, paste or take images" in str(value) for value in told.values())
