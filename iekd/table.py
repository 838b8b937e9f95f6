"""A grid of runs, pairs of networks by methods and seeds, and the table that comes of it.

Each cell is an ordinary run: a grid that was interrupted goes on where it stopped, because finished runs of the same
configuration are used again, one that was interrupted is resumed from its checkpoint, and a teacher that one run has
trained serves all later ones. Leaves out: how a run trains.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iekd.config import NO_TEACHER, RunConfig, learner_name, make_config
from iekd.data import describe
from iekd.errors import RunError, UserError
from iekd.runs.answers import ANSWERS, Right, read_right
from iekd.runs.files import write_json
from iekd.runs.report import left_out, spread
from iekd.runs.store import FINISHED, LOST, STOPPED, Run, Store
from iekd.significance import Summary, each_over_images, summarise

if TYPE_CHECKING:
    import numpy as np

Pair = tuple[str, str]  # teacher, student
MISSING = "missing"  # the state of a cell that was not trained


def parse_pairs(text: str) -> list[Pair]:
    """ "resnet56:resnet20,none:resnet8" -> [("resnet56", "resnet20"), ("none", "resnet8")].

    Raises:
        UserError: a pair is no "teacher:student", or named twice. Names are checked with the configuration.
    """
    pairs: list[Pair] = []
    for word in text.replace(" ", ",").split(","):
        if not word:
            continue
        teacher, colon, student = word.partition(":")
        if not (teacher and colon and student) or ":" in student:
            raise UserError(f"Pair '{word}' cannot be used: give teacher:student, such as resnet56:resnet20.")
        if (teacher, student) in pairs:
            raise UserError(f"The pair '{word}' is named twice. Name each pair once.")
        pairs.append((teacher, student))
    if not pairs:
        raise UserError("No pair is named. Give at least one as teacher:student, such as resnet56:resnet20.")
    return pairs


def cells(pairs: Sequence[Pair], config: RunConfig, together: bool) -> list[RunConfig]:
    """The runs of the grid: for each pair one per seed, or one for all seeds together."""
    seeds = [config.seeds] if together else [(seed,) for seed in config.seeds]
    common = config.model_dump()
    return [
        make_config(**{**common, "teacher": teacher, "student": student, "seeds": some})
        for teacher, student in pairs
        for some in seeds
    ]


def finished_run(config: RunConfig, store: Store) -> Run | None:
    """The newest finished run of this configuration, whatever its name.

    A run of an earlier version, whose report does not know all of today's settings, is none; nor one of a folder whose
    files have changed since.
    """
    wanted, mark = _unnamed(config), describe(config.dataset).mark
    for run in store.list():
        report = run.report if run.status.state == FINISHED else None
        if report and {**report.get("config", {}), "name": ""} == wanted and report.get("dataset_mark", "") == mark:
            return run
    return None


def interrupted_run(config: RunConfig, store: Store) -> Run | None:
    """The newest run of this configuration that was stopped or lost; one that failed might fail again."""
    wanted = _unnamed(config)
    for run in store.list():
        with contextlib.suppress(UserError):  # a damaged folder
            if run.status.state in (STOPPED, LOST) and _unnamed(run.config) == wanted:
                return run
    return None


def _unnamed(config: RunConfig) -> dict[str, Any]:
    return {**config.model_dump(mode="json"), "name": ""}


@dataclass(frozen=True)
class Cell:
    """A run of the grid and what became of it: its report, or None with the state it ended in."""

    config: RunConfig
    run: str
    report: dict[str, Any] | None
    state: str
    reused: bool
    answers: Right | None = field(default=None, compare=False)  # of its test images; None where that is not known


def run_grid(
    configs: Sequence[RunConfig], store: Store, train: Callable[[Run, int | None], object], stop: Callable[[], bool]
) -> list[Cell]:
    """Every cell in order; `train` runs one, new or interrupted, to its end and gives back its lock. A cell that fails
    does not stop the others.

    Once `stop` says so nothing is trained any more; what was finished before is still used.
    """
    done: list[Cell] = []
    for config in configs:
        found = finished_run(config, store)
        if found is None and done and stop():
            done.append(Cell(config, "", None, MISSING, False))
            continue
        if found is None:
            run, handle = _begin(config, store)
            train(run, handle)
        else:
            run = found
        answers = read_right(run.path / ANSWERS)
        done.append(Cell(config, run.id, run.report, run.status.state, found is not None, answers))
    return done


def _begin(config: RunConfig, store: Store) -> tuple[Run, int | None]:
    """An interrupted run to go on with, or a new one; and its lock."""
    earlier = interrupted_run(config, store)
    if earlier is not None:
        with contextlib.suppress(RunError):  # somebody else resumes it just now
            return earlier, earlier.reopen()
    return store.create(config)


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

    Nothing unless all runs were tested on the same ones, and what they wrote of them agrees with their reports.
    """
    right: dict[str, dict[int, np.ndarray]] = {}
    known = [cell.answers for cell in cells if cell.answers is not None]
    if len(known) < len(cells) or any(answers.images != known[0].images for answers in known):
        return {}
    for cell, answers in zip(cells, known, strict=True):
        assert cell.report is not None
        for learner in cell.report["learners"]:
            method, seed = learner["method"], learner["seed"]
            column = answers.right.get(learner_name(method, seed))
            if column is None or len(column) != cell.report["test_images"]:
                return {}
            if abs(100 * column.mean() - learner["accuracy_last"]) > 1e-6:
                return {}
            right.setdefault(method, {})[seed] = column
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
    """Of which seeds the numbers are, and what is missing."""
    seeds = sorted({learner["seed"] for cell in done if cell.report for learner in cell.report["learners"]})
    words = [f"Seeds {', '.join(map(str, seeds))}", f"{config.epochs} epoch{'s' if config.epochs > 1 else ''}"]
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
         "accuracy_best", "best_epoch", "run"]
    )  # fmt: skip
    for cell in done:
        for r in (cell.report or {}).get("learners", ()):
            assert cell.report is not None
            taught = round(cell.report["teacher"]["accuracy"], 4) if cell.report["teacher"] else ""
            writer.writerow(
                [cell.config.dataset, cell.config.teacher, taught, cell.config.student, r["method"], r["seed"],
                 r["params"], round(r["accuracy_last"], 4), round(r["accuracy_best"], 4), r.get("best_epoch", ""),
                 cell.run]
            )  # fmt: skip
    return out.getvalue()


def default_folder(pairs: Sequence[Pair], config: RunConfig, root: Path) -> Path:
    """Where a grid's table goes: the same grid, the same place."""
    name = config.name or config.dataset.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    words = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
    what = json.dumps([list(pairs), config.model_dump(mode="json")], sort_keys=True)
    return root / "tables" / f"{words}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


def write_table(done: Sequence[Cell], config: RunConfig, folder: Path) -> dict[str, Path]:
    """table.md, .csv, .tex and .json; returns where they are.

    Raises:
        UserError: the folder cannot be written.
    """
    texts = {"md": to_markdown(done, config), "csv": to_csv(done), "tex": to_latex(done, config)}
    make_folder(folder)
    try:
        for suffix, text in texts.items():
            (folder / f"table.{suffix}").write_text(text)
        write_json(folder / "table.json", to_json(done))
    except OSError as error:
        raise _unwritable(folder, error) from None
    return {suffix: folder / f"table.{suffix}" for suffix in (*texts, "json")}


def make_folder(folder: Path) -> None:
    """Raises UserError if the table cannot go there, which is better known before hours of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"The table cannot be written to '{folder}' ({error.strerror}). Choose another --out.")


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
