"""Exported files give what the network gives, for every family, and run by themselves."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from iekd import __version__
from iekd.export import FORMATS, export_model
from iekd.inference.predict import Predictor
from iekd.models.artifact import ModelCard
from iekd.models.features import Features
from iekd.models.registry import BUILDERS, FAMILIES, register

CHECKOUT = Path(__file__).parents[2]
# the smallest of each family
NETWORKS = [
    "resnet8", "wrn-16-1", "vgg8-crd", "mobilenet-v2-crd", "shufflenet-v1-crd", "shufflenet-v2-crd", "resnet18-cifar",
]  # fmt: skip


def scores(folder, images):
    """(N,K): the saved model's own probabilities."""
    predictor = Predictor(folder)
    found = np.zeros((len(images), len(predictor.card.class_names)))
    for i, image in enumerate(images):
        for label, score in predictor.predict(image).top:
            found[i, predictor.card.class_names.index(label)] = score
    return found


def as_pixels(images):
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def test_there_is_a_network_of_every_family():
    families = [family.__name__ for family in FAMILIES]
    measured = runpy.run_path(str(CHECKOUT / "benchmarks" / "export.py"))["FAMILIES"]  # for benchmarks/RESULTS.md
    for names in (NETWORKS, measured):
        assert [BUILDERS[name].__module__ for name in names] == families


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_gives_the_same_probabilities(name, saved, tiny, tmp_path):
    folder = saved(tmp_path / "model", name)
    certificate = export_model(folder, "onnx", tmp_path / "out")
    assert certificate.difference < 1e-4
    assert certificate.warnings == ()
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    for count in (1, 5):  # another number of images than it was traced with
        images = tiny.test.images[:count]
        (found,) = session.run(["probabilities"], {"pixels": as_pixels(images)})
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, scores(folder, images), atol=1e-4)


def test_an_onnx_file_says_what_it_takes_and_gives(model, tmp_path):
    export_model(model, "onnx", tmp_path / "out", license="MIT")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "certificate.json", "certificate.md", "model.onnx", "use_it.py",
    ]  # fmt: skip
    graph = onnx.load(str(tmp_path / "out" / "model.onnx"))
    onnx.checker.check_model(graph, full_check=True)
    (taken,), (given,) = graph.graph.input, graph.graph.output
    assert (taken.name, given.name) == ("pixels", "probabilities")
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    sizes = [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim]
    assert sizes == ["batch", 3, 16, 16]
    texts = {p.key: p.value for p in graph.metadata_props}
    assert json.loads(texts.pop("labels")) == ["blue", "green", "red"]
    assert ModelCard.from_json(json.loads(texts.pop("iekd")), tmp_path) == ModelCard.read(model)
    assert texts == {"size": "16x16", "fit": "crop", "license": "MIT", "iekd_version": __version__}


def test_a_torch_program_gives_the_same_probabilities(model, tiny, tmp_path):
    certificate = export_model(model, "torch", tmp_path / "out", license="CC0")
    assert certificate.difference < 1e-6
    texts = {"labels": "", "license": "", "size": ""}
    program = torch.export.load(tmp_path / "out" / "model.pt2", extra_files=texts).module()
    assert json.loads(texts["labels"]) == ["blue", "green", "red"]
    assert (texts["license"], texts["size"]) == ("CC0", "16x16")
    for count in (1, 7):
        images = tiny.test.images[:count]
        np.testing.assert_allclose(program(torch.from_numpy(as_pixels(images))), scores(model, images), atol=1e-6)


@pytest.mark.parametrize("format_name", ["onnx", "torch"])
def test_nothing_inside_names_a_folder_of_this_machine(model, format_name, tmp_path):
    export_model(model, format_name, tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        data = path.read_bytes()
        for place in (CHECKOUT, model.parent, tmp_path, Path(torch.__file__).parent):
            assert str(place).encode() not in data, path.name


def test_safetensors_is_a_model_folder_again(model, tiny, tmp_path):
    export_model(model, "safetensors", tmp_path / "out")
    assert Predictor(tmp_path / "out").card == Predictor(model).card
    images = tiny.test.images[:3]
    np.testing.assert_array_equal(scores(tmp_path / "out", images), scores(model, images))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


class Plain(nn.Module):
    """Somebody's network; it is not one of ours in any way."""

    def __init__(self, num_classes, channels):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(channels, 4, 3, 2), nn.Linear(4, num_classes)

    def forward(self, images):
        last = torch.nn.functional.gelu(self.conv(images))
        pooled = last.flatten(2).amax(2)
        return Features(self.fc(pooled), (last,), None, pooled)


class Moody(Plain):
    """What it computes depends on the values, in Python."""

    def forward(self, images):
        found = super().forward(images)
        return found if images.mean().item() > 0 else found._replace(logits=-found.logits)


@pytest.mark.parametrize("format_name", ["onnx", "torch"])
def test_a_registered_network_is_exported_too(format_name, saved, tmp_path, forgotten):
    @register
    def plain_net(num_classes, channels):
        return Plain(num_classes, channels)

    folder = saved(tmp_path / "model", "plain-net")
    certificate = export_model(folder, format_name, tmp_path / "out")
    assert certificate.difference < 1e-4
    assert certificate.model == "plain-net"


@pytest.mark.parametrize("format_name", ["onnx", "torch"])
def test_a_network_that_torch_cannot_follow_is_refused_in_words(format_name, saved, tmp_path, forgotten, refuses):
    @register
    def moody_net(num_classes, channels):
        return Moody(num_classes, channels)

    folder = saved(tmp_path / "model", "moody-net")
    refuses(lambda: export_model(folder, format_name, tmp_path / "out"), "moody-net", "safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"], "nothing is left behind"
    export_model(folder, "safetensors", tmp_path / "out")


def test_a_network_that_is_too_large_for_one_file_is_refused_at_once(saved, tmp_path, monkeypatch, refuses):
    model = saved(tmp_path / "model", "resnet8", mean=(0.41,) * 3)  # that no other test has exported
    monkeypatch.setattr("iekd.export.onnx_file.LARGEST", 1000)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("it takes minutes and memory first"))
    refuses(lambda: export_model(model, "onnx", tmp_path / "out"), "resnet8", "2 GB", "torch or safetensors")
    assert not (tmp_path / "out").exists()


def test_every_format_has_a_title_and_a_file():
    for name, chosen in FORMATS.items():
        assert chosen.name == name
        assert chosen.title
        assert Path(chosen.file).stem == "model"
