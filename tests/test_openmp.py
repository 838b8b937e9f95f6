"""How waiting threads wait: set before torch is loaded, and never against the user's will."""

from __future__ import annotations

import sys

import pytest

from iekd.openmp import let_threads_sleep

NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.fixture
def without_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def test_threads_that_wait_fall_asleep(without_torch):
    environment = {}
    let_threads_sleep(environment)
    assert int(environment["GOMP_SPINCOUNT"]) >= 0


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_has_set_stays(without_torch, name):
    environment = {name: "mine"}
    let_threads_sleep(environment)
    assert environment == {name: "mine"}


def test_it_is_too_late_once_torch_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", object())
    environment = {}
    let_threads_sleep(environment)
    assert environment == {}
