"""The report of a finished training, as it is stored in report.json, from the engine's result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from iekd.config.run import RunConfig
from iekd.data.base import Dataset, Split
from iekd.engine.scoring import balanced_accuracy, is_right
from iekd.results.reasons import find_reasons
from iekd.results.report import accuracies, guesses
from iekd.results.significance import each_over_images, summarise


def build_report(
    config: RunConfig, dataset: Dataset, result: Any, teacher: Mapping[str, str], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that is known of a training that has finished.

    Args:
        config: as it was trained.
        dataset: as it was trained on.
        result: an engine Result.
        teacher: "model", its architecture, and "from", where it came from; for trainings that have one.
        about: "run", "path", "seconds", "device", "command", "config", "versions" and "speed".
    """

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
        "run": about["run"],
        "path": about["path"],
        "state": "finished",
        "seconds": about["seconds"],
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
        "device": about["device"],
        "command": about["command"],
        "config": about["config"],
        "versions": about["versions"],
        "speed": about["speed"],
    }
    right: dict[str, dict[int, np.ndarray]] = {}
    for r in result.learners:
        right.setdefault(r.method, {})[r.seed] = is_right(r.predictions.numpy(), dataset.test.labels)
    report["summary"] = [found.to_json() for found in summarise(accuracies(report), images=each_over_images(right))]
    networks = [result.teacher, *result.learners] if result.teacher else result.learners
    report["reasons"] = find_reasons(
        config, dataset, {r.name: r.predictions.numpy() for r in result.learners},
        any(guesses(report, r.accuracy_last) for r in networks),
    )  # fmt: skip
    return report
