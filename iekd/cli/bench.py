"""`iekd bench`: how fast this machine trains, in words and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from iekd.cli.common import AsJson, err, out, print_json, table_of
from iekd.config.run import RunConfig
from iekd.errors import UserError
from iekd.plural import counted

if TYPE_CHECKING:
    from iekd.bench.measure import Report, Roofline
    from iekd.bench.rounds import Speed
    from iekd.estimate.phases import Phases

PHASE_WORDS = (
    "Medians in the plain loop, one part at a time, waiting for the device after each: the real step overlaps or fuses "
    "parts, and takes less than their sum."
)


def bench(
    config: RunConfig,
    steps: Annotated[
        Optional[int],
        typer.Option(help="Timed steps of each measurement; unset: as many as take about ten seconds in all.",
                     show_default=False),
    ] = None,
    only: Annotated[
        Optional[str],
        typer.Option(help="Parts to measure, with commas: ours, conventional, phases, roofline; unset: all.",
                     show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """How fast this machine trains, on noise in the shape of the dataset, compared with a conventional loop."""
    if steps is not None and steps < 1:
        raise UserError(f"Steps '{steps}' cannot be used: give 1 or more, or leave it out.")
    from iekd.bench.measure import check_parts, measure

    parts = check_parts(only)
    with err.status("starting") as status:
        report = measure(config, steps, parts, say=lambda what: status.update(escape(f"measuring {what}")))
    if as_json:
        print_json(report.to_json())
        return
    where, versions = report.machine, report.machine["versions"]
    _say(f"{where['device']}, {counted(where['cores'], 'core')}, torch {versions['torch']}, {report.precision}")
    _say(report.command)
    if report.ours or report.conventional:
        out.print(speed_table(report))
        _say(speed_words(report))
    if report.cut:
        _say(cut_words(report))
    if report.phases:
        out.print(phase_table(report.phases))
        _say(PHASE_WORDS)
    if report.memory:
        kind = "allocated on the device" if where["kind"] == "cuda" else "of the process"
        _say(f"Peak memory: {report.memory / 1e9:.2f} GB {kind}, all learners together.")
    if report.roofline:
        _say(roofline_words(report.roofline))


def speed_table(report: Report) -> Table:
    """Images per second: ours, the conventional loop's, the ratio."""
    title = f"Training, batches of {report.batch_size}: images per second, median of rounds (their range)"
    columns = ("students", "this engine", "ms per step", "conventional loop", "times as fast")
    table = table_of(*columns, title=title, numbers=True)
    for method in dict.fromkeys(report.learners):
        mine, theirs, ratio = report.ours.get(method), report.conventional.get(method), report.times_as_fast.get(method)
        table.add_row(escape(method), *_speed(mine), _speed(theirs)[0], _ratio(ratio))
    if "together" in report.ours and len(report.learners) > 1:
        ratio = report.times_as_fast.get("together")
        name = f"all {len(report.learners)} together"
        table.add_row(name, *_speed(report.ours["together"]), "", _ratio(ratio), style="bold")
    return table


def speed_words(report: Report) -> str:
    """What the table does not show."""
    said = []
    if report.together_to_apart is not None and len(report.learners) > 1:
        said.append(
            f"A step of all {len(report.learners)} students together takes {report.together_to_apart:.2f} of the time "
            "of each alone, summed."
        )
    if report.conventional:
        said.append(
            "The conventional loop is plain PyTorch in float32 with a DataLoader of four workers, one student at a "
            "time (iekd/bench/conventional.py)."
        )
    return " ".join(said)


def cut_words(report: Report) -> str:
    """Which parts got less time than they needed."""
    return (
        f"The machine was too busy to measure everything in the time that was set. Cut short or left out: "
        f"{'; '.join(report.cut)}."
    )


def phase_table(phases: Phases) -> Table:
    """Every part of a step."""
    table = table_of("part", "ms", title="One step, part by part", numbers=True)
    table.add_row("data: order, crop, flip", f"{1e3 * phases.data:.2f}")
    if phases.teacher is not None:
        table.add_row("teacher forward, factors", f"{1e3 * phases.teacher:.2f}")
    for method, parts in phases.learners.items():
        for part, seconds in parts.items():
            table.add_row(f"{method}: {part}", f"{1e3 * seconds:.2f}")
    return table


def roofline_words(found: Roofline) -> str:
    """The bound, its parts, and how close the step comes to it."""
    least, peaks = found.bound, found.peaks
    arithmetic = least.arithmetic / least.seconds
    words = (
        f"Roofline: this machine multiplies matrices at {peaks.flops_per_second / 1e12:.3g} TFLOP/s and copies at "
        f"{peaks.bytes_per_second / 1e9:.3g} GB/s. A step of all students needs {least.flops / 1e9:.3g} GFLOP and "
        f"moves {least.bytes / 1e9:.3g} GB, so it takes at least {1e3 * least.seconds:.3g} ms: "
        f"{arithmetic:.0%} arithmetic, {1 - arithmetic:.0%} memory traffic. "
    )
    if found.fraction is not None:
        words += f"The measured step reaches {found.fraction:.0%} of that speed. "
    return words + "The bound is of unfused kernels that find nothing in a cache; a step that does may be faster."


def _speed(speed: Speed | None) -> tuple[str, str]:
    if speed is None:
        return "", ""
    low, high = min(speed.rounds), max(speed.rounds)
    return f"{speed.images_per_second:,.0f} ({low:,.0f} to {high:,.0f})", f"{1e3 * speed.seconds_per_step:.2f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _say(words: Any) -> None:
    out.print(escape(str(words)), highlight=False, soft_wrap=True)
