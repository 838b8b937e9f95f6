"""Folders of timm and transformers with `config.json`: read by what they say of themselves."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import iekd
from iekd.config.run import make_config
from iekd.data.decoding import to_array
from iekd.errors import UserError
from iekd.inference.classifier import open_classifier
from iekd.inference.evaluate import evaluate_checkpoint
from iekd.launchers.local import LocalLauncher
from iekd.models import hub_configs
from iekd.models.model_folder import config_beside, weights_in
from iekd.models.source import check_path
from iekd.runs.prepare import prepare, resolve
from iekd.runs.starts import load_start
from iekd.runs.store import Store

NAMES = ("blue", "green", "red")
FOUR = (*NAMES, "white")
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


def forget_networks(monkeypatch):
    """As a process that has read no folder yet."""
    monkeypatch.setattr(hub_configs, "_known", {})


@pytest.fixture(params=["vit", "resnet"])
def of_transformers_own(request, tmp_path):
    """A folder of transformers' own, as `save_pretrained` writes it, and its network; of one class too many."""
    transformers = pytest.importorskip("transformers", reason="the extra iekd[transformers] is not installed")
    labels = {"id2label": dict(enumerate(FOUR)), "label2id": {name: k for k, name in enumerate(FOUR)}}
    if request.param == "vit":
        config = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32,
            patch_size=8, **labels,
        )  # fmt: skip
    else:
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 24], depths=[1, 1, 1], layer_type="basic", **labels
        )
    torch.manual_seed(0)
    network = transformers.AutoModelForImageClassification.from_config(config).eval()
    folder = tmp_path / "own"
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(
        {"image_mean": MEAN, "image_std": STD, "size": {"height": 32, "width": 32}, "do_normalize": True}
    ))  # fmt: skip
    return folder, network


def test_a_folder_of_transformers_own_predicts_what_its_network_predicts(of_transformers_own, tmp_path, monkeypatch):
    folder, network = of_transformers_own
    forget_networks(monkeypatch)
    file = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)).save(file)
    opened = open_classifier(folder)
    assert (opened.card.class_names, opened.card.resolution, opened.card.mean) == (FOUR, 32, MEAN)
    pixels = to_array(str(file), 32, 3)
    x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None] / 255 - torch.tensor(MEAN).reshape(3, 1, 1)
    with torch.no_grad():
        expected = network(x / torch.tensor(STD).reshape(3, 1, 1)).logits.softmax(-1).numpy()
    np.testing.assert_allclose(opened.probabilities(pixels[None]), expected, atol=1e-5)


def test_it_teaches_without_being_named_and_its_run_opens_without_the_folder(
    of_transformers_own, picture_folder, tmp_path, monkeypatch, refuses, wait_until
):
    folder, network = of_transformers_own
    forget_networks(monkeypatch)
    options = {
        "dataset": f"folder:{picture_folder}", "teacher_from": str(folder), "student": "resnet8", "methods": "kd",
        "device": "cpu", "epochs": 1, "teacher_epochs": 1, "batch_size": 8, "validation_fraction": 0,
    }  # fmt: skip
    prepared = prepare(make_config(**options), tmp_path)
    name = prepared.config.teacher
    assert name.startswith(f"hf:folder/{type(network).__name__}@")
    assert (prepared.config.resolution or prepared.info.resolution) == 32
    said = " ".join(prepared.sentences())
    assert name.partition("@")[0] in said
    assert str(folder) in said
    launcher = LocalLauncher(Store(tmp_path / "runs"))
    run = launcher.store.get(launcher.submit(prepared.config))
    # another process knows the network by the run's folder
    forget_networks(monkeypatch)
    assert launcher.store.get(run.id).config.teacher == name
    assert hub_configs.is_known(name)
    wait_until(lambda: not run.alive())
    assert run.status.state == "finished", run.log_tail(30)
    # who names another network is told which it is; that name can be given
    refuses(lambda: prepare(make_config(**options, teacher="resnet20"), tmp_path), "resnet20", name)
    assert prepare(make_config(**options, teacher=name), tmp_path).config.teacher == name
    shutil.rmtree(folder)
    forget_networks(monkeypatch)
    assert open_classifier(run.path / "models" / "teacher").card.model == name
    forget_networks(monkeypatch)
    other = make_config(**{**options, "teacher_from": "train"}, teacher=name)
    refuses(lambda: prepare(other, tmp_path), name, "teacher from")


def test_a_student_begins_with_a_folder_of_transformers_own(of_transformers_own, picture_folder, tmp_path):
    folder, _ = of_transformers_own
    config = make_config(dataset=f"folder:{picture_folder}", methods="baseline", student_from=str(folder))
    prepared = prepare(config, tmp_path)
    assert prepared.config.student.startswith("hf:folder/")
    data = iekd.load(config.dataset, resolution=32)
    start = load_start(prepared.student, "student", prepared.config, data)
    assert (start.mean, start.std) == (MEAN, STD)


def test_a_network_of_timm_with_arguments_of_its_own_is_built_with_them(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model(NETWORK, num_classes=3, stem_width=8).eval()
    folder = tmp_path / "wide"
    timm.models.save_for_hf(
        network, folder, model_config={"label_names": list(NAMES)}, model_args={"stem_width": 8},
        safe_serialization=True,
    )  # fmt: skip
    opened = open_classifier(folder)
    assert opened.card.model.startswith(f"hf:folder/{NETWORK}@")
    image = np.random.default_rng(0).integers(0, 256, (1, opened.card.resolution, opened.card.resolution, 3), np.uint8)
    x = torch.from_numpy(image.transpose(0, 3, 1, 2).copy()) / 255
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (opened.card.mean, opened.card.std))
    with torch.no_grad():
        expected = network((x - mean) / std).softmax(-1).numpy()
    np.testing.assert_allclose(opened.probabilities(image), expected, atol=1e-5)


@pytest.mark.parametrize(("side", "name"), [(160, "timm:test_vit"), (96, "hf:folder/test_vit@")])
def test_a_transformer_of_timm_for_images_of_its_usual_size_has_its_usual_name(side, name, picture_folder, tmp_path):
    """timm writes the size of the images into every folder of one."""
    folder = tmp_path / "vit"
    timm.models.save_for_hf(
        timm.create_model("test_vit", num_classes=4, img_size=side), folder,
        model_config={"label_names": list(FOUR)}, safe_serialization=True,
    )  # fmt: skip
    assert open_classifier(folder).card.model.startswith(name)
    config = make_config(dataset=f"folder:{picture_folder}", teacher_from=str(folder), methods="kd", resolution=side)
    assert prepare(config, tmp_path).config.teacher.startswith(name)


def test_a_further_teacher_may_be_a_folder(of_transformers_own, picture_folder, tmp_path, monkeypatch):
    folder, _ = of_transformers_own
    forget_networks(monkeypatch)
    name = config_beside(folder / "model.safetensors").model
    config = make_config(
        dataset=f"folder:{picture_folder}", methods="kd", teacher="resnet8", more_teachers=(name,),
        more_teachers_from=(str(folder),),
    )  # fmt: skip
    forget_networks(monkeypatch)
    run, handle = Store(tmp_path / "runs").create(resolve(config, tmp_path / "runs"))
    os.close(handle)
    forget_networks(monkeypatch)
    assert run.config.more_teachers == (name,)
    assert hub_configs.is_known(name)


def test_classes_of_others_are_refused_before_the_start(of_timm, picture_folder, tmp_path, refuses):
    config = of_timm / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "label_names": ["ant", "bee", "cat"]}))
    options = make_config(dataset=f"folder:{picture_folder}", teacher_from=str(of_timm), methods="kd")
    refuses(lambda: prepare(options, tmp_path), "ant", "blue")


@pytest.mark.parametrize(
    "more",
    [
        {"model_args": [1]}, {"architecture": None}, {"architecture": "res net/18"},
        {"pretrained_cfg": {"mean": [127.5] * 3, "std": [64.0] * 3}}, {"pretrained_cfg": {"mean": [0.5], "std": [0.0]}},
        {"model_args": {"checkpoint_path": "evil.pth"}}, {"auto_map": {"AutoModel": "x.Y"}},
        {"architecture": None, "model_args": {"checkpoint_path": "evil.pth"}},
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_is_a_sentence(of_transformers, refuses, more):
    config = of_transformers / "config.json"
    values = {**json.loads(config.read_text()), **more}
    config.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    refuses(lambda: open_classifier(of_transformers), kind=UserError)


@pytest.mark.parametrize(("size", "side"), [(224, 224), ({"height": 3}, None), ([3, 40, "40"], None)])
def test_a_size_that_cannot_be_read_is_as_none(of_timm, size, side):
    path = of_timm / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pretrained_cfg": {"input_size": size}}))
    assert config_beside(of_timm / "model.safetensors").resolution == side


@pytest.mark.parametrize("size", ["big", [None], [], {}, {"width": 3}])
def test_a_size_that_cannot_be_read_is_224(size):
    assert hub_configs.images_of({}, {"size": size}, "it")[2] == 224


def test_images_with_red_and_blue_exchanged_are_refused(of_transformers_own, refuses):
    """As MobileViT's are."""
    folder, _ = of_transformers_own
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_flip_channel_order": True}))
    refuses(lambda: open_classifier(folder), "red and blue", "do_flip_channel_order")


def test_folders_that_are_no_classifier_are_a_sentence(of_transformers, refuses):
    config = of_transformers / "config.json"
    vit = {"architectures": ["ViTForImageClassification"], "model_type": "vit"}
    for values, *words in (
        ({**vit, "auto_map": {"AutoModel": "x.Y"}}, "auto_map"),
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "BertForMaskedLM"),
        ({**vit, "model_type": None}, "ViTForImageClassification"),
    ):
        config.write_text(json.dumps({**values, "id2label": {"0": "a", "1": "b"}}))
        refuses(lambda: open_classifier(of_transformers), *words, str(of_transformers), kind=UserError)
    config.write_text("{")
    refuses(lambda: open_classifier(of_transformers), "config.json", kind=UserError)
    (of_transformers / "model.safetensors").unlink()
    assert weights_in(of_transformers) is None
    refuses(lambda: check_path(str(of_transformers)), "without a model", kind=UserError)


def test_weights_of_another_network_than_the_config_says_are_refused(of_transformers_own, refuses):
    folder, _ = of_transformers_own
    config = json.loads((folder / "config.json").read_text())
    deeper = {"num_hidden_layers": 6} if config["model_type"] == "vit" else {"depths": [2, 1, 1]}
    (folder / "config.json").write_text(json.dumps({**config, **deeper}))
    refuses(lambda: open_classifier(folder), "config.json", "missing", kind=UserError)
