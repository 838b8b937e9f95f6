"""Every event of the page, called as Gradio calls it: what a handler returns is among the outputs of its event."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.routes import App
from PIL import Image
from ui_helpers import animals, wait_until

from iekd import data
from iekd.config.run import RunConfig
from iekd.models import libraries
from iekd.runs.store import Store
from iekd.ui.api.methods import ENDPOINTS
from iekd.ui.app import build_app
from iekd.ui.tabs import form

# these start a worker or take files; and the endpoints for programs have tests of their own
NOT_CALLED = {"begin", "go_on", "take", "answer", "<lambda>", *ENDPOINTS}


@pytest.fixture
def run_id(tmp_path: Path) -> str:
    """A run without a worker, which the page calls lost."""
    run, handle = Store(tmp_path).create(RunConfig(name="mine", seeds=(0, 1)))
    assert handle is not None
    os.close(handle)
    return run.id


@pytest.fixture
def page(tmp_path: Path, run_id: str, monkeypatch: pytest.MonkeyPatch) -> gr.Blocks:
    monkeypatch.setenv("IEKD_PROBE", "0")
    demo = build_app(tmp_path)
    demo.queue()
    App.create_app(demo)
    return demo


def called(demo: gr.Blocks, name: str, act: str = "open", changed: dict[str, Any] | None = None, **query: str) -> Any:
    """Answers of every event whose handler has that name: dictionaries of the data, by elem_id or id of the output."""
    request = gr.Request(
        headers={}, cookies={}, query_params=query, client=SimpleNamespace(host="127.0.0.1"), username=None
    )
    found = []
    for event in demo.fns.values():
        if event.name != name or event.fn is None:
            continue
        given = [
            query.get("run", "")
            if component.elem_id == "shown-run"
            else (changed or {}).get(component.elem_id, component.value)
            for component in event.inputs
        ]
        button = gr.EventData(None, {"run": query.get("run", ""), "act": act})
        answer = asyncio.run(demo.process_api(event, given, state=None, request=request, event_data=button))
        data = zip(event.outputs, answer["data"], strict=True)
        found.append({output.elem_id or output._id: value for output, value in data})
    assert found, name
    return found


def test_no_handler_returns_what_its_event_does_not_change(page: gr.Blocks, run_id: str) -> None:
    names = {event.name for event in page.fns.values() if event.fn is not None}
    for name in sorted(names - NOT_CALLED):
        for query in ({"run": run_id}, {"run": run_id, "tab": "runs"}, {"run": run_id, "tab": "compare"}):
            called(page, name, **query)


@pytest.mark.parametrize("tab", ["", "runs", "compare"])
def test_an_address_opens_its_run_and_tab(page: gr.Blocks, run_id: str, tab: str) -> None:
    (opened,) = called(page, "opened", run=run_id, tab=tab)
    assert opened["shown-run"] == run_id
    assert "mine" in opened["run-head"]
    assert opened["form"]["visible"] is False
    assert opened["tabs"].get("selected") == (tab or "train")
    assert ("mine" in str(opened["runs-table"])) == (tab == "runs")


def test_an_address_of_no_run_opens_the_form(page: gr.Blocks) -> None:
    (opened,) = called(page, "opened", run="nothing")
    assert opened["shown-run"] == ""
    assert "There is no run &#39;nothing&#39;" in opened["error"]
    assert opened["form"]["visible"] is True


def test_a_row_opens_its_run_and_the_form_comes_back_when_it_is_deleted(page: gr.Blocks, run_id: str) -> None:
    (opened,) = called(page, "on_row", run=run_id)
    assert (opened["shown-run"], opened["tabs"]["selected"]) == (run_id, "train")
    (deleted,) = called(page, "on_row", act="delete", run=run_id)
    assert deleted["shown-run"] == ""
    assert deleted["form"]["visible"] is True
    assert "No runs yet" in deleted["runs-table"]


def test_settings_reach_the_forecast_under_their_own_names(page: gr.Blocks) -> None:
    changed = {"f-epochs": 7, "f-name": "seven", "f-seeds": "3, 4", "f-batch_size": 32}
    for answer in called(page, "describe", changed=changed):
        command = answer["command"]
        for words in ("--epochs 7", "--name seven", "--seeds 3,4", "--batch-size 32"):
            assert words in command
        assert answer["error"] == ""
    wrong = called(page, "describe", changed={**changed, "f-epochs": -1})[0]
    assert "Epochs" in wrong["error"]
    assert wrong["command"] == ""


def run_of(folder: Path, **settings: Any) -> str:
    """A run that a plugin's names were used in, which is not there any more. It has rows of metrics."""
    run, handle = Store(folder).create(RunConfig.model_construct(**settings))
    assert handle is not None
    os.close(handle)
    values = {"loss": 2.0, "cross_entropy": 1.0, "gone": 0.5, "accuracy": 10.0}
    rows = [
        {"stage": "students", "learner": f"{method}-seed0", "kind": kind, "epoch": 1.0, "step": 1, "values": values}
        for method in settings.get("methods", ("baseline",))
        for kind in ("train", "test")
    ]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run.id


@pytest.mark.parametrize(
    ("gone", "settings"),
    [
        ("gone-method", {"methods": ("baseline", "gone-method", "gone-method+kd")}),
        ("gone-net", {"student": "gone-net"}),
        ("gone:here", {"dataset": "gone:here"}),
    ],
)
def test_a_run_of_a_missing_plugin_is_shown_and_cannot_fill_in_the_form(
    page: gr.Blocks, tmp_path: Path, gone: str, settings: dict[str, Any]
) -> None:
    run_id = run_of(tmp_path, **settings)
    (opened,) = called(page, "opened", run=run_id)
    assert "Lost" in opened["run-head"]
    assert "Test accuracy" in opened["chart-data"]
    assert ("GONE-METHOD + KD" in opened["chart-data"]) == (gone == "gone-method")
    (filled,) = called(page, "again", run=run_id)
    assert f"&#39;{gone}&#39;" in filled["error"]
    assert "IEKD_PLUGINS" in filled["error"]
    after, *_ = called(page, "described_after")  # comes next, and leaves that sentence alone
    assert isinstance(after["error"], dict), after["error"]  # an update of nothing, no new text
    assert "value" not in after["error"]
    wrong, *_ = called(page, "described_after", changed={"f-epochs": -1})
    assert "Epochs" in wrong["error"]


def test_a_runs_settings_fill_in_the_form(page: gr.Blocks, run_id: str) -> None:
    (filled,) = called(page, "again", run=run_id)
    values = form.to_values(RunConfig(name="mine", seeds=(0, 1)))
    for name in ("name", "seeds", "epochs", "dataset", "lr"):
        assert filled[f"f-{name}"] == values[name], name
    assert filled["shown-run"] == ""


def test_what_is_wrong_with_a_network_is_said_once_its_library_is_loaded(page: gr.Blocks) -> None:
    """Until then the form is described again at every tick."""
    ticks = [event for event in page.fns.values() if event.name == "described_after" and event.targets[0][1] == "tick"]
    assert [event.outputs[0].elem_id for event in ticks] == ["error"]


def test_a_network_of_a_library_is_typed(page: gr.Blocks) -> None:
    named = {"f-student": "timm:mobilenetv3_small_050"}
    known, first = libraries.are_loaded(), called(page, "describe", changed=named)[0]
    assert known or "Loading the libraries" in first["networks"]
    wait_until(libraries.are_loaded)
    described = called(page, "describe", changed=named)[0]
    assert "timm:mobilenetv3_small_050" in described["command"]
    assert "mobilenetv3_small_050 (timm)" in described["networks"]
    wrong, *_ = called(page, "described_after", changed={"f-student": "timm:mobilenetv3_smal_050"})
    assert "timm:mobilenetv3_small_050" in wrong["error"]
    components = {c.elem_id: c for c in page.blocks.values()}
    assert all(components[f"f-{role}"].allow_custom_value for role in ("teacher", "student", "peer"))


def test_a_network_without_its_librarys_name_gets_the_whole_name(page: gr.Blocks) -> None:
    """Its libraries are loaded in the background first, as for a name with it."""
    assert form.asks_libraries("vit_b_16")
    assert not any(map(form.asks_libraries, ("resnet20", "resnet18-cifar", "vgg13", "none", "")))
    libraries.load_in_background()
    wait_until(libraries.are_loaded)
    described, *_ = called(page, "describe", changed={"f-student": "vit_b_16"})
    assert "Did you mean &#39;torchvision:vit_b_16&#39;" in described["error"]


def test_a_refused_upload_leaves_no_earlier_pictures_chosen(page: gr.Blocks, tmp_path: Path) -> None:
    """Nobody is to train on the pictures before while the page says that theirs were refused."""
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"no zip")
    take, _ = [event for event in page.fns.values() if event.name == "take"]
    request = gr.Request(headers={}, cookies={}, client=SimpleNamespace(host="127.0.0.1"))
    answer = {component.elem_id: value for component, value in take.fn(request, str(bad)).items()}
    assert answer["f-folder"] == ""
    assert "&#39;bad.zip&#39;" in answer["uploaded"]
    (nothing,) = called(page, "describe", changed={"f-dataset": form.OWN_IMAGES, "f-folder": ""})[:1]
    assert nothing["command"] == ""
    assert "Not ready" in nothing["welcome"]


def test_a_zip_that_can_be_understood_in_two_ways_is_asked_about_and_the_answer_taken(
    page: gr.Blocks, tmp_path: Path
) -> None:
    """By a choice that appears then; a zip that is refused for another reason asks nothing."""
    packed = tmp_path / "animals.zip"
    packed.write_bytes(animals())
    upload, choice = [event for event in page.fns.values() if event.name == "take"]
    archive, which = choice.inputs
    assert (archive.elem_id, which.elem_id) == ("f-archive", "which-classes")
    request = gr.Request(headers={}, cookies={}, client=SimpleNamespace(host="127.0.0.1"))
    asked = {component.elem_id: value for component, value in upload.fn(request, str(packed)).items()}
    assert "are &#39;cats&#39;, &#39;fish&#39; the classes, or the 4 folders inside" in asked["uploaded"]
    assert asked["which-classes"].visible
    assert [answer for _, answer in asked["which-classes"].choices] == ["outer", "inner"]
    assert asked["f-archive"] is not None, "the file is still chosen when the answer comes"
    for answer, classes in (("outer", ("cats", "fish")), ("inner", ("lion", "puma", "ray", "shark"))):
        taken = {component.elem_id: value for component, value in choice.fn(request, str(packed), answer).items()}
        assert data.describe(f"folder:{taken['f-folder']}").class_names == classes
        assert not taken["which-classes"].visible
        assert taken["f-archive"] is None
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    refused = {c.elem_id: value for c, value in upload.fn(request, str(tmp_path / "bad.zip")).items()}
    assert not refused["which-classes"].visible


def test_other_pictures_take_away_what_was_said_of_an_upload(page: gr.Blocks, run_id: str) -> None:
    uploaded = next(c for c in page.blocks.values() if getattr(c, "elem_id", "") == "uploaded")
    choosers = {page.blocks[number].elem_id for event in page.fns.values() if event.outputs[:1] == [uploaded]
                for number, kind in event.targets if kind in ("input", "clear")}  # fmt: skip
    assert choosers == {"f-dataset", "f-folder", "f-archive"}
    (filled,) = called(page, "again", run=run_id)
    assert filled["uploaded"] == ""


@pytest.mark.parametrize("around", ["'{}'", '"{}"', " {} "])
def test_a_pasted_path_may_have_quotes(page: gr.Blocks, tmp_path: Path, around: str) -> None:

    for name in ("cross", "disc"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (16, 16), (40 * i, 0, 0)).save(tmp_path / "own" / name / f"{i}.png")
    pasted = around.format(tmp_path / "own")
    answer = called(page, "describe", changed={"f-dataset": form.OWN_IMAGES, "f-folder": pasted})[0]
    assert answer["error"] == ""
    assert f"--dataset folder:{tmp_path / 'own'}" in answer["command"]
    assert "2 classes" in answer["forecast"]


def test_what_suits_the_pictures_is_proposed_and_filled_in_with_one_click(page: gr.Blocks, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("ants", "bees"):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (300, 200), (40 * i, 0, 90)).save(folder / f"{i}.png")
    own = {"f-dataset": form.OWN_IMAGES, "f-folder": str(tmp_path / "photos")}
    assert "photographs" in called(page, "describe", changed=own)[0]["advice"]
    (taken,) = called(page, "take_advice", changed=own)
    assert (taken["f-resolution"], taken["f-optimizer"], taken["f-student"]) == (
        "192", "adamw", "timm:mobilenetv3_small_100",
    )  # fmt: skip
    assert taken["f-folder"] == own["f-folder"]
    assert not called(page, "describe", changed={**own, **taken})[0]["advice"], "the form says it now"
    assert not called(page, "describe")[0]["advice"]
