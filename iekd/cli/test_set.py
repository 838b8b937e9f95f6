"""`iekd test-set`: two models of a run on its whole test set."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from iekd.cli.common import RUNS, AsJson, RunsDir, err, launcher_for, out, print_json, say_seed, table_of
from iekd.errors import UserError
from iekd.plural import counted
from iekd.results.calibration import BINS
from iekd.results.mistakes import Mistake
from iekd.results.test_set import Analysis, analyse

MOST_SUSPICIOUS = 20  # in the printed list; --json has all
MOST_BINS = 1000


def whole_test_set(
    run_id: Annotated[
        str,
        typer.Argument(metavar="[RUN]", show_default=False,
                       help="The run, or RUN/SEED for another of its seeds; none: the shipped models."),
    ] = "",
    models: Annotated[
        str,
        typer.Option(help="Two models with a comma, such as baseline,ie-ft or teacher,kd; unset: the plain student and "
                     "the first IE student.", show_default=False),
    ] = "",
    bins: Annotated[int, typer.Option(help="Bins of equal width of the calibration error.")] = BINS,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Two models on the whole test set: confusions, classes, calibration, confident mistakes, suspicious labels."""
    from iekd.runs.test_set import predicted_set

    if not 1 <= bins <= MOST_BINS:
        raise UserError(f"--bins '{bins}' cannot be used. Give a whole number from 1 to {MOST_BINS}.")
    first, _, second = (part.strip() for part in models.partition(","))
    if models and not (first and second and "," not in second):
        raise UserError(f"--models '{models}' cannot be used. Name two models with a comma, such as baseline,ie-ft.")

    def say(text: str) -> None:
        err.print(escape(text), highlight=False, soft_wrap=True)

    say_seed(runs_dir, run_id)
    found = predicted_set(launcher_for(runs_dir).store, run_id, say=say)
    assert found is not None  # it may compute what is missing
    analysis = analyse(found, first, second, bins)
    if as_json:
        print_json(analysis.to_json())
    else:
        _print(analysis)


def _print(found: Analysis) -> None:
    names, first, second = found.of.class_names, found.first, found.second
    out.print(f"{escape(first)} and {escape(second)} on {counted(len(found.of.labels), 'test image')}", highlight=False)
    table = table_of("class", "images", f"{first} %", f"{second} %", "gain", numbers=True)
    for row in found.classes:
        cells = ("-" if value is None else f"{value:.1f}" for value in (row.first, row.second))
        table.add_row(
            escape(names[row.label]), str(row.images), *cells, "-" if row.gain is None else f"{row.gain:+.1f}"
        )
    out.print(table)
    table = table_of(
        "class", "predicted as", first, second, "change", title="Confusions that change most", numbers=True
    )
    for pair in found.pairs:
        words = (escape(names[pair.label]), escape(names[pair.predicted]))
        table.add_row(*words, str(pair.first), str(pair.second), f"{pair.change:+d}")
    out.print(table)
    if found.calibration:
        bins = len(next(iter(found.calibration.values())).bins)
        title = f"Calibration (ECE over {counted(bins, 'bin')} of equal width)"
        table = table_of("model", "ECE %", "mean confidence %", "right %", title=title, numbers=True)
        for name, one in found.calibration.items():
            table.add_row(name, *(f"{100 * value:.2f}" for value in (one.ece, one.confidence, one.accuracy)))
        out.print(table)
    else:
        _say(f"The probabilities are not known, so neither is the calibration. {found.of.without}")
    for name, mistakes in found.mistakes.items():
        _say(f"Most confident mistakes of {name}:")
        _list(found, mistakes)
    agreeing = ", ".join(found.agreeing)
    _say(f"{counted(len(found.suspicious), 'suspicious label')}: {agreeing} agree on another class.")
    _list(found, found.suspicious[:MOST_SUSPICIOUS])
    if (more := len(found.suspicious) - MOST_SUSPICIOUS) > 0:
        _say(f"  and {more:,} more; --json lists all")


def _list(found: Analysis, images: list[Mistake]) -> None:
    names = found.of.class_names
    for one in images:
        sure = "" if one.confidence is None else f", {100 * one.confidence:.1f} % sure"
        name = found.of.images[one.row]
        shown = f"test image {name}" if name.isdecimal() else name
        _say(f"  {shown}: labelled {names[one.label]}, predicted {names[one.predicted]}{sure}")


def _say(text: str) -> None:
    out.print(escape(text), highlight=False, soft_wrap=True)
