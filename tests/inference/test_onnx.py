"""ONNX files: ours answer as the folder that they were exported from; others are understood, or it is said why not."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.inference.classifier import Described, open_classifier
from iekd.inference.compare import compare
from iekd.inference.evaluate import evaluate_checkpoint
from iekd.inference.predict import load_predictor
from iekd.models.artifact import ModelCard, save_model
from iekd.models.normalise import Normalise
from iekd.models.registry import build


class Exported(torch.nn.Module):
    def __init__(self, model, card):
        super().__init__()
        self.model, self.normalise = model, Normalise(card.mean, card.std)

    def forward(self, pixels):
        return self.model(self.normalise(pixels)).logits.softmax(-1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory, tiny):
    """(a model's folder, the same model as an ONNX file with the metadata of our exports)."""
    folder = tmp_path_factory.mktemp("pair") / "model"
    torch.manual_seed(0)
    model = build("resnet8", 3, 3)
    with torch.no_grad():  # so that its answers differ from image to image
        for _ in range(3):
            model.train()(Normalise((0.4,) * 3, (0.2,) * 3)(torch.from_numpy(tiny.train.images).permute(0, 3, 1, 2)))
    order = tiny.class_names[1:] + tiny.class_names[:1]  # not the dataset's
    card = ModelCard(
        model="resnet8", datasets=("tiny",), class_names=order, channels=3, resolution=16, mean=(0.4,) * 3,
        std=(0.2,) * 3, accuracy=None, params=sum(p.numel() for p in model.parameters()),
    )  # fmt: skip
    save_model(folder, model.eval(), card)
    energies = open_classifier(folder).scores(tiny.test.images).energies
    card = replace(card, energy_threshold=float(np.median(energies)))
    save_model(folder, model, card)
    file = folder.parent / "student.onnx"
    with torch.no_grad():
        program = torch.onnx.export(
            Exported(model, card).eval(), (torch.zeros(2, 3, 16, 16, dtype=torch.uint8),), dynamo=True, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},), input_names=["pixels"], output_names=["probabilities"],
        )  # fmt: skip
    program.save(file)
    written = onnx.load(file)
    facts = {"iekd": json.dumps(asdict(card)), "labels": json.dumps(order), "size": "16x16", "fit": card.fit}
    helper.set_model_props(written, facts)
    onnx.save(written, file)
    return folder, file


def test_an_export_answers_as_its_folder(pair, tiny):
    ours, exported = map(open_classifier, pair)
    assert exported.card == ours.card
    images = tiny.test.images
    expected, found = ours.scores(images), exported.scores(images)
    assert found.probabilities.dtype == np.float32
    assert found.probabilities.std(0).min() > 1e-3, "answers that are all alike would prove nothing"
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    np.testing.assert_allclose(exported.probabilities(images[:1]), expected.probabilities[:1], atol=1e-5)


def test_an_export_marks_the_same_images_as_unlike(pair, tiny):
    """Though it gives probabilities alone, from which energies cannot be computed."""
    ours, exported = map(open_classifier, pair)
    expected, found = (c.scores(tiny.test.images) for c in (ours, exported))
    np.testing.assert_allclose(found.energies, expected.energies, atol=1e-4)
    far = abs(expected.energies - ours.card.energy_threshold) > 1e-3
    marks = np.array(exported.unlike(found))
    assert (marks == np.array(ours.unlike(expected)))[far].all()
    assert 0 < marks.sum() < len(marks)


def test_eval_counts_the_same_for_an_export(pair, picture_folder):
    """Also where the model's classes are in another order than the dataset's."""
    options = {"dataset": f"folder:{picture_folder}", "device": "cpu"}
    ours, exported = (evaluate_checkpoint(path, **options) for path in pair)
    assert exported.correct == ours.correct
    assert exported.class_accuracy == ours.class_accuracy
    assert 0 < exported.accuracy < 100
    assert (exported.model, exported.params, exported.split) == ("resnet8", ours.params, "test")
    for changes in ({"mean": (0.5,), "std": (0.5,)}, {"model": "resnet14"}, {"resolution": 32}):
        with pytest.raises(ValueError, match="Leave"):
            evaluate_checkpoint(pair[1], **options, **changes)


def test_folder_and_export_stand_side_by_side(pair, tiny):
    (result,) = compare({"torch": pair[0], "onnx": pair[1]}, [("x", tiny.test.images[0])])
    assert dict(result.predictions["onnx"].top) == pytest.approx(dict(result.predictions["torch"].top), abs=1e-5)
    assert load_predictor(pair[1]) is load_predictor(pair[1])


def test_the_commands_take_an_export(pair, picture_folder):
    words = ["predict", str(pair[1]), str(picture_folder / "test"), "--json", "--device", "cpu"]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert found["predicted"] == 60
    assert 0 < found["unlike"] < 60
    words = ["eval", "--checkpoint", str(pair[1]), "--dataset", f"folder:{picture_folder}", "--json"]
    assert json.loads(CliRunner().invoke(app, words).stdout)["images"] == 60


# ---- files of other tools --------------------------------------------------------------------------------------------


def foreign(path, kind=TensorProto.FLOAT, shape=("n", 3, 4, 4), softmax=False, names=None):
    """Class k answers with the mean of channel k, through a softmax or not. Returns the path."""
    node = helper.make_node
    nodes = [node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), node("GlobalAveragePool", ["f"], ["p"]),
             node("Flatten", ["p"], ["y"])]  # fmt: skip
    if softmax:
        nodes.append(node("Softmax", ["y"], ["s"]))
    output = helper.make_tensor_value_info("s" if softmax else "y", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", kind, shape)], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if names:
        helper.set_model_props(model, {"labels": json.dumps(names)})
    onnx.save(model, path)
    return path


RGB = ("red", "green", "blue")


def colours():
    """Images (3,4,4,3): mostly red, green, blue."""
    return np.stack([np.full((4, 4, 3), 50, np.uint8) + 150 * (np.arange(3) == k).astype(np.uint8) for k in range(3)])


@pytest.mark.parametrize("softmax", [False, True])
def test_a_foreign_file_is_used_once_it_is_described(tmp_path, softmax):
    """Logits become probabilities, and probabilities stay what they are."""
    path = foreign(tmp_path / "x.onnx", softmax=softmax)
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.25, 0.2])
    classifier = open_classifier(path, described=Described(None, RGB, None, tuple(mean), tuple(std)))
    x = (colours() / 255 - mean) / std
    expected = np.exp(x.mean((1, 2)))
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(classifier.probabilities(colours()), expected, atol=1e-5)
    assert classifier.card.resolution == 4
    assert classifier.scores(colours()).energies is None
    assert classifier.unlike(classifier.scores(colours())) == [None] * 3


def test_bytes_and_labels_need_no_description(tmp_path):
    path = foreign(tmp_path / "x.onnx", TensorProto.UINT8, names=RGB)
    classifier = open_classifier(path)
    assert classifier.card.class_names == RGB
    assert classifier.probabilities(colours()).argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("made", "described", "words"),
    [
        ({}, Described(), ("--classes", "--mean")),
        ({"shape": ("n", 3, "h", "w")}, Described(class_names=RGB), ("--resolution", "--mean")),
        ({"kind": TensorProto.UINT8}, Described(class_names=RGB, mean=(0.5,), std=(0.5,)), ("Leave --mean",)),
        ({"shape": ("n", 3, 4, 6)}, Described(class_names=RGB, mean=(0.5,), std=(0.5,)), ("4 x 6",)),
        ({"shape": ("n", 4, 4, 3)}, Described(class_names=RGB, mean=(0.5,), std=(0.5,)), ("channels come before",)),
        ({}, Described(resolution=32), ("4 x 4", "--resolution")),
        ({}, Described(model="resnet8"), ("--model",)),
        ({"shape": ("n", 4, 4, 4)}, Described(class_names=RGB, mean=(0.5,), std=(0.5,)), ("4 channels",)),
        ({"shape": (1, 3, 4, 4)}, Described(), ("1 image(s) at a time", "dynamic")),
        ({"kind": TensorProto.INT64}, Described(), ("int64",)),
        ({"kind": TensorProto.FLOAT, "shape": ("n", 3, 4)}, Described(), ("one input of shape",)),
    ],
    ids=str,
)
def test_what_is_missing_is_said(tmp_path, refuses, made, described, words):
    if len(made.get("shape", "1234")) < 4:
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])], "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 4])],
        )  # fmt: skip
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "x.onnx"
        )
    else:
        foreign(tmp_path / "x.onnx", **made)
    refuses(lambda: open_classifier(tmp_path / "x.onnx", described=described), "x.onnx", *words)


@pytest.mark.parametrize(
    ("described", "words"),
    [
        (Described(resolution=-3), ("-3",)),
        (Described(fit="stretch"), ("stretch", "squash")),
        (Described(class_names=("a", "b", "a"), mean=(0.0,), std=(1.0,)), ("'a'", "twice")),
        (Described(class_names=("a",), mean=(0.0,), std=(1.0,)), ("two classes",)),
    ],
    ids=str,
)
def test_a_description_of_nothing_is_refused(tmp_path, refuses, described, words):
    refuses(lambda: open_classifier(foreign(tmp_path / "x.onnx"), described=described), *words)


def test_a_device_that_nobody_has(pair, refuses):
    refuses(lambda: open_classifier(pair[0], "tpu"), "tpu", "cuda")


def test_too_few_classes_are_noticed(tmp_path, refuses):
    classifier = open_classifier(foreign(tmp_path / "x.onnx", TensorProto.UINT8, names=RGB[:2]))
    refuses(lambda: classifier.probabilities(colours()), "x.onnx", "3 numbers", "2 classes")


@pytest.mark.parametrize("shape", ["n 3 1 1", "n", "n 3 4 4"])
def test_an_output_that_is_not_flat(tmp_path, refuses, shape):
    """What comes out of a global pooling is understood; a class number or a map is not."""
    ends = {"n 3 1 1": [("Identity", "p", {})], "n": [("ArgMax", "y", {"axis": 1, "keepdims": 0})],
            "n 3 4 4": [("Identity", "f", {})]}  # fmt: skip
    model = onnx.load(foreign(tmp_path / "x.onnx", TensorProto.UINT8, names=RGB))
    for kind, source, more in ends[shape]:
        model.graph.node.append(helper.make_node(kind, [source], ["z"], **more))
    output = helper.make_tensor_value_info("z", TensorProto.INT64 if shape == "n" else TensorProto.FLOAT, shape.split())
    for i, word in enumerate(shape.split()[1:], 1):
        output.type.tensor_type.shape.dim[i].dim_value = int(word)
    model.graph.output[0].CopyFrom(output)
    onnx.save(model, tmp_path / "x.onnx")
    classifier = open_classifier(tmp_path / "x.onnx")
    if shape == "n 3 1 1":
        assert classifier.probabilities(colours()).argmax(1).tolist() == [0, 1, 2]
    else:
        refuses(lambda: classifier.probabilities(colours()), "x.onnx", "logits or probabilities")


def test_eval_takes_the_names_of_a_foreign_file_from_the_dataset(tmp_path, picture_folder):
    """As for anyone's weights. The class is the strongest channel, and the folders are in the order of their names."""
    path = foreign(tmp_path / "x.onnx", shape=("n", 3, "h", "w"))
    found = evaluate_checkpoint(path, f"folder:{picture_folder}", resolution=16, mean=(0.0,), std=(1.0,))
    assert (found.images, found.normalisation, found.params) == (60, "given", 0)
    assert list(found.class_accuracy) == ["blue", "green", "red"]


@pytest.mark.parametrize("content", [b"", b"no onnx", b"\x08\x09" * 50])
def test_a_damaged_file_is_a_sentence(tmp_path, refuses, content):
    (tmp_path / "x.onnx").write_bytes(content)
    refuses(lambda: open_classifier(tmp_path / "x.onnx"), "x.onnx", "damaged")


def test_a_missing_file_is_a_sentence(tmp_path, refuses):
    refuses(lambda: open_classifier(tmp_path / "none.onnx"), "none.onnx")


def test_a_device_that_is_not_there(tmp_path, refuses, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    path = foreign(tmp_path / "x.onnx", TensorProto.UINT8, names=RGB)
    refuses(lambda: open_classifier(path, "cuda"), "cuda", "onnxruntime")
    assert open_classifier(path, "auto").device == "cpu"


def test_a_card_that_is_none_is_a_sentence(tmp_path, refuses):
    path = foreign(tmp_path / "x.onnx")
    for card in ("{", "[]", "{}"):
        model = onnx.load(path)
        helper.set_model_props(model, {"iekd": card})
        onnx.save(model, path)
        assert refuses(lambda: open_classifier(path), "x.onnx", "card").count("Export the model again") == 1


def test_values_that_are_no_numbers_are_an_error(tmp_path, refuses, picture_folder):
    from iekd.inference.predict_files import predict

    path = foreign(tmp_path / "x.onnx", TensorProto.UINT8, names=RGB)
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "z"
    model.graph.initializer.append(numpy_helper.from_array(np.array([np.nan], np.float32), "nan"))
    model.graph.node.append(helper.make_node("Mul", ["z", "nan"], ["y"]))
    onnx.save(model, path)
    refuses(lambda: list(predict(path, picture_folder / "test")), "no numbers")
