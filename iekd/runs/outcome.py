"""What a run leaves: its models, and once it has finished report.json, report.md and answers.csv."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from typing import Any

import numpy as np

from iekd import __version__
from iekd.config.run import RunConfig, learner_name
from iekd.data.base import Dataset, Split
from iekd.engine.scoring import balanced_accuracy, is_right
from iekd.models.artifact import ModelCard, save_model
from iekd.paths import PACKAGE
from iekd.results.predictions import ANSWERS, write_answers
from iekd.results.reasons import find_reasons
from iekd.results.report import accuracies, guesses, to_markdown
from iekd.results.significance import each_over_images, summarise
from iekd.runs.files import write_json
from iekd.runs.store import Run, Status


def model_card(network: Any, model: str, config: RunConfig, dataset: Dataset, **values: Any) -> ModelCard:
    """The card of a network that a run trained or used.

    Args:
        network: an engine TrainedModel.
        model: its architecture.
        values: the fields of ModelCard that depend on its role.
    """
    return ModelCard(
        model=model, datasets=(dataset.name,), class_names=dataset.class_names, channels=dataset.channels,
        resolution=dataset.resolution, mean=network.mean, std=network.std, background=dataset.background,
        params=sum(p.numel() for p in network.model.parameters()), command=config.command_line(),
        fit=dataset.fit, white=dataset.white, **values,
    )  # fmt: skip


def save_models(run: Run, experiment: Any, result: Any, teacher_model: str) -> None:
    """Write teacher and students to `models/`; students that diverged or have not taken a step are left out.

    Args:
        experiment: an engine Experiment.
        result: an engine Result, for the accuracies; a student that is not in it has that of its last epoch.
        teacher_model: the architecture of the teacher.
    """
    config, dataset, folder = experiment.config, experiment.dataset, run.path / "models"
    accuracies = {r.name: r.accuracy_last for r in result.learners}
    thresholds = {r.name: r.energy_threshold for r in result.learners}
    if experiment.teacher is not None:
        accuracy = result.teacher.accuracy_last if result.teacher else None
        card = model_card(
            experiment.teacher, teacher_model, config, dataset, role="teacher", accuracy=accuracy,
            energy_threshold=result.teacher.energy_threshold if result.teacher else None,
        )  # fmt: skip
        save_model(folder / "teacher", experiment.teacher.model, card)
    for method, seed in config.learner_names:
        learner = experiment.students.get(learner_name(method, seed))
        if learner is not None and learner.steps and learner.healthy:
            network = experiment.network(learner)
            card = model_card(
                network, config.student, config, dataset, method=method, seed=seed,
                accuracy=accuracies.get(learner.name, learner.accuracy.get("test")),
                inheritance_channels=learner.method.inheritance_channels,
                energy_threshold=thresholds.get(learner.name),
            )  # fmt: skip
            save_model(folder / learner.name, network.model, card)


def write_report(
    run: Run, status: Status, result: Any, dataset: Dataset, teacher: dict[str, str], speed: float | None
) -> None:
    """Write the three files of a finished run; report.json last, because readers take it for a sign that all is there.

    Args:
        result: an engine Result.
        teacher: "model", its architecture, and "from", where it came from; for runs that have one.
        speed: in multiply-accumulates per second; None where it is not known.
    """
    config = run.config

    def scored(r: Any, **first: Any) -> dict[str, Any]:
        return {
            **first,
            "params": sum(p.numel() for p in r.network.model.parameters()),
            "balanced_accuracy": balanced_accuracy(r.class_accuracy),
            "class_accuracy": dict(zip(dataset.class_names, r.class_accuracy, strict=True)),
            **({} if r.agreement is None else {"agreement_with_teacher": r.agreement}),
            **({} if r.peer_accuracy is None else {"peer_accuracy": r.peer_accuracy}),
        }

    def counts(split: Split) -> dict[str, int]:
        found = np.bincount(split.labels, minlength=len(dataset.class_names)).tolist()
        return dict(zip(dataset.class_names, found, strict=True))

    report = {
        "run": run.id,
        "path": str(run.path),
        "state": "finished",
        "seconds": status.seconds,
        "teacher": scored(result.teacher, **teacher, accuracy=result.teacher.accuracy_last) if result.teacher else None,
        "learners": [
            scored(
                r,
                method=r.method,
                seed=r.seed,
                accuracy_last=r.accuracy_last,
                accuracy_best=r.accuracy_best,
                best_epoch=r.best_epoch,
            )
            for r in result.learners
        ],
        "diverged": {gone.learner: gone.message for gone in result.diverged},
        "best_chosen_by": "validation" if dataset.validation else "test",
        "dataset": dataset.name,
        "dataset_mark": dataset.fingerprint,
        "train_images": len(dataset.train),
        "validation_images": len(dataset.validation or ()),
        "test_images": len(dataset.test),
        "class_counts": {"train": counts(dataset.train), "test": counts(dataset.test)},
        "guess": 100 * float(np.bincount(dataset.test.labels).max()) / len(dataset.test),
        "skipped_files": list(dataset.skipped),
        "data_notes": list(dataset.notes),
        "device": status.device,
        "command": config.command_line(),
        "config": config.model_dump(mode="json"),
        "versions": versions(),
        "speed": speed,
    }
    right: dict[str, dict[int, np.ndarray]] = {}
    for r in result.learners:
        right.setdefault(r.method, {})[r.seed] = is_right(r.answers.numpy(), dataset.test.labels)
    report["summary"] = [found.to_json() for found in summarise(accuracies(report), images=each_over_images(right))]
    networks = [result.teacher, *result.learners] if result.teacher else result.learners
    report["reasons"] = find_reasons(
        config, dataset, {r.name: r.answers.numpy() for r in result.learners},
        any(guesses(report, r.accuracy_last) for r in networks),
    )  # fmt: skip
    write_answers(run.path / ANSWERS, result, dataset)
    (run.path / "report.md").write_text(to_markdown(report), "utf-8")
    write_json(run.path / "report.json", report)


def versions() -> dict[str, str]:
    """What a result depends on beside its configuration."""
    import torch

    names = ("torchvision", "numpy")
    return {
        "iekd": __version__, "commit": commit(), "python": platform.python_version(), "torch": torch.__version__,
        **{name: metadata.version(name) for name in names}, "platform": platform.platform(),
    }  # fmt: skip


def commit() -> str:
    """The checkout's commit, with "+" where files differ from it; empty for an installed package."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, check=True).stdout

    try:
        if not git("ls-files", "errors.py"):
            return ""
        return git("rev-parse", "HEAD").strip() + ("+" if git("status", "--porcelain", "-uno").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
