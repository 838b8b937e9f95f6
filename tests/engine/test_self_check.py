"""A step that is accelerated wrongly is found before it trains anything; one that is right changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch

from iekd.engine import accelerate, learner, optimizer, self_check
from iekd.engine.accelerate import Shortcuts
from iekd.engine.events import TrainedModel
from iekd.engine.experiment import Experiment
from iekd.engine.metrics import FellBack, Metrics
from iekd.engine.optimizer import SGD, memory_of
from iekd.engine.stacked import Stack
from iekd.errors import DivergedError
from iekd.models.registry import build


@pytest.fixture
def teacher(tiny) -> TrainedModel:
    torch.manual_seed(5)
    return TrainedModel(build("resnet8", 3), *tiny.statistics)


@pytest.fixture(autouse=True)
def captured(monkeypatch):
    """As on a GPU, but that a recording is just called again: `captured(wrong)` puts `wrong(work)` in its place."""
    monkeypatch.setattr(optimizer, "values_on_device", lambda config, device: True)
    monkeypatch.setattr(learner, "values_on_device", lambda config, device: True)
    made = []

    def use(replay_of):
        monkeypatch.setattr(accelerate, "_cuda_capture", lambda work: made.append(work) or replay_of(work))
        return made

    use(lambda work: work)
    return use


def execute(config, dataset, teacher=None, earlier=None, **shortcuts):
    experiment = Experiment(config, dataset, copy.deepcopy(teacher), earlier, lambda: True)
    experiment.shortcuts = Shortcuts(**shortcuts)
    return experiment, list(experiment.events())


def fell_back(events):
    return [event.message for event in events if isinstance(event, FellBack)]


def metrics(events):
    return [e for e in events if isinstance(e, Metrics)]


def assert_equal(a, b):
    """Bit for bit."""
    assert metrics(a[1]) == metrics(b[1])
    for name, one in a[0].students.items():
        for p, q in zip(one.model.state_dict().values(), b[0].students[name].model.state_dict().values(), strict=True):
            assert torch.equal(p, q)


@pytest.fixture
def config(tiny_config):
    return lambda **values: tiny_config(**{"methods": ("ie-ft",), "epochs": 2, "lr": 0.02, **values})


def without(name, kind=SGD):
    """A replay that leaves out a part of the step."""

    def replay_of(work):
        def replay():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(kind, name, lambda self: None)
                work()

        return replay

    return replay_of


def stale(work):
    """A replay that always sees the batch it was recorded with."""
    step = work.__closure__[0].cell_contents  # the Recorded
    images, labels = step.images.clone(), step.labels.clone()
    return lambda: step.work(images, labels)


def frozen_rate(work):
    """A replay with the learning rate as it was when recorded."""
    rates = {}

    def replay():
        step = SGD.step

        def with_old(self, *args):
            (group,) = self.param_groups
            rate = rates.setdefault(id(self), group["lr"].clone())
            now, group["lr"] = group["lr"], rate
            step(self, *args)
            group["lr"] = now

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SGD, "step", with_old)
            work()

    return replay


def test_a_correct_recording_is_used_and_changes_nothing(tiny, teacher, config, captured):
    recorded = captured(lambda work: work)
    plain = execute(config(methods=("ie-ft", "dml")), tiny, teacher)
    fast = execute(config(methods=("ie-ft", "dml")), tiny, teacher, graph=True)
    assert len(recorded) == 2, "the auto-encoder's step and the students'"
    assert not fell_back(fast[1])
    assert_equal(plain, fast)


@pytest.mark.parametrize(
    "wrong", [without("step"), without("zero_grad"), stale, frozen_rate],
    ids=["no step", "no zero_grad", "stale batch", "frozen rate"],
)  # fmt: skip
def test_a_recording_that_is_wrong_is_found_and_left_out(tiny, teacher, config, captured, wrong):
    chosen = config(methods=("ie-ft", "baseline"), momentum=0.5, schedule="cosine")
    plain = execute(chosen, tiny, teacher)
    captured(wrong)
    fast = execute(chosen, tiny, teacher, graph=True)
    assert len(fell_back(fast[1])) == 2, "once in each stage"
    assert "a recorded step" in fell_back(fast[1])[0]
    assert_equal(plain, fast)


def test_one_that_goes_wrong_only_without_momentum_is_found_too(tiny, teacher, config, captured):
    captured(without("step"))
    assert fell_back(execute(config(methods=("baseline",), momentum=0, nesterov=False), tiny, teacher, graph=True)[1])


@pytest.mark.parametrize("wrong", [None, "step"])
def test_a_recorded_step_of_adamw_and_one_that_leaves_it_out(tiny, teacher, config, captured, wrong):
    chosen = config(methods=("baseline",), seeds=(0, 1), optimizer="adamw", lr=1e-3)
    plain = execute(chosen, tiny, teacher)
    if wrong:
        captured(without(wrong, optimizer.ADAMW))
    fast = execute(chosen, tiny, teacher, graph=True)
    assert bool(fell_back(fast[1])) == bool(wrong)
    assert_equal(plain, fast)
    assert not fell_back(execute(chosen, tiny, teacher, stack=True)[1])


def test_the_comparison_is_made_again_after_a_resume(tiny, teacher, config, captured):
    """And what a resumed training gives does not depend on it."""
    from iekd.engine.state import Snapshot

    chosen = config(methods=("baseline",), seeds=(0, 1))
    whole = execute(chosen, tiny, teacher)
    middle = next(e for e in whole[1] if isinstance(e, Snapshot) and e.step == 4)
    for replay_of, found in ((lambda work: work, 0), (without("step"), 1)):
        made = captured(replay_of)
        before = len(made)
        resumed = execute(chosen, tiny, teacher, {"students": middle}, graph=True)
        assert len(made) == before + 1
        assert len(fell_back(resumed[1])) == found
        for name, one in whole[0].students.items():
            for p, q in zip(one.model.parameters(), resumed[0].students[name].model.parameters(), strict=True):
                assert torch.equal(p, q)


def test_stacked_seeds_that_are_right_stay_stacked(tiny, teacher, config, monkeypatch):
    computed = []
    right = Stack._compute
    monkeypatch.setattr(Stack, "_compute", lambda self, *given: computed.append(1) or right(self, *given))
    fast = execute(config(seeds=(0, 1)), tiny, teacher, stack=True)
    assert not fell_back(fast[1])
    assert len(computed) == self_check.STEPS + 2 * 3, "those that are compared, and two epochs"
    assert all(not memory_of(s.optimizer) for s in fast[0].students.values()), "momentum is the stack's"


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("where", ["second seed", "statistics"])
def test_stacked_seeds_that_are_wrong_train_one_by_one(tiny, teacher, config, monkeypatch, captured, graph, where):
    right = Stack._compute

    def wrong(self, images, labels, teacher_output):
        kept = {name: buffer.clone() for name, buffer in self.buffers.items()}
        if where == "second seed":
            weights = {name: p[1].detach().clone() for name, p in self.parameters.items()}
        right(self, images, labels, teacher_output)
        with torch.no_grad():
            if where == "statistics":
                for name, buffer in self.buffers.items():
                    buffer.copy_(kept[name])
            else:
                for name, p in self.parameters.items():
                    p[1].copy_(weights[name])

    chosen = config(seeds=(0, 1))
    plain = execute(chosen, tiny, teacher)
    monkeypatch.setattr(Stack, "_compute", wrong)
    recorded = captured(lambda work: work)
    fast = execute(chosen, tiny, teacher, stack=True, graph=graph)
    (message,) = fell_back(fast[1])
    assert "stacked seeds" in message
    assert "ie-ft-seed" in message
    assert len(recorded) == 3 * graph, "the auto-encoder's, the stack's, and that of the seeds one by one"
    assert_equal(plain, fast)


@pytest.mark.parametrize("wrong", [False, True])
def test_the_plain_step_is_not_compiled_either(tiny, teacher, config, monkeypatch, wrong):
    """A compiler that is wrong is found, and left out with the rest."""
    compiled = []

    def make(function):
        def call(*args):
            output = function(*args)
            return output._replace(loss=output.loss * 2) if wrong else output

        compiled.append(function)
        return call

    monkeypatch.setattr(torch, "compile", make)
    chosen = config(methods=("baseline",))
    plain = execute(chosen, tiny, teacher)
    fast = execute(chosen, tiny, teacher, graph=True, compiled=True)
    assert len(compiled) == 1
    assert len(fell_back(fast[1])) == wrong
    assert_equal(plain, fast)


def test_where_recording_and_stacking_are_wrong_the_plain_step_trains(tiny, teacher, config, captured):
    chosen = config(methods=("baseline",), seeds=(0, 1))
    plain = execute(chosen, tiny, teacher)
    captured(without("step"))
    fast = execute(chosen, tiny, teacher, stack=True, graph=True)
    assert len(fell_back(fast[1])) == 2
    assert_equal(plain, fast)


@pytest.mark.parametrize("shortcuts", [{}, {"side_by_side": True}, {"compiled": False, "stack": True}])
def test_where_nothing_is_accelerated_nothing_is_compared(tiny, teacher, config, monkeypatch, shortcuts):
    monkeypatch.setattr(self_check, "_draw", None)
    execute(config(methods=("baseline",)), tiny, teacher, **shortcuts)


def test_a_stage_that_is_over_is_not_compared_again(tiny, teacher, config, monkeypatch):
    chosen = config(methods=("baseline",))
    first = execute(chosen, tiny, teacher)
    last = first[1][[type(e).__name__ for e in first[1]].index("Snapshot") :]
    from iekd.engine.state import Snapshot

    done = [e for e in last if isinstance(e, Snapshot)][-1]
    monkeypatch.setattr(self_check, "_draw", None)
    execute(chosen, tiny, teacher, {"students": done}, graph=True)


def test_an_epoch_of_one_batch_is_enough(tiny, teacher, config, captured):
    captured(stale)
    chosen = config(methods=("baseline",), batch_size=96, epochs=3)
    assert fell_back(execute(chosen, tiny, teacher, graph=True)[1])
    captured(lambda work: work)
    fast = execute(chosen, tiny, teacher, graph=True)
    assert not fell_back(fast[1])
    assert_equal(execute(chosen, tiny, teacher), fast)


def test_a_training_that_diverges_by_itself_does_not_count_as_a_wrong_recording(tiny, teacher, config, caplog):
    with pytest.raises(DivergedError, match="infinite"):
        execute(config(methods=("baseline",), lr=100, epochs=6), tiny, teacher, graph=True)
    assert "differs" not in caplog.text


def test_infinite_numbers_of_the_accelerated_step_alone_are_found():
    was, right = torch.zeros(3), torch.ones(3)
    assert self_check._share([(was, right, right)]) == 0
    assert self_check._share([(was, right, torch.tensor([1.0, torch.nan, 1]))]) > 1
    assert self_check._share([(was, right, torch.tensor([1.0, torch.inf, 1]))]) > 1
    assert self_check._share([(was, was, right)]) > 1, "the plain step changes nothing"
    assert self_check._share([(was, right * torch.inf, right)]) == 0, "nothing to compare with"


def test_a_run_notes_it(tiny_config, complete, tmp_path, monkeypatch, captured):
    from iekd.runs.files import read_lines
    from iekd.runs.store import Store

    captured(without("step"))
    monkeypatch.setattr(Shortcuts, "of", classmethod(lambda cls, config, device: cls(graph=True)))
    run, _ = complete(Store(tmp_path), tiny_config(methods=("baseline",), teacher="none"))
    assert run.status.state == "finished"
    events = read_lines(run.path / "events.jsonl", 0)[0]
    (noted,) = [event for event in events if event["event"] == "fell back to the plain step"]
    assert noted["stage"] == "students"
    assert noted["why"] in (run.path / "log.txt").read_text()


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 0.02), (torch.bfloat16, 0.7)])
def test_what_is_left_to_rounding(dtype, least, tiny, config):
    experiment = Experiment(config(methods=("baseline",)), tiny)
    experiment.precision = dtype
    assert self_check._tolerance(experiment._make_students(3)) == least
