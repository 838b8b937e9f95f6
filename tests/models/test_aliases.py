"""Networks that had other names, and other code, in earlier versions: their files, runs and checkpoints still open."""

from __future__ import annotations

import json

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from iekd.config.run import RunConfig, make_config
from iekd.engine.optimizer import MOMENTUM
from iekd.engine.state import LearnerState
from iekd.engine.training_unit import memory_in
from iekd.models.artifact import load_model
from iekd.models.registry import build
from iekd.models.weight_files import read_weights
from iekd.models.weights import fit_weights
from iekd.runs.store import Run
from iekd.runs.teachers import origin, teacher_folder


def images(side: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def theirs() -> torch.nn.Module:
    """The names and numbers of our own resnet18 of earlier versions were torchvision's."""
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=3).eval()


def test_a_saved_model_of_an_old_name_opens(tmp_path, theirs) -> None:
    card = {
        "model": "resnet18", "datasets": ["x"], "class_names": ["a", "b", "c"], "channels": 3, "resolution": 64,
        "mean": [0.5] * 3, "std": [0.2] * 3, "accuracy": None, "params": 1,
    }  # fmt: skip
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(json.dumps(card))
    opened, read = load_model(tmp_path)
    assert read.model == "torchvision:resnet18"
    with torch.no_grad():
        torch.testing.assert_close(opened(images()).logits, theirs(images()))


def test_a_file_of_weights_fits_under_the_old_name(tmp_path, theirs) -> None:
    torch.save({"net": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "m.pth")
    fitted = fit_weights(read_weights(tmp_path / "m.pth"), "resnet18", 3, 3)
    with torch.no_grad():
        torch.testing.assert_close(fitted.model(images()).logits, theirs(images()))


def test_checkpoints_with_the_names_of_before_are_restored() -> None:
    torch.manual_seed(0)
    network = build("resnet18-cifar", 3)
    old = {key.removeprefix("network."): value + 1 for key, value in network.state_dict().items()}
    network.load_state_dict(old)
    assert torch.equal(network.state_dict()["network.fc.bias"], old["fc.bias"])
    assert "fc.bias" in old  # what is given is not changed
    state = LearnerState({}, {"model.fc.bias": torch.ones(3)})
    assert memory_in(state, "model.network.fc.bias", MOMENTUM) is state.momentum["model.fc.bias"]
    assert memory_in(state, "model.network.fc.weight", MOMENTUM) is None


def test_an_old_run_is_read_with_the_names_of_now(tmp_path) -> None:
    run = tmp_path / "20260101-000000-abcdef"
    run.mkdir()
    stored = {**RunConfig().model_dump(mode="json"), "teacher": "resnet18", "student": "vgg8"}
    (run / "config.json").write_text(json.dumps(stored))
    assert (Run(run).config.teacher, Run(run).config.student) == ("torchvision:resnet18", "vgg8-crd")


def test_teachers_of_earlier_versions_are_found(tmp_path) -> None:
    """The hash is the one that version 0.1 computed for the old name."""
    new, old = make_config(teacher="vgg13-crd"), RunConfig.model_construct(**{**make_config().model_dump()})
    old = old.model_copy(update={"teacher": "vgg13"})
    assert origin(new) == origin(old)
    assert teacher_folder(new, tmp_path).name.startswith("vgg13-")
