"""`iekd models --search`."""

from __future__ import annotations

import json

import typer
from typer.testing import CliRunner

from iekd.cli import models as command
from iekd.cli.main import app
from iekd.cli.options import run_options
from iekd.config.run import RunConfig

LARGE, SMALL = "torchvision:mobilenet_v3_large", "torchvision:mobilenet_v3_small"


def searched(*words: str) -> str:
    result = CliRunner().invoke(app, ["models", "--search", "mobilenet v3 torchvision", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_search_lists_names_with_parameters_and_of_few_the_multiply_adds() -> None:
    found = json.loads(searched("--json").splitlines()[-1])
    assert [(m["name"], m["params"]) for m in found["models"]] == [(LARGE, 4_214_842), (SMALL, 1_528_106)]
    assert found["models"][0]["macs"] > found["models"][1]["macs"] > 1e6
    assert "multiply-adds" in searched()


def test_a_search_that_finds_many_counts_their_parameters_only(monkeypatch) -> None:
    monkeypatch.setattr(command, "MEASURED", 1)
    found = json.loads(searched("--json").splitlines()[-1])
    assert found["models"] == [{"name": LARGE, "params": 4_214_842}, {"name": SMALL, "params": 1_528_106}]
    assert "add a word" in searched()
    monkeypatch.setattr(command, "COUNTED", 1)
    found = json.loads(searched("--json").splitlines()[-1])
    assert found["not_measured"] == [SMALL]
    assert "4,214,842" in searched()
    assert "1 more" in searched()


def test_a_search_without_a_result_says_so() -> None:
    result = CliRunner().invoke(app, ["models", "--search", "no such network"])
    assert result.exit_code == 2
    assert "'no such network'" in result.stderr


def test_a_search_for_a_slip_gets_the_name_that_was_meant() -> None:
    result = CliRunner().invoke(app, ["models", "--search", "vit_b16"])
    assert "Did you mean 'torchvision:vit_b_16'?" in " ".join(result.stderr.split())


def test_an_earlier_name_is_answered_with_the_name_of_today():
    """vgg16 is the benchmark's small network here, and torchvision's everywhere else."""
    networks, cli = [], typer.Typer()

    def command(config: RunConfig) -> None:
        networks.append(config.student)

    cli.command()(run_options(command))
    answer = CliRunner().invoke(cli, ["--student", "vgg16", "--teacher", "resnet56"])
    said = " ".join(answer.stderr.split())
    assert said == "'vgg16' is now called vgg16-crd, a small network of the CRD benchmark, and not torchvision's vgg16."
    assert CliRunner().invoke(cli, ["--student", "vgg16-crd"]).stderr == ""
    assert networks == ["vgg16-crd", "vgg16-crd"]
