"""What a finished run writes: report.json for programs, report.md for people, answers.csv for both."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from typing import Any

import numpy as np

from iekd import __version__
from iekd.data.base import Dataset, Split
from iekd.engine.scoring import balanced_accuracy, is_right
from iekd.paths import PACKAGE
from iekd.results.predictions import ANSWERS, write_answers
from iekd.results.reasons import find_reasons
from iekd.results.report import accuracies, guesses, to_markdown
from iekd.results.significance import each_over_images, summarise
from iekd.runs.files import write_json
from iekd.runs.store import Run, Status


def write_report(
    run: Run, status: Status, result: Any, dataset: Dataset, teacher: dict[str, str], speed: float | None
) -> None:
    """Write all three; report.json last, for it says that the run has a result.

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
    here = PACKAGE

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=True).stdout

    try:
        tracked = git("ls-files", "errors.py")
        return (
            git("rev-parse", "HEAD").strip() + ("+" if git("status", "--porcelain", "-uno").strip() else "")
            if tracked
            else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
