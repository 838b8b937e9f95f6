"""Where a run's teacher comes from: trained, saved, a file, an earlier run; the worker in this process, tiny runs."""

from __future__ import annotations

import json
import shutil

import pytest

from iekd.models.artifact import ModelCard, load_model
from iekd.runs.status import FAILED, FINISHED
from iekd.runs.store import Store
from iekd.runs.teachers import find_teacher


def test_the_teacher_is_saved_for_the_next_run(finished, tiny_config, complete, stages):
    run, _ = finished
    store = Store(run.path.parent)
    assert find_teacher(run.config, store.root) is not None
    again, _ = complete(store, tiny_config(methods=("kd",), epochs=1))
    assert stages(again) == ["students", "evaluation"]
    assert again.report["teacher"]["accuracy"] == run.report["teacher"]["accuracy"]
    without, _ = complete(store, tiny_config(methods=("kd",), epochs=1, teacher_epochs=0))
    assert without.status.state == FINISHED, without.status.error
    assert stages(without) == ["students", "evaluation"]
    assert equal(weights(without.model_folders["teacher"]), weights(run.model_folders["teacher"]))
    assert "The teacher is an earlier run's with the same settings, which trained it for" in without.log_tail(100)


@pytest.mark.parametrize(
    "change",
    [
        {"validation_fraction": 0.2},
        {"nesterov": False},
        {"teacher_epochs": 2},
        {"data_seed": 1},
        {"limit_train": 60},
        {"teacher": "resnet14"},
        {"lr": 0.05},
    ],
    ids=str,
)
def test_a_teacher_of_other_data_or_training_is_not_used(finished, tiny_config, change):
    assert find_teacher(tiny_config(methods=("kd",), **change), finished[0].path.parent) is None


def test_a_teacher_of_other_classes_is_refused(tmp_path, tiny_config, finished, monkeypatch, complete):
    """The classes of a folder changed since its teacher was trained."""
    from iekd.runs.teachers import teacher_folder

    store, config = Store(tmp_path), tiny_config(methods=("kd",))
    folder = teacher_folder(config, store.root)
    folder.parent.mkdir(parents=True)
    shutil.copytree(finished[0].model_folders["teacher"], folder)
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**card, "class_names": ["cat", "dog", "eel"]}))
    assert ModelCard.read(folder).class_names == ("cat", "dog", "eel")
    run, _ = complete(store, config)
    assert run.status.state == FAILED
    assert "classes" in run.status.error


def weights(folder) -> dict:
    return load_model(folder)[0].state_dict()


def equal(a: dict, b: dict) -> bool:
    import torch

    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_teacher_from_a_file_is_used_as_it_is(tmp_path, tiny_config, finished, tiny, complete, stages):
    """Weights bit for bit, its own normalisation, and the accuracy that it has with that."""
    import torch

    from iekd.inference.evaluate import evaluate_checkpoint

    state = weights(finished[0].model_folders["baseline-seed0"])
    path = tmp_path / "resnet8.th"
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "best_prec1": 90.0}, path)
    numbers = {"mean": (0.5, 0.45, 0.4), "std": (0.3, 0.2, 0.25)}
    config = tiny_config(
        methods=("kd",), teacher_from=str(path), teacher_mean=numbers["mean"], teacher_std=numbers["std"]
    )
    run, _ = complete(Store(tmp_path / "runs"), config)
    assert run.status.state == FINISHED, run.status.error
    assert stages(run) == ["students", "evaluation"]
    folder = run.model_folders["teacher"]
    assert equal(weights(folder), state)
    card = ModelCard.read(folder)
    assert (card.model, card.mean, card.std) == ("resnet8", numbers["mean"], numbers["std"])
    expected = evaluate_checkpoint(path, config.dataset, model="resnet8", resolution=16, device="cpu", **numbers)
    assert run.report["teacher"]["accuracy"] == pytest.approx(expected.accuracy) == card.accuracy
    assert run.report["teacher"]["from"] == "file resnet8.th"
    assert "The teacher comes from: file resnet8.th." in (run.path / "report.md").read_text()
    assert "'resnet8.th'" in (run.path / "log.txt").read_text()
    assert not (tmp_path / "runs" / "teachers").exists(), "somebody's file is not saved for other runs"


def test_without_numbers_a_file_gets_the_data_sets_own(tmp_path, tiny_config, finished, tiny, complete):
    path = finished[0].model_folders["baseline-seed0"] / "model.safetensors"
    run, _ = complete(Store(tmp_path), tiny_config(methods=("baseline",), teacher_from=str(path)))
    card = ModelCard.read(run.model_folders["teacher"])
    assert (card.mean, card.std) == tiny.statistics
    (learner,) = (r for r in finished[0].report["learners"] if (r["method"], r["seed"]) == ("baseline", 0))
    assert run.report["teacher"]["accuracy"] == pytest.approx(learner["accuracy_last"])


def test_one_number_is_for_all_channels(tmp_path, tiny_config, finished, complete):
    path = finished[0].model_folders["baseline-seed0"] / "model.safetensors"
    config = tiny_config(methods=("baseline",), teacher_from=str(path), teacher_mean=(0.5,), teacher_std=(0.25,))
    run, _ = complete(Store(tmp_path), config)
    card = ModelCard.read(run.model_folders["teacher"])
    assert (card.mean, card.std) == ((0.5,) * 3, (0.25,) * 3)


def test_a_file_that_has_learned_nothing_does_not_teach(tmp_path, tiny_config, complete):
    import torch

    from iekd.models.registry import build

    torch.manual_seed(0)
    torch.save(build("resnet20", 3).state_dict(), tmp_path / "a.pt")
    config = tiny_config(methods=("ie-ft",), teacher="resnet20", teacher_from=str(tmp_path / "a.pt"))
    run, _ = complete(Store(tmp_path / "runs"), config)
    assert run.status.state == "failed"
    assert "The teacher in 'a.pt' does not fit" in run.status.error
    assert not run.model_folders


def test_a_teacher_without_projections_is_saved_as_what_it_is(tmp_path, tiny_config, complete, monkeypatch):
    import torch

    from iekd.models.registry import build

    monkeypatch.setattr("iekd.inference.teacher_check.CHANCE", -100.0)  # it has learned nothing, and may teach
    torch.manual_seed(0)
    state = build("resnet20-a", 3).state_dict()
    torch.save(state, tmp_path / "a.pt")
    config = tiny_config(methods=("ie-ft",), teacher="resnet20", teacher_from=str(tmp_path / "a.pt"))
    run, _ = complete(Store(tmp_path / "runs"), config)
    assert run.status.state == FINISHED, run.status.error
    assert ModelCard.read(run.model_folders["teacher"]).model == run.report["teacher"]["model"] == "resnet20-a"
    assert equal(weights(run.model_folders["teacher"]), state)


def test_a_student_of_an_earlier_run_teaches(finished, tiny_config, complete, stages):
    first, _ = finished
    store = Store(first.path.parent)
    source = f"run:{first.id}/ie-ft-seed1"
    run, _ = complete(store, tiny_config(methods=("kd",), teacher_from=source))
    assert run.status.state == FINISHED, run.status.error
    assert stages(run) == ["students", "evaluation"]
    assert equal(weights(run.model_folders["teacher"]), weights(first.model_folders["ie-ft-seed1"]))
    assert run.report["teacher"]["from"] == f"run {first.id} (ie-ft-seed1)"
    again, _ = complete(store, tiny_config(methods=("baseline",), teacher_from=f"run:{run.id}"))
    assert equal(weights(again.model_folders["teacher"]), weights(run.model_folders["kd-seed0"]))


def test_training_a_teacher_on_request_replaces_the_saved_one(tmp_path, tiny_config, complete, stages):
    store = Store(tmp_path)
    first, _ = complete(store, tiny_config(methods=("baseline",)))
    kept = find_teacher(first.config, store.root)
    card = json.loads((kept / "model.json").read_text())
    (kept / "model.json").write_text(json.dumps({**card, "command": "an old one"}))
    run, _ = complete(store, tiny_config(methods=("baseline",), teacher_from="train"))
    assert stages(run) == ["teacher", "students", "evaluation"]
    assert run.report["teacher"]["from"] == "trained by this run"
    assert ModelCard.read(kept).command == run.config.command_line()
    assert equal(weights(kept), weights(run.model_folders["teacher"]))


def test_a_teachers_file_that_cannot_be_used_fails_with_its_sentence(tmp_path, tiny_config, complete):
    import torch

    from iekd.models.registry import build

    class Payload:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'harm')!r}, 'w').close()",)

    def error(value, **changes) -> str:
        torch.save(value, tmp_path / "m.pth")
        config = tiny_config(methods=("baseline",), teacher_from=str(tmp_path / "m.pth"), **changes)
        run, _ = complete(Store(tmp_path / "runs"), config)
        assert run.status.state == FAILED
        assert run.report is None
        return run.status.error

    assert "nothing of it ran" in error({"state_dict": {"a": torch.ones(2)}, "x": Payload()})
    assert not (tmp_path / "harm").exists()
    assert "colour" in error(build("resnet8", 3, 1).state_dict())
    assert "resnet14" in error(build("resnet14", 3).state_dict())
