"""The table of a grid of runs: Markdown, LaTeX, CSV and JSON. Leaves out: how the runs are made (runs/grid.py).

CSV is the standard library's. LaTeX is written here: bold and stars are most of it, and pandas (with Jinja for
its LaTeX) would take them as finished texts.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iekd.config.run import NO_TEACHER, RunConfig
from iekd.plural import counted
from iekd.results.predictions import Right, right_of
from iekd.results.report import left_out, spread
from iekd.results.significance import Summary, each_over_images, summarise

if TYPE_CHECKING:
    import numpy as np

Pair = tuple[str, str]  # teacher, student
MISSING = "missing"  # the state of a cell that was not trained


@dataclass(frozen=True)
class Cell:
    """A run of the grid and its outcome: the report, or None with the state it ended in."""

    config: RunConfig
    run: str
    report: dict[str, Any] | None
    state: str
    reused: bool
    answers: Right | None = field(default=None, compare=False)  # of its test images; None if unknown


@dataclass(frozen=True)
class Column:
    """One pair: its teacher's accuracy (percent, None without a teacher) and its methods over all seeds."""

    teacher: str
    student: str
    teacher_accuracy: float | None
    methods: list[Summary]

    @property
    def title(self) -> str:
        return self.student if self.teacher == NO_TEACHER else f"{self.teacher} -> {self.student}"


def columns(done: Sequence[Cell]) -> list[Column]:
    """The finished cells by pair, in the order of the grid."""
    by_pair: dict[Pair, list[Cell]] = {}
    for cell in done:
        if cell.report:
            by_pair.setdefault((cell.config.teacher, cell.config.student), []).append(cell)
    found = []
    for (teacher, student), own in by_pair.items():
        accuracies: dict[str, dict[int, float]] = {}
        taught = None
        for cell in own:
            assert cell.report is not None
            taught = cell.report["teacher"]["accuracy"] if cell.report["teacher"] else taught
            for learner in cell.report["learners"]:
                accuracies.setdefault(learner["method"], {})[learner["seed"]] = learner["accuracy_last"]
        images = each_over_images(_right(own))
        found.append(Column(teacher, student, taught, summarise(accuracies, images=images)))
    return found


def _right(cells: Sequence[Cell]) -> dict[str, dict[int, np.ndarray]]:
    """Method -> seed -> which test images are right.

    Empty unless all runs were tested on the same images and their answers.csv agree with their reports.
    """
    right: dict[str, dict[int, np.ndarray]] = {}
    known = [cell.answers for cell in cells if cell.answers is not None]
    if len(known) < len(cells) or any(answers.images != known[0].images for answers in known):
        return {}
    for cell, answers in zip(cells, known, strict=True):
        assert cell.report is not None
        found = right_of(cell.report, answers)
        if found is None:
            return {}
        for method, by_seed in found.items():
            right.setdefault(method, {}).update(by_seed)
    return right


def _grid(table: Sequence[Column]) -> tuple[list[str], dict[str, list[Summary | None]]]:
    """Methods in order, and for each its summary per column."""
    methods = list(dict.fromkeys(s.method for column in table for s in column.methods))
    by_column = [{s.method: s for s in column.methods} for column in table]
    return methods, {method: [found.get(method) for found in by_column] for method in methods}


EXPLANATION = (
    "Accuracy (%) on the test images after the last epoch, mean ± standard deviation over seeds. In brackets the "
    "difference to the baseline in points, with its 95 % interval over seeds; * marks p < 0.05 in a paired t-test over "
    "seeds, corrected for the number of methods in its column (Holm). Where that cannot be had, as with one seed, the "
    "interval is over images: what other test images like these could make of the difference, while other seeds may "
    "change more. table.json has both, where it is known which answers were right."
)


def _difference(found: Summary) -> str:
    difference = found.difference
    if difference is None:
        return ""
    interval, tested = "", difference.over_images
    if difference.low is not None:
        interval = f"; {difference.low:+.2f} to {difference.high:+.2f}"
    elif tested is not None:
        interval = f"; {tested.low:+.2f} to {tested.high:+.2f} over images"
    return f" ({difference.mean:+.2f}{interval}){'*' if difference.significant else ''}"


def to_markdown(done: Sequence[Cell], config: RunConfig) -> str:
    """Methods down, pairs across."""
    table = columns(done)
    methods, grid = _grid(table)
    lines = [f"| {config.dataset} | {' | '.join(column.title for column in table)} |", "|---" * (len(table) + 1) + "|"]
    if any(column.teacher_accuracy is not None for column in table):
        taught = ["" if c.teacher_accuracy is None else f"{c.teacher_accuracy:.2f}" for c in table]
        lines.append(f"| teacher | {' | '.join(taught)} |")
    for method in methods:
        texts = ["" if s is None else spread(s.mean, s.sd) + _difference(s) for s in grid[method]]
        lines.append(f"| {method} | {' | '.join(texts)} |")
    return "\n".join([*lines, "", EXPLANATION, f"{_circumstances(config, done)}.", ""])


def _circumstances(config: RunConfig, done: Sequence[Cell]) -> str:
    """Which seeds the numbers come from, and what is missing."""
    seeds = sorted({learner["seed"] for cell in done if cell.report for learner in cell.report["learners"]})
    words = [f"Seeds {', '.join(map(str, seeds))}", counted(config.epochs, "epoch")]
    if missing := sorted({seed for cell in done if not cell.report for seed in cell.config.seeds}):
        words.append(f"not all runs have finished (seeds {', '.join(map(str, missing))})")
    words += [f"in run {cell.run} {said[:-1]}" for cell in done if cell.report and (said := left_out(cell.report))]
    return "; ".join(words)


def to_latex(done: Sequence[Cell], config: RunConfig) -> str:
    """A tabular for the package booktabs; the best of each column in bold."""
    table = columns(done)
    methods, grid = _grid(table)
    best = [max((s.mean for s in column.methods), default=0.0) for column in table]
    lines = [
        f"% {config.dataset}. {_circumstances(config, done)}",
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * len(table)}}}",
        "\\toprule",
        " & ".join(["", *(_tex(column.title).replace("->", "$\\rightarrow$") for column in table)]) + r" \\",
        "\\midrule",
    ]
    if any(column.teacher_accuracy is not None for column in table):
        taught = ["" if c.teacher_accuracy is None else f"{c.teacher_accuracy:.2f}" for c in table]
        lines.append(" & ".join(["teacher", *taught]) + r" \\")
    for method in methods:
        texts = []
        for found, top in zip(grid[method], best, strict=True):
            text = "" if found is None else f"{found.mean:.2f}"
            text = f"\\textbf{{{text}}}" if found is not None and found.mean >= top - 1e-9 else text
            if found is not None and found.sd is not None:
                text += f" $\\pm$ {found.sd:.2f}"
            texts.append(text + ("$^*$" if found and found.difference and found.difference.significant else ""))
        lines.append(" & ".join([_tex(method), *texts]) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _tex(text: str) -> str:
    return "".join(f"\\{c}" if c in "&%$#_{}" else c for c in text)


def to_csv(done: Sequence[Cell]) -> str:
    """One line per student: everything that the table is made from."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["dataset", "teacher", "teacher_accuracy", "student", "method", "seed", "params", "accuracy_last",
         "accuracy_best", "best_epoch", "run", "balanced_accuracy"]
    )  # fmt: skip
    for cell in done:
        for r in (cell.report or {}).get("learners", ()):
            assert cell.report is not None
            taught = round(cell.report["teacher"]["accuracy"], 4) if cell.report["teacher"] else ""
            writer.writerow(
                [cell.config.dataset, cell.config.teacher, taught, cell.config.student, r["method"], r["seed"],
                 r["params"], round(r["accuracy_last"], 4), round(r["accuracy_best"], 4), r.get("best_epoch", ""),
                 cell.run, round(r["balanced_accuracy"], 4) if "balanced_accuracy" in r else ""]
            )  # fmt: skip
    return out.getvalue()


def to_json(done: Sequence[Cell]) -> dict[str, Any]:
    """The table for programs: a row per pair and method, and the runs behind it."""
    rows = [
        {
            "teacher": column.teacher,
            "student": column.student,
            "teacher_accuracy": column.teacher_accuracy,
            **found.to_json(),
        }
        for column in columns(done)
        for found in column.methods
    ]
    runs = [{"run": cell.run, "state": cell.state, "reused": cell.reused} for cell in done]
    return {"rows": rows, "runs": runs}
