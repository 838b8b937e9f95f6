"""Pretrained weights through the libraries' own download code, from a stand-in on this machine."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
from safetensors.torch import save
from stand_in import Repo

from iekd.config.run import make_config
from iekd.models import libraries, pretrained, torchvision_networks
from iekd.models.artifact import ModelCard
from iekd.models.info import IMAGENET, Pretrained
from iekd.models.registry import build
from iekd.runs.prepare import prepare
from iekd.runs.status import FINISHED
from iekd.runs.store import Store
from iekd.runs.worker import execute

NAME, REPO = "timm:test_resnet", "timm/test_resnet.r160_in1k"


@pytest.fixture(autouse=True)
def forget():
    pretrained._why_unreachable.cache_clear()
    yield
    pretrained._why_unreachable.cache_clear()


def weights(name: str, classes: int = 1000, **changes):
    torch.manual_seed(3)
    state = build(name, classes).state_dict()
    return {key.removeprefix("network."): value for key, value in {**state, **changes}.items()}


@pytest.fixture
def on_hub(hub):
    """`on_hub(files)` puts timm's repository there."""

    def put(name=REPO, **files):
        repo = hub.repos["model", name] = Repo("model", False)
        repo.add("weights", {name.replace("__", "."): data for name, data in files.items()})
        return hub

    return put


def test_weights_that_were_first_published_in_another_format_are_read_as_what_they_are_now(on_hub):
    """timm knows this network's as JAX's .npz; its repository has safetensors."""
    name = "timm:vit_tiny_patch16_224"
    assert timm.get_pretrained_cfg("vit_tiny_patch16_224").custom_load
    state = weights(name, 1000)
    on_hub(pretrained.pretrained(name).repo, model__safetensors=save(state))
    loaded = pretrained.load(name, 3)
    assert all(torch.equal(loaded[f"network.{key}"], value) for key, value in state.items())


@pytest.mark.parametrize("kind", ["model__safetensors", "pytorch_model__bin"])
def test_timms_weights_are_downloaded_once(on_hub, kind):
    state, file = weights(NAME), io.BytesIO()
    torch.save(state, file)
    hub = on_hub(**{kind: save(state) if "safe" in kind else file.getvalue()})
    pretrained.check_at_hand(NAME, pretrained.pretrained(NAME))
    assert not hub.asked("/resolve/", "GET")  # asked for, and not yet downloaded
    loaded = pretrained.load(NAME, 3)
    assert all(torch.equal(loaded[f"network.{key}"], value) for key, value in state.items())
    grey = pretrained.load(NAME, 1)["network.conv1.0.weight"]
    torch.testing.assert_close(grey, state["conv1.0.weight"].sum(1, keepdim=True))
    asked = len(hub.requests)
    hub.close()  # from the cache, without the network
    pretrained.check_at_hand(NAME, pretrained.pretrained(NAME))
    pretrained.load(NAME, 3)
    assert len(hub.requests) == asked


def test_what_the_hub_does_not_have_or_is_damaged_is_one_sentence(hub, on_hub, refuses):
    known = pretrained.pretrained(NAME)
    refuses(lambda: pretrained.check_at_hand(NAME, known), NAME, REPO, "not on this machine")
    pretrained._why_unreachable.cache_clear()
    on_hub(model__safetensors=b"not weights")
    refuses(lambda: pretrained.load(NAME, 3), REPO, "cannot be read", "Delete them")


class Code:
    def __reduce__(self):
        return (print, ("it ran",))


def with_code() -> bytes:
    file = io.BytesIO()
    torch.save({"fc.bias": Code()}, file)
    return file.getvalue()


def test_code_in_downloaded_weights_is_not_run(on_hub, refuses, capsys):
    on_hub(pytorch_model__bin=with_code())
    refuses(lambda: pretrained.load(NAME, 3), "cannot be read")
    assert "it ran" not in capsys.readouterr().out


def test_offline_mode_is_named(hub, monkeypatch, refuses):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refuses(lambda: pretrained.check_at_hand(NAME, pretrained.pretrained(NAME)), "HF_HUB_OFFLINE", "give its path")
    said = str(pretrained.missing(NAME, pretrained.pretrained(NAME), "why"))
    assert f"`hf download {pretrained.pretrained(NAME).repo} model.safetensors --local-dir weights`" in said


def test_offline_mode_is_not_blamed_for_what_is_not_on_the_hub(monkeypatch, refuses, tmp_path):
    """Nobody gets torchvision's weights by switching the Hub on."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    gone = Pretrained("gone", 1000, 224, *IMAGENET, url="http://127.0.0.1:9/gone.pth")
    said = refuses(lambda: pretrained.check_at_hand("torchvision:resnet18", gone), gone.url, "refused")
    assert "HF_HUB_OFFLINE" not in said


def test_a_run_fine_tunes_them_and_its_models_carry_their_own_pixels(on_hub, tmp_path, tiny_options):
    """The teacher's pixels are the library's, the student's the dataset's."""
    on_hub(model__safetensors=save(weights(NAME)))
    config = make_config(**{**tiny_options, "teacher": NAME, "teacher_from": "pretrained", "methods": ("kd",),
                            "resolution": 32})  # fmt: skip
    prepared = prepare(config, tmp_path / "runs")
    assert prepared.teacher is None
    assert REPO in prepared.sentences()[0]
    run, handle = Store(tmp_path / "runs").create(prepared.config)
    execute(run, lambda: False)
    os.close(handle)
    assert run.status.state == FINISHED, run.status.error
    assert run.report["teacher"]["from"] == f"pretrained weights ({REPO}), fine-tuned by this run"
    cards = {name: ModelCard.read(folder) for name, folder in run.model_folders.items()}
    assert cards["teacher"].mean == cards["teacher"].std == (0.5,) * 3
    assert cards["kd-seed0"].mean != (0.5,) * 3
    assert f"They are {REPO}, trained with images of 160 x 160 pixels." in run.log_tail(200)
    hidden = prepare(config.model_copy(update={"resolution": None}), tmp_path / "runs")
    assert hidden.config.resolution == 160


def test_damaged_numbers_in_downloaded_weights_are_refused(on_hub, refuses):
    from iekd.models.start import from_library

    bias = torch.full((1000,), float("nan"))
    on_hub(model__safetensors=save(weights(NAME, **{"network.fc.bias": bias})))
    refuses(
        lambda: from_library(NAME, [f"class {i}" for i in range(1000)], 3),
        REPO,
        "damaged",
        "network.fc.bias",
        "not numbers",
    )
    assert from_library(NAME, ["a", "b", "c"], 3).new  # the head is not used


def test_torchvisions_weights_come_from_its_own_address(tmp_path, monkeypatch, refuses, capsys):
    """torch.hub downloads them and checks the sum in their name."""
    name, file = "torchvision:shufflenet_v2_x0_5", io.BytesIO()
    torch.save(weights(name), file)
    served = tmp_path / "served"
    served.mkdir()
    path = served / f"net-{hashlib.sha256(file.getvalue()).hexdigest()[:8]}.pth"
    path.write_bytes(file.getvalue())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/{path.name}"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    best = torchvision_networks._best("shufflenet_v2_x0_5")
    monkeypatch.setattr(best.value, "url", address)
    libraries.pretrained.cache_clear()
    try:
        found = pretrained.pretrained(name)
        assert found.url == address
        pretrained.check_at_hand(name, found)
        assert not (tmp_path / "home").exists()  # asked for, and not yet downloaded
        loaded = pretrained.load(name, 3)
        assert all(torch.equal(loaded[f"network.{key}"], value) for key, value in weights(name).items())
    finally:
        server.shutdown()
        server.server_close()
        libraries.pretrained.cache_clear()
    pretrained._why_unreachable.cache_clear()
    pretrained.check_at_hand(name, found)  # from the cache
    assert torch.equal(pretrained.load(name, 3)["network.fc.bias"], loaded["network.fc.bias"])
    (tmp_path / "home" / "hub" / "checkpoints" / path.name).write_bytes(with_code())
    refuses(lambda: pretrained.load(name, 3), name, "cannot be read", "Delete them")
    assert "it ran" not in capsys.readouterr().out
    gone = Pretrained("gone", 1000, 224, *IMAGENET, url=address.replace("net-", "other-"))
    refuses(lambda: pretrained.check_at_hand(name, gone), "gone", "not on this machine", "refused")
