"""The examples in the docstrings of losses run and give what they say; every loss has one, and its paper."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

from iekd import losses
from iekd.config.methods import METHODS

MODULES = [importlib.import_module(f"iekd.losses.{m.name}") for m in pkgutil.iter_modules(losses.__path__)]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_examples_are_true(module):
    torch.manual_seed(0)
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS, extraglobs={"torch": torch})
    assert found.failed == 0, "pytest shows above what differs"


@pytest.mark.parametrize("name", losses.__all__)
def test_every_loss_says_what_it_computes(name):
    text = getattr(losses, name).__doc__
    for needed in ("\n\n", "Args of forward:", "Returns:", "https://arxiv.org/abs/", ">>> "):
        assert needed in text, f"{name} lacks {needed!r}"


def test_every_paper_of_a_method_is_that_of_a_loss():
    texts = "".join(getattr(losses, name).__doc__ for name in losses.__all__)
    assert not [spec.name for spec in METHODS.values() if spec.paper and spec.paper.arxiv not in texts]
