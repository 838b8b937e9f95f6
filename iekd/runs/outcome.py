"""What a run leaves: its models, and once it has finished report.json, report.md and answers.csv."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from typing import Any

from iekd import __version__
from iekd.config.run import RunConfig, learner_name
from iekd.data.base import Dataset
from iekd.models.artifact import ModelCard, save_model
from iekd.paths import PACKAGE
from iekd.results.build import build_report
from iekd.results.predictions import ANSWERS, write_answers
from iekd.results.report import to_markdown
from iekd.runs.files import write_json
from iekd.runs.status import Status
from iekd.runs.store import Run


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
        alone = result.teacher and not experiment.more_teachers  # else the result is of all teachers together
        accuracy = result.teacher.accuracy_last if alone else None
        card = model_card(
            experiment.teacher, teacher_model, config, dataset, role="teacher", accuracy=accuracy,
            energy_threshold=result.teacher.energy_threshold if alone else None,
        )  # fmt: skip
        save_model(folder / "teacher", experiment.teacher.model, card)
    for method, seed in config.learner_names:
        learner = experiment.students.get(learner_name(method, seed))
        if learner is not None and learner.steps and learner.healthy:
            network = experiment.network(learner)
            card = model_card(
                network, experiment.architecture("student"), config, dataset, method=method, seed=seed,
                accuracy=accuracies.get(learner.name, learner.test_accuracy),
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
    about = {
        "run": run.id, "path": str(run.path), "seconds": status.seconds, "device": status.device,
        "command": run.config.command_line(), "config": run.config.model_dump(mode="json"), "versions": versions(),
        "speed": speed,
    }  # fmt: skip
    report = build_report(run.config, dataset, result, teacher, about)
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
