"""Networks of the Hub on a machine that does not reach it: what the refusals advise works when it is done."""

from __future__ import annotations

import io
import os
import re
import shlex

import pytest
import torch
from safetensors.torch import save

from iekd.config.run import make_config
from iekd.models import hub_configs, libraries
from iekd.models.artifact import ModelCard, save_model
from iekd.models.hub_networks import load_pretrained, pretrained
from iekd.models.pretrained import _why_unreachable
from iekd.models.registry import build
from iekd.models.start import from_file
from iekd.runs.prepare import prepare
from iekd.runs.store import Store
from iekd.runs.teachers import teacher_folder, to_fine_tune
from iekd.ui.render.curves import read_curves, teacher_accuracy

NAMES = ["blue", "green", "red"]  # the dataset's
TIMM = {
    "architecture": "test_resnet", "num_classes": 3, "label_names": NAMES,
    "pretrained_cfg": {"input_size": [3, 16, 16], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]},
}  # fmt: skip
RESNET = {
    "architectures": ["ResNetForImageClassification"], "model_type": "resnet", "embedding_size": 8,
    "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic",
    "id2label": {str(k): name for k, name in enumerate(NAMES)},
}  # fmt: skip


@pytest.mark.parametrize("library", ["timm", "transformers"])
@pytest.mark.parametrize("cached", [True, False], ids=["config.json cached", "nothing cached"])
def test_a_folder_that_was_fetched_elsewhere_is_the_teacher(
    published, hub, forget, tiny_options, tmp_path, refuses, monkeypatch, library, cached
):
    from huggingface_hub import constants

    if library == "transformers":
        pytest.importorskip("transformers", reason="the extra iekd[transformers] is not installed")
    config = TIMM if library == "timm" else RESNET
    published("ann/net", config)
    torch.manual_seed(0)
    theirs = build(hub_configs.look_up("hf:ann/net"), 3).state_dict()
    weights = save({key.removeprefix("network."): value for key, value in theirs.items()})
    commit = published("ann/net", config, model_st=weights)
    options = {key: value for key, value in tiny_options.items() if key not in ("teacher", "resolution")}

    def asking(**teacher):
        return prepare(make_config(**options | {"methods": ("kd",), "resolution": 32} | teacher), tmp_path / "runs")

    forget(tmp_path / "hf-cache")
    if cached:
        asking(teacher="hf:ann/net")
    forget()
    (folder := tmp_path / "copied").mkdir()
    for name, data in hub.repo("ann/net").files.items():
        (folder / name).write_bytes(data)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for named in ({"teacher": "hf:ann/net", "teacher_from": "pretrained"}, {"teacher_from": "hf:ann/net"}):
        _why_unreachable.cache_clear()
        said = refuses(
            lambda named=named: asking(**named), "hf:ann/net", "not on this machine", "name no network for it"
        )
        command = shlex.split(re.search("`(hf download .*?)`", said)[1])
        pinned = ["--revision", commit] if cached else []
        assert command == ["hf", "download", "ann/net", "--local-dir", "network", *pinned]
    prepared = asking(teacher_from=str(folder))
    assert prepared.teacher == folder / "model.safetensors"
    name = prepared.config.teacher
    weights = from_file(prepared.teacher, name, NAMES, 3).weights
    assert not {key for key, value in theirs.items() if value.ndim == 4 and not torch.equal(weights[key], value)}
    both = f"{folder},{folder}"  # also as a further teacher
    refuses(lambda: asking(teacher=f"{name},resnet8", teacher_from=both), f"Set teacher to {name}")
    assert asking(teacher=f"{name},{name}", teacher_from=both).teacher == prepared.teacher


def test_what_a_commit_does_not_have_is_not_asked_for_again(published, hub, monkeypatch, forget):
    """The cache remembers it: of transformers' images, and of weights that there are as a pickle only."""
    from huggingface_hub import constants

    published("ann/net", RESNET)
    torch.save(build("timm:test_resnet", 3).network.state_dict(), pickled := io.BytesIO())
    published("ann/pickled", TIMM, pytorch_model_bin=pickled.getvalue())
    network, other = hub_configs.look_up("hf:ann/net"), hub_configs.look_up("hf:ann/pickled")
    found, weights = pretrained(network.removeprefix("hf:")), load_pretrained(other.removeprefix("hf:"), 3)
    forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pretrained(network.removeprefix("hf:")) == found
    assert load_pretrained(other.removeprefix("hf:"), 3).keys() == weights.keys()


@pytest.mark.parametrize("asked", ["pretrained", "hf:", "hf:@"])
def test_drawing_a_run_asks_nothing_of_the_hub(published, hub, forget, tiny_config, tmp_path, asked):
    """Its folder has config.json, which does not say how a network of transformers gets its images."""
    published("ann/net", RESNET)
    network = hub_configs.look_up("hf:ann/net")
    source = {"pretrained": "pretrained", "hf:": "hf:ann/net", "hf:@": network}[asked]
    run, handle = Store(tmp_path).create(tiny_config(methods=("kd",), teacher=network, teacher_from=source))
    os.close(handle)
    forget(tmp_path / "hf-cache")
    libraries.pretrained.cache_clear()
    hub.requests.clear()
    assert teacher_accuracy(run, run.config, read_curves(run)) is None
    assert hub.requests == []


def test_what_an_earlier_run_has_fine_tuned_is_drawn(published, hub, tiny_config, tmp_path):
    """All that has to be known of the weights is on this machine."""
    published("ann/net", {**TIMM, "num_classes": 2})
    network = hub_configs.look_up("hf:ann/net")
    run, handle = Store(tmp_path).create(tiny_config(methods=("kd",), teacher=network, teacher_from="pretrained"))
    os.close(handle)
    start = to_fine_tune(run.config, tmp_path)
    card = ModelCard(network, ("teacher",), NAMES, 3, 16, (0.5,) * 3, (0.2,) * 3, 61.5, 1)
    save_model(teacher_folder(run.config, tmp_path, weights_fingerprint=start.fingerprint), build(network, 3), card)
    hub.requests.clear()
    assert teacher_accuracy(run, run.config, read_curves(run)) == 61.5
    assert hub.requests == []
