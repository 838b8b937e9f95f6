"""The stages of a run on tiny data. What is compared here is compared bit for bit unless the test says otherwise."""

from __future__ import annotations

import copy
import math
import threading
from typing import NamedTuple

import numpy as np
import pytest
import torch

from iekd.config.methods import METHODS
from iekd.config.run import learner_name
from iekd.data import Dataset, Split
from iekd.engine import accelerate, experiment
from iekd.engine.batches import to_device
from iekd.engine.events import Result, StageStart, TrainedModel
from iekd.engine.experiment import STUDENTS, Experiment
from iekd.engine.learner import Best, predict
from iekd.engine.metrics import Diverged, Metrics
from iekd.engine.state import LearnerState, Snapshot
from iekd.engine.stream import split_into_batches
from iekd.errors import TrainingError
from iekd.losses import MutualLearningLoss
from iekd.models.normalise import Normalise
from iekd.models.registry import build

CPU = torch.device("cpu")


class Done(NamedTuple):
    events: list
    experiment: Experiment
    result: Result

    def rows(self, learner: str) -> list[Metrics]:
        return [e for e in self.events if isinstance(e, Metrics) and e.learner == learner]

    def weights(self, learner: str) -> dict[str, torch.Tensor]:
        return self.experiment.students[learner].model.state_dict()

    @property
    def stages(self) -> list[StageStart]:
        return [e for e in self.events if isinstance(e, StageStart)]


def execute(config, dataset, teacher=None) -> Done:
    done = Experiment(config, dataset, teacher)
    events = list(done.events())
    return Done(events, done, events[-1])


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def teacher(tiny) -> TrainedModel:
    """A network that has seen some data, so that its batch norms are not the initial ones."""
    torch.manual_seed(5)
    model, statistics = build("resnet14", 3), tiny.statistics
    images, _ = to_device(tiny.train, CPU)
    with torch.no_grad():
        for _ in range(20):
            model.train()(Normalise(*statistics)(images))
    return TrainedModel(model.eval(), *statistics)


@pytest.fixture
def config(tiny_config):
    return lambda **values: tiny_config(teacher="resnet14", **{"epochs": 2, **values})


@pytest.fixture(params=["one after the other", "side by side"])
def way(request, monkeypatch):
    """How learners of a step take turns. Both with one thread a learner, as when trained alone here."""
    cores = 2 if request.param == "side by side" else 1
    monkeypatch.setattr(accelerate, "cores", lambda: cores)
    return request.param


@pytest.mark.usefixtures("way")
def test_a_learner_learns_the_same_beside_others_as_alone(tiny, teacher, config):
    together = execute(config(methods=tuple(METHODS), seeds=(0, 1)), tiny, teacher)
    for method, seed in [("baseline", 0), ("kd", 1), ("ft", 0), ("ie-ft", 1), ("od", 0), ("ie-od", 0), ("ie-dml", 1)]:
        alone = execute(config(methods=(method,), seeds=(seed,)), tiny, teacher)
        name = learner_name(method, seed)
        assert together.rows(name) == alone.rows(name)
        assert same(together.weights(name), alone.weights(name))


def test_many_threads_change_nothing_but_rounding(tiny, teacher, config, monkeypatch):
    """More threads sum in another order; training amplifies that, so one epoch only."""
    pair = config(methods=("baseline", "ie-ft"), epochs=1)
    monkeypatch.setattr(accelerate, "cores", lambda: 4)
    several = execute(pair, tiny, teacher)
    monkeypatch.setattr(accelerate, "cores", lambda: 1)
    one = execute(pair, tiny, teacher)
    for name in ("baseline-seed0", "ie-ft-seed0"):
        for a, b in zip(several.rows(name), one.rows(name), strict=True):
            assert a.values["loss"] == pytest.approx(b.values["loss"], rel=0.02)


@pytest.mark.usefixtures("way")
def test_the_same_configuration_gives_the_same_numbers(tiny, config):
    """From a teacher trained on the way to the last test row."""
    once, again = (execute(config(teacher_epochs=1, methods=("baseline", "ie-ft")), tiny) for _ in range(2))
    for learner in ("teacher", "auto-encoder", "baseline-seed0", "ie-ft-seed0"):
        assert once.rows(learner)
        assert once.rows(learner) == again.rows(learner)
    assert same(once.weights("ie-ft-seed0"), again.weights("ie-ft-seed0"))


def test_the_state_of_the_world_changes_nothing(tiny, teacher, config):
    torch.manual_seed(1)
    once = execute(config(methods=("ie-ft",)), tiny, teacher)
    torch.manual_seed(2)
    again = execute(config(methods=("ie-ft",)), tiny, teacher)
    assert once.rows("ie-ft-seed0") == again.rows("ie-ft-seed0")


def test_learners_of_one_seed_start_alike_and_seeds_differ(tiny, teacher, config):
    done = Experiment(config(methods=("baseline", "kd", "ie-ft"), seeds=(0, 1)), tiny, teacher)
    with_students = (e for e in done.events() if done.students)
    first = next(with_students)
    assert isinstance(first, StageStart)
    assert first.stage == STUDENTS
    # the students as they were made, before any step
    made = {learner.name: learner.model.state_dict() for learner in done._make_students(3)}
    assert same(made["baseline-seed0"], made["kd-seed0"])
    assert same(made["baseline-seed0"], made["ie-ft-seed0"])
    assert not same(made["baseline-seed0"], made["baseline-seed1"])
    with_students.close()


def test_students_do_not_share_weights(tiny, teacher, config):
    done = execute(config(methods=("baseline", "kd")), tiny, teacher)
    assert not same(done.weights("baseline-seed0"), done.weights("kd-seed0"))
    pointers = [{p.data_ptr() for p in learner.model.parameters()} for learner in done.experiment.students.values()]
    assert not pointers[0] & pointers[1]


@pytest.fixture
def frozen_teachers(monkeypatch):
    """Every FrozenTeacher that is made, with the number of its calls."""
    made = []

    class Watched(experiment.FrozenTeacher):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.calls = 0
            made.append(self)

        def __call__(self, images):
            self.calls += 1
            return super().__call__(images)

    monkeypatch.setattr(experiment, "FrozenTeacher", Watched)
    return made


@pytest.mark.usefixtures("way")
def test_teacher_and_encoder_stay_as_they_are_while_students_learn(tiny, teacher, config, frozen_teachers):
    original = copy.deepcopy(teacher.model.state_dict())
    methods = tuple(name for name in METHODS if name != "dml")
    running = Experiment(config(methods=methods, ie_stages="all"), tiny, teacher).events()
    for event in running:
        if isinstance(event, StageStart) and event.stage == "students":
            break
    (frozen,) = frozen_teachers
    networks = [frozen.model, *frozen.encoders]
    assert len(networks) == 4
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    for _ in running:
        assert not any(network.training for network in networks)
    for state, network in zip(before, networks, strict=True):
        assert same(state, network.state_dict())
    assert same(original, teacher.model.state_dict())
    assert not any(p.requires_grad for network in networks for p in network.parameters())


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", ["ft", "od", "ie-ft", "ie-od", "ie-dml", "ie-ft+kd"])
def test_what_is_trained_beside_the_student_does_train(tiny, teacher, config, name):
    running = Experiment(config(methods=(name,)), tiny, teacher)
    made = running._make_students(3)[0].method.state_dict()
    list(running.events())
    learned = running.students[f"{name}-seed0"].method.state_dict()
    trained = [key for key in made if made[key].is_floating_point() and "margin" not in key]
    assert trained
    assert [key for key in trained if torch.equal(made[key], learned[key])] == []
    kept = [key for key in made if "channels" in key or "margin" in key]
    assert all(torch.equal(made[key], learned[key]) for key in kept)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("methods", [("kd",), ("kd", "ft", "ie-ft", "baseline")])
def test_the_teacher_looks_once_at_each_batch(tiny, teacher, config, frozen_teachers, methods):
    chosen = config(methods=methods, seeds=(0, 1), auto_encoder_epochs=3)
    execute(chosen, tiny, teacher)
    per_epoch = len(tiny.train) // chosen.batch_size
    assert frozen_teachers[0].calls == per_epoch * (chosen.epochs + 3 * chosen.needs_auto_encoder)


def test_labels_alone_do_not_wake_the_teacher(tiny, teacher, config, frozen_teachers):
    execute(config(methods=("baseline",)), tiny, teacher)
    assert sum(t.calls for t in frozen_teachers) == 0


@pytest.mark.parametrize(
    ("methods", "name", "at_hand", "stages"),
    [
        (("baseline",), "none", False, ["students", "evaluation"]),
        (("kd",), "resnet14", True, ["students", "evaluation"]),
        (("kd",), "resnet14", False, ["teacher", "students", "evaluation"]),
        (("ie-ft",), "resnet14", True, ["auto-encoder", "students", "evaluation"]),
        (("baseline", "ft"), "resnet14", False, ["teacher", "auto-encoder", "students", "evaluation"]),
    ],
)
def test_only_the_stages_that_are_needed(tiny, teacher, tiny_config, methods, name, at_hand, stages):
    done = execute(tiny_config(methods=methods, teacher=name), tiny, teacher if at_hand else None)
    assert [s.stage for s in done.stages] == stages
    for stage in done.stages[:-1]:
        last = [e for e in done.events if isinstance(e, Metrics) and e.stage == stage.stage][-1]
        assert last.step == stage.steps


def test_a_teacher_without_epochs_has_to_be_given(tiny, teacher, tiny_config, refuses):
    untrained = tiny_config(methods=("kd",), teacher_epochs=0)
    refuses(lambda: Experiment(untrained, tiny), "Teacher epochs '0'", kind=TrainingError)
    assert Experiment(untrained, tiny, teacher).teacher is teacher


def test_rows_say_what_they_measured(tiny, teacher, config):
    done = execute(config(methods=("baseline", "ie-ft")), tiny, teacher)
    rows = done.rows("ie-ft-seed0")
    assert {r.kind for r in rows} == {"train", "test"}
    assert [r.epoch for r in rows if r.kind == "test"] == [1, 2]
    for row in rows:
        keys = {"loss", "accuracy"} if row.kind == "test" else {
            "loss", "accuracy", "lr", "cross_entropy", "inheritance", "exploration"
        }  # fmt: skip
        assert set(row.values) == keys
        assert all(np.isfinite(list(row.values.values())))
        assert 0 <= row.values["accuracy"] <= 100
    assert [r.values.keys() for r in done.rows("auto-encoder")] == [{"loss", "reconstruction", "lr"}] * len(
        done.rows("auto-encoder")
    )


def test_the_loss_of_a_row_is_the_weighted_sum_of_its_terms(tiny, teacher, config):
    done = execute(config(methods=("ie-ft",), inheritance_weight=70, exploration_weight=30), tiny, teacher)
    for row in done.rows("ie-ft-seed0"):
        if row.kind == "train":
            v = row.values
            expected = v["cross_entropy"] + 70 * v["inheritance"] + 30 * v["exploration"]
            assert v["loss"] == pytest.approx(expected, rel=1e-5)


def test_weights_of_the_losses_reach_their_learner(tiny, teacher, config):
    """With both weights zero, ie-ft is the baseline: same start, same batches, same labels."""
    done = execute(config(methods=("baseline", "ie-ft"), inheritance_weight=0, exploration_weight=0), tiny, teacher)
    assert same(done.weights("baseline-seed0"), done.weights("ie-ft-seed0"))
    done = execute(config(methods=("baseline", "kd", "ft"), kd_weight=0, factor_weight=0), tiny, teacher)
    assert same(done.weights("baseline-seed0"), done.weights("kd-seed0"))
    assert same(done.weights("baseline-seed0"), done.weights("ft-seed0"))


def test_the_auto_encoder_learns(tiny, teacher, config):
    rows = execute(config(methods=("ft",), auto_encoder_epochs=8, epochs=1), tiny, teacher).rows("auto-encoder")
    assert rows[-1].values["loss"] < 0.9 * rows[0].values["loss"]


def test_students_learn(tiny, teacher, config):
    done = execute(config(methods=("baseline",), epochs=15, lr=0.05), tiny, teacher)
    assert done.result.learners[0].accuracy_last >= 80  # chance is 33


def test_the_result_is_what_a_plain_prediction_says(tiny, teacher, config):
    done = execute(config(methods=("baseline", "kd"), seeds=(0, 1), lr=0.01), tiny, teacher)
    images, labels = to_device(tiny.test, CPU)

    def answers(network):
        return predict(network.model, Normalise(network.mean, network.std), images, CPU).argmax(1)

    of_teacher = answers(teacher)
    assert done.result.teacher.accuracy_last == pytest.approx(100 * (of_teacher == labels).double().mean().item())
    assert [(r.method, r.seed) for r in done.result.learners] == [
        ("baseline", 0),
        ("kd", 0),
        ("baseline", 1),
        ("kd", 1),
    ]
    for r in done.result.learners:
        given = answers(r.network)
        assert r.accuracy_last == pytest.approx(100 * (given == labels).double().mean().item())
        assert r.agreement == pytest.approx(100 * (given == of_teacher).double().mean().item())
        per_class = [100 * (given[labels == k] == k).double().mean().item() for k in range(3)]
        assert r.class_accuracy == pytest.approx(per_class)
        tests = [row.values["accuracy"] for row in done.rows(learner_name(r.method, r.seed)) if row.kind == "test"]
        assert r.accuracy_last == pytest.approx(tests[-1], abs=1e-3)
        assert r.accuracy_best == pytest.approx(max(tests), abs=1e-3)


@pytest.mark.parametrize(("side", "portions"), [(16, [70]), (128, [64, 6])])
def test_test_images_are_read_in_smaller_portions_where_they_are_larger(
    tiny, teacher, tiny_config, monkeypatch, side, portions
):
    """A thousand photographs at a time would take gigabytes."""
    images = np.zeros((70, side, side, 3), np.uint8)
    labels = np.arange(70) % 3
    data = Dataset("large", tiny.class_names, Split(images[:12], labels[:12]), Split(images, labels))
    read = []

    def noted(*asked):
        for batch in split_into_batches(*asked):
            read.append(len(batch))
            yield batch

    monkeypatch.setattr(experiment, "split_into_batches", noted)
    execute(tiny_config(teacher="resnet14", methods=("kd",), epochs=1, batch_size=4), data, teacher)
    assert read == portions


def test_the_last_row_is_the_result_in_half_precision_too(tiny, tiny_config):
    """One page shows both: the curve's end, and the table."""
    done = execute(tiny_config(methods=("baseline", "ie-ft", "dml"), precision="bf16", epochs=3, lr=0.02), tiny)
    for learner in done.result.learners:
        rows = [r for r in done.rows(learner.name) if r.kind == "test"]
        assert rows[-1].values["accuracy"] == pytest.approx(learner.accuracy_last)
        with torch.no_grad():
            normalise = Normalise(learner.network.mean, learner.network.std)
            logits = predict(learner.network.model, normalise, to_device(tiny.test, CPU)[0], CPU)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(tiny.test.labels)).item()
        assert rows[-1].values["loss"] == pytest.approx(loss, rel=1e-5), "closer than bfloat16 could be"


def test_the_result_has_the_best_epoch(tiny, tiny_config):
    running = Experiment(tiny_config(methods=("baseline",), teacher="none", lr=1e-4), tiny)
    for event in running.events():
        if isinstance(event, StageStart) and event.stage == "evaluation":
            running.students["baseline-seed0"].best = Best(0, 99.5, 99.5)
    assert event.learners[0].accuracy_best == 99.5
    assert event.learners[0].accuracy_last < 99.5


def test_validation_images_are_not_learned_and_choose_the_best_epoch(tiny, tiny_config):
    done = execute(
        tiny_config(methods=("baseline",), teacher="none", epochs=4, validation_fraction=0.25, lr=0.02), tiny
    )
    (result,), rows = done.result.learners, done.rows("baseline-seed0")
    assert [row.step for row in rows if row.kind == "test"] == [2, 4, 6, 8], "72 of 96 images are two batches of 32"
    by_epoch = {kind: [r.values["accuracy"] for r in rows if r.kind == kind] for kind in ("validation", "test")}
    chosen = int(np.argmax(by_epoch["validation"]))
    assert result.best_epoch == chosen + 1
    assert result.accuracy_best == pytest.approx(by_epoch["test"][chosen], abs=1e-3)


def test_the_peer_of_mutual_learning_learns_too(tiny, tiny_config):
    config = tiny_config(
        methods=("dml", "ie-dml"), teacher="none", student="resnet8", peer="resnet14", epochs=8, lr=0.05
    )
    done = execute(config, tiny)
    assert [stage.stage for stage in done.stages] == ["students", "evaluation"], "it needs no teacher"
    for result in done.result.learners:
        learner = done.experiment.students[result.name]
        assert min(result.accuracy_last, result.peer_accuracy) >= 60  # chance is 33
        assert result.peer_accuracy == done.rows(result.name)[-1].values["peer_accuracy"]
        sizes = [sum(p.numel() for p in net.parameters()) for net in (learner.model, learner.peer.model)]
        assert sizes == [sum(p.numel() for p in build(name, 3).parameters()) for name in ("resnet8", "resnet14")]
    assert execute(tiny_config(methods=("kd",)), tiny).result.learners[0].peer_accuracy is None


def test_the_peer_follows_the_same_schedules(tiny, tiny_config):
    chosen = tiny_config(methods=("dml",), teacher="none", epochs=3, weight_schedule="decay", schedule="cosine")
    (learner,) = execute(chosen, tiny).experiment.students.values()
    peer = learner.peer
    assert peer.steps == learner.steps == learner.total_steps
    assert peer.rate(peer.steps) == learner.rate(learner.steps) == pytest.approx(0)
    assert peer.method.strength == learner.method.strength == pytest.approx(1 / learner.total_steps)
    peers, own = (unit.optimizer.param_groups[0]["lr"] for unit in (peer, learner))
    assert peers == own < 0.5 * chosen.lr


def test_the_two_of_mutual_learning_are_updated_alternately(tiny, tiny_config):
    """One step by hand: the student by the peer's first answer, then the peer by the student's second."""
    running = Experiment(tiny_config(methods=("dml",), teacher="none"), tiny)
    learner = running._make_students(3)[0]
    student, peer = copy.deepcopy(learner.model), copy.deepcopy(learner.peer.model)
    images, labels = (x[:32] for x in to_device(tiny.train, CPU))
    list(learner.step(images, labels, None))

    def descend(network, loss):
        network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in network.parameters():
                p.sub_(first_lr * 1.9 * (p.grad + 5e-4 * p))  # Nesterov's first step, momentum 0.9

    first_lr = learner.rate(0)
    pixels = learner.normalise(images)
    student.train(), peer.train()
    mine, theirs = student(pixels).logits, peer(pixels).logits
    cross_entropy, mutual = torch.nn.functional.cross_entropy, MutualLearningLoss()
    descend(student, cross_entropy(mine, labels) + mutual(mine, theirs))
    descend(peer, cross_entropy(theirs, labels) + mutual(theirs, student(pixels).logits))
    for expected, made in ((student, learner.model), (peer, learner.peer.model)):
        for a, b in zip(expected.parameters(), made.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.usefixtures("way")
def test_several_stages_get_several_auto_encoders_and_the_last_is_the_same(tiny, teacher, config):
    last = execute(config(methods=("ft",), epochs=1), tiny, teacher)
    every = execute(config(methods=("ft", "ie-ft"), ie_stages="all", epochs=1), tiny, teacher)
    assert last.rows("ft-seed0") == every.rows("ft-seed0")
    split = every.experiment.students["ie-ft-seed0"].method.inheritance_channels
    assert [len(channels) for channels in split] == [8, 16, 32]


def test_a_random_split_differs_between_seeds(tiny, teacher, config):
    done = execute(config(methods=("ie-ft",), seeds=(0, 1), channel_split="random", epochs=1), tiny, teacher)
    first, second = (learner.method.inheritance_channels for learner in done.experiment.students.values())
    assert first != second


@pytest.mark.parametrize(
    ("of_teacher", "of_student"),
    [
        ("wrn-16-1", "resnet8"),
        ("resnet8", "wrn-16-1"),
        ("vgg8", "mobilenet-v2"),
        ("resnet8", "shufflenet-v1"),
        ("resnet8", "resnet8"),
    ],
)
def test_networks_of_different_families_teach_each_other(tiny, tiny_config, of_teacher, of_student):
    methods = ("kd", "at", "ft", "od", "dkd", "dist", "ie-at", "ie-ft", "ie-od", "ie-dml")
    values = {"methods": methods, "ie_stages": "all", "lr": 0.01, "limit_train": 16, "batch_size": 16}
    done = execute(tiny_config(teacher=of_teacher, student=of_student, **values), tiny)
    assert len(done.result.learners) == len(methods)
    for learner in done.experiment.students.values():
        assert all(torch.isfinite(p).all() for p in learner.model.parameters())


def test_without_a_teacher_there_is_no_agreement(tiny, tiny_config):
    done = execute(tiny_config(methods=("baseline",), teacher="none"), tiny)
    assert done.result.teacher is None
    assert done.result.learners[0].agreement is None


def test_a_small_teacher_may_teach_a_large_student(tiny, tiny_config):
    """The paper's reverse setting."""
    done = execute(tiny_config(teacher="resnet8", student="resnet14", methods=("kd", "ie-ft")), tiny)
    assert len(done.result.learners) == 2


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "multi-step"])
@pytest.mark.parametrize(("epochs", "batch_size"), [(1, 96), (1, 48), (1, 24), (2, 48), (3, 32)])
def test_every_schedule_and_number_of_steps_trains(tiny, tiny_config, schedule, epochs, batch_size):
    done = execute(
        tiny_config(methods=("baseline",), teacher="none", epochs=epochs, batch_size=batch_size, schedule=schedule),
        tiny,
    )
    assert done.result.learners[0].accuracy_last >= 0


@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
def test_every_number_of_auto_encoder_steps_trains(tiny, teacher, config, epochs):
    done = execute(config(methods=("ft",), auto_encoder_epochs=epochs, batch_size=96, epochs=1), tiny, teacher)
    assert [row.step for row in done.rows("auto-encoder")][-1] == epochs


def test_half_precision_trains(tiny, teacher, config):
    done = execute(config(methods=("kd", "ie-ft"), precision="bf16"), tiny, teacher)
    assert all(np.isfinite(row.values["loss"]) for row in done.rows("ie-ft-seed0"))


def test_grey_images_train(tiny, tiny_config):
    grey = Dataset("grey", tiny.class_names, *(Split(s.images[..., :1], s.labels) for s in (tiny.train, tiny.test)))
    assert len(execute(tiny_config(methods=("baseline", "ft")), grey).result.learners) == 2


def test_a_class_without_test_images_leaves_numbers_that_are_numbers(tiny, tiny_config):
    """A folder may hold test images of some classes only; NaN is not JSON, so no reader could read the report."""
    kept = tiny.test.labels > 0
    partial = Dataset("partial", tiny.class_names, tiny.train, Split(tiny.test.images[kept], tiny.test.labels[kept]))
    done = execute(tiny_config(methods=("baseline",), teacher="none"), partial)
    assert not any(isinstance(x, float) and np.isnan(x) for x in done.result.learners[0].class_accuracy)


@pytest.mark.usefixtures("way")
def test_a_rate_that_is_too_high_ends_with_advice(tiny, teacher, config):
    with pytest.raises(TrainingError, match="learning rate"):
        execute(
            config(methods=("baseline", "ie-ft"), lr=100, weight_decay=1, epochs=30, schedule="cosine"), tiny, teacher
        )


def breaks_after(calls):
    """Factor transfer's loss, no number after so many steps."""
    seen = []

    def forward(self, student, teacher):
        seen.append(1)
        return student.mean() * (math.nan if len(seen) > calls else 1.0)

    return forward


@pytest.mark.usefixtures("way")
def test_a_student_that_diverges_is_left_out_and_the_others_do_not_feel_it(tiny, teacher, config, monkeypatch):
    monkeypatch.setattr("iekd.losses.ft.FactorTransferLoss.forward", breaks_after(4))
    chosen = config(methods=("baseline", "ft", "kd"), epochs=3)
    done = execute(chosen, tiny, teacher)
    (gone,) = [e for e in done.events if isinstance(e, Diverged)]
    assert gone == Diverged(
        "students", "ft-seed0", gone.step, f"The loss of 'ft-seed0' became nan at step {gone.step}."
    )
    assert done.result.diverged == [gone]
    assert [r.name for r in done.result.learners] == ["baseline-seed0", "kd-seed0"]
    at = done.events.index(gone)
    assert not [e for e in done.events[at:] if isinstance(e, Metrics) and e.learner == "ft-seed0"]
    without = execute(chosen.model_copy(update={"methods": ("baseline", "kd")}), tiny, teacher)
    for name, learner in without.experiment.students.items():
        assert same(learner.model.state_dict(), done.experiment.students[name].model.state_dict())


def test_a_resumed_run_knows_which_student_diverged(tiny, teacher, config, monkeypatch):
    monkeypatch.setattr("iekd.losses.ft.FactorTransferLoss.forward", breaks_after(0))
    chosen = config(methods=("baseline", "ft"), epochs=2)
    running = Experiment(chosen, tiny, teacher, should_snapshot=lambda: True).events()
    kept = {}
    for event in running:
        if isinstance(event, Snapshot):
            kept[event.stage] = event
            if "diverged" in event.states.get("ft-seed0", LearnerState({}, {})).numbers:
                break
    running.close()
    again = list(Experiment(chosen, tiny, teacher, earlier=kept).events())
    assert [e.learner for e in again if isinstance(e, Diverged)] == ["ft-seed0"]
    assert [r.name for r in again[-1].learners] == ["baseline-seed0"]


def test_a_peer_that_diverges_takes_its_student_along(tiny, tiny_config, monkeypatch):
    chosen = tiny_config(methods=("baseline", "dml"), teacher="none", epochs=1)
    experiment = Experiment(chosen, tiny)
    for event in experiment.events():
        if isinstance(event, StageStart) and event.stage == "students":
            with torch.no_grad():
                experiment.students["dml-seed0"].peer.model.classifier.bias.fill_(math.nan)
    assert [gone.learner for gone in event.diverged] == ["dml-seed0"]
    assert [r.name for r in event.learners] == ["baseline-seed0"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("stage", ["teacher", "auto-encoder", "students"])
def test_stopping_is_ceasing_to_iterate(tiny, config, stage):
    before = set(threading.enumerate())
    running = Experiment(config(methods=("baseline", "ie-ft"), epochs=500, teacher_epochs=1), tiny).events()
    for event in running:
        if isinstance(event, Metrics) and event.stage == stage:
            break
    running.close()
    assert set(threading.enumerate()) <= before


def test_an_error_in_a_learner_surfaces(tiny, teacher, config, monkeypatch):
    monkeypatch.setattr(accelerate, "cores", lambda: 2)
    before = set(threading.enumerate())

    def broken(self, images, labels):
        raise MemoryError("no more")

    monkeypatch.setattr("iekd.engine.learner.Learner.evaluate", broken)
    with pytest.raises(MemoryError, match="no more"):
        execute(config(methods=("baseline", "kd")), tiny, teacher)
    assert set(threading.enumerate()) <= before


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize(("precision", "eager"), [("fp32", False), ("bf16", False), ("fp32", True)])
def test_a_graphics_card_trains_too(tiny, tiny_config, precision, eager):
    chosen = tiny_config(methods=tuple(METHODS), device="cuda", precision=precision, eager=eager, epochs=2)
    done = execute(chosen, tiny)
    assert len(done.result.learners) == len(METHODS)
