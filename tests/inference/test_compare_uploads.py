"""Uploads are compared: zips give right answers, broken files and other classes are named, pictures stay small."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from iekd.inference.compare import class_in, likely_classes
from iekd.inference.compare_uploads import SIDE, Example, compare_uploads
from iekd.inference.predict_files import predict
from iekd.models.artifact import ModelCard, save_model
from iekd.models.registry import build

CLASSES = ("T-shirt/top", "Ankle boot", "cat", "Cat")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """`model(seed, **card)` -> folder of a network that was never trained."""
    root = tmp_path_factory.mktemp("models")

    def make(seed, **values):
        torch.manual_seed(seed)
        card = ModelCard(
            **{
                "model": "resnet8", "datasets": ("tiny",), "class_names": CLASSES, "channels": 3, "resolution": 16,
                "mean": (0.5,) * 3, "std": (0.2,) * 3, "accuracy": None, "params": 1, **values,
            }
        )  # fmt: skip
        folder = root / f"{seed}-{len(card.class_names)}-{card.resolution}"
        if not folder.is_dir():
            save_model(folder, build("resnet8", len(card.class_names), card.channels), card)
        return folder

    return make


def png(seed: int, size: tuple[int, int] = (20, 16)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def packed(tmp_path):
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for i, name in enumerate(("test/T-shirt_top/0.png", "cat/1.png", "Cat/2.png", "others/3.png", "4.png")):
            archive.writestr(name, png(i))
        archive.writestr("ankle BOOT/broken.png", b"no image")
        archive.writestr("notes.txt", "not an image")
    return tmp_path / "some.zip"


def test_folders_in_a_zip_give_the_right_answers(model, packed):
    found = compare_uploads({"a": model(0), "b": model(1)}, [packed])
    rights = {image.label: image.result.right for image in found.images if not image.result.error}
    assert rights == {"0.png": "T-shirt/top", "1.png": "cat", "2.png": "Cat", "3.png": "", "4.png": ""}
    (broken,) = [image for image in found.images if image.result.error]
    assert "broken.png' is not an image" in broken.result.error
    assert found.others == {".txt": 1}
    assert str(packed.parent) not in repr(found), "where uploads lie is nobody's business"


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("x/Ankle boot/1.png", "Ankle boot"), ("Ankle boot/T-shirt/top/1.png", "T-shirt/top"),
        ("ankle-boot/inner/1.png", "Ankle boot"), ("CAT/1.png", ""), ("cat.png", ""), ("other/1.png", ""),
    ],
)  # fmt: skip
def test_a_class_is_found_by_its_letters_and_never_guessed(name, right):
    assert class_in(name, CLASSES) == right


def test_predictions_are_those_of_predict_whatever_the_batch(model, packed):
    folders = {"a": model(0), "large": model(2, resolution=32)}
    found = compare_uploads(folders, [packed])
    for name, folder in folders.items():
        expected = {row.name.partition("some.zip/")[2]: row.top for row in predict(folder, packed) if row.top}
        said = {image.result.name.partition("/")[2]: image.result.predictions for image in found.images}
        assert set(expected) == {key for key, answers in said.items() if answers}
        for key, top in expected.items():
            assert dict(said[key][name].top) == pytest.approx(dict(top), abs=1e-5)


def test_models_of_other_classes_are_left_out_with_the_reason(model, packed, tmp_path):
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    models = {
        "first": model(0), "three": model(5, class_names=("x", "y", "z")),
        "turned": model(6, class_names=CLASSES[::-1]), "file": tmp_path / "damaged.onnx", "last": model(1),
    }  # fmt: skip
    found = compare_uploads(models, [packed], most=2)
    assert list(found.models) == ["first", "last"]
    assert "'three' and 'first'" in found.problems["three"]
    assert "'x'" in found.problems["three"]
    assert "order of classes" in found.problems["turned"]
    assert "'file' is damaged" in found.problems["file"]
    assert str(tmp_path) not in found.problems["file"]
    assert (len(found.images), found.left_out) == (2, True)


def test_without_a_usable_model_it_is_an_error(tmp_path, refuses):
    refuses(lambda: compare_uploads({"nothing": tmp_path / "nothing"}, []), "nothing")
    refuses(lambda: compare_uploads({}, []), "No model is chosen")


def test_what_stays_of_an_image_is_small_and_its_key_the_same(model, tmp_path):
    (tmp_path / "large.png").write_bytes(png(0, (900, 700)))
    (tmp_path / "bad.tar").write_bytes(b"")
    example = Example("example: cat", np.zeros((16, 16, 3), np.uint8), "cat")
    found, again = (compare_uploads(models, [tmp_path / "bad.tar", tmp_path / "large.png"], [example])
                    for models in ({"a": model(0)}, {"b": model(1)}))  # fmt: skip
    tar, large, shown = found.images
    assert "tar archive" in tar.result.error
    assert large.result.seen is None
    assert Image.open(io.BytesIO(large.result.original)).size == (SIDE, round(SIDE * 7 / 9))
    assert Image.open(io.BytesIO(large.seen)).size == (16, 16)
    assert shown.result.right == "cat"
    assert [image.key for image in found.images] == [image.key for image in again.images]
    assert len({image.key for image in found.images}) == 3


def test_every_model_has_its_best_class_in_the_common_order():
    likely = likely_classes(np.array([[0.7, 0.1, 0.1, 0.1, 0.0, 0.0], [0.0, 0.0, 0.1, 0.2, 0.1, 0.6]]), most=2)
    assert likely == [0, 5]
    likely = likely_classes(np.array([[0.4, 0.3, 0.3, 0.0], [0.4, 0.3, 0.3, 0.0], [0.0, 0.0, 0.45, 0.55]]), most=2)
    assert likely == [2, 0, 3], "by their mean; the third model's best is there too"
