"""Checkpoints with something around the network, as other tools save them: the part that fits is found and named."""

from __future__ import annotations

import json
import pathlib
import zipfile
from dataclasses import asdict
from datetime import datetime

import numpy as np
import pytest
import torch
from safetensors.torch import save as safetensors_bytes

from iekd.models.artifact import ModelCard
from iekd.models.registry import build
from iekd.models.weight_files import read_weights
from iekd.models.weights import fit_weights

CLASSES = 3


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = build("resnet8", CLASSES, 3)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 16, 16))
    return model.eval()


@pytest.fixture
def saved(tmp_path, network):
    """saved(wrap) -> the path of a file that holds `wrap(weights)`."""

    def write(wrap, name="m.pth"):
        torch.save(wrap(dict(network.state_dict())), tmp_path / name)
        return tmp_path / name

    return write


def load(path, name="resnet8", channels=3):
    return fit_weights(read_weights(path), name, CLASSES, channels)


def is_same(fitted, network):
    a, b = fitted.model.state_dict(), network.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def under(prefix, state):
    return {prefix + k: v for k, v in state.items()}


@pytest.mark.parametrize(
    ("wrap", "notes"),
    [
        (lambda s: {"model": under("module.student.", s), "optimizer": {}, "best_acc": 93.0},
         ["'model'", "'module.student.'"]),
        (lambda s: {"state_dict": under("model.", s) | {"criterion.weight": torch.ones(CLASSES)}},
         ["'state_dict'", "'model.'", "criterion.weight"]),
        (lambda s: s | {f"{k.rpartition('.')[0]}.total_ops": torch.zeros(1) for k in list(s)}
         | {"total_ops": torch.zeros(1), "total_params": torch.zeros(1)}, ["Ignored", "total_ops"]),
        (lambda s: under("module.", s), ["'module.'"]),
        (lambda s: under("_orig_mod.module.", s), ["'_orig_mod.module.'"]),
        (lambda s: {k.replace("classifier.", "fc.1."): v for k, v in s.items()}, ["'fc.1'"]),
        (lambda s: {k.replace("classifier.", "head.fc."): v for k, v in s.items()}, ["'head.fc'"]),
        (lambda s: under("net.", {k.replace("classifier.", "classifier.1."): v for k, v in s.items()}),
         ["'net.classifier.1'", "'net.'"]),
        (lambda s: {"a": {"b": {"c": s}}}, ["'a.b.c'"]),
        (lambda s: {"state_dict": s, "callbacks": {"EMA": {"weights": {"x": torch.ones(3)}}}}, ["'state_dict'"]),
        (lambda s: under("encoder.", s) | under("projector.", {"0.weight": torch.ones(8, 4), "0.bias": torch.ones(8)}),
         ["'encoder.'", "projector.0.weight"]),
        (lambda s: s | {"center_loss.centers": torch.ones(CLASSES, 64)}, ["center_loss.centers"]),
    ],
    ids=["mdistiller", "lightning-loss", "thop", "data-parallel", "compiled", "dropout-head", "timm-head",
         "sequential-head", "deep", "callbacks", "projector", "centres"],
)  # fmt: skip
def test_the_part_that_fits_is_found_and_named(saved, network, wrap, notes):
    fitted = load(saved(wrap))
    assert is_same(fitted, network)
    said = " ".join(fitted.notes)
    for word in notes:
        assert word in said
    assert bool(fitted.notes) == bool(notes)


def test_a_path_object_is_read_and_opens_nothing(saved, network):
    for path in (pathlib.PosixPath("/etc/passwd"), pathlib.PureWindowsPath("C:/data")):
        file = saved(lambda s, path=path: {"state_dict": under("model.", s), "hyper_parameters": {"data_dir": path}})
        assert is_same(load(file), network)


def test_averaged_weights_are_preferred_and_noted(saved, network):
    other = {k: v + 1 for k, v in network.state_dict().items()}
    for name in ("state_dict_ema", "model_ema", "ema", "swa_state"):
        fitted = load(saved(lambda s, name=name: {"state_dict": other, name: s}))
        assert is_same(fitted, network), name
        assert "EMA" in " ".join(fitted.notes)
        assert name in " ".join(fitted.notes)


@pytest.mark.parametrize("names", [("student", "teacher"), ("state_dict", "best_state_dict"), ("ema_1", "ema_2")])
def test_of_several_that_fit_the_user_is_asked(saved, network, refuses, names):
    first, second = names
    file = saved(lambda s: {first: {k: v + 1 for k, v in s.items()}, second: s})
    refuses(lambda: load(file), file.name, f"'{first}'", f"'{second}'", "::")
    assert is_same(load(file.with_name(f"m.pth::{second}")), network)
    refuses(lambda: load(file.with_name("m.pth::nonsense")), "nonsense", first, second)


def test_two_networks_under_prefixes_are_asked_for_too(saved, network, refuses):
    file = saved(lambda s: {"model": under("student.", s) | under("teacher.", {k: v + 1 for k, v in s.items()})})
    refuses(lambda: load(file), "model.student", "model.teacher")
    assert is_same(load(file.with_name("m.pth::model.student")), network)


def test_a_teacher_of_another_size_in_the_file_is_not_ambiguous(saved, network):
    larger = build("resnet14", CLASSES, 3).state_dict()
    fitted = load(saved(lambda s: {"model": under("student.", s) | under("teacher.", larger)}))
    assert is_same(fitted, network)
    assert "teacher" in " ".join(fitted.notes)


def test_the_same_weights_twice_are_not_ambiguous(saved, network):
    assert is_same(load(saved(lambda s: {"model": s, "copy": dict(s)})), network)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3,), (1, 3, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("scale", [1, 255])
def test_normalisation_inside_the_model_is_used(saved, network, shape, scale):
    values = [0.5, 0.4, 0.3] if 3 in shape else [0.5]
    mean, std = torch.tensor(values).view(shape) * scale, torch.full(shape, 0.25) * scale
    fitted = load(saved(lambda s: {"0.mean": mean, "0.std": std, **under("1.", s)}))
    assert is_same(fitted, network)
    assert fitted.mean == pytest.approx(values if len(values) == 3 else values * 3)
    assert fitted.std == pytest.approx((0.25,) * 3)
    assert "normalised" in " ".join(fitted.notes)


def test_a_file_without_normalisation_says_nothing_of_it(saved):
    fitted = load(saved(lambda s: s | {"loss.mean": torch.ones(7), "loss.std": torch.ones(7)}))
    assert fitted.mean is None
    assert fitted.std is None


def card(**values):
    known = {"model": "resnet8", "datasets": ("d",), "class_names": ("a", "b", "c"), "channels": 3, "resolution": 16,
             "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "accuracy": 90.0, "params": 1}  # fmt: skip
    return ModelCard(**known | values)


def packed(path, network, folders=("teacher/",)):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in folders:
            archive.writestr(f"{folder}model.safetensors", safetensors_bytes(network.state_dict()))
            archive.writestr(f"{folder}model.json", json.dumps(asdict(card())))
            archive.writestr(f"{folder}README.txt", "a note")
    return path


@pytest.mark.parametrize("folder", ["", "teacher/", "deep/er/"])
def test_the_zip_that_a_run_offers_is_read(tmp_path, network, folder):
    path = packed(tmp_path / "m.zip", network, (folder,))
    assert read_weights(path).card == card()
    fitted = load(path)
    assert is_same(fitted, network)
    assert (fitted.mean, fitted.std) == (card().mean, card().std)


def test_a_zip_of_several_models_and_a_damaged_one_are_refused(tmp_path, network, refuses):
    path = packed(tmp_path / "m.zip", network, ("teacher/", "student/"))
    refuses(lambda: load(path), "several models", "student", "teacher")
    whole = packed(tmp_path / "whole.zip", network).read_bytes()
    at = whole.index(b"model.safetensors") + 5000
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    refuses(lambda: load(path), "damaged")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.safetensors", bytes(2**25))
        archive.writestr("model.json", json.dumps(asdict(card())))
    refuses(lambda: load(path), "refused")


def test_a_deeper_network_is_not_cut_down(saved, refuses):
    """resnet14 has every layer of resnet8, under the same names, and more."""
    deeper = build("resnet14", CLASSES, 3).state_dict()
    refuses(lambda: load(saved(lambda s: {"module." + k: v for k, v in deeper.items()})), "not known", "resnet14")


def test_two_layers_at_the_head_are_not_guessed_at(saved, refuses):
    file = saved(lambda s: {k: v for k, v in s.items() if "classifier" not in k}
                 | {"fc.0.weight": torch.ones(32, 64), "fc.2.weight": torch.ones(CLASSES, 32)})  # fmt: skip
    refuses(lambda: load(file), "classifier.weight", "missing")


@pytest.mark.parametrize(("kept", "words"), [(1.0, ["resnet14", "is the model right"]), (0.7, ["resnet14", "closest"])])
def test_the_closest_network_by_shapes_is_named(tmp_path, refuses, kept, words):
    state = build("resnet14", CLASSES, 3).state_dict()
    state = {f"layer_{i}": v for i, v in enumerate(list(state.values())[: int(len(state) * kept)])}
    torch.save(state, tmp_path / "m.pt")
    refuses(lambda: load(tmp_path / "m.pt", "vgg8"), "vgg8", *words)


def test_weights_in_optimisers_are_ignored(saved, refuses, network):
    moments = {"state": {i: {"momentum_buffer": v} for i, v in enumerate(network.state_dict().values())}}
    fitted = load(saved(lambda s: {"net": s, "optimizer": moments, "optim_g": {"exp_avg": s}}))
    assert is_same(fitted, network)
    refuses(lambda: load(saved(lambda s: {"optimizer": {"exp_avg": s}})), "no weights")


@pytest.mark.parametrize(
    ("name", "params"), [("resnet18", 11_173_962), ("resnet34", 21_282_122), ("resnet50", 23_520_842)]
)
def test_resnets_with_a_small_stem_are_those_of_public_cifar_code(tmp_path, name, params):
    """The counts that kuangliu/pytorch-cifar's networks have, and its names: `shortcut` and `linear`."""
    model = build(f"{name}-cifar", 10, 3)
    assert sum(p.numel() for p in model.parameters()) == params
    assert model(torch.zeros(1, 3, 32, 32)).stages[0].shape[2:] == (32, 32)
    theirs = {k.replace("downsample", "shortcut").replace("fc.", "linear."): v for k, v in model.state_dict().items()}
    torch.save({"net": under("module.", theirs), "acc": 95.0}, tmp_path / "ckpt.pth")
    fitted = fit_weights(read_weights(tmp_path / "ckpt.pth"), f"{name}-cifar", 10, 3)
    assert is_same(fitted, model)


def test_imagenet_and_cifar_stems_are_told_apart(tmp_path, refuses):
    torch.save(build("resnet18-cifar", CLASSES, 3).state_dict(), tmp_path / "m.pt")
    refuses(lambda: load(tmp_path / "m.pt", "resnet18"), "conv1.weight", "resnet18-cifar")


def without_head(state):
    return {k: v for k, v in state.items() if not k.startswith("classifier")}


def head_as(name, state):
    return {f"{name}.{part}": state[f"classifier.{part}"] for part in ("weight", "bias")}


@pytest.mark.parametrize(
    ("body", "head"), [("backbone.", "head.fc"), ("backbone.", "fc"), ("model.encoder.", "model.classifier")]
)
def test_a_last_layer_beside_the_backbone_is_found(saved, network, body, head):
    fitted = load(saved(lambda s: {"state_dict": under(body, without_head(s)) | head_as(head, s)}))
    assert is_same(fitted, network)
    assert f"The last layer is '{head}'." in fitted.notes


@pytest.mark.parametrize("head", ["logits", "cls_head", "head.linear", "classifier.fc", "fc.fc", "fc8", "last"])
def test_more_names_of_the_last_layer(saved, network, head):
    assert is_same(load(saved(lambda s: without_head(s) | head_as(head, s))), network)


def test_a_backbone_without_a_last_layer_is_refused(saved, refuses):
    projector = {"projector.0.weight": torch.ones(128, 64)}
    refuses(
        lambda: load(saved(lambda s: under("backbone.", without_head(s)) | projector)), "classifier.weight", "missing"
    )


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_wrappers_of_parts_of_the_network_are_seen_through(saved, network, wrapper):
    file = saved(lambda s: {k.replace("stages.1.", f"stages.1.{wrapper}."): v for k, v in s.items()})
    assert is_same(load(file), network)


def test_a_whole_network_beside_another_is_asked_for(saved, refuses):
    refuses(
        lambda: load(saved(lambda s: s | under("teacher.", {k: v + 1 for k, v in s.items()}))), "several", "::teacher"
    )


def test_two_names_of_one_layer_are_no_reason_to_fail(saved, network):
    fitted = load(saved(lambda s: s | {"linear.weight": torch.ones(CLASSES, 64), "fc.weight": torch.ones(CLASSES, 64)}))
    assert is_same(fitted, network)
    assert any("linear.weight" in note and "fc.weight" in note for note in fitted.notes)


def test_numpy_arrays_are_read_as_weights_and_beside_them(saved, network):
    arrays = saved(lambda s: {k: v.numpy() for k, v in s.items()})
    assert is_same(load(arrays), network)
    beside = {"rng": np.random.default_rng(0).random(3), "legacy": np.random.get_state(), "when": datetime.now()}
    assert is_same(load(saved(lambda s: {"model": s} | beside)), network)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: (v * 10).to(torch.int8), ["int8", "float"]),
        (lambda v: v.to(torch.complex64), ["complex64", "float"]),
        (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), ["quantised", "float"]),
        (lambda v: v.to_sparse(), ["sparse", "float"]),
    ],
)
def test_weights_that_are_no_plain_floats_are_refused(saved, refuses, change, words):
    file = saved(lambda s: {k: change(v) if v.ndim == 4 else v for k, v in s.items()})
    refuses(lambda: load(file), file, *words)


def test_variances_below_zero_are_refused(saved, refuses):
    refuses(lambda: load(saved(lambda s: s | {"bn.running_var": -s["bn.running_var"]})), "damaged", "bn.running_var")


def test_one_changed_byte_of_a_torch_file_is_noticed(saved, network, refuses):
    file = saved(lambda s: s)
    content = bytearray(file.read_bytes())
    content[content.index(network.classifier.weight.detach().numpy().tobytes()) + 2] ^= 1
    file.write_bytes(content)
    refuses(lambda: load(file), "damaged")


def test_a_torch_file_without_checksums_is_read(saved, network):
    torch.serialization.set_crc32_options(False)
    try:
        file = saved(lambda s: s)
    finally:
        torch.serialization.set_crc32_options(True)
    assert is_same(load(file), network)


def test_a_zip_of_other_files_is_called_an_archive(tmp_path, saved, refuses):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.write(saved(lambda s: s), "best/model.pth")
    refuses(lambda: load(tmp_path / "m.zip"), "archive of files", "Unpack")
    with open(tmp_path / "m.npz", "wb") as file:
        np.savez(file, a=np.zeros(3))
    refuses(lambda: load(tmp_path / "m.npz"), "archive of NumPy arrays", "torch.save")


def test_one_of_several_files_is_called_a_part(tmp_path, network, refuses):
    path = tmp_path / "model-00001-of-00002.safetensors"
    path.write_bytes(safetensors_bytes(dict(list(network.state_dict().items())[:20])))
    refuses(lambda: load(path), "one of several parts")
    whole = tmp_path / "model-00001-of-00001.safetensors"
    whole.write_bytes(safetensors_bytes(dict(network.state_dict())))
    assert is_same(load(whole), network)


def parts(state, head="classifier."):
    """(all but the last layer, the last layer alone)."""
    return ({k: v for k, v in state.items() if not k.startswith(head)},
            {k.removeprefix(head): v for k, v in state.items() if k.startswith(head)})  # fmt: skip


@pytest.mark.parametrize(
    "wrap",
    [
        lambda body, head: {"backbone": body, "head": head},
        lambda body, head: {"backbone": body, "head": head, "optimizer": {"exp_avg": body}, "epoch": 3},
        lambda body, head: {"state_dict": {"encoder": body, "classifier": under("fc.", head)}},
        lambda body, head: {"backbone": under("module.", body), "head": under("module.", head)},
        lambda body, head: {"backbone": body, "head": head, "center": torch.ones(CLASSES, 64)},
    ],
    ids=["plain", "optimiser", "deep", "wrapped", "centres"],
)
def test_a_network_in_two_dicts_is_put_together(saved, network, wrap):
    fitted = load(saved(lambda s: wrap(*parts(s))))
    assert is_same(fitted, network)
    assert "last layer is" in " ".join(fitted.notes)


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda s, b, h, o: {"backbone": b, "backbone_ema": other(b), "head": h}, ["several bodies", "backbone_ema"]),
        (lambda s, b, h, o: {"backbone": b, "head": h, "head2": other(h)}, ["several last layers", "head2"]),
        (lambda s, b, h, o: {"backbone": s, "head": other(h)}, ["whole network in 'backbone'", "m.pth::backbone"]),
        (lambda s, b, h, o: {"backbone": b, "head": under("0.", h) | {"2.weight": o, "2.bias": h["bias"]}},
         ["classifier.weight", "missing"]),
        (lambda s, b, h, o: {"backbone": b, "projector": {"weight": o}}, ["classifier.weight", "missing"]),
    ],
    ids=["two-bodies", "two-heads", "a-head-too-many", "deep-head", "no-head"],
)  # fmt: skip
def test_parts_that_can_be_put_together_in_two_ways_are_not(saved, refuses, wrap, words):
    file = saved(lambda s: wrap(s, *parts(s), torch.ones(CLASSES, 64)))
    refuses(lambda: load(file), *words)


def other(state):
    return {k: v + 1 for k, v in state.items()}


def test_the_network_beside_a_last_layer_too_many_can_be_chosen(saved, network):
    file = saved(lambda s: {"backbone": s, "head": other(parts(s)[1])})
    assert is_same(load(file.with_name(f"{file.name}::backbone")), network)


def test_networks_in_a_list_are_found(saved, network, refuses):
    assert is_same(load(saved(lambda s: (s, {"epoch": 3}))), network)
    several = saved(lambda s: {"models": [s, other(s)]})
    refuses(lambda: load(several), "several networks", "models.1")
    assert is_same(load(several.with_name(f"{several.name}::models.0")), network)


def test_averaged_weights_behind_a_prefix_are_said_to_be_averaged(saved, network):
    fitted = load(saved(lambda s: under("model.", other(s)) | under("ema_model.module.", s)))
    assert is_same(fitted, network)
    assert "averaged over training" in " ".join(fitted.notes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {k.replace("classifier.", "classifier.base_layer."): v for k, v in s.items()}
         | {"classifier.lora_A.default.weight": torch.ones(4, 64)}, ["PEFT", "merge_and_unload"]),
        (lambda s: {"_fsdp_wrapped_module._flat_param": torch.ones(99)}, ["FSDP", "full state_dict()"]),
        (lambda s: {k.replace("classifier.weight", "classifier.weight_orig"): v for k, v in s.items()},
         ["pruning", "prune.remove"]),
        (lambda s: {k.replace("classifier.weight", "classifier.parametrizations.weight.original1"): v
                    for k, v in s.items()}, ["weight norm"]),
        (lambda s: parts(s)[0] | {"classifier._packed_params._packed_params": None}, ["quantised"]),
        (lambda s: {k: v[:0] for k, v in s.items() if v.ndim}, ["without values", "zero_to_fp32"]),
        (lambda s: {k: torch.zeros_like(v) for k, v in s.items()}, ["all its weights are 0"]),
    ],
    ids=["lora", "fsdp", "pruned", "weight-norm", "quantised", "zero-3", "zeros"],
)  # fmt: skip
def test_forms_that_cannot_be_used_are_named_with_the_remedy(saved, refuses, change, words):
    refuses(lambda: load(saved(change)), *words)
