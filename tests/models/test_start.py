"""What a network begins with: heads of other classes, grey images, what does not fit, and its images' pixels."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from iekd.errors import UserError
from iekd.models import info, libraries, pretrained, start
from iekd.models.artifact import ModelCard, save_model
from iekd.models.registry import build

NAMES = ("timm:test_resnet", "torchvision:shufflenet_v2_x0_5", "resnet8")
FIVE = ("a", "b", "c", "d", "e")
HEADS = {"timm:test_resnet": "network.fc", "torchvision:shufflenet_v2_x0_5": "network.fc", "resnet8": "classifier"}


def network(name: str, classes: int, channels: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(name, classes, channels).eval()


def saved(path, module: nn.Module, **changes):
    """The weights as the library itself saves them."""
    state = {key.removeprefix("network."): value.clone() for key, value in module.state_dict().items()}
    state.update(changes)
    save_file({key: value for key, value in state.items() if value is not None}, path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_of_another_number_of_classes_the_head_and_only_the_head_is_new(tmp_path, name):
    theirs = network(name, 7)
    found = start.from_file(saved(tmp_path / "w.safetensors", theirs), name, FIVE, 3)
    assert found.new == tuple(f"{HEADS[name]}.{kind}" for kind in ("weight", "bias"))
    ours = network(name, 5, seed=1)
    found.put_into(ours)
    for key, value in ours.state_dict().items():
        assert key in found.new or torch.equal(value, theirs.state_dict()[key]), key
    assert any(HEADS[name].removeprefix("network.") in note and "7 classes" in note for note in found.notes)
    assert found.loaded(ours) == {key for key, _ in ours.named_parameters()} - set(found.new)
    assert start.sizes_in(tmp_path / "w.safetensors", name, 0.0) == (7, 3)


@pytest.mark.parametrize("name", ["timm:tf_efficientnet_lite0", "torchvision:squeezenet1_1"])
def test_a_new_head_is_drawn_as_torch_draws_layers(tmp_path, name):
    """timm's EfficientNets for two classes begin with weights up to 0.7, and forgot what they knew (82 % instead of
    93 % of the test images right in benchmarks/finetune.py)."""
    found = start.from_file(saved(tmp_path / "w.safetensors", network(name, 7)), name, ("a", "b"), 3)
    ours, drawn = network(name, 2), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.put_into(ours)
        weight, bias = (ours.state_dict()[key].clone() for key in found.new)
        most = weight[0].numel() ** -0.5  # U(-1/sqrt(n), 1/sqrt(n)) of n inputs
        assert 0.9 * most < float(weight.abs().max()) <= most
        assert 0 < float(bias.abs().max()) <= most
        drawn.append(weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_several_new_layers_are_drawn_in_their_order():
    """A set's order would differ from process to process, and so would the run and its resumption."""
    names = "hgfedcba"
    new = tuple(f"{name}.{kind}" for name in names for kind in ("weight", "bias"))
    heads = nn.ModuleDict({name: nn.Linear(4, 2) for name in names})
    torch.manual_seed(0)
    start.Start("any", {}, new).put_into(heads)
    torch.manual_seed(0)
    for name in names:
        expected = nn.Linear(4, 2)
        assert torch.equal(heads[name].weight, expected.weight)
        assert torch.equal(heads[name].bias, expected.bias)


def test_the_head_may_be_a_convolution(tmp_path):
    """So there is no matrix in the whole network."""
    theirs = network("torchvision:squeezenet1_1", 7)
    found = start.from_file(saved(tmp_path / "w.safetensors", theirs), "torchvision:squeezenet1_1", FIVE, 3)
    assert found.new == ("network.classifier.1.weight", "network.classifier.1.bias")
    again = start.from_file(tmp_path / "w.safetensors", "torchvision:squeezenet1_1", tuple("abcdefg"), 3)
    assert again.new == ()


def test_of_the_same_number_everything_is_taken(tmp_path):
    theirs = network("timm:test_resnet", 5)
    found = start.from_file(saved(tmp_path / "w.safetensors", theirs), "timm:test_resnet", FIVE, 3)
    assert found.new == ()
    assert all(torch.equal(found.weights[key], value) for key, value in theirs.state_dict().items())


def test_a_file_without_a_head_will_do(tmp_path):
    theirs, none = network("timm:test_resnet", 5), {"fc.weight": None, "fc.bias": None}
    path = saved(tmp_path / "w.safetensors", theirs, **none)
    found = start.from_file(path, "timm:test_resnet", FIVE, 3)
    assert found.new == ("network.fc.weight", "network.fc.bias")
    assert "have none" in " ".join(found.notes)
    assert start.sizes_in(path, "timm:test_resnet", 0.0) == (None, 3)


def test_a_head_in_another_dict_of_the_file_is_found(tmp_path):
    """A part without a head is second choice."""
    state = network("resnet8", 5).state_dict()
    body = {key: value for key, value in state.items() if not key.startswith("classifier")}
    head = {key.removeprefix("classifier."): value for key, value in state.items() if key.startswith("classifier")}
    torch.save({"backbone": body, "head": head}, tmp_path / "w.pt")
    found = start.from_file(tmp_path / "w.pt", "resnet8", FIVE, 3)
    assert found.new == ()
    assert torch.equal(found.weights["classifier.weight"], state["classifier.weight"])


def test_whatever_else_does_not_fit_is_refused_by_name(tmp_path, refuses):
    theirs = network("timm:test_resnet", 7)
    middle = "layer2.0.conv1.weight"
    wrong = theirs.state_dict()[f"network.{middle}"]
    for number, (change, words) in enumerate(
        (({middle: None}, ["missing"]), ({middle: wrong[:, :1].clone()}, [f"{wrong.shape[0]} x 1 x"]))
    ):
        path = saved(tmp_path / f"{number}.safetensors", theirs, **change)
        for call in (
            lambda path=path: start.from_file(path, "timm:test_resnet", FIVE, 3),
            lambda path=path: start.sizes_in(path, "timm:test_resnet", 0.0),
        ):
            refuses(call, middle, *words)


class Code:
    def __reduce__(self):
        return (print, ("run",))


def test_damaged_and_dangerous_files_are_refused_before_the_run(tmp_path, refuses, capsys):
    theirs = network("resnet8", 7)
    broken = theirs.state_dict()["conv.weight"].clone()
    broken[0, 0, 0, 0] = float("nan")
    (tmp_path / "code.pt").write_bytes(pickle.dumps({"conv.weight": Code()}))
    (tmp_path / "text.pt").write_text("not weights, but a text of some length")
    nan = saved(tmp_path / "nan.safetensors", theirs, **{"conv.weight": broken})
    for path, words in (
        (nan, ["damaged", "conv.weight", "not numbers"]),
        (tmp_path / "code.pt", ["refused", "code"]),
        (tmp_path / "text.pt", ["not a file of weights"]),
        (tmp_path / "none.pt", ["no file"]),
    ):
        refuses(lambda path=path: start.sizes_in(path, "resnet8", 0.0), *words)
        refuses(lambda path=path: start.from_file(path, "resnet8", FIVE, 3), *words)
    assert "run" not in capsys.readouterr().out


def test_grey_images_get_the_sum_over_colours_and_not_the_reverse(tmp_path, refuses):
    theirs = network("timm:test_resnet", 5)
    found = start.from_file(saved(tmp_path / "w.safetensors", theirs), "timm:test_resnet", FIVE, 1)
    ours = network("timm:test_resnet", 5, 1)
    found.put_into(ours)
    grey = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(grey).logits, theirs(grey.expand(-1, 3, -1, -1)).logits)
    assert "grey" in " ".join(found.notes)
    assert found.mean == found.std == (0.5,)
    path = saved(tmp_path / "grey.safetensors", network("resnet8", 5, 1))
    refuses(lambda: start.from_file(path, "resnet8", FIVE, 3), "grey images", "in colour")


def test_a_folders_classes_are_put_into_order_or_its_head_is_new(tmp_path):
    theirs = network("resnet8", 3)
    card = ModelCard(
        model="resnet8", datasets=("x",), class_names=("red", "green", "blue"), channels=3, resolution=16,
        mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), accuracy=None, params=1,
    )  # fmt: skip
    save_model(tmp_path / "mine", theirs, card)
    found = start.from_file(tmp_path / "mine", "resnet8", ("blue", "green", "red"), 3)
    assert torch.equal(found.weights["classifier.bias"], theirs.state_dict()["classifier.bias"].flip(0))
    assert (found.mean, found.std, found.new) == (card.mean, card.std, ())
    other = start.from_file(tmp_path / "mine", "resnet8", ("ant", "bee", "cat"), 3)
    assert other.new == ("classifier.weight", "classifier.bias")
    assert "knows other classes" in other.notes[-1]


def test_normalisation_is_the_users_the_files_the_librarys_or_the_datasets(tmp_path):
    def of(name, state, **values):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        found = start.from_file(saved(path, network(name, 5), **state), name, FIVE, 3, **values)
        return found.mean

    inside = {"norm.mean": torch.tensor([0.1, 0.2, 0.3]), "norm.std": torch.tensor([0.4, 0.5, 0.6])}
    given = {"mean": (0.7, 0.7, 0.7), "std": (0.2, 0.2, 0.2)}
    assert of("timm:test_resnet", inside, **given) == (0.7, 0.7, 0.7)
    assert of("timm:test_resnet", inside) == pytest.approx((0.1, 0.2, 0.3))
    assert of("timm:test_resnet", {}) == (0.5, 0.5, 0.5)
    assert of("torchvision:shufflenet_v2_x0_5", {}) == (0.485, 0.456, 0.406)
    assert of("resnet8", {}) is None
    assert pretrained.normalisation("timm:coatnet_0_224") == info.IMAGENET  # timm has no weights for it


def test_what_is_kept_for_a_resumed_run_is_the_same(tmp_path):
    found = start.from_file(saved(tmp_path / "w.safetensors", network("resnet8", 7)), "resnet8", FIVE, 3)
    found = replace(found, mean=(0.1, 0.2, 1 / 3), std=(0.5, 0.5, 0.5))
    start.save(found, tmp_path / "deep" / "kept.safetensors")
    again = start.read(tmp_path / "deep" / "kept.safetensors")
    assert replace(again, weights={}) == replace(found, weights={})
    assert all(torch.equal(again.weights[key], value) for key, value in found.weights.items())
    with pytest.raises(UserError, match="cannot be read"):
        start.read(tmp_path / "w.safetensors")


@pytest.mark.parametrize("side", [299, 320])
def test_inceptions_pixels_are_those_of_torchvisions_own_transform(side):
    """With weights torchvision's network changes ImageNet's normalisation into one half's; ours is told one half."""
    theirs = torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=True)
    pixels = torch.from_numpy(np.random.default_rng(0).random((1, 3, side, side), np.float32))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in info.IMAGENET)
    known = pretrained.pretrained("torchvision:inception_v3")
    ours = (pixels - torch.tensor(known.mean).view(3, 1, 1)) / torch.tensor(known.std).view(3, 1, 1)
    torch.testing.assert_close(theirs._transform_input((pixels - mean) / std), ours, atol=1e-5, rtol=1e-5)


def test_libraries_say_what_their_weights_expect():
    known = pretrained.pretrained("timm:tf_efficientnet_lite0")
    assert (known.side, known.mean, known.repo) == (224, (0.5, 0.5, 0.5), "timm/tf_efficientnet_lite0.in1k")
    data = timm.data.resolve_model_data_config(timm.create_model("mobilenetv3_small_050"))
    known = pretrained.pretrained("timm:mobilenetv3_small_050")
    assert (known.side, known.mean, known.std) == (data["input_size"][1], data["mean"], data["std"])
    best = torchvision.models.EfficientNet_V2_S_Weights.DEFAULT
    known = pretrained.pretrained("torchvision:efficientnet_v2_s")
    assert (known.side, known.classes, known.url) == (best.transforms().crop_size[0], 1000, best.url)
    pixels = np.full((400, 400, 3), 128, np.uint8)
    expected = best.transforms()(Image.fromarray(pixels))[:, 0, 0]
    ours = (torch.full((3,), 128 / 255) - torch.tensor(known.mean)) / torch.tensor(known.std)
    torch.testing.assert_close(ours, expected)


def test_networks_without_pretrained_weights_say_so(refuses):
    refuses(lambda: pretrained.pretrained("resnet20"), "resnet20", "timm and torchvision", "file")
    refuses(lambda: pretrained.pretrained("timm:coatnet_0_224"), "timm has no weights", "another network")
    with pytest.raises(UserError, match="Did you mean"):
        libraries.pretrained("timm:resnet18x")
