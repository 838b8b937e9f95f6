"""`iekd models --search`."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from iekd.cli import models as command
from iekd.cli.main import app


def test_a_search_lists_names_with_parameters(monkeypatch) -> None:
    monkeypatch.setattr(command, "MEASURED", 1)
    result = CliRunner().invoke(app, ["models", "--search", "mobilenet v3 torchvision", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert [(m["name"], m["params"]) for m in found["models"]] == [("torchvision:mobilenet_v3_large", 4_214_842)]
    assert found["not_measured"] == ["torchvision:mobilenet_v3_small"]
    result = CliRunner().invoke(app, ["models", "--search", "mobilenet v3 torchvision"])
    assert "4,214,842" in result.stdout
    assert "1 more" in result.stdout


def test_a_search_without_a_result_says_so() -> None:
    result = CliRunner().invoke(app, ["models", "--search", "no such network"])
    assert result.exit_code == 2
    assert "'no such network'" in result.stderr
