"""The numbers of a run that has no result yet, from its curves. No Gradio."""

from __future__ import annotations

from dataclasses import dataclass

from iekd.config.run import RunConfig, learner_name
from iekd.results.significance import Summary, summarise
from iekd.runs.status import Status
from iekd.runs.store import Run
from iekd.ui.render.curves import read_curves, teacher_accuracy


@dataclass(frozen=True)
class SoFar:
    """epoch: the last one that all students have reached. summaries: of each method there. teacher: its accuracy in
    percent, None while it is not known."""

    epoch: float
    summaries: list[Summary]
    teacher: float | None


def so_far(run: Run, config: RunConfig, status: Status) -> SoFar:
    """What is known of a run now; no summaries before its students have been tested."""
    curves, lines = read_curves(run), {}
    for method, seed in config.learner_names:
        line = curves.line(learner_name(method, seed), "test", "accuracy")
        if line and learner_name(method, seed) not in status.diverged:
            lines[method, seed] = line
    epoch = min((line[-1][0] for line in lines.values()), default=0.0)
    accuracies: dict[str, dict[int, float]] = {}
    for (method, seed), line in lines.items():
        known = [y for x, y in line if x <= epoch]
        accuracies.setdefault(method, {})[seed] = known[-1] if known else line[0][1]
    return SoFar(epoch, summarise(accuracies), teacher_accuracy(run, config, curves))
