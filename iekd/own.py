"""`iekd.distill`: any teacher, any student and any DataLoaders from Python, in the loop that trains the runs.

Writes no files and starts no process. Leaves out: how modules are tapped (models/own.py), how batches are checked
(engine/loaders.py), and training (engine/).
"""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from iekd.config.methods import METHODS, MethodSettings, compared_networks, logits_only_methods, method_spec
from iekd.config.run import NO_TEACHER, RunConfig, make_config
from iekd.config.unused import unused_settings
from iekd.engine.accelerate import choose_device
from iekd.engine.events import Result
from iekd.engine.loaders import LoaderBatches, LoaderImages, first_batch
from iekd.engine.metrics import Metrics
from iekd.engine.own import BuiltStudent, LoaderDataset, OwnExperiment, without_pixels
from iekd.errors import UserError, unknown_name
from iekd.models.own import OwnNetwork, examine, released
from iekd.results.build import build_report
from iekd.results.report import spread, summaries, verdict
from iekd.runs.outcome import versions

log = logging.getLogger(__name__)

# the settings of a run that mean something here; the others are about its dataset, its named networks and its folder
SETTINGS = (
    "seeds", "epochs", "optimizer", "lr", "momentum", "nesterov", "weight_decay", "schedule", "milestones", "warm_up",
    "label_smoothing", "clip_norm", "ema",
    *(name for name in MethodSettings.model_fields if name != "peer"),
    "data_seed", "device", "threads", "precision", "graph", "stack", "compile", "eager",
)  # fmt: skip
OWN_SETTINGS = ("methods", "teacher_stages", "student_stages", "class_names", "on_metrics")


@dataclass(frozen=True)
class Distilled:
    """What `distill` gives.

    report: as a run's report.json, apart from what only runs have; accuracies are in percent on the test images.
    students: learner ("ie-ft-seed0") -> the plain module with its trained weights, in evaluation mode, on the device
        that it was trained on. A student that diverged is missing; report["diverged"] says why.
    """

    report: dict[str, Any]
    students: dict[str, nn.Module]

    def summary(self) -> str:
        """The conclusion, and a line for each method: mean and standard deviation of the accuracy over its seeds."""
        teacher = self.report["teacher"]
        lines = [f"{'teacher':<12} {teacher['accuracy']:.2f} %"] if teacher else []
        lines += [f"{found.method:<12} {spread(found.mean, found.sd)} %" for found in summaries(self.report)]
        return "\n".join([*filter(None, [verdict(self.report)]), *lines])


def distill(
    teacher: nn.Module | None, student: nn.Module | Callable[[], nn.Module], train_loader: Iterable[Any],
    test_loader: Iterable[Any], methods: Sequence[str] = ("baseline", "ie-ft"), *,
    teacher_stages: Sequence[str] | None = None, student_stages: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None, on_metrics: Callable[[Metrics], object] | None = None, **settings: Any,
) -> Distilled:  # fmt: skip
    """Distil your own teacher into your own student, once per method and seed, in lock-step on the same batches.

    Args:
        teacher: a trained classifier, images (B,C,H,W) -> logits (B,K), or Features. It works in evaluation mode,
            whatever mode it is in. None if no method needs one.
        student: an untrained or pretrained classifier of the same kind, or a function without arguments that builds
            one. Several seeds, and dml and ie-dml, need the function, which is called after torch.manual_seed(seed).
        train_loader: a torch DataLoader, or another iterable with a length, of (images (B,C,H,W) float and
            normalised, labels (B,) whole numbers from 0 to K-1). A DataLoader's last, smaller batch is left out. It is
            read once in every epoch, those of the auto-encoder too, and decides batch size, order and augmentation.
        test_loader: the same for the test images, in a fixed order (shuffle=False). Read once before training, once
            after each epoch and once at the end.
        methods: names as in `iekd train --methods`.
        teacher_stages, student_stages: names of the modules whose outputs are compared, first stage to last, as in
            `network.named_modules()`. By default they are found: the last block before each that makes the map
            smaller. Of no use where the network returns Features.
        class_names: K names for the report; by default "0", "1", ...
        on_metrics: called with each row of metrics (`iekd.engine.metrics.Metrics`) while it trains; what it raises
            ends the training.
        settings: of a run, by the same names and with the same defaults: seeds, epochs, optimizer, lr, momentum,
            nesterov, weight_decay, schedule, milestones, warm_up, label_smoothing, clip_norm, ema, all settings of
            methods, data_seed, device, threads, precision, graph, stack, compile and eager. See docs/methods.md.

    Returns:
        The report and the trained students. The modules that you gave are not changed, and neither is the state of
        torch's random numbers.

    Raises:
        UserError: a setting, a network or a batch cannot be used; the message says what to do.
        DivergedError: the loss of every student became infinite or NaN.

    Example:
        found = iekd.distill(teacher, SmallNet, train_loader, test_loader, seeds=(0, 1), epochs=30)
        print(found.summary())
        torch.save(found.students["ie-ft-seed0"].state_dict(), "student.pt")
    """
    started = time.monotonic()
    _check_names(settings)
    images, _ = first_batch(train_loader, "train_loader")
    config = make_config(
        methods=methods, batch_size=len(images), augmentation="none", validation_fraction=0.0, **settings
    )
    if teacher is None:
        config = _without_teacher(config)
    for name, what_for in unused_settings(config).items():
        if name in settings:
            log.warning("%s is set and has no effect: it is for %s.", name, what_for)
    _check_modules(teacher, student, config)
    device = choose_device(config.device)
    with torch.random.fork_rng([torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(config.seeds[0])
        found = examine(_built(student), images, "student", student_stages)
        taught_by = None if teacher is None else examine(teacher, images, "teacher", teacher_stages)
        frozen = None if teacher is None or taught_by is None else taught_by.wrapped(teacher).eval()
        _check_networks(config, found, taught_by, frozen)
        names = _names(class_names, found.classes)
        options = (found.classes, device, config.data_seed)
        batches = LoaderBatches(train_loader, tuple(images.shape), *options, "train_loader")
        test = LoaderImages(test_loader, tuple(images.shape[1:]), *options, "test_loader")
        dataset = LoaderDataset(
            "DataLoader", names,
            without_pixels(np.zeros(len(batches) * len(images), np.int64), batches.shape[1:]),
            without_pixels(test.labels.numpy(), batches.shape[1:]),
        )  # fmt: skip
        widths = () if taught_by is None else taught_by.widths
        made = BuiltStudent(lambda: _built(student), found)
        experiment = OwnExperiment(config, dataset, batches, test, made, frozen, widths)
        with contextlib.closing(experiment.events()) as events:
            for event in events:
                if isinstance(event, Metrics) and on_metrics is not None:
                    on_metrics(event)
        assert isinstance(event, Result)  # the last one
    seen = np.repeat(np.arange(found.classes), batches.counts)
    about = {
        "run": "iekd.distill", "path": "", "seconds": time.monotonic() - started, "device": str(device),
        "command": _call(teacher, student, config, settings), "versions": versions(), "speed": None,
        "config": config.model_dump(mode="json", include={"methods", "batch_size", *SETTINGS}),
    }  # fmt: skip
    of_teacher = {"model": type(teacher).__name__, "from": "the module given to iekd.distill"}
    trained_on = replace(dataset, train=without_pixels(seen, batches.shape[1:]))
    report = build_report(config, trained_on, event, of_teacher, about)
    # copies: seeds that were trained as one network share their memory
    students = {r.name: released(copy.deepcopy(r.network.model)) for r in event.learners}
    return Distilled(report, students)


def _check_names(settings: dict[str, Any]) -> None:
    for name in settings:
        if name in SETTINGS:
            continue
        if name in RunConfig.model_fields:
            raise UserError(
                f"Setting '{name}' is for runs and cannot be used here. Leave it out: your networks and loaders decide "
                "what images they get, and each student trains for all epochs.",
                name,
            )
        raise unknown_name("setting", name, [*OWN_SETTINGS, *SETTINGS])


def _without_teacher(config: RunConfig) -> RunConfig:
    if needs := [name for name in config.methods if method_spec(name).needs_teacher]:
        others = ", ".join(name for name, spec in METHODS.items() if not spec.needs_teacher)
        raise UserError(
            f"Method '{needs[0]}' needs a teacher, and teacher is None. Give one, or use only {others}.", "teacher"
        )
    return config.model_copy(update={"teacher": NO_TEACHER})


def _built(student: Any) -> nn.Module:
    built = student if isinstance(student, nn.Module) else student()
    if not isinstance(built, nn.Module):
        raise UserError(
            f"The student's function gives a {type(built).__name__}, not a torch.nn.Module. Let it return the network.",
            "student",
        )
    return built


def _check_modules(teacher: Any, student: Any, config: RunConfig) -> None:
    if not isinstance(teacher, (nn.Module, type(None))):
        what = "a class" if isinstance(teacher, type) else f"a {type(teacher).__name__}"
        raise UserError(f"The teacher is {what}, not a torch.nn.Module. Give the trained network itself.", "teacher")
    if not isinstance(student, nn.Module):
        if not callable(student):
            raise UserError(
                f"The student is a {type(student).__name__}. Give a torch.nn.Module, or a function that builds one.",
                "student",
            )
        return
    paired = [name for name in config.methods if method_spec(name).needs_peer]
    if len(config.seeds) > 1 or paired:
        why = f"method '{paired[0]}' trains two students" if paired else f"there are {len(config.seeds)} seeds"
        raise UserError(
            f"The student is a module, with weights already, but {why} from different initial weights. Give a function "
            "that builds it, such as its class.",
            "student",
        )


def _check_networks(
    config: RunConfig, student: OwnNetwork, teacher: OwnNetwork | None, frozen: nn.Module | None
) -> None:
    if teacher is not None and teacher.classes != student.classes:
        raise UserError(
            f"The teacher has {teacher.classes} classes and the student {student.classes}. Give two networks for the "
            "same classes.",
            "teacher",
        )
    for method in config.methods:
        spec = method_spec(method)
        found = {"student": student, "teacher": teacher, "peer": student}
        for role in compared_networks(method):
            network = found[role]
            assert network is not None  # the settings say that a teacher is there
            if not network.widths:
                raise UserError(
                    f"Method '{method}' looks at features, and the {role} gives no feature maps ({network.problem}). "
                    f"Name the modules that give them ({role}_stages), or use only methods that look at logits "
                    f"alone: {', '.join(logits_only_methods())}.",
                    role,
                )
            if spec.needs_margins and not network.before_activation:
                raise UserError(
                    f"Method '{method}' compares maps before the activation, which the {role} does not give. Let it "
                    "return iekd.Features with pre_activations, or choose another method.",
                    role,
                )
        if spec.needs_margins and getattr(frozen, "stage_norms", None) is None:
            raise UserError(
                f"Method '{method}' takes its margins from the teacher's stage_norms, one batch norm for each stage, "
                "and it has none. Add that property, or choose another method.",
                "teacher",
            )


def _names(names: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    if names is None:
        return tuple(map(str, range(classes)))
    if len(names) != classes or len(set(names)) != classes:
        raise UserError(
            f"The class_names are {len(names)} names, of which {len(set(names))} are different, but the networks have "
            f"{classes} classes. Name each class once, in the order of the labels.",
            "class_names",
        )
    return tuple(map(str, names))


def _call(teacher: nn.Module | None, student: Any, config: RunConfig, settings: dict[str, Any]) -> str:
    """The call as text, to be recognised in a report."""
    name = type(student).__name__ if isinstance(student, nn.Module) else getattr(student, "__name__", "student")
    words = [
        "None" if teacher is None else type(teacher).__name__, name, "train_loader", "test_loader",
        f"methods={config.methods!r}", *(f"{key}={value!r}" for key, value in settings.items()),
    ]  # fmt: skip
    return f"iekd.distill({', '.join(words)})"
