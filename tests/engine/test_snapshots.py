"""Training that goes on from a snapshot gives what training without a break gives, bit for bit."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import pytest
import torch

from iekd.engine import experiment as stages
from iekd.engine.accelerate import Shortcuts
from iekd.engine.batches import Batches
from iekd.engine.events import LearnerResult, Result, StageStart, TrainedModel
from iekd.engine.experiment import Experiment
from iekd.engine.metrics import Metrics
from iekd.engine.state import LearnerState, Snapshot
from iekd.engine.stream import Loader, Stream
from iekd.errors import TrainingError
from iekd.models.registry import build


@pytest.fixture
def config(tiny_config):
    """Three epochs of three steps; rows, and so snapshots, after each step."""
    return lambda **values: tiny_config(
        **{"epochs": 3, "auto_encoder_epochs": 2, "lr": 0.02, "methods": ("baseline", "ie-ft"), **values}
    )


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(Experiment, "_report_every", 1)


def execute(config, dataset, earlier=None, teacher=None, should_snapshot=lambda: True, **shortcuts):
    experiment = Experiment(config, dataset, copy.deepcopy(teacher), earlier, should_snapshot)
    experiment.shortcuts = Shortcuts(**shortcuts)
    return experiment, list(experiment.events())


def final(events) -> tuple[list[LearnerResult], dict[str, torch.Tensor]]:
    """Results without their networks, and every weight. The networks are ready to answer."""
    (result,) = (e for e in events if isinstance(e, Result))
    found = [result.teacher, *result.learners] if result.teacher else result.learners
    assert not any(r.network.model.training for r in found)
    weights = {f"{r.name}.{k}": t for r in found for k, t in r.network.model.state_dict().items()}
    return [{**vars(r), "network": None, "predictions": r.predictions.tolist()} for r in found], weights


def assert_equal(one, other):
    assert final(one)[0] == final(other)[0]
    for (name, a), (_, b) in zip(final(one)[1].items(), final(other)[1].items(), strict=True):
        assert torch.equal(a, b), name


def rows_after(events, stage, step):
    return [e for e in events if isinstance(e, Metrics) and e.stage == stage and e.step > step]


SHORTCUTS = pytest.mark.parametrize(
    "shortcuts", [{}, {"side_by_side": True}, {"stack": True}], ids=["plain", "parallel", "stack"]
)


@SHORTCUTS
@pytest.mark.usefixtures("every_step")
def test_from_every_snapshot_on_all_is_as_if_there_had_been_no_break(tiny, config, shortcuts):
    values = {"optimizer": "adamw", "lr": 1e-3, "seeds": (0, 1)} if "stack" in shortcuts else {"seeds": (0,)}
    chosen = config(**values, weight_schedule="warm-up")
    experiment, events = execute(chosen, tiny, **shortcuts)
    snapshots = [e for e in events if isinstance(e, Snapshot)]
    assert [(s.stage, s.step) for s in snapshots] == [
        *(("teacher", n) for n in range(1, 4)), *(("auto-encoder", n) for n in range(1, 7)),
        *(("students", n) for n in range(1, 10)),
    ]  # fmt: skip
    coder = next(s for s in snapshots if (s.stage, s.step) == ("auto-encoder", 6))
    for snapshot in snapshots[1::4]:  # within an epoch, at the end of one, and at the end of all
        earlier = {snapshot.stage: snapshot}
        if snapshot.stage == "students":
            earlier["auto-encoder"] = coder
        teacher = None if snapshot.stage == "teacher" else experiment.teacher
        _, again = execute(chosen, tiny, earlier, teacher, **shortcuts)
        assert_equal(events, again)
        assert rows_after(again, snapshot.stage, -1) == rows_after(events, snapshot.stage, snapshot.step)
        starts = {e.stage: e.done for e in again if isinstance(e, StageStart)}
        assert starts[snapshot.stage] == snapshot.step


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize(
    "values",
    [
        {"methods": ("dml", "ie-dml")},
        {"methods": ("ie-od", "ie-at")},
        {"methods": ("ie-ft",), "ie_stages": "all", "channel_split": "random"},
        {"methods": ("baseline",), "teacher": "none", "augmentation": "resized-crop", "cutout": 4},
        {"methods": ("baseline",), "teacher": "none", "momentum": 0.0, "schedule": "cosine"},
        {"methods": ("dml",), "optimizer": "adamw"},
        {"methods": ("kd", "dkd"), "validation_fraction": 0.25, "schedule": "multi-step"},
    ],
    ids=lambda v: ",".join(map(str, v.values())),
)  # fmt: skip
def test_every_kind_of_learner_can_be_resumed(tiny, config, values):
    chosen = config(**values)
    experiment, events = execute(chosen, tiny)
    found = {(s.stage, s.step): s for s in events if isinstance(s, Snapshot)}
    for step in (1, 5):
        earlier = {s.stage: s for s in found.values() if s.stage != "students"} | {"students": found["students", step]}
        _, again = execute(chosen, tiny, earlier, experiment.teacher)
        assert_equal(events, again)
        assert rows_after(again, "students", -1) == rows_after(events, "students", step)


@pytest.mark.usefixtures("every_step")
def test_a_snapshot_is_of_one_moment(tiny, config):
    """Learners side by side are at different steps; what is kept of each is not what it has become since."""
    chosen = config(methods=("baseline", "kd", "ie-ft"))
    _, plain = execute(chosen, tiny)
    _, parallel = execute(chosen, tiny, side_by_side=True)
    for one, other in zip(
        *([e for e in events if isinstance(e, Snapshot)] for events in (plain, parallel)), strict=True
    ):
        assert (one.stage, one.step) == (other.stage, other.step)
        for name, state in one.states.items():
            assert state.numbers == other.states[name].numbers
            for kind in ("weights", "momentum", "sums", "predictions"):
                found = getattr(other.states[name], kind)
                for key, tensor in getattr(state, kind).items():
                    assert torch.equal(tensor, found[key]), (name, kind, key)


def test_students_that_an_earlier_version_has_trained_are_asked_once_more(tiny, config, monkeypatch):
    """Its snapshots hold no predictions. Otherwise the teacher alone is asked in the last stage."""
    asked = []

    def predict(model, *values):
        asked.append(model)
        return real(model, *values)

    real = stages.predict
    monkeypatch.setattr(stages, "predict", predict)
    experiment, events = execute(config(), tiny)
    assert asked == [experiment.teacher.model]
    found = {s.stage: s for s in events if isinstance(s, Snapshot)}
    last = found["students"]
    assert all(state.predictions["test"].tolist() for state in last.states.values())
    bare = {name: replace(state, predictions={}) for name, state in last.states.items()}
    again, repeated = execute(config(), tiny, {**found, "students": replace(last, states=bare)}, experiment.teacher)
    assert asked[1:] == [again.teacher.model, *(learner.model for learner in again.students.values())]
    assert_equal(events, repeated)


def test_without_a_teacher_no_image_is_read_after_the_last_epoch(tiny, config, monkeypatch):
    def read(*values):
        raise AssertionError("nobody is asked")
        yield

    monkeypatch.setattr(stages, "split_into_batches", read)
    _, events = execute(config(methods=("baseline",), teacher="none"), tiny)
    assert len(final(events)[0][0]["predictions"]) == len(tiny.test)


@SHORTCUTS
def test_a_resumed_learner_continues_the_sums_of_a_row(tiny, config, shortcuts):
    """Rows come once an epoch here, of three steps; a snapshot after each step."""
    chosen = config(seeds=(0, 1) if "stack" in shortcuts else (0,))
    experiment, events = execute(chosen, tiny, **shortcuts)
    found = {(s.stage, s.step): s for s in events if isinstance(s, Snapshot)}
    for step in (4, 5):
        earlier = {"auto-encoder": found["auto-encoder", step], "students": found["students", step]}
        _, again = execute(chosen, tiny, earlier, experiment.teacher, **shortcuts)
        assert rows_after(again, "students", -1) == rows_after(events, "students", 3)
    earlier = {"auto-encoder": found["auto-encoder", 5]}
    _, again = execute(chosen, tiny, earlier, experiment.teacher, **shortcuts)
    assert rows_after(again, "auto-encoder", -1) == rows_after(events, "auto-encoder", 3)
    assert_equal(events, again)


def test_rows_of_a_step_come_before_its_snapshot(tiny, config):
    for shortcuts in ({}, {"side_by_side": True}):
        _, events = execute(config(), tiny, **shortcuts)
        at = dict.fromkeys(("teacher", "auto-encoder", "students"), 0)
        for event in events:
            if isinstance(event, Snapshot):
                at[event.stage] = event.step
            elif isinstance(event, Metrics):
                assert event.step > at[event.stage]


def test_snapshots_come_when_they_are_asked_for_and_at_the_end_of_a_stage(tiny, config):
    _, events = execute(config(), tiny, should_snapshot=lambda: False)
    assert [(e.stage, e.step) for e in events if isinstance(e, Snapshot)] == [
        ("teacher", 3), ("auto-encoder", 6), ("students", 9)
    ]  # fmt: skip
    _, events = execute(config(), tiny, should_snapshot=None)
    assert not [e for e in events if isinstance(e, Snapshot)]


def test_a_stack_can_be_resumed_by_another_kind_of_training(tiny, config):
    """As on a machine without a GPU, where nothing is stacked."""
    chosen = config(methods=("baseline",), seeds=(0, 1))
    _, events = execute(chosen, tiny, stack=True)
    last = [e for e in events if isinstance(e, Snapshot)][-1]
    _, again = execute(chosen, tiny, {"students": last})
    assert_equal(events, again)


def test_what_does_not_fit_is_refused_in_words(tiny, config):
    chosen = config(methods=("baseline",), teacher="none")
    _, events = execute(chosen, tiny)
    (snapshot,) = (e for e in events if isinstance(e, Snapshot) and e.step == 9)
    other = Snapshot("students", 9, {"another": LearnerState({}, {})})
    with pytest.raises(TrainingError, match="does not fit 'baseline-seed0'"):
        execute(chosen, tiny, {"students": other})
    with pytest.raises(TrainingError, match=r"does not fit 'baseline-seed0'.*start a new run"):
        execute(config(methods=("baseline",), teacher="none", student="resnet14"), tiny, {"students": snapshot})


@pytest.mark.parametrize("streamed", [False, True])
def test_the_rest_of_an_epoch_is_the_rest_of_the_epoch(tiny, streamed):
    images = torch.from_numpy(tiny.train.images).permute(0, 3, 1, 2)
    loader = Loader([tiny.train.images], torch.device("cpu"), 0)
    for skip in (0, 1, 5, 6):
        source = Stream(loader, 0) if streamed else images
        batches = Batches(source, torch.from_numpy(tiny.train.labels), 16, seed=3)
        whole, rest = list(batches.epoch(2)), list(batches.epoch(2, skip))
        assert len(rest) == len(whole) - skip
        for (a, b), (c, d) in zip(itertools.islice(whole, skip, None), rest, strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, d)


def test_a_state_is_a_copy(tiny, config):
    torch.manual_seed(5)
    teacher = TrainedModel(build("resnet8", 3), *tiny.statistics)
    experiment, events = execute(config(), tiny, None, teacher)
    first = next(e for e in events if isinstance(e, Snapshot) and e.stage == "students")
    name, learner = next(iter(experiment.students.items()))
    for key, tensor in first.states[name].weights.items():
        if key.startswith("model."):
            own = learner.model.state_dict()[key.removeprefix("model.")]
            assert own.data_ptr() != tensor.data_ptr()
            assert tensor.is_contiguous()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_recorded_and_stacked_learners_can_be_resumed(tiny, config, full_float32, caplog):
    """Kernels there do not promise the same bits; the state that they go on from is the same."""
    chosen = config(device="cuda", precision="fp32", seeds=(0, 1))
    first = Experiment(chosen, tiny, should_snapshot=lambda: True)
    events = list(first.events())
    found = {(s.stage, s.step): s for s in events if isinstance(s, Snapshot)}
    earlier = {"auto-encoder": found["auto-encoder", 6], "students": found["students", 6]}
    again = list(Experiment(chosen, tiny, first.teacher, earlier, lambda: True).events())
    last = next(s for s in again if isinstance(s, Snapshot) and (s.stage, s.step) == ("students", 9))
    for name, state in found["students", 9].states.items():
        assert last.states[name].numbers["steps"] == 9
        for key, tensor in state.weights.items():
            torch.testing.assert_close(last.states[name].weights[key], tensor, rtol=1e-2, atol=1e-3)
    assert "could not be recorded" not in caplog.text
    assert "cannot be stacked" not in caplog.text


@pytest.mark.usefixtures("every_step")
def test_answers_of_earlier_versions_have_no_energies_and_are_given_again(tiny, config):
    experiment, events = execute(config(), tiny)
    last = [e for e in events if isinstance(e, Snapshot)][-1]
    assert set(last.states["baseline-seed0"].predictions) == {"test", "energy"}
    older = {
        name: replace(state, predictions={kind: t for kind, t in state.predictions.items() if kind != "energy"})
        for name, state in last.states.items()
    }
    _, again = execute(config(), tiny, {"students": replace(last, states=older)}, experiment.teacher)
    assert_equal(events, again)
    assert all(r.energy_threshold is not None for r in again[-1].learners)
