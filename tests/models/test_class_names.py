"""The order of a classifier's outputs: lists that come with weights, and networks that are put into another order."""

from __future__ import annotations

import json

import pytest
import torch

from iekd.errors import UserError
from iekd.models.class_names import class_names_beside, find_class_names, matched, read_class_names, reordered
from iekd.models.registry import build
from iekd.models.weight_files import read_weights

NAMES = ("cat", "dog", "eel")


@pytest.mark.parametrize(
    "value",
    [
        ["cat", "dog", "eel"],
        {"cat": 0, "eel": 2, "dog": 1},
        {"0": "cat", "1": "dog", "2": "eel"},
        {2: "eel", 0: "cat", 1: "dog"},
        {"id2label": {"0": "cat", "1": "dog", "2": "eel"}, "architectures": ["X"]},
        {"class_to_idx": {"cat": 0, "dog": 1, "eel": 2}},
        {"label_names": ["cat", "dog", "eel"]},
    ],
)
def test_every_usual_list_is_understood(value, tmp_path):
    assert find_class_names(value) == NAMES
    path = tmp_path / "names.json"
    path.write_text(json.dumps(value))
    assert read_class_names(path) == NAMES


@pytest.mark.parametrize("value", [None, 3, [], ["a", 1], {"a": 0, "b": 0}, {"a": 1, "b": 2}, {"x": "y"}, {}])
def test_what_is_not_a_list_of_classes(value):
    assert find_class_names(value) is None


def test_a_text_file_with_one_name_per_line(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\n dog \n\neel\n", "utf-8")
    assert read_class_names(tmp_path / "classes.txt") == NAMES
    assert class_names_beside(tmp_path / "weights.pt") == (NAMES, "classes.txt")
    (tmp_path / "empty.txt").write_text("\n")
    for name, words in (("empty.txt", "no class names"), ("nowhere.txt", "cannot be read")):
        with pytest.raises(UserError, match=words):
            read_class_names(tmp_path / name)


def test_names_in_a_checkpoint_are_found(tmp_path):
    state = build("resnet8", 3, 3).state_dict()
    torch.save({"state_dict": state, "class_to_idx": {"cat": 0, "dog": 1, "eel": 2}}, tmp_path / "a.pt")
    file = read_weights(tmp_path / "a.pt")
    assert (file.class_names, file.named_in) == (NAMES, "the file")
    torch.save(state, tmp_path / "b.pt")
    assert read_weights(tmp_path / "b.pt").class_names is None
    (tmp_path / "class_to_idx.json").write_text('{"cat": 1, "dog": 0, "eel": 2}')
    assert read_weights(tmp_path / "b.pt").class_names == ("dog", "cat", "eel")


@pytest.mark.parametrize("model", ["resnet8", "vgg8", "mobilenet-v2", "wrn-16-1", "resnet18"])
def test_outputs_move_and_nothing_else(model):
    network = build(model, 3, 3).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = network(images).logits
        after = reordered(network, NAMES, ("eel", "cat", "dog"))(images).logits
    assert torch.equal(after, before[:, [2, 0, 1]])


def test_other_classes_cannot_be_reordered():
    with pytest.raises(UserError, match="other classes"):
        reordered(build("resnet8", 3, 3), NAMES, ("cat", "dog", "fox"))


def test_spelling_differs_in_capitals_and_spaces():
    assert matched(("Golden Retriever", "PUG"), ("golden_retriever", "pug")) == ("golden_retriever", "pug")
    assert matched(("pug", "cat"), ("pug", "dog")) is None
    assert matched(("a b", "a_b"), ("a b", "ab")) is None, "two that would become one"
