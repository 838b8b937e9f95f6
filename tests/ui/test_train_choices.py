"""The cards of the form say what its fields hold, an error names its field, and the queue says who comes first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from iekd.config.methods import METHODS
from iekd.config.presets import PRESETS
from iekd.config.run import RunConfig, make_config
from iekd.errors import UserError
from iekd.runs.prepare import prepare
from iekd.runs.queue import ahead_of_new
from iekd.runs.store import Store
from iekd.ui.render.train import estimate_html, networks_html, problem_html
from iekd.ui.tabs import choices, form

DEFAULTS = form.to_values(RunConfig())


def test_the_form_opens_with_the_first_cards() -> None:
    assert choices.methods_chosen(DEFAULTS) == choices.method_cards()[0][1] == "plain"
    assert choices.rigour_chosen(DEFAULTS) == choices.rigour_cards()[0][1] == "quick"


def test_every_card_is_recognised_by_what_it_fills_in() -> None:
    for key, one in choices.method_sets().items():
        assert choices.methods_chosen(form.to_values(form.to_config({**DEFAULTS, **one.values}))) == key
    for key, one in choices.rigours().items():
        assert choices.rigour_chosen(form.to_values(form.to_config({**DEFAULTS, **one.values}))) == key
    assert choices.methods_chosen({**DEFAULTS, "methods": ["kd"]}) == choices.PICK
    assert choices.methods_chosen({**DEFAULTS, "with_kd": ["ie-ft+kd"]}) == choices.PICK
    for change in ({"seeds": "0, 1"}, {"epochs": 11}, {"lr": 0.2}):
        assert choices.rigour_chosen({**DEFAULTS, **change}) == choices.OWN


def test_all_ie_methods_are_each_beside_their_plain_counterpart() -> None:
    methods = form.to_config({**DEFAULTS, **choices.method_sets()["all-ie"].values}).methods
    explore = [name for name, spec in METHODS.items() if spec.explores]
    assert set(methods) == {"baseline", *explore, *(name.removeprefix("ie-") for name in explore)}


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"quick"}))
def test_a_preset_is_a_card_with_several_seeds_unless_a_run_takes_long(name: str) -> None:
    config = form.to_config({**DEFAULTS, **choices.rigours()[name].values})
    assert config == make_config(preset=name, seeds=(0,) if PRESETS[name].one_seed else choices.SEEDS)
    assert PRESETS[name].text[1:] in {key: text for text, key in choices.rigour_cards()}[name]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"lr": 1000}, "lr"),
        ({"seeds": "one"}, "seeds"),
        ({"seeds": "1, 1"}, "seeds"),
        ({"epochs": None}, "epochs"),
        ({"methods": []}, "methods"),
        ({"teacher": "none"}, "teacher"),
        ({"cutout": 400}, "cutout"),
        ({"milestones": "0.9, 0.1"}, "milestones"),
        ({"threads": "many"}, "threads"),
        ({"teacher_mean": "0.5"}, "teacher_std"),
        ({"teacher_from": "/nowhere.pth"}, "teacher_from"),
        ({"teacher_from": "run:nothing"}, "teacher_from"),
        ({"teacher_from": "pretrained"}, "teacher_from"),
        ({"student_from": "pretrained"}, "student_from"),
        ({"student_from": "auto"}, "student_from"),
        ({"class_order": "a,b"}, "class_order"),
        ({"name": "x" * 81}, "name"),
        ({"dataset": form.OWN_IMAGES, "folder": "/nowhere/at/all"}, "folder"),
    ],
    ids=str,
)
def test_an_error_names_the_field_to_mark(change: dict[str, Any], field: str, tmp_path: Path) -> None:
    values = {**DEFAULTS, **change}
    with pytest.raises(UserError) as error:
        prepare(form.to_config(values), tmp_path)
    assert form.wrong_field(error.value, values) == field
    assert f'data-goto="{field}"' in problem_html(error.value, field)


def test_settings_that_differ_from_their_default_are_counted_by_group() -> None:
    assert form.changed(DEFAULTS) == {}
    changed = {**DEFAULTS, "lr": 0.2, "nesterov": False, "resolution": "32", "limit_train": " ", "batch_size": 128.0}
    assert form.changed({**changed, "name": "mine", "epochs": 3}) == {"Optimiser": 2, "Images": 1}


def test_the_estimate_names_the_run_before(tmp_path: Path) -> None:
    from iekd.runs.estimate import estimate

    store, config = Store(tmp_path), RunConfig(device="cpu", name="<b>first</b>")
    found = estimate(config, store, True)
    assert ahead_of_new(config, store) == []
    first, one = store.create(config)
    other, two = store.create(RunConfig(device="mps"))
    assert [run.id for run in ahead_of_new(config, store)] == [first.id]
    assert "after <a" in estimate_html(found, ahead_of_new(config, store))
    assert "&lt;b&gt;first" in estimate_html(found, ahead_of_new(config, store))
    second, three = store.create(config)
    assert [run.id for run in ahead_of_new(config, store)] == [first.id, second.id]
    assert "after 2 other runs" in estimate_html(found, ahead_of_new(config, store))
    for handle in (one, two, three):
        assert handle is not None
        os.close(handle)
    assert ahead_of_new(config, store) == [], "their workers are gone"
    assert other.id not in (first.id, second.id)


def test_the_networks_are_compared_by_their_parameters() -> None:
    assert "3.5× smaller" in networks_html("resnet20", "resnet8")
    assert "3.5× larger" in networks_html("resnet8", "resnet20")
    assert "the labels alone" in networks_html("none", "resnet8")
    assert networks_html("resnet20", "resnet8", 1, 10) != networks_html("resnet20", "resnet8", 3, 100)
