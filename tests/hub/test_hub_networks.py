"""Networks of the Hub by name: hf:ORG/NAME, built by timm or transformers, with a stand-in of the Hub."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import iekd
from iekd.config.run import make_config
from iekd.errors import UserError
from iekd.models import hub_configs
from iekd.models.artifact import CARD, ModelCard, load_model, save_model
from iekd.models.catalog import model_info, model_name
from iekd.models.hub_networks import load_pretrained, pretrained
from iekd.models.info import IMAGENET
from iekd.models.registry import build
from iekd.models.start import from_library
from iekd.runs.prepare import prepare, resolve
from iekd.runs.starts import find_source, load_start
from iekd.runs.store import Store

TIMM = {
    "architecture": "resnet10t", "num_classes": 3, "label_names": ["ant", "bee", "cat"],
    "pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]},
}  # fmt: skip
VIT = {
    "architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 4,
    "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32, "patch_size": 8,
    "id2label": {"0": "ant", "1": "bee"}, "label2id": {"ant": 0, "bee": 1}, "torch_dtype": "float16",
}  # fmt: skip
RESNET = {
    "architectures": ["ResNetForImageClassification"], "model_type": "resnet", "embedding_size": 8,
    "hidden_sizes": [8, 16, 24], "depths": [1, 1, 1], "layer_type": "basic",
}  # fmt: skip


def images(side: int = 64, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


def test_a_network_of_timm_is_pinned_built_and_measured(published) -> None:
    commit = published("ann/tiny", TIMM)
    assert check_only("hf:ann/tiny") == "hf:ann/tiny"
    name = hub_configs.look_up("hf:ann/tiny")
    assert name == f"hf:ann/tiny@{commit}"
    assert model_name(name) == "ann/tiny (Hub)"
    features = build(name, 5).eval()(images())
    assert features.logits.shape == (2, 5)
    assert tuple(s.shape[1] for s in features.stages) == model_info(name).stage_channels == (64, 128, 256, 512)
    assert build(name, 2, 1).eval()(images(channels=1)).logits.shape == (2, 2)


def check_only(name: str) -> str:
    return make_config(teacher=name).teacher


def test_settings_are_checked_without_the_hub(hub) -> None:
    make_config(teacher="hf:ann/none", student="hf:ann/none@v1", methods="od")
    assert hub.requests == []


def test_a_run_keeps_the_configuration_and_opens_without_the_hub(published, hub, tmp_path, forget) -> None:
    commit = published("ann/tiny", TIMM)
    config = make_config(teacher="hf:ann/tiny", student="resnet8", resolution=32, dataset="fashion-mnist-sample")
    prepared = prepare(config, tmp_path / "runs").config
    assert prepared.teacher == f"hf:ann/tiny@{commit}"
    run, handle = Store(tmp_path / "runs").create(prepared)
    os.close(handle)
    asked = len(hub.requests)
    forget(tmp_path / "hf-cache")
    assert run.config.teacher == prepared.teacher
    assert build(run.config.teacher, 2, 1).eval()(images(32, 1)).logits.shape == (2, 2)
    assert len(hub.requests) == asked


def test_a_saved_model_opens_on_another_machine(published, hub, tmp_path, forget) -> None:
    published("ann/tiny", TIMM)
    name = hub_configs.look_up("hf:ann/tiny")
    network = build(name, 2).eval()
    save_model(tmp_path / "m", network, ModelCard(name, ("x",), ("a", "b"), 3, 64, (0.5,) * 3, (0.2,) * 3, None, 1))
    forget(tmp_path / "hf-cache")
    hub.close()
    opened, card = load_model(tmp_path / "m")
    assert card.model == name
    with torch.no_grad():
        torch.testing.assert_close(opened(images()).logits, network(images()).logits)
    forget()
    starting = {"dataset": "fashion-mnist-sample", "methods": "kd"}
    for source in (str(tmp_path / "m"), f"run:{in_a_run(tmp_path, tmp_path / 'm')}"):
        forget()
        config = resolve(make_config(student_from=source, **starting), tmp_path / "runs")
        assert config.student == name, "it begins with it though nobody looked it up here"
        assert find_source(config.student_from, "student", config, tmp_path / "runs").classes == 2
    (tmp_path / "m" / CARD).write_text((tmp_path / "m" / CARD).read_text().replace('\\"num_classes', '\\"auto_map'))
    forget()
    with pytest.raises(UserError, match="code of its own"):
        load_model(tmp_path / "m")


def in_a_run(folder: Path, model: Path) -> str:
    """The id of a run whose only student it is."""
    run, handle = Store(folder / "runs").create(make_config(dataset="fashion-mnist-sample", methods="kd"))
    os.close(handle)
    shutil.copytree(model, run.path / "models" / "kd-seed0")
    return run.id


def test_what_was_looked_up_once_is_used_while_the_hub_is_away(published, hub, forget) -> None:
    commit = published("ann/tiny", TIMM)
    hub_configs.look_up("hf:ann/tiny")
    forget()
    hub.close()
    assert hub_configs.look_up("hf:ann/tiny") == f"hf:ann/tiny@{commit}"


def test_trained_weights_of_timm(published) -> None:
    torch.manual_seed(0)
    import timm

    theirs = timm.create_model("resnet10t", num_classes=3).eval()
    published("ann/tiny", TIMM, model_st=save(theirs.state_dict()))
    found = pretrained("ann/tiny")
    assert (found.mean, found.std, found.side, found.classes) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1), 64, 3)
    ours = build("hf:ann/tiny", 3)
    ours.load_state_dict(load_pretrained("ann/tiny", 3))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images()).logits, theirs(images()))


def test_a_backbone_without_a_classifier_is_a_start(published, picture_folder, tmp_path) -> None:
    """Such as DINOv2's: its config.json says 0 classes."""
    network = build("timm:resnet10t", 3)
    head = {f"fc.{name}" for name, _ in network.network.get_classifier().named_parameters()}
    state = {key: value for key, value in network.network.state_dict().items() if key not in head}
    published("ann/backbone", {**TIMM, "num_classes": 0, "label_names": []}, model_st=save(state))
    found = load_pretrained("ann/backbone", 3)
    assert not {f"network.{name}" for name in head} & found.keys()
    torch.testing.assert_close(found["network.conv1.0.weight"], state["conv1.0.weight"])
    config = make_config(
        teacher="none", student="hf:ann/backbone", student_from="pretrained", methods="baseline",
        dataset=f"folder:{picture_folder}",
    )  # fmt: skip
    prepared = prepare(config, tmp_path / "runs")
    start = load_start(prepared.student, "student", prepared.config, iekd.load(config.dataset, resolution=64))
    assert any("the weights have none" in note for note in start.notes)
    del state["conv1.0.weight"]
    published("ann/broken", {**TIMM, "num_classes": 0}, model_st=save(state))
    with pytest.raises(UserError, match=r"conv1\.0\.weight is missing"):
        load_pretrained("ann/broken", 3)


def test_a_pickle_is_read_without_its_code(published, refuses) -> None:
    torch.manual_seed(0)
    network, file = build_known("resnet10t"), io.BytesIO()
    torch.save(network.state_dict(), file)
    published("ann/old", TIMM, pytorch_model_bin=file.getvalue())
    assert load_pretrained("ann/old", 3)
    published("ann/evil", TIMM, pytorch_model_bin=pickle.dumps(Evil(), protocol=2))
    refuses(lambda: load_pretrained("ann/evil", 3), "code", "nothing of it ran")
    published("ann/none", TIMM)
    refuses(lambda: load_pretrained("ann/none", 3), "model.safetensors", "ann/none")


class Evil:
    def __reduce__(self):
        return print, ("this must not run",)


def build_known(name: str):
    import timm

    return timm.create_model(name, num_classes=3)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**TIMM, "auto_map": {"AutoModel": "code.Net"}}, ("code of its own",)),
        ({**VIT, "auto_map": {"AutoModel": "code.Net"}}, ("code of its own",)),
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, ("BertForMaskedLM", "image classification")),
        ({"hello": 1}, ("does not say what network",)),
        ({**TIMM, "architecture": 7}, ("architecture",)),
        ([1], ("cannot be read", "not an object")),
        ({**TIMM, "model_args": [1]}, ("model_args",)),
        # transformers would give it to timm as it is
        (
            {
                "model_type": "timm_wrapper",
                "architectures": ["TimmWrapperForImageClassification"],
                "model_args": {"checkpoint_path": "/etc/x"},
            },
            ("architecture",),
        ),
    ],
)
def test_what_is_no_image_classifier_is_refused(published, refuses, config, words) -> None:
    published("ann/other", config)
    refuses(lambda: hub_configs.look_up("hf:ann/other"), "ann/other", *words)


@pytest.mark.parametrize("more", [{"checkpoint_path": "/etc/x"}, {"pretrained": True}])
def test_a_configuration_cannot_name_files(published, refuses, more) -> None:
    published("ann/tiny", {**TIMM, "model_args": more})
    hub_configs.look_up("hf:ann/tiny")
    refuses(lambda: build("hf:ann/tiny", 2), next(iter(more)), "refused")
    hub_configs.remember({"hf:ann/imported": {"model_type": "timm_wrapper", "model_args": more}})  # a run's folder
    refuses(lambda: build("hf:ann/imported", 2), "architecture", "refused")
    published("ann/later", {**TIMM, "architecture": "resnet9999"})
    hub_configs.look_up("hf:ann/later")
    refuses(lambda: build("hf:ann/later", 2), "'resnet9999'", "newer")


def test_what_the_hub_does_not_give(published, hub, refuses, forget) -> None:
    refuses(lambda: hub_configs.look_up("hf:ann/none"), "ann/none", "Check the name")
    published("bob/secret", TIMM, private=True)
    refuses(lambda: hub_configs.look_up("hf:bob/secret"), "bob/secret", "private")
    published("ann/tiny", TIMM)
    refuses(lambda: hub_configs.look_up("hf:ann/tiny@v9"), "no such revision")
    refuses(lambda: hub_configs.look_up("hf:ann"), "ORG/NAME")
    refuses(lambda: build("hf:ann/tiny", 2), "not been looked up")
    hub.close()
    refuses(lambda: hub_configs.look_up("hf:ann/tiny"), "cannot be reached")


def test_a_network_of_transformers_needs_the_extra(published, refuses, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    published("ann/vit", VIT)
    name = hub_configs.look_up("hf:ann/vit")
    refuses(lambda: build(name, 2), "iekd[transformers]")
    config = make_config(teacher=name, resolution=32)
    refuses(lambda: prepare(config, Store("runs").root), "iekd[transformers]")


@pytest.mark.parametrize(
    ("config", "side", "shapes"),
    [
        (VIT, 32, ((16, 4, 4),) * 4),
        (VIT, 64, ((16, 8, 8),) * 4),
        (RESNET, 64, ((8, 16, 16), (16, 8, 8), (24, 4, 4))),
    ],
)
def test_networks_of_transformers(published, config, side, shapes) -> None:
    pytest.importorskip("transformers", reason="the extra iekd[transformers] is not installed")
    torch.manual_seed(0)
    published(f"ann/{config['model_type']}", config)
    name = hub_configs.look_up(f"hf:ann/{config['model_type']}")
    network = build(name, 5).eval()
    with torch.no_grad():
        features = network(images(side))
        assert tuple(tuple(s.shape[1:]) for s in features.stages) == shapes
        assert features.logits.dtype == torch.float32
        head = [m for m in network.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 5][-1]
        torch.testing.assert_close(head(features.pooled), features.logits)
        assert build(name, 2, 1).eval()(images(side, 1)).logits.shape == (2, 2)
    assert model_info(name).stage_channels == tuple(shape[0] for shape in shapes)
    torch.manual_seed(0)
    again = build(name, 5).eval()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("DeiTForImageClassification", "network.classifier"),
        ("DeiTForImageClassificationWithTeacher", ""),
    ],
)
def test_a_model_type_with_several_classifiers_is_built_as_its_config_says(published, kind, head) -> None:
    """The second has two heads, whose mean are the logits: its pooled features are the last stage's means."""
    transformers = pytest.importorskip("transformers", reason="the extra iekd[transformers] is not installed")
    config = {**VIT, "model_type": "deit", "architectures": [kind]}
    published("ann/deit", config)
    network = build(hub_configs.look_up("hf:ann/deit"), 5).eval()
    assert type(network.network) is getattr(transformers, kind)
    with torch.no_grad():
        features = network(images(32))
    assert tuple(tuple(s.shape[1:]) for s in features.stages) == ((16, 4, 4),) * 4
    if head:
        torch.testing.assert_close(network.get_submodule(head)(features.pooled), features.logits)
    else:
        torch.testing.assert_close(features.pooled, features.stages[-1].mean((2, 3)))


def test_one_that_takes_no_images_is_refused_in_words(published, refuses) -> None:
    pytest.importorskip("transformers", reason="the extra iekd[transformers] is not installed")
    published("ann/gpt", {"model_type": "imagegpt", "architectures": ["ImageGPTForImageClassification"]})
    config = make_config(teacher="hf:ann/gpt", resolution=32)
    said = refuses(lambda: prepare(config, Store("runs").root), "ann/gpt", "another network")
    assert "function" not in said


def test_trained_weights_of_transformers(published) -> None:
    pytest.importorskip("transformers", reason="the extra iekd[transformers] is not installed")
    torch.manual_seed(0)
    published("ann/vit", VIT)
    theirs = build(hub_configs.look_up("hf:ann/vit"), 2).eval()
    prepared = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "size": {"height": 32, "width": 32}}
    weights = save({key.removeprefix("network."): value for key, value in theirs.state_dict().items()})
    published("ann/vit2", VIT, model_st=weights, **{"preprocessor_config.json": json.dumps(prepared).encode()})
    found = pretrained("ann/vit2")
    assert (found.mean, found.std, found.side, found.classes) == ((0.5,) * 3, (0.25,) * 3, 32, 2)
    ours = build("hf:ann/vit2", 2).eval()
    ours.load_state_dict(load_pretrained("ann/vit2", 3))
    with torch.no_grad():
        torch.testing.assert_close(ours(images(32)).logits, theirs(images(32)).logits)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        ({"mean": [123.6, 116.0, 103.0], "std": [58.0, 57.0, 57.0]}, ("123.6", "from 0 to 1")),
        ({"mean": [0.5] * 3, "std": [0.2, 0, 0.2]}, ("[0.2, 0, 0.2]", "above 0")),
        ({"mean": [0.5, float("nan"), 0.5], "std": [0.2] * 3}, ("NaN",)),
        ({"mean": "grey", "std": [0.2] * 3}, ("grey",)),
        ({"mean": [0.5] * 3}, ("standard deviation null",)),
    ],
)
def test_what_a_repository_says_of_its_pixels_is_checked(published, refuses, pixels, words) -> None:
    """The network would get nearly constant images, or infinite ones, without a word."""
    published("ann/tiny", {**TIMM, "pretrained_cfg": pixels})
    refuses(lambda: pretrained("ann/tiny"), "config.json", "ann/tiny", *words)
    said = {f"image_{key}": value for key, value in pixels.items()}
    published("ann/vit", VIT, **{"preprocessor_config.json": json.dumps(said).encode()})
    refuses(lambda: pretrained("ann/vit"), "preprocessor_config.json", "ann/vit", *words)


@pytest.mark.parametrize("said", [b"{", b"[1]", b"\xff"])
def test_a_preprocessor_config_that_cannot_be_read_is_a_sentence(published, refuses, said) -> None:
    published("ann/vit", VIT, **{"preprocessor_config.json": said})
    refuses(lambda: pretrained("ann/vit"), "preprocessor_config.json", "ann/vit", "another network")


def test_one_number_is_for_all_channels_and_a_size_that_cannot_be_read_is_224(published) -> None:
    published("ann/tiny", {**TIMM, "pretrained_cfg": {"input_size": 64, "mean": 0.5, "std": 0.25}})
    published("ann/odd", {**TIMM, "pretrained_cfg": {"input_size": ["3", None, "big"]}})
    published("ann/vit", VIT, **{"preprocessor_config.json": b'{"image_mean": 0.5, "image_std": 0.25}'})
    for repo, side in (("ann/tiny", 64), ("ann/vit", 32)):
        found = pretrained(repo)
        assert (found.mean, found.std, found.side) == ((0.5,), (0.25,), side)
    found = pretrained("ann/odd")
    assert (found.mean, found.std, found.side) == (*IMAGENET, 224)


def test_weights_of_transformers_that_are_not_whole_are_refused(published, refuses) -> None:
    """transformers would draw what is missing at random."""
    pytest.importorskip("transformers", reason="the extra iekd[transformers] is not installed")
    published("ann/vit", VIT)
    whole = build(hub_configs.look_up("hf:ann/vit"), 2).state_dict()
    state = {key.removeprefix("network."): value for key, value in whole.items()}
    cut = "vit.layernorm.weight"
    for repo, damaged, words in (
        ("ann/missing", {key: value for key, value in state.items() if key != cut}, "is missing"),
        ("ann/shape", {**state, cut: state[cut][:8].clone()}, "another shape"),
    ):
        published(repo, VIT, model_st=save(damaged))
        refuses(lambda repo=repo: load_pretrained(repo, 3), cut, words)


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_outputs_of_weights_of_the_hub_are_put_into_the_datasets_order(published, library) -> None:
    torch.manual_seed(0)
    config = TIMM
    if library == "transformers":
        pytest.importorskip("transformers", reason="the extra iekd[transformers] is not installed")
        config = {**VIT, "id2label": dict(enumerate(TIMM["label_names"])), "label2id": {}}
    published("ann/x", config)
    network = build(hub_configs.look_up("hf:ann/x"), 3).eval()
    state = {key.removeprefix("network."): value for key, value in network.state_dict().items()}
    published(f"ann/{library}", config, model_st=save(state))
    name = hub_configs.look_up(f"hf:ann/{library}")
    start = from_library(name, ["Cat", "ant", "bee"], 3)
    assert start.new == ()
    assert "another order" in " ".join(start.notes)
    ours = build(name, 3).eval()
    start.put_into(ours)
    shown = images(64 if library == "timm" else 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(shown).logits, network(shown).logits[:, [2, 0, 1]])
    others = ["red", "green", "blue"]
    assert from_library(name, others, 3).new, "another meaning of the same number of outputs"
    assert from_library(name, others, 3, sure=True).new == (), "the user has said so"


def test_weights_of_the_hub_are_a_start(published, refuses, picture_folder, tmp_path) -> None:
    """By the network's own name or by timm's; heads of other classes are new, and the run stores the commit."""
    torch.manual_seed(0)
    import timm

    published("ann/tiny", TIMM, model_st=save(timm.create_model("resnet10t", num_classes=3).state_dict()))
    options = {
        "dataset": f"folder:{picture_folder}", "device": "cpu", "teacher_from": "hf:ann/tiny", "methods": "kd",
        "student_from": "pretrained",
    }  # fmt: skip
    config = make_config(teacher="timm:resnet10t", student="hf:ann/tiny", **options)
    prepared = prepare(config, tmp_path)
    assert prepared.config.teacher_from.startswith("hf:ann/tiny@")
    assert prepared.config.resolution == 64
    assert "ann/tiny" in " ".join(prepared.sentences())
    data = iekd.load(config.dataset, resolution=64)
    for role, source in (("teacher", prepared.start), ("student", prepared.student)):
        start = load_start(source, role, prepared.config, data)
        assert (start.mean, start.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
        assert set(start.new) == {"network.fc.weight", "network.fc.bias"}, "ants are not blue"
        assert "hf:ann/tiny knows other classes" in " ".join(start.notes)
        start.put_into(build(getattr(prepared.config, role), 3))
    refuses(lambda: prepare(make_config(teacher="timm:resnet14t", **options | {"student_from": None}), tmp_path),
            "timm:resnet10t", "timm:resnet14t")  # fmt: skip


def test_a_network_that_is_not_here_says_how_to_bring_it(monkeypatch, refuses):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*_args, **_values):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    refuses(
        lambda: hub_configs.download("hf:ann/tiny@v1", hub_configs.CONFIG),
        "`hf download ann/tiny --local-dir network --revision v1`", "give its path",
    )  # fmt: skip
