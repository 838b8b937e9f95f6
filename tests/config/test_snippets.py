"""The run as code to copy: each text, executed, asks for exactly the run that it was made from."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types
from typing import Any

import pytest

import iekd
from iekd.config.run import RunConfig, make_config
from iekd.config.snippets import api_snippet, python_snippet

CONFIGS = [
    RunConfig(),
    RunConfig(methods=("ie-ft",), seeds=(3,), lr=1 / 3, nesterov=False, milestones=(0.25, 0.5), resolution=16),
    RunConfig(dataset='folder:/tmp/a "b"\\c {0} é犬', name="it's a\ttest", teacher_from="/x.pth", teacher_mean=(0.5,),
              teacher_std=(0.25,), threads=2, weight_decay=1e-05),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=["default", "changed", "hard to write"])
def test_the_script_submits_the_run(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[RunConfig] = []

    class Launcher:
        def __init__(self, store: Any) -> None:
            assert store == "the store of runs"

        def submit(self, given: RunConfig) -> str:
            submitted.append(given)
            return "an id"

    monkeypatch.setattr(iekd, "LocalLauncher", Launcher, raising=False)
    monkeypatch.setattr(iekd, "Store", lambda folder: f"the store of {folder}", raising=False)
    exec(python_snippet(config), {})
    assert submitted == [config]


@pytest.mark.parametrize("config", CONFIGS, ids=["default", "changed", "hard to write"])
@pytest.mark.parametrize("header", ["", "X-IEKD-Token"])
def test_the_call_is_one_of_the_endpoint(config: RunConfig, header: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from iekd.ui.api.methods import ENDPOINTS, Actions

    asked: list[dict[str, Any]] = []

    class Client:
        def __init__(self, address: str, headers: dict[str, str] | None = None) -> None:
            assert address == "http://here:1/studio/"
            assert list(headers or {}) == ([header] if header else [])

        def predict(self, *, api_name: str, **values: Any) -> str:
            assert [f"/{name}" for name in ENDPOINTS].count(api_name) == 1
            inspect.signature(getattr(Actions, api_name[1:])).bind(None, **values)
            assert set(values) <= {p.name for p in ENDPOINTS[api_name[1:]].parameters}
            asked.append(values)
            return "an id"

    monkeypatch.setitem(sys.modules, "gradio_client", types.SimpleNamespace(Client=Client))
    exec(api_snippet(config, "http://here:1/studio/", header), {})
    assert [make_config(**values["config"]) for values in asked] == [config]


def test_no_torch_is_needed() -> None:
    code = "import sys, iekd.config.snippets; print('torch' in sys.modules or 'gradio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
