"""How the page says things."""

from __future__ import annotations

import pytest

from iekd.models.catalog import known_models, model_name
from iekd.ui.tabs.form import model_choices


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet20", "ResNet-20"),
        ("resnet110", "ResNet-110"),
        ("resnet32x4", "ResNet-32×4"),
        ("resnet20-a", "ResNet-20 (option A)"),
        ("resnet18", "resnet18 (torchvision)"),
        ("resnet50", "resnet50 (torchvision)"),
        ("wrn-40-2", "WRN-40-2"),
        ("wrn-28-10", "WRN-28-10"),
        ("vgg13", "VGG-13 (CRD)"),
        ("mobilenet-v2-crd", "MobileNetV2 (CRD)"),
        ("shufflenet-v1", "ShuffleNetV1 (CRD)"),
        ("shufflenet-v2", "ShuffleNetV2 (CRD)"),
        ("none", "none"),
        ("something-else", "something-else"),
    ],
)
def test_models_have_the_names_of_their_papers(model: str, said: str) -> None:
    assert model_name(model) == said


def test_every_model_can_be_chosen_by_a_name_of_its_own() -> None:
    choices = model_choices(with_none=False)
    assert [name for _, name in choices] == known_models()
    labels = [label for label, _ in choices]
    assert len(set(labels)) == len(labels)
    assert all(label[0].isupper() for label in labels)
    assert labels[0] == "ResNet-8 · 0.08 M"
