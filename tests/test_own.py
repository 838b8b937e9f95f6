"""iekd.distill: plain modules and DataLoaders in the engine's loop, and what it says to bad input."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import iekd
from iekd.engine.batches import to_device
from iekd.engine.events import TrainedModel
from iekd.engine.experiment import Experiment
from iekd.errors import DataError, DivergedError
from iekd.models.normalise import Normalise
from iekd.models.own import OwnNetwork, examine
from iekd.models.registry import build
from iekd.models.taps import Taps
from iekd.results.report import to_markdown

QUICK = {"epochs": 1, "auto_encoder_epochs": 1, "device": "cpu", "precision": "fp32", "threads": 1, "lr": 0.05}


class Plain(nn.Module):
    """A network as people write them: logits only, and one ReLU for all places."""

    def __init__(self, classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width)
        self.relu, self.dropout, self.fc = nn.ReLU(), nn.Dropout(0.1), nn.Linear(2 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        first = self.relu(self.bn1(self.conv1(images)))
        last = self.relu(self.bn2(self.conv2(first)))
        return self.fc(self.dropout(last.mean((2, 3))))


class Flat(nn.Sequential):
    """No feature maps at all."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.ReLU(), nn.Linear(8, classes))


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def tensors(split) -> TensorDataset:
    images, labels = to_device(split, torch.device("cpu"))
    return TensorDataset((images.float() / 255 - 0.5) / 0.25, labels)


@pytest.fixture(scope="module")
def loaders(tiny) -> tuple[DataLoader, DataLoader]:
    """Three batches of 28 with 12 images left over, and 60 test images by 25."""
    return DataLoader(tensors(tiny.train), 28, shuffle=True), DataLoader(tensors(tiny.test), 25)


@pytest.fixture(scope="module")
def teacher() -> Plain:
    torch.manual_seed(7)
    return Plain(width=8)


@pytest.fixture(scope="module")
def distilled(teacher, loaders):
    """Two methods and two seeds; with what was there before and the rows that came."""
    before, rows, random = weights(teacher), [], torch.get_rng_state()
    teacher.train()
    found = iekd.distill(
        teacher, Plain, *loaders, seeds=(0, 1), class_names=("blue", "green", "red"), on_metrics=rows.append,
        **{**QUICK, "epochs": 2},
    )  # fmt: skip
    assert same(weights(teacher), before)
    assert teacher.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in teacher.modules())
    assert torch.equal(torch.get_rng_state(), random)
    return found, rows


def test_the_students_are_plain_modules_with_the_reported_accuracy(distilled, loaders):
    found, _ = distilled
    assert list(found.students) == ["baseline-seed0", "ie-ft-seed0", "baseline-seed1", "ie-ft-seed1"]
    images, labels = loaders[1].dataset.tensors
    for learner in found.report["learners"]:
        student = found.students[f"{learner['method']}-seed{learner['seed']}"]
        assert type(student) is Plain
        assert not student.training
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in student.modules())
        with torch.no_grad():
            right = (student(images).argmax(1) == labels).double().mean().item()
        assert learner["accuracy_last"] == pytest.approx(100 * right)
    values = [weights(student)["conv1.weight"] for student in found.students.values()]
    assert all(not torch.equal(a, b) for i, a in enumerate(values) for b in values[:i])


def test_the_report_is_that_of_a_run(distilled):
    report = json.loads(json.dumps(distilled[0].report))
    assert report["train_images"] == 84  # the smaller fourth batch is left out
    assert sum(report["class_counts"]["train"].values()) == 84
    assert report["test_images"] == 60
    assert report["teacher"]["model"] == "Plain"
    assert set(report["learners"][0]["class_accuracy"]) == {"blue", "green", "red"}
    assert report["config"]["batch_size"] == 28
    assert "dataset" not in report["config"]  # a stand-in's name
    assert report["command"].startswith("iekd.distill(Plain, Plain, train_loader, test_loader, methods=")
    assert [s["method"] for s in report["summary"]] == ["baseline", "ie-ft"]
    assert "| ie-ft | 1 |" in to_markdown(report)


def test_the_summary_has_a_line_for_each_network(distilled):
    lines = distilled[0].summary().splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["teacher", "baseline", "ie-ft"]
    assert "±" in lines[-1]


def test_rows_come_while_it_trains(distilled):
    rows = distilled[1]
    assert {"inheritance", "exploration"} <= set(
        next(r for r in rows if r.learner == "ie-ft-seed0" and r.kind == "train").values
    )
    tested = [r for r in rows if r.kind == "test" and r.learner == "baseline-seed0"]
    assert [r.epoch for r in tested] == [1, 2]
    assert rows[0].stage == "auto-encoder"


def test_an_error_of_on_metrics_ends_the_training(teacher, loaders):
    def stop(row):
        raise KeyError(row.learner)

    with pytest.raises(KeyError, match="baseline-seed0"):
        iekd.distill(None, Plain, *loaders, "baseline", on_metrics=stop, **QUICK)


class InOrderOfARun:
    """Normalised batches in the order in which a run draws them from torch's random numbers."""

    def __init__(self, images: Tensor, labels: Tensor, size: int) -> None:
        self.images, self.labels, self.size = images, labels, size

    def __len__(self) -> int:
        return len(self.labels) // self.size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.labels))[: len(self) * self.size]
        return iter([(self.images[rows], self.labels[rows]) for rows in torch.split(order, self.size)])


def test_it_trains_bit_for_bit_as_a_run_does(tiny, tiny_config):
    """The same batches through Experiment, as an array of whole numbers, and through loaders of normalised ones."""
    values = {"methods": ("ie-ft", "dml"), "seeds": (1,), "epochs": 2, "threads": 1, "precision": "fp32"}
    torch.manual_seed(3)
    network = build("resnet8", 3).eval()
    config = tiny_config(**values, augmentation="none", validation_fraction=0.0)
    experiment = Experiment(config, tiny, TrainedModel(network, *tiny.statistics))
    *_, result = experiment.events()
    cpu, normalise = torch.device("cpu"), Normalise(*tiny.statistics)
    (images, labels), (test_images, test_labels) = to_device(tiny.train, cpu), to_device(tiny.test, cpu)
    train_loader = InOrderOfARun(normalise(images), labels, config.batch_size)
    test_loader = DataLoader(TensorDataset(normalise(test_images), test_labels), 7)
    settings = {name: getattr(config, name) for name in ("lr", "auto_encoder_epochs", "device", "schedule")}
    found = iekd.distill(network, lambda: build("resnet8", 3), train_loader, test_loader, **values, **settings)
    for r in result.learners:
        assert same(weights(found.students[r.name]), weights(r.network.model)), r.name
    ours = [learner["accuracy_last"] for learner in found.report["learners"]]
    assert ours == [r.accuracy_last for r in result.learners]


def test_a_repeated_call_gives_the_same_and_a_module_starts_from_its_weights(loaders):
    """Whatever was drawn from torch's random numbers in between; workers or not."""
    torch.manual_seed(1)
    student = Plain()
    before, options = weights(student), {**QUICK, "lr": 1e-9, "momentum": 0.0, "nesterov": False}
    found = []
    for _ in range(2):
        torch.randn(5)
        found.append(iekd.distill(None, student, *loaders, "baseline", **options).students["baseline-seed0"])
    assert same(weights(found[0]), weights(found[1]))
    torch.testing.assert_close(found[0].fc.weight, before["fc.weight"])
    assert same(weights(student), before)


def test_dropout_in_several_students_is_repeatable_without_threads(loaders):
    found = [iekd.distill(None, Plain, *loaders, "baseline,dml", eager=True, **QUICK).students for _ in range(2)]
    assert all(same(weights(found[0][name]), weights(found[1][name])) for name in ("baseline-seed0", "dml-seed0"))


def test_methods_of_answers_work_without_maps_and_others_say_which_do(loaders, refuses):
    found = iekd.distill(Flat(), Flat, *loaders, ("kd", "dist"), **QUICK)
    assert type(found.students["kd-seed0"]) is Flat
    refuses(lambda: iekd.distill(Flat(), Plain, *loaders, "ie-ft", **QUICK), "ie-ft", "teacher", "kd, dml, dkd, dist")
    refuses(lambda: iekd.distill(Plain(), Flat, *loaders, "rkd", **QUICK), "rkd", "student_stages")


@pytest.mark.parametrize("method", ["od", "at"])
def test_networks_that_give_features_need_no_taps(method, loaders):
    found = iekd.distill(build("resnet8", 3), lambda: build("resnet8", 3), *loaders, method, **QUICK)
    assert found.report["learners"][0]["method"] == method


def test_stages_can_be_named(loaders, refuses):
    stages = {"teacher_stages": ("bn1", "bn2"), "student_stages": ["bn2"]}
    found = iekd.distill(Plain(width=8), Plain, *loaders, "at", **stages, **QUICK)
    assert list(found.students) == ["at-seed0"]
    refuses(lambda: iekd.distill(Plain(), Plain, *loaders, teacher_stages=("bn3",), **QUICK), "bn3", "bn1, bn2")
    refuses(lambda: iekd.distill(Plain(), Plain, *loaders, student_stages=("fc",), **QUICK), "student_stages fc")
    own = build("resnet8", 3)
    refuses(lambda: iekd.distill(own, Plain, *loaders, teacher_stages=("x",), **QUICK), "Features", "teacher_stages")


def test_a_module_that_is_used_twice_is_no_stage():
    """Tapped, the only ReLU would give its last map for every stage."""
    found = examine(Plain(), torch.zeros(2, 3, 16, 16), "student")
    assert found == OwnNetwork(Taps(("bn1", "bn2"), "fc"), 3, (4, 8), False)
    maps = found.wrapped(Plain())(torch.zeros(2, 3, 16, 16)).stages
    assert [tuple(stage.shape) for stage in maps] == [(2, 4, 8, 8), (2, 8, 4, 4)]


def test_images_that_are_not_square_have_no_maps_of_their_own():
    found = examine(Plain(), torch.zeros(2, 3, 16, 24), "student")
    assert found.widths == ()
    assert "16 x 24" in found.problem
    assert examine(Plain(), torch.zeros(2, 3, 16, 24), "student", ("bn2",)).widths == (8,)


def of(images: Tensor, labels: Tensor, size: int = 8) -> DataLoader:
    return DataLoader(TensorDataset(images, labels), size)


GOOD = of(torch.randn(16, 3, 16, 16), torch.arange(16) % 3)


class Changing(Dataset):
    """Other labels each time it is read."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return 16

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return torch.zeros(3, 16, 16), int(self.rng.integers(3))


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(3, 16, 16), 0


class Counted(Endless):
    """As many streamed formats are: a length, and no access by number."""

    def __len__(self) -> int:
        return 20

    def __iter__(self):
        return ((torch.full((3, 16, 16), i / 20), i % 3) for i in range(20))


class TooShort(list):
    """It promises more batches than it gives."""

    def __len__(self) -> int:
        return 5


IMAGES, LABELS = torch.zeros(16, 3, 16, 16), torch.zeros(16, dtype=torch.long)


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        ([], GOOD, ["train_loader", "no batch"]),
        (DataLoader(TensorDataset(IMAGES, LABELS), 32, drop_last=True), GOOD, ["train_loader", "drop_last"]),
        (GOOD, [], ["test_loader", "no batch"]),
        (of(IMAGES, LABELS + 3), GOOD, ["train_loader", "label 3", "0 to 2"]),
        (GOOD, of(IMAGES, LABELS - 1), ["test_loader", "label -1", "0 to 2"]),
        (DataLoader(IMAGES, 8), GOOD, ["train_loader", "is a Tensor", "(images, labels)"]),
        ([{"image": IMAGES, "label": LABELS}], GOOD, ["dict", "collate_fn"]),
        ([(IMAGES, LABELS, LABELS)], GOOD, ["tuple of Tensor, Tensor, Tensor"]),
        ([(IMAGES.byte(), LABELS)], GOOD, ["uint8", "normalised"]),
        ([(IMAGES, LABELS.float())], GOOD, ["float32", "whole numbers"]),
        ([(IMAGES, LABELS[:4])], GOOD, ["(4,)", "(16,)"]),
        ([(IMAGES, LABELS), (IMAGES[:4], LABELS[:4])], GOOD, ["Batch 2", "4 images", "16", "drop_last"]),
        ([(IMAGES, LABELS), (IMAGES[..., :8], LABELS)], GOOD, ["Batch 2", "(3, 16, 8)"]),
        (TooShort([(IMAGES, LABELS)]), GOOD, ["promises 5"]),
        (DataLoader(Endless(), 8), GOOD, ["no length", "__len__"]),
        (GOOD, DataLoader(Changing(), 8), ["test_loader", "shuffle=False"]),
        (7, GOOD, ["int", "DataLoader"]),
        (of(IMAGES, LABELS, 1), GOOD, ["Batch size", "2 or more"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and value and isinstance(value[0], str) else "",
)  # fmt: skip
def test_bad_loaders_are_refused_in_a_sentence(train, test, words, refuses):
    refuses(lambda: iekd.distill(None, Plain, train, test, "baseline", **QUICK), *words)


def test_a_stream_with_a_length_is_trained_on():
    found = iekd.distill(None, Plain, DataLoader(Counted(), 8), GOOD, "baseline", **QUICK)
    assert found.report


def test_a_shuffled_test_loader_that_repeats_its_order_is_fine(tiny):
    """Its order comes from torch's random numbers, which are its own here."""
    train, test = of(IMAGES, LABELS), DataLoader(tensors(tiny.test), 25, shuffle=True)
    assert iekd.distill(None, Plain, train, test, "baseline", **QUICK).report["test_images"] == 60
    other = DataLoader(tensors(tiny.test), 25, shuffle=True, generator=torch.Generator())
    with pytest.raises(DataError, match="shuffle=False"):
        iekd.distill(None, Plain, train, other, "baseline", **QUICK)


class Uncopyable(Plain):
    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle a lock")


class Dictionary(Plain):
    def forward(self, images):
        return {"logits": super().forward(images)}


class TwoHeads(Plain):
    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


@pytest.mark.parametrize(
    ("teacher", "student", "options", "words"),
    [
        (Plain(5), Plain, {}, ["5 classes", "3"]),
        (None, Plain, {}, ["ie-ft", "teacher is None", "baseline, dml, ie-dml"]),
        (Plain, Plain, {}, ["teacher is a class", "trained network itself"]),
        (Plain(), "resnet8", {}, ["str", "torch.nn.Module"]),
        (Plain(), lambda: "resnet8", {}, ["function gives a str"]),
        (Plain(), Plain(), {"seeds": (0, 1)}, ["2 seeds", "function"]),
        (Plain(), Plain(), {"methods": "dml"}, ["dml", "function"]),
        (Plain(), Plain, {"methods": ("od",)}, ["od", "pre_activations"]),
        (Plain(), Plain, {"methods": ("ie-fft",)}, ["ie-fft", "ie-ft"]),
        (Plain(), Plain, {"epoch": 3}, ["epoch", "'epochs'"]),
        (Plain(), Plain, {"batch_size": 3}, ["batch_size", "loaders"]),
        (Plain(), Plain, {"peer": "resnet8"}, ["peer"]),
        (Plain(), Plain, {"epochs": 0}, ["Epochs", "1 or more"]),
        (Plain(), Plain, {"class_names": ("a", "b")}, ["class_names", "3 classes"]),
        (Plain(), Plain, {"class_names": ("a", "b", "b")}, ["class_names", "3 classes"]),
        (Dictionary(), Plain, {}, ["teacher returns a dict", "logits"]),
        (Plain(), TwoHeads, {}, ["student returns a tuple while it is trained", "aux_logits=False"]),
        (nn.Conv2d(3, 3, 3), Plain, {}, ["teacher", "(2, 3, 14, 14)"]),
        (nn.Linear(4, 4), Plain, {}, ["teacher cannot be run on images of 3 x 16 x 16"]),
        (Uncopyable(), Plain, {}, ["Uncopyable", "cannot be copied"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_networks_and_settings_are_refused_in_a_sentence(teacher, student, options, words, refuses):
    refuses(lambda: iekd.distill(teacher, student, GOOD, GOOD, **{**QUICK, **options}), *words)


def test_images_that_are_not_numbers_end_the_training():
    with pytest.raises(DivergedError, match="baseline-seed0"):
        iekd.distill(None, Plain, of(IMAGES / 0, LABELS), GOOD, "baseline", **QUICK)


def test_a_student_that_diverges_is_left_out(loaders):
    def student() -> Plain:
        network = Plain()
        if torch.initial_seed() == 1:
            nn.init.constant_(network.fc.bias, float("nan"))
        return network

    found = iekd.distill(None, student, *loaders, "baseline", seeds=(0, 1), **QUICK)
    assert list(found.students) == ["baseline-seed0"]
    assert set(found.report["diverged"]) == {"baseline-seed1"}
    assert "baseline-seed1 diverged" in found.summary()


def test_a_setting_without_effect_is_named(loaders, caplog):
    iekd.distill(None, Plain, *loaders, "baseline", temperature=2.0, **QUICK)
    assert "temperature is set and has no effect" in caplog.text


def test_the_package_of_that_name_is_the_function():
    import iekd.distill.method

    assert iekd.distill.method.BUILDERS
    assert callable(iekd.distill)
