"""The results of a run: report.json for programs, report.md for people."""

from __future__ import annotations

import statistics
from typing import Any

from iekd.data.dataset import Dataset
from iekd.runs.files import write_json
from iekd.runs.store import Run, Status


def write_report(
    run: Run, status: Status, result: Any, dataset: Dataset, teacher: dict[str, str], speed: float,
    versions: dict[str, str],
) -> None:  # fmt: skip
    """Write both files.

    Args:
        result: an engine Result.
        teacher: "model", its architecture, and "from", where it came from; for runs that have one.
        speed: in multiply-accumulates per second.
    """
    config = run.config

    def judged(r: Any, **first: Any) -> dict[str, Any]:
        return {
            **first,
            "params": sum(p.numel() for p in r.network.model.parameters()),
            "class_accuracy": dict(zip(dataset.class_names, r.class_accuracy, strict=True)),
            **({} if r.agreement is None else {"agreement_with_teacher": r.agreement}),
        }

    report = {
        "run": run.id,
        "path": str(run.path),
        "state": "finished",
        "seconds": status.seconds,
        "teacher": judged(result.teacher, **teacher, accuracy=result.teacher.accuracy_last) if result.teacher else None,
        "learners": [
            judged(r, method=r.method, seed=r.seed, accuracy_last=r.accuracy_last, accuracy_best=r.accuracy_best)
            for r in result.learners
        ],
        "dataset": dataset.name,
        "train_images": len(dataset.train),
        "test_images": len(dataset.test),
        "skipped_files": list(dataset.skipped),
        "device": status.device,
        "command": config.command_line(),
        "versions": versions,
        "speed": speed,
    }
    write_json(run.path / "report.json", report)
    (run.path / "report.md").write_text(to_markdown(report))


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The part of a report that `iekd train --json` prints."""
    keys = ("run", "path", "state", "seconds", "teacher", "learners", "dataset", "device")
    short = {k: report[k] for k in keys}
    short["teacher"] = report["teacher"] and {k: report["teacher"][k] for k in ("model", "accuracy", "params")}
    kept = ("method", "seed", "accuracy_last", "accuracy_best", "params")
    short["learners"] = [{k: learner[k] for k in kept} for learner in report["learners"]]
    return short


def by_method(report: dict[str, Any]) -> dict[str, list[float]]:
    """Last-epoch accuracies per method, one per seed, in the order of training."""
    found: dict[str, list[float]] = {}
    for learner in report["learners"]:
        found.setdefault(learner["method"], []).append(learner["accuracy_last"])
    return found


def verdict(report: dict[str, Any]) -> str:
    """One honest sentence: which method won against the baseline, by how much, over how many seeds."""
    accuracies = by_method(report)
    baseline = accuracies.pop("baseline", None)
    if baseline is None or not accuracies:
        return ""
    name, best = max(accuracies.items(), key=lambda item: statistics.mean(item[1]))
    gain = statistics.mean(best) - statistics.mean(baseline)
    seeds = len(best)
    over = "with one seed, so chance may have a part in it" if seeds == 1 else f"on average over {seeds} seeds"
    if abs(gain) < 0.05:
        return f"{name} and the baseline are level, {over}."
    return f"{name} is {abs(gain):.1f} points {'above' if gain > 0 else 'below'} the baseline, {over}."


def to_markdown(report: dict[str, Any]) -> str:
    """A short page with the table of results."""
    lines = [f"# Run {report['run']}", "", f"    {report['command']}", ""]
    lines += [verdict(report), ""] if verdict(report) else []
    lines += ["| network | seed | parameters | accuracy, last epoch (%) | best epoch (%) |", "|---|---|---|---|---|"]
    if teacher := report["teacher"]:
        lines.append(f"| teacher {teacher['model']} | | {teacher['params']:,} | {teacher['accuracy']:.2f} | |")
    lines += [
        f"| {r['method']} | {r['seed']} | {r['params']:,} | {r['accuracy_last']:.2f} | {r['accuracy_best']:.2f} |"
        for r in report["learners"]
    ]
    data = f"{report['dataset']}: {report['train_images']:,} training and {report['test_images']:,} test images."
    if teacher and teacher.get("from"):  # reports of earlier versions do not say
        lines += ["", f"Teacher: {teacher['from']}."]
    lines += ["", f"{data} {report['seconds']:.0f} s on {report['device']}. {report['versions']}", ""]
    return "\n".join(lines)
