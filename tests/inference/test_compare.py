from __future__ import annotations

import io
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from iekd.config.run import make_config
from iekd.data.decoding import to_array
from iekd.errors import UserError
from iekd.inference.compare import compare
from iekd.inference.predict import Predictor, load_predictor
from iekd.models.artifact import ModelCard, save_model
from iekd.models.registry import build
from iekd.runs.models import demo_models, models_called, run_models, saved_seeds
from iekd.runs.status import FINISHED, Status
from iekd.runs.store import Store

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


@pytest.fixture
def model(tmp_path):
    """`model(name, seed, **card)` -> folder of a saved network that is not sure of itself."""

    def make(name, seed=0, builder="resnet8", **values):
        torch.manual_seed(seed)
        card = ModelCard(
            **{
                "model": builder, "datasets": ("tiny",), "class_names": CLASSES, "channels": 3, "resolution": 16,
                "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3), "accuracy": 50.0, "params": 1, **values,
            }
        )  # fmt: skip
        save_model(tmp_path / name, build(builder, len(card.class_names), card.channels), card)
        return tmp_path / name

    return make


def picture(seed: int = 0, size: int = 16, mode: str = "RGB") -> bytes:
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def by_hand(folder, image: np.ndarray) -> dict[str, float]:
    """label -> probability, from the saved weights and the card's numbers, normalised in numpy and float64."""
    network, card = Predictor(folder).model, json.loads((folder / "model.json").read_text())
    x = (image.astype(np.float64) / 255 - card["mean"]) / card["std"]
    with torch.no_grad():
        logits = network(torch.from_numpy(x.transpose(2, 0, 1)[None].astype(np.float32))).logits[0].double().numpy()
    p = np.exp(logits - logits.max())
    return dict(zip(card["class_names"], p / p.sum(), strict=True))


def agree(a, b) -> None:
    assert dict(a.top) == pytest.approx(dict(b.top), abs=1e-5)


def test_answers_are_those_of_the_network(model):
    folder = model("m")
    for seed in range(5):
        image = to_array(picture(seed), 16, 3)
        answer, expected = Predictor(folder).predict(image), by_hand(folder, image)
        best = sorted(expected, key=expected.get, reverse=True)[:5]
        assert [label for label, _ in answer.top] == best
        assert [score for _, score in answer.top] == pytest.approx([expected[label] for label in best], abs=1e-5)
        assert answer.label == best[0]


def test_scores_fall_and_are_shares(model):
    top = Predictor(model("m")).predict(to_array(picture(), 16, 3)).top
    scores = [score for _, score in top]
    assert len(top) == 5
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert sum(scores) <= 1 + 1e-6


def test_few_classes_have_few_answers(model):
    top = Predictor(model("m", class_names=("yes", "no"))).predict(to_array(picture(), 16, 3)).top
    assert {label for label, _ in top} == {"yes", "no"}
    assert sum(score for _, score in top) == pytest.approx(1, abs=1e-6)


def test_answers_come_with_time_and_size(model):
    classifier = Predictor(model("m"))
    assert classifier.predict(to_array(picture(), 16, 3)).milliseconds > 0
    parameters = sum(p.numel() for p in classifier.model.parameters())
    assert 4 * parameters < classifier.bytes < 4 * parameters + 100_000


def test_a_picture_is_not_changed_by_looking_at_it(model):
    image = to_array(picture(), 16, 3)
    before = image.copy()
    Predictor(model("m")).predict(image)
    np.testing.assert_array_equal(image, before)


def test_models_stand_side_by_side(model):
    folders = {"teacher": model("t", 1, "resnet14"), "baseline": model("b", 2), "ie-ft": model("s", 3)}
    results = compare(folders, [("one", picture(1)), ("two", picture(2, 50))])
    assert [r.name for r in results] == ["one", "two"]
    for r in results:
        assert r.error is None
        assert list(r.predictions) == list(folders)
        for name, folder in folders.items():
            agree(r.predictions[name], Predictor(folder).predict(r.seen))


def test_what_was_seen_is_shown(model):
    (result,) = compare({"m": model("m")}, [("x", picture(1, 50))])
    np.testing.assert_array_equal(result.seen, to_array(picture(1, 50), 16, 3))


@pytest.mark.parametrize("broken", [b"", b"<html></html>", picture()[:60]])
def test_a_broken_picture_disturbs_no_other(model, broken):
    results = compare({"m": model("m")}, [("good", picture(1)), ("bad.png", broken), ("also good", picture(2))])
    assert [r.error is None for r in results] == [True, False, True]
    bad = results[1]
    assert "bad.png" in bad.error
    assert bad.error.endswith(".")
    assert bad.seen is None
    assert bad.predictions == {}
    assert len(results[2].predictions["m"].top) == 5


def test_models_of_other_classes_cannot_be_compared(model, refuses):
    folders = {"mine": model("a"), "yours": model("b", class_names=("x", "y", "z"))}
    refuses(lambda: compare(folders, [("x", picture())]), "'yours'", "'mine'", "3", "7")


def test_classes_in_another_order_are_other_classes(model, refuses):
    folders = {"mine": model("a"), "yours": model("b", class_names=CLASSES[::-1])}
    refuses(lambda: compare(folders, []), "'yours'", "'mine'")


def test_models_of_different_sizes_each_see_their_own(model):
    folders = {
        "small": model("a"),
        "large": model("b", resolution=32),
        "grey": model("c", channels=1, mean=(0.5,), std=(0.2,)),
    }
    (result,) = compare(folders, [("x", picture(1, 50))])
    for name, size, channels in (("small", 16, 3), ("large", 32, 3), ("grey", 16, 1)):
        expected = Predictor(folders[name]).predict(to_array(picture(1, 50), size, channels))
        agree(result.predictions[name], expected)


# ---- backgrounds: grey datasets show bright things on black, photographs dark things on white -----------------------

GREY = {"channels": 1, "mean": (0.3,), "std": (0.3,), "background": 0.02}


def on_white() -> bytes:
    pixels = np.full((16, 16), 250, np.uint8)
    pixels[5:11, 5:11] = 30
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_thing_on_white_is_turned_for_models_that_know_black(model):
    (result,) = compare({"m": model("m", **GREY)}, [("x", on_white())])
    assert result.inverted
    np.testing.assert_array_equal(result.seen, 255 - to_array(on_white(), 16, 1))
    agree(result.predictions["m"], Predictor(model("m", **GREY)).predict(result.seen))


def test_turning_can_be_declined(model):
    (result,) = compare({"m": model("m", **GREY)}, [("x", on_white())], match_background=False)
    assert not result.inverted
    np.testing.assert_array_equal(result.seen, to_array(on_white(), 16, 1))


@pytest.mark.parametrize(
    "card", [{**GREY, "background": 0.9}, {**GREY, "background": None}, {"background": 0.02}], ids=str
)
def test_only_grey_pictures_of_the_other_kind_are_turned(model, card):
    (result,) = compare({"m": model("m", **card)}, [("x", on_white())])
    assert not result.inverted


def test_a_turned_picture_is_turned_for_every_model(model):
    """Also for one that sees it in another size."""
    folders = {"small": model("a", **GREY), "large": model("b", resolution=32, **GREY)}
    (result,) = compare(folders, [("x", on_white())])
    assert result.inverted
    expected = Predictor(folders["large"]).predict(255 - to_array(on_white(), 32, 1))
    agree(result.predictions["large"], expected)


# ---- which models ----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    made, handle = Store(tmp_path / "runs").create(make_config(methods=("baseline", "ie-ft"), seeds=(3, 1)))
    os.close(handle)
    made.write_status(Status(state=FINISHED))
    return made


def test_a_run_offers_its_teacher_and_the_first_seed_of_each_method(run, model):
    for seed in (1, 3):
        for method in ("ie-ft", "baseline"):
            shutil.copytree(
                model(f"{method}{seed}", method=method, seed=seed), run.path / "models" / f"{method}-seed{seed}"
            )
    shutil.copytree(model("t", role="teacher"), run.path / "models" / "teacher")
    root = run.path / "models"
    assert run_models(run) == {
        "teacher": root / "teacher", "baseline": root / "baseline-seed3", "ie-ft": root / "ie-ft-seed3"
    }  # fmt: skip
    assert saved_seeds(run) == [3, 1]


def test_another_seed_of_a_run_can_be_asked_for(run, model, refuses):
    for name in ("baseline-seed3", "baseline-seed1", "ie-ft-seed1"):
        shutil.copytree(model(name), run.path / "models" / name)
    store, root = Store(run.path.parent), run.path / "models"
    assert models_called(store, run.id) == {"baseline": root / "baseline-seed3", "ie-ft": root / "ie-ft-seed1"}
    assert models_called(store, f"{run.id}/3") == {"baseline": root / "baseline-seed3"}
    assert models_called(store, f"{run.id}/1") == {m: root / f"{m}-seed1" for m in ("baseline", "ie-ft")}
    for wrong in ("2", "one", "-1", "1/2", ".."):
        refuses(lambda wrong=wrong: models_called(store, f"{run.id}/{wrong}"), wrong, "3, 1", kind=UserError)
    from iekd.ui.tabs.compare import sources  # here: the other tests run where there is no gradio

    labels = dict(sources(store))
    assert [name for label, name in labels.items() if "seed" in label] == [run.id, f"{run.id}/1"]
    assert [label[-6:] for label in labels] == ["seed 3", "seed 1"]


def test_a_run_without_models_says_so(run, refuses):
    refuses(lambda: run_models(run), run.id, "finished", kind=UserError)


def test_without_shipped_models_there_is_no_demo(refuses):
    refuses(demo_models, "shipped")


def test_the_demo_is_teacher_baseline_and_the_others(tmp_path, model, monkeypatch):
    monkeypatch.setenv("IEKD_CHECKPOINTS_DIR", str(tmp_path / "shipped"))
    for name, values in {
        "z-teacher": {"role": "teacher"}, "a-ie": {"method": "ie-ft"}, "b-base": {"method": "baseline"}
    }.items():  # fmt: skip
        shutil.copytree(model(name, **values), tmp_path / "shipped" / name)
    (tmp_path / "shipped" / "stray").mkdir()
    assert list(demo_models()) == ["teacher", "baseline", "ie-ft"]
    assert demo_models()["teacher"].name == "z-teacher"


def test_a_loaded_model_is_kept_until_it_is_written_again(model):
    folder = model("m", 1)
    first = load_predictor(folder)
    assert load_predictor(folder) is first
    before = (folder / "model.json").stat().st_mtime_ns
    model("m", 2)
    os.utime(folder / "model.json", ns=(before + 1000, before + 1000))
    again = load_predictor(folder)
    assert again is not first
    image = to_array(picture(), 16, 3)
    assert again.predict(image).top != first.predict(image).top


def test_a_broken_model_is_a_sentence(model, refuses):
    folder = model("m")
    (folder / "model.safetensors").write_bytes(b"")
    refuses(lambda: compare({"m": folder}, [("x", picture())]), folder)
    refuses(lambda: compare({"m": folder.parent / "nothing"}, [("x", picture())]), "nothing")
