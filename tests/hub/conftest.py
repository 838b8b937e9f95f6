"""A Hub of our own on 127.0.0.1, and a finished run to push to it."""

from __future__ import annotations

import importlib
import json
import shutil

import pytest
from stand_in import Hub, Repo

from iekd.errors import UserError
from iekd.models import hub_configs, pretrained

WRITER, READER = "hf_writer", "hf_reader"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in; huggingface_hub in this process speaks to it, with the token of somebody who may write to ann/."""
    from huggingface_hub import constants

    made = Hub()
    template = made.address + constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "ENDPOINT", made.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    # what importing iekd.hub first does; another test may have imported huggingface_hub before it
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setenv("HF_TOKEN", WRITER)
    waits = []
    http = importlib.import_module("huggingface_hub.utils._http")
    monkeypatch.setattr(http.time, "sleep", waits.append)  # between its attempts
    made.waits = waits
    made.token = WRITER
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """As a process that has looked nothing up yet."""
    pretrained._why_unreachable.cache_clear()
    monkeypatch.setattr(hub_configs, "_known", {})
    monkeypatch.setattr(hub_configs, "_pinned", {})


@pytest.fixture
def forget(monkeypatch):
    def as_another_process(cache=None) -> None:
        monkeypatch.setattr(hub_configs, "_known", {})
        monkeypatch.setattr(hub_configs, "_pinned", {})
        if cache is not None:
            shutil.rmtree(cache)

    return as_another_process


@pytest.fixture
def published(hub):
    """`published(name, config, **files)` puts a repository on the Hub; its commit."""

    def add(name: str, config: dict, private: bool = False, **files: bytes) -> str:
        repo = hub.repos["model", name] = Repo("model", private)
        named = {key.replace("_st", ".safetensors").replace("_bin", ".bin"): value for key, value in files.items()}
        return repo.add("first", {"config.json": json.dumps(config).encode(), **named})

    return add


@pytest.fixture
def no_export(monkeypatch):
    """Without ONNX, which takes seconds and is pushed in other tests."""

    def refuse(*given):
        raise UserError("This network cannot be exported.")

    monkeypatch.setattr("iekd.hub.contents._exported", refuse)


@pytest.fixture
def pushed_with(hub, finished, no_export):
    """`pushed_with(what, repo, **options)` pushes the finished run, or its IE student."""
    from iekd.hub.contents import gathered
    from iekd.hub.push import push

    run = finished[0]

    def send(what="student", repo="ann/pets", *, token=WRITER, learner="ie-ft-seed0", license="", **options):
        model = None if what == "run" else run.model_folders[learner]
        with gathered(what, repo, run=run, model=model, license=license) as contents:
            return push(contents, repo, token, **options)

    return send
