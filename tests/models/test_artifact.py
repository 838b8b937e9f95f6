from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import safetensors.torch
import torch

from iekd.models.artifact import CARD, WEIGHTS, ModelCard, load_model, save_model
from iekd.models.registry import build


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(
        model="resnet8", datasets=("tiny",), class_names=("a", "b", "ç / d"), channels=3, resolution=16,
        mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), accuracy=50.5, params=1, method="ie-ft", seed=3,
        command="iekd train",
    )  # fmt: skip


@pytest.fixture
def saved(tmp_path, card):
    """(folder, the model in it, its card)"""
    torch.manual_seed(0)
    model = build("resnet8", 3)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 16, 16))  # so that the batch norm's statistics are not the initial ones
    save_model(tmp_path / "model", model, card)
    return tmp_path / "model", model, card


def edit(folder, **values):
    stored = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**stored, **values}))


def test_what_is_saved_comes_back(saved):
    folder, model, card = saved
    again, again_card = load_model(folder)
    assert again_card == card
    state = again.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(images).logits, model.eval()(images).logits)


def test_a_loaded_model_is_ready_to_answer(saved):
    model, _ = load_model(saved[0])
    assert not any(m.training for m in model.modules())


def test_saving_again_replaces_the_older_model(saved, card):
    folder, model, _ = saved
    with torch.no_grad():
        model.classifier.bias += 1
    (folder / "stray").write_text("")
    save_model(folder, model, card)
    assert torch.equal(load_model(folder)[0].classifier.bias, model.classifier.bias)
    assert sorted(p.name for p in folder.iterdir()) == [CARD, WEIGHTS]
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("keep", [False, True])
def test_two_that_save_the_same_model_at_once_leave_a_whole_one(tmp_path, card, monkeypatch, keep):
    """As two runs do that have trained the same teacher."""
    write, both = safetensors.torch.save_file, threading.Barrier(2, timeout=20)

    def together(*given):
        both.wait()
        write(*given)
        both.wait()

    monkeypatch.setattr(safetensors.torch, "save_file", together)
    model = build("resnet8", 3)
    with ThreadPoolExecutor(2) as threads:
        saving = [threads.submit(save_model, tmp_path / "model", model, card, keep) for _ in range(2)]
    assert [one.exception() for one in saving] == [None, None]
    assert load_model(tmp_path / "model")[1] == card
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing is left over"


def test_a_model_that_is_there_by_then_can_be_kept(saved, card):
    folder, model, _ = saved
    (folder / "stray").write_text("")
    save_model(folder, model, card, keep=True)
    assert (folder / "stray").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_saving_leaves_the_model_as_it_was(saved):
    _, model, _ = saved
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("keep", [0, 1, 7, 100, 10_000, -1])
def test_truncated_weights_are_refused(saved, keep, refuses):
    folder = saved[0]
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:keep])
    refuses(lambda: load_model(folder), folder, "weights")


def test_missing_weights_are_refused(saved, refuses):
    (saved[0] / WEIGHTS).unlink()
    refuses(lambda: load_model(saved[0]), saved[0])


@pytest.mark.parametrize(
    "values",
    [{"model": "resnet14"}, {"class_names": ["a", "b"]}, {"channels": 1, "mean": [0.1], "std": [0.4]}],
    ids=["model", "classes", "channels"],
)
def test_a_card_of_another_network_is_refused(saved, values, refuses):
    edit(saved[0], **values)
    refuses(lambda: load_model(saved[0]), saved[0], "cannot be loaded")


@pytest.mark.parametrize(
    "values",
    [
        {"class_names": 3}, {"class_names": []}, {"class_names": [1, 2]}, {"channels": "3"}, {"resolution": 10**9},
        {"resolution": None}, {"mean": [0.1]}, {"std": [0.4, 0.5, 0]}, {"mean": ["a", "b", "c"]}, {"model": None},
        {"fit": "stretch"}, {"datasets": [7]}, {"command": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_card_that_anybody_may_have_written_holds_what_it_has_to(saved, values, refuses):
    edit(saved[0], **values)
    (name,) = values
    refuses(lambda: load_model(saved[0]), saved[0], f"'{name}' cannot be")


def test_a_card_that_is_no_object(saved, refuses):
    (saved[0] / CARD).write_text("[]")
    assert refuses(lambda: load_model(saved[0]), saved[0]).count("not a model card") == 1


def test_a_card_of_an_unknown_network_is_refused(saved, refuses):
    edit(saved[0], model="resnet-8")
    refuses(lambda: load_model(saved[0]), "resnet-8", "resnet8")


@pytest.mark.parametrize(
    "content",
    ["", "{", "not json", "[]", "null", "{}", '{"model": "resnet8"}', "\x00\x01"],
)
def test_a_file_that_is_not_a_card_is_refused(saved, content, refuses):
    (saved[0] / CARD).write_text(content)
    refuses(lambda: ModelCard.read(saved[0]), CARD)


def test_a_card_in_another_encoding_is_refused(saved, refuses):
    (saved[0] / CARD).write_bytes(b"\xff\xfe{}")
    refuses(lambda: ModelCard.read(saved[0]), CARD)


def test_a_folder_without_a_card_is_refused(tmp_path, refuses):
    refuses(lambda: load_model(tmp_path / "nothing"), tmp_path / "nothing", CARD)


def test_a_card_of_a_later_version_is_read(saved):
    edit(saved[0], invented_later=[1, 2])
    assert ModelCard.read(saved[0]) == saved[2]


def test_half_precision_and_channels_last_models_are_saved(tmp_path, card):
    model = build("resnet8", 3).to(memory_format=torch.channels_last)
    save_model(tmp_path / "m", model, card)
    again, _ = load_model(tmp_path / "m")
    assert torch.equal(again.conv.weight, model.conv.weight)
