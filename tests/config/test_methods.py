"""The methods' specs, and what is derived from them."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

import iekd
from iekd.config.methods import KD_ON_TOP, METHODS, MethodSettings, check_method, combined, method_spec, register, users
from iekd.config.run import ABOUT, GROUPS, RunConfig, label, make_config
from iekd.config.unused import unused_settings

PACKAGE = Path(iekd.__file__).parent
OWN = set(MethodSettings.model_fields)


def test_every_setting_of_methods_is_used_by_one_and_every_used_one_exists():
    used = set().union(*(spec.uses for spec in METHODS.values()))
    assert used == OWN


@pytest.mark.parametrize("field", sorted(OWN - {"weight_schedule", "distance", "ie_stages"}))
def test_methods_in_a_help_text_are_those_that_use_the_setting(field):
    named = set(re.findall(r"[a-z][a-z-]*", RunConfig.model_fields[field].description)) & set(METHODS)
    assert named in (set(), set(users(field)))


def test_a_setting_that_only_some_methods_use_says_which():
    """Whatever is set for a run whose methods do not use it is named, with the methods that would."""
    other = {bool: False, float: 3.5, int: 7}
    for field in sorted(OWN - {"weight_schedule"}):
        info = RunConfig.model_fields[field]
        choices = [c for c in getattr(info.annotation, "__args__", ()) if isinstance(c, str) and c != info.default]
        value = choices[0] if choices else other.get(type(info.default), "resnet8" if field == "peer" else 3.5)
        value = 0.25 if field in ("inheritance_share", "kd_weight") else value
        said = unused_settings(make_config(methods=("baseline",), **{field: value}))
        assert list(said) == [field]
        if not ABOUT[field].only_for:
            assert any(name in said[field] for name in users(field)) or said[field] == "IE methods"


@pytest.mark.parametrize("name", METHODS)
def test_a_spec_is_complete(name):
    spec = method_spec(name)
    assert spec.name == name
    assert 0 < len(spec.summary) <= 60
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in spec.colour)
    assert bool(spec.paper) == bool(spec.terms) == (name != "baseline")
    assert len({term.name for term in spec.terms}) == len(spec.terms)
    if spec.paper:
        assert re.fullmatch(r"\d{4}\.\d{4,5}", spec.paper.arxiv)


@pytest.mark.parametrize("tone", [0, 1])
def test_no_two_methods_have_one_colour(tone):
    assert len({spec.colour[tone] for spec in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize("name", combined())
def test_with_kd_on_top_it_needs_and_uses_what_both_do(name):
    spec, plain, kd = method_spec(name), method_spec(name.removesuffix(KD_ON_TOP)), method_spec("kd")
    assert spec.needs_teacher
    assert spec.uses == plain.uses | kd.uses
    assert spec.terms == plain.terms + kd.terms
    assert (spec.needs_peer, spec.needs_factor, spec.needs_margins) == (
        plain.needs_peer, plain.needs_factor, plain.needs_margins,
    )  # fmt: skip


@pytest.mark.parametrize("name", [name for name, spec in METHODS.items() if spec.without_kd])
def test_where_kd_on_top_makes_no_sense_the_sentence_says_why(name, refuses):
    refuses(lambda: check_method(name + KD_ON_TOP), f"Method '{name}{KD_ON_TOP}'", "Name it")


def test_a_method_with_a_used_name_or_an_unknown_setting_cannot_be_registered():
    kd = METHODS["kd"]
    for wrong in (kd, replace(kd, name="x+kd"), replace(kd, name="x", settings=("no_such_setting",))):
        with pytest.raises(ValueError, match=re.escape(wrong.name)):
            register(wrong)
    assert "x" not in METHODS


def test_every_setting_has_a_place_and_a_name():
    assert set(ABOUT) == set(RunConfig.model_fields)
    placed = [name for names in GROUPS.values() for name in names]
    assert len(placed) == len(set(placed))
    first = [name for name in ABOUT if name not in placed]
    assert first == ["dataset", "teacher", "student", "methods", "seeds", "epochs"]
    assert len({label(name) for name in ABOUT}) == len(ABOUT), "two settings with one name on the page"
    assert all(info.description for info in RunConfig.model_fields.values())
    assert {name for name, about in ABOUT.items() if about.only_for} == {
        name for name, about in ABOUT.items() if about.used_when
    }


def test_the_schema_of_a_configuration_can_be_given_to_programs():
    found = RunConfig.model_json_schema()["properties"]
    assert found["lr"]["title"] == "Learning rate"
    assert found["lr"]["group"] == "Optimiser"


@pytest.mark.parametrize("room", ["engine", "runs", "ui", "estimate", "distill", "launchers", "bench"])
def test_no_other_file_names_a_method(room):
    """What a method needs is in its spec. The baseline is a role, not only a method: others are compared with it."""
    names = (set(METHODS) | {name.removeprefix("ie-") for name in METHODS}) - {"baseline"}
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Compare, ast.match_case)):
                found = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and n.value in names}
                assert not found, f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', '?')} compares with {found}"
