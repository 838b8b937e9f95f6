"""Files of weights as other people write them: read without running them, renamed, fitted; or refused in a sentence."""

from __future__ import annotations

import argparse
import os
import pickle
import tarfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from iekd.models.aliases import canonical
from iekd.models.registry import build
from iekd.models.weight_files import read_weights
from iekd.models.weights import FittedModel, fit_weights

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def load(path, name, classes, channels) -> FittedModel:
    return fit_weights(read_weights(path), name, classes, channels)


def network(name="resnet8", classes=3, channels=3, seed=0) -> nn.Module:
    """A network whose every tensor differs from any other's, running statistics too."""
    torch.manual_seed(seed)
    model = build(name, classes, channels)
    with torch.no_grad():
        model.train()(torch.randn(8, channels, 16, 16))
        for p in model.parameters():
            p.add_(0.01 * torch.randn_like(p))
    return model.eval()


def backwards(state, prefix="", shortcut="downsample", classifier="fc") -> dict:
    """Our names as the public CIFAR ResNets write them (layer1.0.conv1.weight, fc.weight)."""
    renamed = OrderedDict()
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "stages":
            parts = [f"layer{int(parts[1]) + 1}", *parts[2:]]
        name = ".".join({"conv": "conv1", "bn": "bn1"}.get(parts[0], parts[0]) if i == 0 else p
                        for i, p in enumerate(parts))  # fmt: skip
        renamed[prefix + name.replace("shortcut", shortcut).replace("classifier", classifier)] = value
    return renamed


def same(model: nn.Module, other: nn.Module) -> bool:
    a, b = model.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def state_of(path) -> dict:
    """The only dict of weights in a file."""
    (candidate,) = read_weights(path).candidates
    return candidate.state


def save(path, value, zipped=True):
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


@FORMATS
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".pth.tar", ".bin"])
def test_a_plain_state_dict_is_read(tmp_path, zipped, suffix):
    model = network()
    path = save(tmp_path / f"m{suffix}", model.state_dict(), zipped)
    again, name, *_ = load(path, "resnet8", 3, 3)
    assert name == "resnet8"
    assert same(again, model)
    assert not any(m.training for m in again.modules())


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "no-suffix"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    model = network()
    save_file(model.state_dict(), tmp_path / name)
    assert same(load(tmp_path / name, "resnet8", 3, 3)[0], model)


def test_a_torch_file_that_is_called_safetensors_is_read(tmp_path):
    model = network()
    path = save(tmp_path / "m.safetensors", model.state_dict())
    assert same(load(path, "resnet8", 3, 3)[0], model)


@FORMATS
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "best_prec1": 93.4, "epoch": 200},
        lambda s: {"epoch": 1, "model": s, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}}},
        lambda s: {"net": s, "acc": np.float64(93.4), "top5": np.float32(1), "n": np.int64(3), "ok": np.bool_(True)},
        lambda s: {"model_state_dict": s, "loss": torch.tensor(0.3), "rng": torch.ones(4)},
        lambda s: {"opt": argparse.Namespace(lr=0.1, best=np.float64(1)), "model": s},
        lambda s: {"weights": {"state_dict": s}},
        lambda s: {"best_acc": torch.tensor(93.4), "resnet8": s, "optimizer": {"param_groups": [{"lr": 0.1}]}},
        lambda s: {"student": s, "epoch": 3},
        lambda s: {"model": {k: v * 0 for k, v in s.items()}, "ema": s},
        lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
    ],
    ids=["state_dict", "optimizer", "numpy", "tensor-loss", "options", "twice", "own-name", "student", "ema", "params"],
)
def test_the_weights_are_found_beside_other_things(tmp_path, zipped, wrap):
    model = network()
    path = save(tmp_path / "m.pt", wrap(model.state_dict()), zipped)
    assert same(load(path, "resnet8", 3, 3)[0], model)


def test_numbers_of_old_and_new_numpy_are_read(tmp_path):
    """NumPy 2 moved the function that rebuilds a number; checkpoints name either place."""
    names = (b"numpy.core.multiarray", b"numpy._core.multiarray")
    path = save(tmp_path / "m.pt", {"net": network().state_dict(), "acc": np.float64(93.4)}, zipped=False)
    written = path.read_bytes()
    for name in names:
        data = written.replace(names[1], name) if names[1] in written else written.replace(names[0], name)
        assert data.count(name) == 1
        path.write_bytes(data)
        assert "conv.weight" in state_of(path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "backbone.", "net.", "module._orig_mod.model."])
def test_prefixes_that_all_names_share_are_dropped(tmp_path, prefix):
    model = network()
    path = save(tmp_path / "m.pt", {"state_dict": {prefix + k: v for k, v in model.state_dict().items()}})
    assert same(load(path, "resnet8", 3, 3)[0], model)


def test_a_prefix_that_only_some_names_have_stays(tmp_path):
    path = save(tmp_path / "m.pt", {"module.a": torch.ones(2), "b": torch.ones(2)})
    assert set(state_of(path)) == {"module.a", "b"}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(("shortcut", "classifier"), [("downsample", "fc"), ("shortcut", "linear")])
def test_public_names_become_ours(tmp_path, prefix, shortcut, classifier):
    model = network("resnet14")
    path = save(tmp_path / "m.pt", {"state_dict": backwards(model.state_dict(), prefix, shortcut, classifier)})
    assert same(load(path, "resnet14", 3, 3)[0], model)


@pytest.mark.parametrize("asked", ["resnet20", "resnet20-a"])
def test_shortcuts_without_weights_are_known_by_their_absence(tmp_path, asked):
    """As the `.th` files of akamaster/pytorch_resnet_cifar10: DataParallel, option A, the old format."""
    model = network("resnet20-a")
    state = backwards(model.state_dict(), "module.", classifier="linear")
    assert not any("shortcut" in k or "downsample" in k for k in state)
    path = save(tmp_path / "resnet20-12fca82f.th", {"state_dict": state, "best_prec1": 91.73}, zipped=False)
    again, name, *_ = load(path, asked, 3, 3)
    assert name == "resnet20-a"
    assert same(again, model)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images).logits, model(images).logits)


@pytest.mark.parametrize("asked", ["resnet20", "resnet20-a"])
def test_projections_are_known_by_their_weights(tmp_path, asked):
    """As the `.pt` files of chenyaofo/pytorch-cifar-models: a plain state dict."""
    model = network("resnet20")
    path = save(tmp_path / "cifar10_resnet20-4118986f.pt", backwards(model.state_dict()))
    again, name, *_ = load(path, asked, 3, 3)
    assert name == "resnet20"
    assert same(again, model)


def test_counters_of_batch_norm_may_be_absent(tmp_path):
    model = network()
    kept = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    again, *_ = load(save(tmp_path / "m.pt", kept), "resnet8", 3, 3)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(images).logits, model(images).logits)


def test_half_precision_becomes_single(tmp_path):
    model = network()
    halves = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    again, *_ = load(save(tmp_path / "m.pt", halves), "resnet8", 3, 3)
    assert again.conv.weight.dtype == torch.float32
    assert torch.equal(again.conv.weight, model.conv.weight.half().float())


class Payload:
    """What a malicious file holds: unpickled by Python, it creates a file."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.system, (f"touch '{self.target}'",)


class ByOpen(Payload):
    def __reduce__(self):
        return open, (self.target, "w")


class ByEval(Payload):
    def __reduce__(self):
        return eval, (f"open({self.target!r}, 'w').close()",)


PAYLOADS = pytest.mark.parametrize("payload", [Payload, ByOpen, ByEval])


@PAYLOADS
def test_the_payload_would_work(tmp_path, payload):
    """The tests below show something only if the same bytes do harm when Python reads them."""
    pickle.loads(pickle.dumps(payload(tmp_path / "harm")))
    assert (tmp_path / "harm").exists()


@FORMATS
@PAYLOADS
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s, x: x,
        lambda s, x: {"state_dict": s, "extra": x},
        lambda s, x: {**s, "x": x},
        lambda s, x: {"model": s, "opt": argparse.Namespace(a=x)},
        lambda s, x: OrderedDict([("state_dict", OrderedDict(s, **{"conv.weight": x}))]),
    ],
    ids=["alone", "beside", "among", "in options", "as weight"],
)
def test_a_file_with_code_is_refused_and_nothing_runs(tmp_path, zipped, payload, wrap, refuses):
    harm = tmp_path / "harm"
    path = save(tmp_path / "m.pth", wrap(network().state_dict(), payload(harm)), zipped)
    refuses(lambda: read_weights(path), path, "code", "refused", "nothing of it ran", "state_dict()", ".safetensors")
    refuses(lambda: load(path, "resnet8", 3, 3), "refused")
    assert not harm.exists()


@PAYLOADS
@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_with_code_is_refused_and_nothing_runs(tmp_path, payload, protocol, refuses):
    path, harm = tmp_path / "m.pt", tmp_path / "harm"
    path.write_bytes(pickle.dumps({"a": payload(harm)}, protocol))
    text = refuses(lambda: read_weights(path), path)
    assert protocol < 2 or "refused" in text
    assert not harm.exists()


@FORMATS
@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_code_inside_an_archive_does_not_run(tmp_path, zipped, compression, refuses):
    harm = tmp_path / "harm"
    inner = save(tmp_path / "model_best.pth", Payload(harm), zipped)
    with tarfile.open(tmp_path / "m.tar", f"w:{compression}") as archive:
        archive.add(inner, "pickle")  # what PyTorch's oldest format calls its objects
    refuses(lambda: read_weights(tmp_path / "m.tar"), tmp_path / "m.tar", "archive", "Unpack")
    assert not harm.exists()


@FORMATS
def test_a_whole_model_is_refused_with_the_remedy(tmp_path, zipped, refuses):
    path = save(tmp_path / "m.pt", {"net": network()}, zipped)
    refuses(lambda: read_weights(path), path, "whole pickled model", "nothing of it ran", "model.state_dict()")


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused(tmp_path, refuses):
    torch.jit.script(nn.Linear(2, 3)).save(tmp_path / "m.pt")
    refuses(lambda: read_weights(tmp_path / "m.pt"), "TorchScript", "state_dict()")


def test_what_cannot_be_named_is_refused(tmp_path, refuses):
    refuses(lambda: read_weights(tmp_path / "none.pt"), "no file", tmp_path / "none.pt")
    refuses(lambda: read_weights(tmp_path), tmp_path, "folder")
    (tmp_path / "empty.pt").write_bytes(b"")
    refuses(lambda: read_weights(tmp_path / "empty.pt"), "empty.pt", "is empty")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"hello", "not a file of weights"),
        (b"\x00" * 600, "not a file of weights"),
        (b"\x89PNG\r\n\x1a\n" + bytes(600), "not a file of weights"),
        (b"<!DOCTYPE html><title>404</title>", "Download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "Download"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "Download"),
        (b'{"error": "Not Found"}', "JSON"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "Keras"),
        (b"\x08\x0a\x12\x07pytorch\x1a\x062.15.0" + bytes(600), "ONNX"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(600), "TensorFlow Lite"),
        (b"GGUF" + bytes(600), "GGUF"),
        (b"\x80", "damaged"),
        (b"PK\x03\x04", "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, content, word, refuses):
    (tmp_path / "m.pt").write_bytes(content)
    refuses(lambda: read_weights(tmp_path / "m.pt"), tmp_path / "m.pt", word)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files_are_refused(tmp_path, kind, refuses):
    state = {"a.weight": torch.ones(30, 20), "b": torch.ones(5)}
    path = tmp_path / "m.pt"
    save_file(state, path) if kind == "safetensors" else save(path, state, kind == "zip")
    data = path.read_bytes()
    for keep in [*range(1, len(data), 37), len(data) - 1]:
        path.write_bytes(data[:keep])
        refuses(lambda: read_weights(path), path)
    path.write_bytes(data)
    assert state_of(path)["a.weight"].sum() == 600


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.ones(3), ["Tensor", "without names"]),
        ([torch.ones(3)], ["list", "without names"]),
        ({}, ["no weights"]),
        ({"epoch": 3, "best_acc": torch.tensor(3.0)}, ["no weights", "'epoch'", "'best_acc'"]),
    ],
    ids=["tensor", "list", "nothing", "numbers"],
)
def test_files_without_weights_are_refused(tmp_path, value, words, refuses):
    path = save(tmp_path / "m.pt", value)
    refuses(lambda: read_weights(path), path, *words)


def test_a_file_that_holds_itself_is_refused(tmp_path, refuses):
    value: dict = {}
    value["model"] = value
    refuses(lambda: read_weights(save(tmp_path / "m.pt", value)), "no weights")


def test_other_classes_are_refused_with_both_numbers(tmp_path, refuses):
    path = save(tmp_path / "m.pt", network(classes=10).state_dict())
    refuses(lambda: load(path, "resnet8", 3, 3), path, "10 classes", "dataset has 3")


def test_colour_weights_for_grey_pictures_are_refused_with_the_remedy(tmp_path, refuses):
    path = save(tmp_path / "m.pt", network().state_dict())
    refuses(lambda: load(path, "resnet8", 3, 1), path, "colour", "grey", "(RGB)")
    path = save(tmp_path / "g.pt", network(channels=1).state_dict())
    refuses(lambda: load(path, "resnet8", 3, 3), path, "grey images (1 channel)", "colour (3)")


FAMILY = ["resnet20-a", "resnet8x4", "wrn-16-1", "vgg8", "mobilenet-v2", "shufflenet-v1", "shufflenet-v2", "resnet18"]


@pytest.mark.parametrize("name", FAMILY)
def test_every_family_knows_its_classes_and_channels(tmp_path, name, refuses):
    path = save(tmp_path / "m.pt", build(name, 4, 3).state_dict())
    assert load(path, name, 4, 3)[1] == canonical(name)
    refuses(lambda: load(path, name, 7, 3), "4 classes", "has 7")
    refuses(lambda: load(path, name, 4, 1), "colour", "grey")
    refuses(lambda: load(path, "resnet44", 4, 3), f"those of {canonical(name)};")


def test_weights_of_another_network_are_named(tmp_path, refuses):
    path = save(tmp_path / "m.pt", network("resnet14", classes=10).state_dict())
    refuses(lambda: load(path, "resnet20", 3, 3), "resnet20", "missing", "more", "resnet14")
    refuses(lambda: load(path, "resnet8", 3, 3), "resnet8", "not known", "resnet14")


def test_weights_of_no_network_of_ours_are_refused(tmp_path, refuses):
    path = save(tmp_path / "m.pt", {"nonsense.weight": torch.ones(2, 2)})
    refuses(lambda: load(path, "resnet8", 3, 3), "nonsense.weight is not known", "Is the model")


def test_one_missing_weight_is_named(tmp_path, refuses):
    state = network().state_dict()
    del state["stages.1.0.bn2.running_var"]
    path = save(tmp_path / "m.pt", state)
    refuses(lambda: load(path, "resnet8", 3, 3), "stages.1.0.bn2.running_var is missing")


def test_a_weight_of_another_size_is_named(tmp_path, refuses):
    state = {**network().state_dict(), "stages.1.0.conv2.weight": torch.ones(32, 32, 1, 1)}
    path = save(tmp_path / "m.pt", state)
    refuses(
        lambda: load(path, "resnet8", 3, 3),
        "stages.1.0.conv2.weight is 32 x 32 x 1 x 1 and should be 32 x 32 x 3 x 3",
    )


def test_nan_weights_are_refused(tmp_path, refuses):
    state = network().state_dict()
    state["stages.2.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    path = save(tmp_path / "m.pt", state)
    refuses(lambda: load(path, "resnet8", 3, 3), "damaged", "stages.2.0.conv1.weight")


def test_an_unknown_architecture_gets_the_closest_name(tmp_path, refuses):
    path = save(tmp_path / "m.pt", network().state_dict())
    refuses(lambda: load(path, "resnet-8", 3, 3), "Did you mean 'resnet8'")


def test_nothing_stays_allowed_after_reading(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    read_weights(save(tmp_path / "m.pt", {"state_dict": network().state_dict(), "best": np.float64(1)}))
    assert set(torch.serialization.get_safe_globals()) == before
