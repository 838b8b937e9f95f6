"""Trained networks of the Hub as teachers (hf:ORG/NAME): those that know the dataset's classes teach as they are."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from iekd.config.run import make_config
from iekd.launchers.sending import inputs_of
from iekd.models import hub_configs, pretrained
from iekd.models.artifact import load_model
from iekd.models.registry import build
from iekd.runs import worker
from iekd.runs.prepare import prepare
from iekd.runs.siblings import more_seeds
from iekd.runs.status import FINISHED, LOST
from iekd.runs.store import Store
from iekd.runs.teachers import as_heard, as_told, find_teacher
from iekd.runs.worker import execute
from iekd.ui.tabs.forecast import forecast_html

NET = "test_resnet"  # timm's smallest
NAMES = ("Red", "blue", "green")  # the dataset's are blue, green, red


def config_of(*names: str, classes: int = 3) -> dict:
    about = {"input_size": [3, 16, 16], "mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]}
    return {"architecture": NET, "num_classes": classes, "label_names": list(names), "pretrained_cfg": about}


@pytest.fixture(scope="module")
def knowing(tiny):
    """Weights that are right about the tiny images, with outputs in the order of NAMES; as timm stores them."""
    torch.manual_seed(0)
    network = build(f"timm:{NET}", 3)
    images = (torch.from_numpy(tiny.train.images).permute(0, 3, 1, 2) / 255 - 0.4) / 0.2
    labels = torch.from_numpy((tiny.train.labels + 1) % 3)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(network(images).logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {key.removeprefix("network."): value for key, value in network.state_dict().items()}


@pytest.fixture
def asking(tiny_config):
    """`asking(name, **changes)`: a run whose teacher's weights come from there; its network is not named."""

    def ask(name: str, **changes):
        options = tiny_config(methods=("kd",), resolution=None, teacher_from=name, **changes).model_dump()
        return make_config(**{key: value for key, value in options.items() if key != "teacher" or "teacher" in changes})

    return ask


def attempted(runs, config):
    run, handle = Store(runs).create(config)
    execute(run, lambda: False)
    os.close(handle)
    return run


def trained(runs, config):
    run = attempted(runs, config)
    assert run.status.state == FINISHED, run.status.error
    return run


def test_one_that_knows_the_classes_teaches_as_it_is(published, hub, knowing, asking, tmp_path, stages):
    commit = published("ann/colours", config_of(*NAMES), model_st=save(knowing))
    prepared = prepare(asking("hf:ann/colours"), tmp_path)
    assert prepared.start is None
    assert prepared.teacher is not None, "which is what says that nothing has to be trained"
    assert prepared.config.teacher == f"hf:ann/colours@{commit}", "the network that the weights are of"
    assert prepared.config.resolution == 16
    said = " ".join(prepared.sentences())
    assert "weights of ann/colours, as they are" in said
    assert "because the names of their classes are the dataset's" in said
    assert "The teacher is hf:ann/colours, the network of its weights" in said
    assert not any("random weights" in str(one) for one in prepared.cautions())
    page = forecast_html(prepared, Store(tmp_path))
    assert "comes from the weights of ann/colours" in page
    assert "trained first" not in page
    assert not any("resolve" in path and method == "GET" and "safetensors" in path for method, path, _ in hub.requests)

    run = trained(tmp_path, prepared.config)
    assert "teacher" not in stages(run)
    assert not run.status.fine_tunes
    assert run.report["teacher"]["from"] == "weights of ann/colours"
    assert run.report["teacher"]["accuracy"] > 60, "a guess is right on 33 %: its outputs are in the dataset's order"
    log = run.log_tail(100)
    for words in ("another order (red, blue, green)", "It is right on", f"from 'hf:ann/colours@{commit[:8]}'"):
        assert words in log
    saved = load_file(run.path / "models" / "teacher" / "model.safetensors")
    first = next(key for key, value in knowing.items() if value.ndim == 4)
    torch.testing.assert_close(saved[f"network.{first}"], knowing[first])
    torch.testing.assert_close(saved["network.fc.weight"], knowing["fc.weight"][[1, 2, 0]])
    assert not (tmp_path / "teachers").exists(), "nothing of it is this program's to keep"


def test_other_processes_of_the_run_are_told_which_one(published, knowing, asking, tmp_path):
    published("ann/colours", config_of(*NAMES), model_st=save(knowing))
    config = prepare(asking("hf:ann/colours"), tmp_path).config
    found = find_teacher(config, tmp_path)
    assert as_heard(as_told(found), config, tmp_path) == found


def test_pretrained_is_fine_tuned_whatever_it_knows(published, knowing, asking, tmp_path):
    published("ann/colours", config_of(*NAMES), model_st=save(knowing))
    values = asking("hf:ann/colours").model_dump() | {"teacher": "hf:ann/colours", "teacher_from": "pretrained"}
    assert prepare(make_config(**values), tmp_path).start is not None


def test_no_epochs_for_the_teacher_are_for_weights_that_need_none(published, knowing, asking, tmp_path, refuses):
    weights = save(knowing)
    published("ann/colours", config_of(*NAMES), model_st=weights)
    published("ann/pets", config_of("ant", "bee", "cat"), model_st=weights)
    published("ann/five", config_of(*"abcde", classes=5), model_st=weights)
    published("ann/unnamed", config_of("LABEL_0", "LABEL_1", "LABEL_2"), model_st=weights)

    def tuned(name: str, **changes) -> bool:
        return prepare(asking(name, **changes), tmp_path).start is not None

    assert not tuned("hf:ann/colours", teacher_epochs=0)
    assert tuned("hf:ann/pets")
    assert tuned("hf:ann/five")
    assert tuned("hf:ann/unnamed"), "most networks of as many classes know others"
    for name, changes, why in (  # the user knows better, and says so
        ("hf:ann/unnamed", {"teacher_epochs": 0}, "because teacher epochs are 0, so they count as"),
        ("hf:ann/pets", {"class_order": "red,blue,green"}, "because a class order is given, so they count as"),
    ):
        assert not tuned(name, **changes)
        assert why in " ".join(prepare(asking(name, **changes), tmp_path).sentences())
    refuses(
        lambda: tuned("hf:ann/pets", teacher_epochs=0),
        "ann/pets", "other classes (ant, bee, cat)", "without fine-tuning", "Teacher epochs '0'", "30",
        "If only the names differ", "--class-order", "Order of the classes",
    )  # fmt: skip
    refuses(lambda: tuned("hf:ann/five", teacher_epochs=0), "ann/five", "5 classes and not of the dataset's 3")
    published("ann/body", config_of(classes=0), model_st=weights)
    refuses(lambda: tuned("hf:ann/body", teacher_epochs=0), "ann/body", "no classifier")


def test_what_knows_nothing_is_refused_with_what_can_be_set(published, knowing, asking, tmp_path):
    blank = {**knowing, "fc.weight": torch.zeros_like(knowing["fc.weight"])}
    published("ann/blank", config_of("LABEL_0", "LABEL_1", "LABEL_2"), model_st=save(blank))
    config = prepare(asking("hf:ann/blank", teacher_epochs=0), tmp_path).config
    error = attempted(tmp_path, config).status.error
    for words in ("majority class", "check the class order (--class-order", "no setting changes them"):
        assert words in error
    assert "teacher mean" not in error


def test_digits_are_names_of_digits(published, knowing, tmp_path, tiny_config, picture_folder):
    """Whose names are the same numbers teaches as it is; of other classes they say nothing."""
    digits = tmp_path / "digits"
    for part in ("train", "test"):
        for number, name in enumerate(("blue", "green", "red")):
            shutil.copytree(picture_folder / part / name, digits / part / str(number))
    published("ann/digits", config_of("2", "0", "1"), model_st=save(knowing))

    def ask(folder):
        values = {"methods": ("kd",), "resolution": None, "teacher": "hf:ann/digits", "teacher_from": "hf:ann/digits"}
        return prepare(tiny_config(dataset=f"folder:{folder}", **values), tmp_path / "runs")

    assert ask(picture_folder).start is not None
    prepared = ask(digits)
    assert prepared.start is None
    assert trained(tmp_path / "runs", prepared.config).report["teacher"]["accuracy"] > 60


def test_the_same_for_files_and_teachers_that_runs_train(tmp_path, tiny_config, refuses):
    def file(classes: int) -> str:
        torch.manual_seed(0)
        save_file(build("resnet8", classes).state_dict(), path := tmp_path / f"{classes}.safetensors")
        return str(path)

    def ask(**changes):
        return prepare(tiny_config(methods=("kd",), teacher_epochs=0, **changes), tmp_path / "runs")

    assert ask(teacher_from=file(3)).teacher == tmp_path / "3.safetensors"
    refuses(
        lambda: ask(teacher_from=file(7)),
        "file 7.safetensors",
        "7 classes and not of the dataset's 3",
        "Teacher epochs '0'",
    )
    refuses(ask, "no trained resnet8", "Teacher epochs '0'", "teacher from")
    for word in ("train", "pretrained"):
        refuses(lambda word=word: ask(teacher_from=word), "Teacher epochs '0'", f"'{word}'", "1 or more")
    assert prepare(tiny_config(teacher="none", methods=("baseline",), teacher_epochs=0), tmp_path / "runs")
    run, handle = Store(tmp_path / "runs").create(tiny_config(methods=("kd",), teacher_epochs=0))
    execute(run, lambda: False)
    os.close(handle)
    assert "no trained resnet8" in run.status.error


@pytest.mark.parametrize("listed", [("blue", "green", "red"), ("green", "red", "blue")], ids=["dataset's", "other"])
def test_what_is_advised_about_a_list_that_is_wrong_is_what_helps(published, knowing, asking, tmp_path, listed):
    """Names on the Hub in an order in which its outputs are not; for the run, and for the same file outside of it."""
    published("ann/wrong", config_of(*listed), model_st=save(knowing))
    ask = partial(asking, "hf:ann/wrong", teacher_epochs=0)
    refused = attempted(tmp_path, prepare(ask(), tmp_path).config)
    error = refused.status.error
    pinned = prepare(ask(), tmp_path).config.teacher
    for words in (f"'{pinned[:21]}' does not fit", "another order", f"set teacher to {pinned} and", "'pretrained'"):
        assert words in error
    order = re.search(r"give the class order ([\w,]+)", error)[1]
    assert order == ",".join(NAMES).lower()
    run = trained(tmp_path, prepare(ask(class_order=order), tmp_path).config)
    assert run.report["teacher"]["accuracy"] > 60
    log = run.log_tail(100)
    assert f"another order ({', '.join(listed)}) and was ignored: the class order is the one given" in log
    assert json.loads((run.path / "models" / "teacher" / "model.json").read_text())["class_names"] == order.split(",")

    save_file({f"network.{key}": value for key, value in knowing.items()}, file := tmp_path / "w.safetensors")
    (tmp_path / "classes.txt").write_text("\n".join(listed))
    ask = partial(asking, str(file), teacher_mean=(0.4,), teacher_std=(0.2,), teacher=f"timm:{NET}")
    error = attempted(tmp_path, ask()).status.error
    assert f"give the class order {order}" in error
    run = trained(tmp_path, ask(class_order=order))
    assert run.report["teacher"]["accuracy"] > 60
    assert "and was ignored" in run.log_tail(100)


def test_without_the_hub_it_is_refused_before_the_start_or_works(published, hub, knowing, asking, tmp_path, refuses):
    published("ann/colours", config_of(*NAMES), model_st=save(knowing))
    config = prepare(asking("hf:ann/colours"), tmp_path / "runs").config
    shutil.copytree(tmp_path / "hf-cache", tmp_path / "before")
    trained(tmp_path / "runs", config)
    hub.close()
    again = trained(tmp_path / "runs", prepare(config, tmp_path / "runs").config)
    assert again.report["teacher"]["from"] == "weights of ann/colours"
    shutil.rmtree(tmp_path / "hf-cache")
    shutil.move(tmp_path / "before", tmp_path / "hf-cache")  # with config.json, but without the weights
    pretrained._why_unreachable.cache_clear()  # a minute later
    text = refuses(lambda: prepare(config, tmp_path / "runs"), "hf:ann/colours", "not on this machine")
    assert "Connect this machine to the network" in text


class Interrupted(BaseException):
    pass


def test_another_machine_gets_the_revision_that_the_run_was_given(published, hub, knowing, asking, tmp_path, forget):
    """It has only the run's folder and what is sent with it, and the repository has moved on."""
    commit = published("ann/colours", config_of(*NAMES), model_st=save(knowing))
    here = Store(tmp_path / "here")
    config = prepare(asking("hf:ann/colours"), here.root).config
    assert config.teacher_from == config.teacher == f"hf:ann/colours@{commit}"
    run, handle = here.create(config)
    os.close(handle)
    inputs = inputs_of(config, here)
    assert not [path for path, _ in inputs.files if path.suffix != ".png"], "weights come from the Hub"
    shutil.copytree(run.path, tmp_path / "there" / run.id)
    other = {"config.json": json.dumps(config_of("ant", "bee", "cat")).encode(), "model.safetensors": b"other"}
    hub.repos["model", "ann/colours"].add("second", other)
    forget(tmp_path / "hf-cache")
    there = Store(tmp_path / "there").get(run.id)
    execute(there, lambda: False)
    assert there.status.state == FINISHED, there.status.error
    assert there.report["teacher"]["accuracy"] > 60
    asked = [path for method, path, _ in hub.requests if "safetensors" in path]
    assert asked
    assert all(commit in path for path in asked)


def test_more_seeds_need_no_hub(published, hub, knowing, asking, tmp_path, forget):
    """The very teacher of the run is in its folder."""
    published("ann/colours", config_of(*NAMES), model_st=save(knowing))
    store = Store(tmp_path / "runs")
    run = trained(store.root, prepare(asking("hf:ann/colours", teacher_epochs=0), store.root).config)
    hub.close()
    forget(tmp_path / "hf-cache")
    more = prepare(more_seeds(store, store.get(run.id), 1), store.root).config
    assert (more.seeds, more.teacher_from) == ((1,), f"run:{run.id}/teacher")
    again = trained(store.root, more)
    assert again.report["teacher"]["accuracy"] == run.report["teacher"]["accuracy"]


def test_a_run_is_resumed_without_the_hub_once_it_has_its_teacher(
    published, hub, knowing, asking, tmp_path, forget, monkeypatch
):
    """Before that, it says what is missing."""
    monkeypatch.setenv("IEKD_CHECKPOINT_SECONDS", "0")
    published("ann/colours", config_of(*NAMES), model_st=save(knowing))
    store = Store(tmp_path / "runs")
    config = prepare(asking("hf:ann/colours"), store.root).config

    def watch(status, row):
        if row and row["stage"] == "students" and row["kind"] == "train":
            raise Interrupted

    runs, write = [], worker.Run.write_status
    for seen in (watch, None):
        run, handle = store.create(config)
        with monkeypatch.context() as dead, contextlib.suppress(Interrupted):  # a dead process writes no final state
            dead.setattr(worker.Run, "write_status", lambda self, s: write(self, s) if s.state == "running" else None)
            if seen:
                execute(run, lambda: False, seen)
        os.close(handle)
        runs.append(run)
    begun, waiting = runs
    assert begun.status.state == LOST
    assert list((begun.path / "checkpoints").glob("students-*"))
    hub.close()
    forget(tmp_path / "hf-cache")
    pretrained._why_unreachable.cache_clear()
    handle = begun.reopen()
    execute(begun, lambda: False)
    os.close(handle)
    assert begun.status.state == FINISHED, begun.status.error
    assert begun.report["teacher"]["accuracy"] > 60
    execute(waiting, lambda: False)
    for words in ("pretrained weights of hf:ann/colours", "not on this machine", "hf download ann/colours --local-dir"):
        assert words in waiting.status.error


def test_it_can_be_a_further_teacher(published, knowing, asking, tmp_path, refuses):
    published("ann/colours", config_of(*NAMES), model_st=save(knowing))
    published("ann/pets", config_of("ant", "bee", "cat"), model_st=save(knowing))

    def ask(more: str):
        values = asking("hf:ann/colours").model_dump() | {"teacher": f"hf:ann/colours,{more}"}
        return prepare(make_config(**values | {"teacher_from": f"hf:ann/colours,{more}"}), tmp_path).config

    config = ask("hf:ann/colours")
    assert all(hub_configs.COMMIT.search(source) for source in config.more_teachers_from)
    assert trained(tmp_path, config).report["teacher"]["accuracy"] > 60
    refuses(lambda: ask("hf:ann/pets"), "hf:ann/pets", "does not know these classes yet", "--student-from hf:ann/pets")


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_run_of_weights_of_the_hub(
    published, hub, launcher, tiny_config, tmp_path, wait_until, monkeypatch, forget, library
):
    """In a process of its own, and in this one. The teacher is fine-tuned and the student begins with them; both open
    afterwards without the Hub."""
    torch.manual_seed(0)
    config = config_of(*"abcde", classes=5)
    if library == "transformers":
        pytest.importorskip("transformers", reason="the extra iekd[transformers] is not installed")
        config = {
            "architectures": ["ResNetForImageClassification"], "model_type": "resnet", "embedding_size": 8,
            "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic",
            "id2label": {str(k): name for k, name in enumerate("abcde")},
        }  # fmt: skip
    published("ann/first", config)
    network = build(hub_configs.look_up("hf:ann/first"), 5)
    weights = save({key.removeprefix("network."): value for key, value in network.state_dict().items()})
    commit = published("ann/net", config, model_st=weights)
    for name, value in (("HF_ENDPOINT", hub.address), ("HF_HUB_CACHE", str(tmp_path / "hf-cache")),
                        ("HF_HUB_DISABLE_XET", "1")):  # fmt: skip
        monkeypatch.setenv(name, value)
    values = tiny_config(
        methods=("kd",), teacher="hf:ann/net", teacher_from="hf:ann/net", student="hf:ann/net",
        student_from="hf:ann/net", teacher_lr=1e-9, lr=1e-9, weight_decay=0, limit_train=64,
    )  # fmt: skip
    prepared = prepare(values, launcher.store.root)
    assert "fine-tuned on these classes first" in " ".join(prepared.sentences())
    if library == "transformers":  # which takes long to import
        run = trained(launcher.store.root, prepared.config)
    else:
        run = launcher.store.get(launcher.submit(prepared.config))
        wait_until(lambda: run.status.state not in ("queued", "running") and not run.alive())
    assert run.status.state == FINISHED, f"{run.status.error} {run.log_tail(30)}"
    assert run.status.fine_tunes
    assert run.report["teacher"]["from"] == "weights of ann/net, fine-tuned by this run"
    log = run.log_tail(200)
    assert "Student: its first weights are from weights of ann/net" in log
    hub.close()
    forget(tmp_path / "hf-cache")
    for name in ("teacher", "kd-seed0"):
        opened, card = load_model(run.path / "models" / name)
        assert card.model == f"hf:ann/net@{commit}"
        assert opened(torch.zeros(2, 3, 16, 16)).logits.shape == (2, 3)
        first = next(key for key, value in network.named_parameters() if value.ndim == 4)
        torch.testing.assert_close(dict(opened.named_parameters())[first], dict(network.named_parameters())[first])
