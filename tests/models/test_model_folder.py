"""Folders of timm and transformers with `config.json`: read by what they say of themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from iekd.config.run import make_config
from iekd.data.decoding import to_array
from iekd.errors import UserError
from iekd.inference.classifier import open_classifier
from iekd.inference.evaluate import evaluate_checkpoint
from iekd.models.model_folder import weights_in
from iekd.models.source import check_path
from iekd.runs.prepare import prepare

NAMES = ("blue", "green", "red")
NETWORK = "test_resnet"  # timm's smallest
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = timm.create_model(NETWORK, num_classes=3).eval()
    network.pretrained_cfg = {**network.pretrained_cfg, "mean": MEAN, "std": STD, "input_size": (3, 40, 40)}
    return network


@pytest.fixture
def of_timm(tmp_path, network):
    """As timm.models.save_for_hf writes it."""
    timm.models.save_for_hf(
        network, tmp_path / "timm", model_config={"label_names": list(NAMES)}, safe_serialization=True
    )
    return tmp_path / "timm"


@pytest.fixture
def of_transformers(tmp_path, network):
    """As transformers' TimmWrapperForImageClassification writes it."""
    folder = tmp_path / "wrapped"
    folder.mkdir()
    save_file(
        {f"timm_model.{k}": v.contiguous() for k, v in network.state_dict().items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps({
        "architecture": f"{NETWORK}.some_weights", "architectures": ["TimmWrapperForImageClassification"],
        "id2label": dict(enumerate(NAMES)), "label2id": {name: k for k, name in enumerate(NAMES)},
        "pretrained_cfg": {"mean": MEAN, "std": STD, "input_size": [3, 40, 40]}, "model_type": "timm_wrapper",
    }))  # fmt: skip
    return folder


@pytest.mark.parametrize("kind", ["of_timm", "of_transformers"])
def test_a_folder_predicts_what_its_network_predicts(request, kind, network, tmp_path):
    folder = request.getfixturevalue(kind)
    file = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)).save(file)
    for path in (folder, check_path(str(folder))):
        opened = open_classifier(type(folder)(path))
        assert (opened.card.class_names, opened.card.resolution) == (NAMES, 40)
        assert opened.card.model == f"timm:{NETWORK}"
        pixels = to_array(str(file), 40, 3)
        x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None] / 255
        x = (x - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)
        with torch.no_grad():
            expected = network(x).softmax(-1).numpy()
        np.testing.assert_allclose(opened.probabilities(pixels[None]), expected, atol=1e-5)


def test_it_is_evaluated_and_teaches_under_its_own_name(of_timm, picture_folder, tmp_path, refuses):
    found = evaluate_checkpoint(of_timm, dataset=f"folder:{picture_folder}")
    assert (found.model, found.mean) == (f"timm:{NETWORK}", MEAN)
    config = make_config(dataset=f"folder:{picture_folder}", teacher=f"timm:{NETWORK}", teacher_from=str(of_timm))
    assert prepare(config, tmp_path).teacher == of_timm / "model.safetensors"
    other = make_config(dataset=f"folder:{picture_folder}", teacher="resnet20", teacher_from=str(of_timm))
    refuses(lambda: prepare(other, tmp_path), "resnet20", f"timm:{NETWORK}")


def test_networks_of_transformers_own_are_a_sentence(of_transformers, refuses):
    config = of_transformers / "config.json"
    config.write_text(json.dumps({"architectures": ["ViTForImageClassification"], "id2label": {"0": "a", "1": "b"}}))
    refuses(lambda: open_classifier(of_transformers), "ViTForImageClassification", "timm", kind=UserError)
    config.write_text("{")
    refuses(lambda: open_classifier(of_transformers), "config.json", kind=UserError)
    (of_transformers / "model.safetensors").unlink()
    assert weights_in(of_transformers) is None
    refuses(lambda: check_path(str(of_transformers)), "without a model", kind=UserError)
