"""Networks of the Hub on a machine that does not reach it: what the refusals advise works when it is done."""

from __future__ import annotations

import re
import shlex

import pytest
import torch
from safetensors.torch import save

from iekd.config.run import make_config
from iekd.models import hub_configs
from iekd.models.pretrained import _why_unreachable
from iekd.models.registry import build
from iekd.models.start import from_file
from iekd.runs.prepare import prepare

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
