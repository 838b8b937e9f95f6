"""`iekd bench` end to end, and the quick probe. Nothing here asks how fast anything is."""

from __future__ import annotations

import json
import math

import pytest
from typer.testing import CliRunner

from iekd.bench import measure as measuring
from iekd.bench import rounds
from iekd.bench.measure import PARTS, check_parts, measure
from iekd.bench.rounds import TOGETHER
from iekd.cli.main import app
from iekd.engine import training_unit
from iekd.errors import TrainingError
from iekd.estimate import timing
from iekd.estimate.budget import Budget, OutOfTimeError
from iekd.estimate.phases import BACKWARD, BOTH, FORWARD, OPTIMISER, Phases, measure_phases
from iekd.estimate.probe import probe
from iekd.estimate.speeds import Speeds
from iekd.estimate.subjects import Subject
from iekd.estimate.timing import engine_step_time, fitting_steps

FIELDS = {
    "command", "date", "machine", "batch_size", "precision", "learners", "ours", "conventional", "phases", "memory",
    "roofline", "together_to_apart", "times_as_fast", "cut",
}  # fmt: skip
SMALL = {
    "resolution": 8, "teacher": "resnet8", "student": "resnet8", "batch-size": 8, "device": "cpu", "precision": "fp32",
    "steps": 2,
}  # fmt: skip
WORDS = ["bench", *(word for key, value in SMALL.items() for word in (f"--{key}", str(value)))]


@pytest.fixture(autouse=True)
def quick_peaks(monkeypatch):
    """The probes at full size take a second each."""
    measure_peaks = measuring.measure_peaks
    monkeypatch.setattr(measuring, "measure_peaks", lambda *device: measure_peaks(*device, side=64, numbers=1000))


def run(*words: str):
    return CliRunner().invoke(app, [*WORDS, *words])


def test_json_has_every_field(monkeypatch):
    monkeypatch.setattr(measuring, "LONGEST", 1e6)  # a busy machine has to measure all of it too
    result = run("--methods", "baseline,ie-ft", "--seeds", "0,1", "--json")
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.strip().splitlines()
    found = json.loads(line, parse_constant=pytest.fail)
    assert set(found) == FIELDS
    assert found["learners"] == ["baseline", "ie-ft"] * 2
    assert found["command"].startswith("iekd bench --dataset fashion-mnist-sample")
    assert found["command"].endswith("--steps 2")
    assert found["precision"] == "fp32"
    assert set(found["machine"]) == {"kind", "device", "processor", "cores", "platform", "versions"}
    assert set(found["machine"]["versions"]) == {"python", "torch", "iekd"}
    assert set(found["ours"]) == {"baseline", "ie-ft", TOGETHER}
    assert set(found["conventional"]) == {"baseline", "ie-ft"}
    for speed in (*found["ours"].values(), *found["conventional"].values()):
        assert len(speed["rounds"]) == rounds.ROUNDS
        assert speed["images_per_second"] == sorted(speed["rounds"])[1]
        assert speed["images_per_second"] * speed["seconds_per_step"] == pytest.approx(8)
    ours = {name: speed["seconds_per_step"] for name, speed in found["ours"].items()}
    theirs = {name: speed["seconds_per_step"] for name, speed in found["conventional"].items()}
    apart = 2 * (ours["baseline"] + ours["ie-ft"])
    assert found["together_to_apart"] == pytest.approx(ours[TOGETHER] / apart)
    assert found["times_as_fast"]["ie-ft"] == pytest.approx(theirs["ie-ft"] / ours["ie-ft"])
    both = 2 * (theirs["baseline"] + theirs["ie-ft"])
    assert found["times_as_fast"][TOGETHER] == pytest.approx(both / ours[TOGETHER])
    assert found["memory"] > 1e7
    roofline = found["roofline"]
    assert set(roofline["peaks"]) == {"flops_per_second", "bytes_per_second"}
    least = roofline["bound"]["arithmetic"] + roofline["bound"]["traffic"]
    assert roofline["fraction"] == pytest.approx(least / ours[TOGETHER])
    assert set(found["phases"]["learners"]) == {"baseline", "ie-ft"}


def test_people_get_tables_and_words(monkeypatch):
    monkeypatch.setattr(rounds, "ROUNDS", 1)
    result = run("--methods", "baseline,kd")
    assert result.exit_code == 0, result.output
    for words in (
        "images per second", "all 2 together", "conventional loop", "times as fast", "part by part", "backward",
        "one part at a time", "Peak memory", "of the process", "Roofline", "arithmetic", "memory traffic", "torch",
    ):  # fmt: skip
        assert words in result.stdout, words


@pytest.mark.parametrize("part", PARTS)
def test_one_part_alone(part, monkeypatch):
    monkeypatch.setattr(rounds, "ROUNDS", 1)
    result = run("--methods", "baseline", "--only", part, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert bool(found["ours"]) == (part == "ours") == (found["memory"] is not None)
    assert bool(found["conventional"]) == (part == "conventional")
    assert bool(found["phases"]) == (part == "phases")
    assert bool(found["roofline"]) == (part == "roofline")
    assert found["command"].endswith(f"--only {part}")
    shown = run("--methods", "baseline", "--only", part)
    assert shown.exit_code == 0, shown.output
    assert ("part by part" in shown.stdout) == (part == "phases")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "our"], "Did you mean 'ours'?"),
        (["--only", ","], "Choose one of: ours, conventional, phases, roofline"),
        (["--steps", "0"], "Steps '0' cannot be used"),
        (["--methods", "ftt"], "Unknown method 'ftt'"),
        (["--nonsense", "1"], "--nonsense"),
    ],
)
def test_impossible_requests_are_refused(words, said):
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr


def test_a_learning_rate_that_would_diverge_is_timed_all_the_same(monkeypatch):
    """Speed does not depend on it."""
    monkeypatch.setattr(rounds, "ROUNDS", 1)
    result = run("--lr", "100", "--weight-decay", "1", "--schedule", "cosine", "--only", "ours", "--steps", "40")
    assert result.exit_code == 0, result.output


def test_a_missing_device_is_refused(small, refuses, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refuses(lambda: measure(small(device="cuda")), "'cuda'", "'auto' or 'cpu'")
    refuses(lambda: probe(small(device="cuda")), "'cuda'")


def test_parts_by_name():
    assert check_parts(None) == PARTS
    assert check_parts("phases, ours") == ("phases", "ours")


@pytest.mark.parametrize("methods", [("baseline",), ("baseline", "ie-ft"), ("kd", "ie-dml")])
def test_phases_are_positive_and_named(methods, small):
    subject = Subject(small(methods=methods, seeds=(3, 4)), 32)
    found = measure_phases(subject.parts(), subject.device, 0.0, 2)
    assert (found.teacher is None) == (methods == ("baseline",))
    assert found.data > 0
    for method in methods:
        names = {BOTH} if method == "ie-dml" else {FORWARD, BACKWARD, OPTIMISER}
        assert set(found.learners[method]) == names
        assert all(seconds > 0 for seconds in found.learners[method].values())


def test_a_step_is_the_sum_of_its_phases():
    found = Phases(1.0, 2.0, {"a": {FORWARD: 3.0, BACKWARD: 4.0}, "b": {FORWARD: 5.0}})
    assert found.learner("a") == 7
    assert found.step(["a", "a", "b"]) == 1 + 2 + 14 + 5


class Clock:
    """A clock that goes on by one each time an image batch is made: steps, not seconds, are what passes."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        from iekd.engine import augment

        crop = augment.crop_and_flip

        def counted(*args, **options):
            self.now += 1
            return crop(*args, **options)

        monkeypatch.setattr(augment, "crop_and_flip", counted)


@pytest.mark.parametrize(("batch_size", "steps"), [(8, 2), (8, 4), (8, 10), (500, 9)])
def test_the_engine_is_timed_between_rows_of_one_epoch(batch_size, steps, small, monkeypatch):
    """One batch a second, in the plain loop: a step takes one second, whatever the warm-up and the rows."""
    Clock(monkeypatch)
    assert engine_step_time(small(methods=("baseline",), batch_size=batch_size), steps) == 1.0


def test_all_learners_must_have_done_a_step(small, monkeypatch):
    """Rows of a learner that is ahead do not stop the clock."""
    asked = []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: asked.append(1) or float(len(asked)))
    assert engine_step_time(small(methods=("baseline", "ie-ft"), seeds=(0, 1)), 4) == 1 / 5
    assert len(asked) == 2


def test_steps_fit_the_time_and_the_memory(small):
    config = small(batch_size=10)
    assert fitting_steps(config, 0.1, 10) == 100
    assert fitting_steps(config, 9.0, 10) == 4
    assert fitting_steps(config, 1e-9, 10) == int(timing.MOST_BYTES / (10 * 8 * 8))


def test_ours_and_theirs_take_turns_and_memory_is_of_ours(small, monkeypatch):
    order = []
    monkeypatch.setattr(rounds, "ROUNDS", 2)
    monkeypatch.setattr(rounds, "engine_step_time", lambda c, *_: order.append(",".join(c.methods)) or 0.5)
    monkeypatch.setattr(rounds, "conventional_step_time", lambda c, *_: order.append(f"their {c.methods[0]}") or 1.0)
    monkeypatch.setattr(rounds, "peak_memory", lambda: order.append("memory") or 7)
    phases = Phases(1.0, None, {"baseline": {}, "kd": {}})
    speeds = rounds.measure_speeds(small(methods=("baseline", "kd")), phases, 3, True, True, 1.0, lambda _: None)
    once = ["baseline,kd", "baseline", "their baseline", "kd", "their kd"]
    assert order == [once[0], "memory", *once[1:], *once]
    assert speeds.memory == 7
    assert speeds.ours[TOGETHER].rounds == (16.0, 16.0)
    assert speeds.theirs["kd"].seconds_per_step == 1.0


def slow(monkeypatch, seconds):
    """A budget of a hundred seconds, and measurements that take so many each but one second a step."""
    now = [0.0]

    def one(*values):
        over = values[-1]
        for _ in range(seconds):
            now[0] += 1
            if over():
                break
        return 1.0

    monkeypatch.setattr(rounds, "engine_step_time", one)
    monkeypatch.setattr(rounds, "conventional_step_time", one)
    return Budget(100, lambda: now[0]), now


def speeds_within(budget, config):
    phases = Phases(1.0, None, {"baseline": {}, "kd": {}})
    return rounds.measure_speeds(config, phases, 3, True, True, 1.0, lambda _: None, budget)


def test_a_busy_machine_gets_the_time_that_was_set_and_no_more(small, monkeypatch):
    """Each of fifteen measurements would take a minute; all of them have their share."""
    budget, now = slow(monkeypatch, 60)
    speeds = speeds_within(budget, small(methods=("baseline", "kd")))
    assert now[0] <= 100 + 15
    assert [len(speed.rounds) for speed in (*speeds.ours.values(), *speeds.theirs.values())] == [3] * 5
    assert len(budget.cut) == 15
    assert "round 1 of 3: conventional loop, kd" in budget.cut


def test_an_idle_machine_is_not_cut_short(small, monkeypatch):
    budget, now = slow(monkeypatch, 5)
    speeds_within(budget, small(methods=("baseline", "kd")))
    assert now[0] == 75
    assert budget.cut == []


def test_what_finds_no_time_left_is_left_out(small, monkeypatch):
    """One measurement cannot be ended before all time is gone; another has nothing to show."""
    now = [0.0]

    def endless(*_):
        now[0] += 1000
        return 1.0

    def empty(*_):
        raise OutOfTimeError

    monkeypatch.setattr(rounds, "conventional_step_time", empty)
    monkeypatch.setattr(rounds, "engine_step_time", endless)
    budget = Budget(100, lambda: now[0])
    speeds = speeds_within(budget, small(methods=("baseline", "kd")))
    assert list(speeds.ours) == [TOGETHER]
    assert speeds.theirs == {}
    assert now[0] == 1000


def test_the_engine_counts_what_it_has_at_the_end_of_its_time(small, monkeypatch):
    """Of an epoch of a thousand steps it takes those up to the row after that."""
    monkeypatch.setattr(training_unit, "NEWS_EVERY", math.inf)  # on a busy machine it would be asked more often
    asked = []
    found = engine_step_time(
        small(methods=("baseline",), batch_size=100), 1000, lambda: len(asked.append(1) or asked) > 5
    )
    assert found > 0
    assert len(asked) < 10
    with pytest.raises(OutOfTimeError):
        engine_step_time(small(methods=("baseline",), batch_size=100), 1000, lambda: True)


def test_people_are_told_what_was_cut_short(monkeypatch):
    monkeypatch.setattr(measuring, "LONGEST", 1e-3)
    result = run("--methods", "baseline,kd")
    assert result.exit_code == 0, result.output
    assert "too busy" in result.stdout
    assert "round 3 of 3: kd" in result.stdout
    assert "the roofline" in result.stdout
    assert json.loads(run("--methods", "baseline", "--json").stdout.splitlines()[-1])["cut"]


def test_subjects_have_the_shape_of_their_data_set(small):
    subject = Subject(small(dataset="cifar100", resolution=None, limit_train=100, seeds=(0, 1)), 200)
    assert subject.dataset.train.images.shape == (200, 32, 32, 3)
    assert len(subject.dataset.class_names) == 100
    parts = subject.parts()
    assert list(parts.learners) == ["baseline", "ie-ft"]
    assert len(parts.teacher.encoders) == 1
    assert subject.config.seeds == (0, 1), "the configuration is left as it was"


def test_the_statistics_of_noise_are_those_of_its_pixels(small):
    from iekd.data import Dataset
    from iekd.estimate.subjects import noise

    data = noise(small(resolution=28), 2000)
    measured = Dataset(data.name, data.class_names, data.train, data.test).statistics
    assert data.statistics[0] == pytest.approx(measured[0], abs=2e-3)
    assert data.statistics[1] == pytest.approx(measured[1], abs=2e-3)


def test_the_probe_survives_json(small):
    found = probe(small(methods=("baseline", "ie-ft")), 0.01)
    for seconds in (found.teacher, found.auto_encoder, found.evaluation, found.together):
        assert seconds > 0
    assert Speeds.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_probe_leaves_out_what_is_not_needed(small):
    found = probe(small(methods=("baseline",), teacher="none"), 0.01)
    assert found.teacher is None
    assert found.auto_encoder is None
    assert Speeds.from_json(found.to_json()) == found


GOOD = Speeds("cpu", "fp32", None, None, 1.0, 1.0).to_json()


@pytest.mark.parametrize(
    "value",
    [
        None, [], {}, {**GOOD, "more": 1}, {k: v for k, v in GOOD.items() if k != "together"}, {**GOOD, "together": 0},
        {**GOOD, "evaluation": None}, {**GOOD, "evaluation": "fast"},
        {**GOOD, "teacher": -1.0}, {**GOOD, "together": True},
    ],
)  # fmt: skip
def test_speeds_of_another_kind_are_refused(value, refuses):
    refuses(lambda: Speeds.from_json(value), "cannot be read")


def test_a_diverging_probe_says_so(small, refuses, monkeypatch):
    def fails(*_):
        raise TrainingError("The loss of 'baseline' became nan. Lower the learning rate.")

    monkeypatch.setattr("iekd.estimate.probe.engine_step_time", fails)
    refuses(lambda: probe(small(), 0.01), "learning rate")


def test_alone_is_one_learner(small):
    config = rounds.alone(small(methods=("baseline", "kd"), seeds=(5, 6)), "kd")
    assert config.learner_names == [("kd", 5)]


def test_noise_has_every_class(small):
    assert set(Subject(small(), 40).dataset.train.labels.tolist()) == set(range(10))


def test_features_of_an_untrained_teacher_do_not_grow_with_depth(small):
    """Else methods that compare them would diverge on noise."""
    subject = Subject(small(methods=("od",), teacher="resnet56", resolution=16), 16)
    parts = subject.parts()
    features = parts.teacher(next(parts.endless())[0]).features
    assert all(float(stage.abs().max()) < 100 for stage in features.stages)
