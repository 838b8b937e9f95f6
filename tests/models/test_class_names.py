"""The order of a classifier's outputs: lists that come with weights, and networks that are put into another order."""

from __future__ import annotations

import json

import pytest
import torch

from iekd.config.run import label
from iekd.errors import UserError
from iekd.models import hub_configs
from iekd.models.class_names import (
    SETTING,
    class_names_beside,
    class_names_on_hub,
    class_order_of,
    find_class_names,
    in_order_of,
    matched,
    read_class_names,
    reordered,
)
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
        [{"id": 1, "name": "dog"}, {"id": 0, "name": "cat"}, {"id": 2, "name": "eel"}],
        {"categories": [{"id": i, "name": n, "supercategory": "x"} for i, n in enumerate(("cat", "dog", "eel"), 1)]},
        [{"name": "cat"}, {"name": "dog"}, {"name": "eel"}],
    ],
)
def test_every_usual_list_is_understood(value, tmp_path):
    assert find_class_names(value) == NAMES
    path = tmp_path / "names.json"
    path.write_text(json.dumps(value))
    assert read_class_names(path) == NAMES


@pytest.mark.parametrize(
    "records",
    [
        [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        [{"id": 0, "name": "cat"}, {"name": "dog"}],
        [{"id": 0, "name": "cat"}, {"id": 1, "name": "cat"}],
        [{"id": 0, "name": "cat"}, {"id": 0, "name": "dog"}],
        [{"id": "0", "name": "cat"}, {"id": True, "name": "dog"}],
    ],
    ids=["gaps", "half", "twice", "one-number", "no-numbers"],
)
def test_records_whose_order_is_not_clear_are_refused_in_words(records, tmp_path):
    assert find_class_names(records) is None
    path = tmp_path / "names.json"
    path.write_text(json.dumps(records))
    with pytest.raises(UserError, match="not clear which number"):
        read_class_names(path)


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
    assert matched(("01", "02", "10"), ("1", "10", "2")) == ("1", "2", "10")
    assert matched(("a ", "A", "b"), ("A", "a", "b")) == ("a", "A", "b"), "capitals are all that tells some apart"


@pytest.mark.parametrize("names", [("c++", "c", "c#"), ("-1", "1"), ("+", "-"), ("a", "A"), ("1 pug", "2 cat")])
def test_names_that_differ_only_in_signs_are_told_apart(names):
    backwards = tuple(reversed(names))
    assert matched(names, backwards) == names


@pytest.mark.parametrize(
    "text",
    [
        "0 cat\n1 dog\n2 eel",
        "0: cat\n1: dog\n2: eel",
        "cat,0\neel,2\ndog,1",
        "1 cat\n2 dog\n3 eel",
        "cat\t0\ndog\t1\neel\t2",
    ],
)
def test_numbers_beside_the_names_are_their_order(text, tmp_path):
    (tmp_path / "classes.txt").write_text(text)
    assert class_order_of((str(tmp_path / "classes.txt"),)) == NAMES
    assert matched(read_class_names(tmp_path / "classes.txt"), ("eel", "dog", "cat")) == NAMES


@pytest.mark.parametrize("lines", [("grade 1", "grade 2"), ("5 pug", "7 cat"), ("0 pug", "cat"), ("3", "1", "2")])
def test_numbers_that_are_part_of_the_names_stay(lines, tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    assert class_order_of((str(tmp_path / "classes.txt"),)) == lines


def outputs(listed, classes, **options):
    """(where each class's output comes from, notes) of a network whose list of names is `listed`."""
    network = build("resnet8", len(classes), 3)
    network.classifier.bias.data = torch.arange(len(classes)).float()
    notes = in_order_of(network, listed, "classes.txt", classes, **options)
    return network.classifier.bias.tolist(), notes


def test_a_list_that_comes_with_weights_decides_the_order():
    order, notes = outputs(("eel", "cat", "dog"), NAMES)
    assert order == [1, 2, 0]
    assert len(notes) == 1
    assert "another order" in notes[0]
    assert "classes.txt" in notes[0]
    assert outputs(NAMES, NAMES) == ([0, 1, 2], [])
    assert outputs(None, NAMES) == ([0, 1, 2], [])


@pytest.mark.parametrize("listed", [("cat", "dog"), ("cat", "cat", "dog"), ("background", *NAMES)])
def test_a_list_of_another_length_is_ignored_and_named(listed):
    order, notes = outputs(listed, NAMES)
    assert order == [0, 1, 2]
    assert "ignored" in notes[0]


@pytest.mark.parametrize("listed", [("LABEL_0", "LABEL_1", "LABEL_2"), ("0", "1", "2")])
def test_a_list_without_names_says_nothing(listed):
    assert outputs(listed, NAMES) == ([0, 1, 2], [])


def test_other_names_are_refused_unless_the_user_gave_the_order():
    with pytest.raises(UserError, match=r"classes\.txt lists \(cat, dog, fox\).*class order"):
        outputs(("cat", "dog", "fox"), NAMES)
    order, notes = outputs(("cat", "dog", "fox"), NAMES, sure=True)
    assert order == [0, 1, 2]
    assert "ignored" in notes[0]


def test_a_list_in_another_order_is_ignored_where_the_user_gave_one():
    """The dataset's classes are in the order that was given."""
    order, notes = outputs(("eel", "cat", "dog"), NAMES, sure=True)
    assert order == [0, 1, 2]
    assert "another order (eel, cat, dog) and was ignored" in notes[0]
    assert outputs(NAMES, NAMES, sure=True) == ([0, 1, 2], []), "it says the same"


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (("2", "0", "1"), ("2", "0", "1")),
        (("3", "4", "5"), None),
        (("LABEL_0", "LABEL_1", "LABEL_2"), None),
        (("cat", "dog", "eel"), ("cat", "dog", "eel")),
    ],
)
def test_numbers_on_the_hub_are_names_where_the_dataset_has_them(listed, found, monkeypatch):
    monkeypatch.setitem(hub_configs._known, "hf:ann/digits", {"label_names": list(listed)})
    assert class_names_on_hub("hf:ann/digits", ("0", "1", "2")) == found
    assert class_names_on_hub("hf:ann/digits") == (found if listed == NAMES else None)
    assert outputs(("2", "0", "1"), ("0", "1", "2"))[0] == [1, 2, 0], "beside a file they always were"


def test_messages_call_the_setting_as_the_page_does():
    assert label("class_order") in SETTING
