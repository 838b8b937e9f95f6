"""The certificate is about the file that was written; a file that is worse than its original is named or refused."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.torch import load_file, save_file

from iekd.engine.scoring import balanced_accuracy
from iekd.export import Certificate, export_model, int8, register
from iekd.export.certificate import accuracy_warning
from iekd.export.check import latencies, probabilities, some_images, spread_over
from iekd.export.formats import FORMATS
from iekd.export.weights import Weights
from iekd.export.write import _refuse
from iekd.inference.predict import Predictor
from iekd.models.artifact import ModelCard, load_model, save_model


class Altered(Weights):
    """Writes another network than it was given: the outputs of its classifier are changed by `alter(weight, bias)`."""

    name, approximate = "altered", False

    def __init__(self, alter, approximate=False):
        self.alter, self.approximate = alter, approximate

    def write(self, job, target):
        super().write(job, target)
        network, card = load_model(job.folder)
        self.alter(network.classifier.weight.data, network.classifier.bias.data)
        shutil.rmtree(target.parent)
        save_model(target.parent, network, card)


@pytest.fixture
def altered():
    """`altered(alter, approximate)` registers such a format for one test; gives its name."""

    def make(alter, approximate=False):
        register(Altered(alter, approximate))
        return "altered"

    yield make
    FORMATS.pop("altered", None)


def counted(folder, split, names):
    """(percent right, mean of the classes' percents), one image after another."""
    predictor = Predictor(folder)
    right = np.array([predictor.predict(image).label for image in split.images]) == np.array(names)[split.labels]
    by_class = [100 * right[split.labels == k].mean() for k in range(len(names)) if (split.labels == k).any()]
    return 100 * right.mean(), balanced_accuracy(by_class)


@pytest.fixture
def uneven(tiny):
    """The tiny dataset with fewer test images of one class: its two accuracies differ."""
    rows = np.flatnonzero((tiny.test.labels != 2) | (np.arange(60) < 20))
    return replace(tiny, test=tiny.test.take(rows))


def test_its_accuracy_is_that_of_the_file(saved, uneven, tmp_path):
    saved(tmp_path / "model", "resnet8")  # has learned nothing, so is not always right
    certificate = export_model(tmp_path / "model", "onnx", tmp_path / "out", dataset=uneven)
    wanted = counted(tmp_path / "model", uneven.test, uneven.class_names)
    assert (certificate.accuracy, certificate.balanced_accuracy) == pytest.approx(wanted)
    assert 0 < certificate.accuracy < 100
    assert certificate.accuracy != certificate.balanced_accuracy
    assert (certificate.test_images, certificate.checked_on) == (len(uneven.test), "tiny")
    assert certificate.recorded_accuracy == 50.0
    assert certificate.not_checked == ("The teacher's latency: no teacher lies beside this model.",)
    assert certificate.bytes == os.path.getsize(tmp_path / "out" / "model.onnx")
    assert certificate.original_bytes == os.path.getsize(tmp_path / "model" / "model.safetensors")


def test_classes_in_another_order_are_checked_in_the_order_of_the_network(model, tiny, tmp_path):
    other = tiny.ordered(("red", "blue", "green"))
    first, second = (
        export_model(model, "safetensors", tmp_path / name, dataset=dataset)
        for name, dataset in (("a", tiny), ("b", other))
    )
    assert first.accuracy == second.accuracy > 90


def test_it_is_on_disk_as_data_and_to_read(model, tiny, tmp_path):
    certificate = export_model(model, "onnx", tmp_path / "out", dataset=tiny, license="MIT", command="iekd export x")
    stored = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert stored == json.loads(json.dumps(certificate.to_json()))
    page = (tmp_path / "out" / "certificate.md").read_text()
    for text in (f"{certificate.accuracy:.2f} %", "MIT", "iekd export x", "blue, green, red", "onnxruntime", "torch"):
        assert text in page
    assert stored["versions"]["onnxruntime"]
    assert stored["machine"]["processor"]


def test_both_networks_and_the_file_are_timed(model, saved, tiny, tmp_path):
    teacher = saved(tmp_path / "teacher", "wrn-16-1", role="teacher")
    certificate = export_model(model, "onnx", tmp_path / "out", beside={"teacher": teacher})
    found = [(latency.model, latency.runtime) for latency in certificate.latencies]
    assert found == [("teacher", "torch"), ("student", "torch"), ("model.onnx", "onnxruntime")]
    for latency in certificate.latencies:
        assert 0 < latency.lower_quartile <= latency.median <= latency.upper_quartile
        assert latency.answers >= 10


def test_a_latency_is_the_median_of_answers_on_one_thread():
    import torch

    torch.set_num_threads(2)
    seen = []

    def answer(pixels):
        seen.append((pixels.shape, pixels.dtype, torch.get_num_threads()))
        return pixels

    (found,) = latencies({("x", "y"): answer}, 8, 3)
    assert set(seen) == {((1, 3, 8, 8), np.dtype(np.uint8), 1)}
    assert len(seen) == found.answers + 10, "after a warm-up"
    assert torch.get_num_threads() == 2


def test_the_file_is_timed_on_one_thread_too(model, tmp_path, monkeypatch):
    threads, real = [], onnxruntime.InferenceSession

    def opened(path, options, **how):
        threads.append((options.intra_op_num_threads, options.inter_op_num_threads))
        return real(path, options, **how)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    export_model(model, "onnx", tmp_path / "out")
    assert threads[-1] == (1, 1)


def test_without_a_dataset_it_says_what_was_not_checked(model, tmp_path):
    certificate = export_model(model, "onnx", tmp_path / "out", without="It has moved.")
    assert certificate.accuracy is certificate.balanced_accuracy is None
    assert certificate.compared_on == "random pixels"
    assert certificate.difference < 1e-4
    assert certificate.not_checked[0] == "The accuracy: It has moved."
    assert "**Not checked:** The accuracy: It has moved." in (tmp_path / "out" / "certificate.md").read_text()


def test_a_dataset_of_other_classes_is_refused(model, tiny, tmp_path, refuses):
    other = replace(tiny, class_names=("a", "b", "c"))
    refuses(lambda: export_model(model, "onnx", tmp_path / "out", dataset=other), "classes")


def turn_over(weight, bias):
    weight.neg_()
    bias.neg_()


def shift(weight, bias):
    bias[0] += 1e-2


@pytest.mark.parametrize("with_images", [True, False])
def test_a_file_that_answers_otherwise_is_refused(model, tiny, tmp_path, altered, refuses, with_images):
    name, dataset = altered(turn_over), tiny if with_images else None
    refuses(
        lambda: export_model(model, name, tmp_path / "out", dataset=dataset),
        "--force",
        "something else",
    )
    assert list(tmp_path.iterdir()) == []
    certificate = export_model(model, name, tmp_path / "out", dataset=dataset, force=True)
    assert certificate.difference > 0.5
    if with_images:
        assert certificate.accuracy < 50, "of the file, not of the original"
    assert len(certificate.warnings) == 1


def test_a_file_that_is_not_a_number_is_refused(model, tmp_path, altered, refuses):
    name = altered(lambda weight, bias: bias.fill_(float("nan")))
    refuses(lambda: export_model(model, name, tmp_path / "out"), "something else")


def test_a_network_that_answers_with_no_numbers_is_not_exported(saved, tmp_path, refuses):
    folder = saved(tmp_path / "model", "resnet8")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors")
    refuses(lambda: export_model(folder, "safetensors", tmp_path / "out", force=True), folder, "no numbers")


def test_a_difference_that_is_more_than_rounding_is_a_warning(saved, tiny, tmp_path, altered):
    folder = saved(tmp_path / "unsure", "resnet8")
    certificate = export_model(folder, altered(shift), tmp_path / "out", dataset=tiny)
    assert 1e-4 < certificate.difference < 1e-2
    assert "more than rounding" in certificate.warnings[0]


def test_accuracy_that_8_bits_cost_is_a_warning_or_refused(model, tiny, tmp_path, altered, refuses):
    name = altered(turn_over, approximate=True)
    refuses(lambda: export_model(model, name, tmp_path / "out", dataset=tiny), "--force", "5 points")
    certificate = export_model(model, name, tmp_path / "out", dataset=tiny, force=True)
    assert certificate.original_accuracy > 90
    assert certificate.accuracy < 50
    assert "points of accuracy" in certificate.warnings[0]
    certificate = export_model(
        model, altered(lambda weight, bias: None, approximate=True), tmp_path / "same", dataset=tiny
    )
    assert certificate.warnings == ()


def test_where_accuracy_is_too_much_lost(refuses):
    chosen = FORMATS["int8"]
    assert accuracy_warning(91.0, 92.0) == ""
    assert "1.01 points" in accuracy_warning(90.99, 92.0)
    _refuse(0.9, 87.0, 92.0, chosen, False)
    refuses(lambda: _refuse(0.0, 86.9, 92.0, chosen, False), "86.90 %", "92.00 %")
    _refuse(0.9, 86.9, 92.0, chosen, True)


def test_int8_is_smaller_and_about_as_good(saved, tiny, tmp_path, monkeypatch):
    folder, calibrated_on = saved(tmp_path / "model", "resnet20", train=True), []

    def quantised(graph, images, real=int8.quantised):
        calibrated_on.append(images)
        return real(graph, images)

    monkeypatch.setattr(int8, "quantised", quantised)
    plain = export_model(folder, "onnx", tmp_path / "plain", dataset=tiny)
    certificate = export_model(folder, "int8", tmp_path / "int8", dataset=tiny)
    assert certificate.bytes < 0.5 * plain.bytes
    assert certificate.original_accuracy == plain.accuracy
    assert certificate.accuracy > 90
    assert certificate.difference > 0
    np.testing.assert_array_equal(*calibrated_on, tiny.train.images)
    graph = onnx.load(tmp_path / "int8" / "model.onnx").graph
    shapes = {values.name: tuple(values.dims) for values in graph.initializer}
    nodes = [node.input for node in graph.node if node.op_type == "DequantizeLinear"]
    scales = [(shapes[weight], shapes[scale]) for weight, scale, *_ in nodes if len(shapes.get(weight, ())) == 4]
    assert len(scales) > 15
    assert all(scale == weight[:1] for weight, scale in scales), "each output channel has its own"


def test_int8_needs_images_to_calibrate_with(model, tmp_path, refuses):
    refuses(lambda: export_model(model, "int8", tmp_path / "out"), "--dataset")


def test_rows_are_spread_over_all_images():
    assert spread_over(5, 10).tolist() == [0, 1, 2, 3, 4]
    rows = spread_over(10_000, 1000)
    assert len(rows) == 1000
    assert (rows[0], rows[-1]) == (0, 9999)
    assert set(np.diff(rows)) <= {10, 11}


def test_answers_come_in_the_order_of_the_images(tiny):
    images = np.concatenate([tiny.test.images] * 12)  # more than a batch
    found = probabilities(lambda pixels: pixels[:, :, 0, 0].astype(np.float32), images)
    np.testing.assert_array_equal(found, images[:, 0, 0])
    assert len(some_images(None, 8, 1)) == 64


def test_names_of_classes_do_not_break_the_table(model, tmp_path):
    certificate = export_model(model, "safetensors", tmp_path / "out")
    page = replace(certificate, license="a | b <script>", class_names=("x|y\nz",)).to_markdown()
    assert isinstance(certificate, Certificate)
    assert "| Licence | a \\| b &lt;script> |" in page
    assert "Classes: x\\|y z." in page
    assert ModelCard.read(tmp_path / "out").class_names == certificate.class_names
