"""The names that the documentation calls public say what they take and give, and their examples run."""

from __future__ import annotations

import doctest
import inspect

import pytest
import torch

import iekd
from iekd.data import registry as data_registry
from iekd.distill import method, targets
from iekd.export import formats
from iekd.inference.predict import Predictor
from iekd.models import factors, registration, taps

DOCUMENTED = {
    method.build_method: ("Args:", "Returns:", "Raises:", ">>> "),
    method.builder: ("Args:", "Returns:", "Raises:", "Example:"),
    targets.split_channels: ("Args:", "Returns:", ">>> "),
    targets.FactorComparison: ("Args of forward:", "Returns:", ">>> "),
    factors.AutoEncoder: ("Args:", "Args of forward:", "Returns:", ">>> "),
    factors.FactorEncoder: ("Args:", "Args of forward:", "Returns:", ">>> "),
    taps.Tapped: ("Args of forward:", "Returns:", ">>> "),
    Predictor: ("Attributes:", "Example:"),
    registration.register: ("Args:", "Returns:", "Raises:", "Example:"),
    formats.register: ("Args:", "Returns:", "Example:"),
    data_registry.register: ("Args:", "Returns:", "Example:"),
}


@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda d: f"{d.__module__}.{d.__name__}")
def test_a_public_name_says_what_it_takes_and_gives(documented):
    text = inspect.getdoc(documented)
    assert [part for part in DOCUMENTED[documented] if part not in text] == []


@pytest.mark.parametrize("module", [method, targets, factors, taps], ids=lambda module: module.__name__)
def test_the_examples_are_true(module):
    found = doctest.testmod(module, extraglobs={"torch": torch})
    assert found.attempted > 0
    assert found.failed == 0, "pytest shows above what differs"


def test_help_of_distill_shows_the_functions_arguments(capsys):
    help(iekd.distill)
    shown = capsys.readouterr().out
    assert "What a method is" in shown
    for said in ("train_loader: a torch DataLoader", "test_loader", "on_metrics", "DivergedError"):
        assert said in shown
