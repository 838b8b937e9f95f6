"""What came out of a run that is over, as HTML: its table, or why there is none. Reads the folder; no Gradio."""

from __future__ import annotations

from html import escape
from typing import Any

from iekd.config.methods import method_name
from iekd.config.run import RunConfig
from iekd.models.catalog import model_name
from iekd.plural import counted
from iekd.results.report import (
    imbalance,
    is_imbalanced,
    on_other_images,
    spread,
    summaries,
)
from iekd.results.significance import Summary, p_text
from iekd.runs.store import FAILED, FINISHED, LOST, STOPPED, Run, Status
from iekd.ui.render.words import DEVICES, count, duration, method_style
from iekd.ui.server.downloads import downloads_html
from iekd.ui.server.hidden_paths import Tell

COLUMNS = ("Parameters", "Accuracy", "Balanced accuracy", "Against the baseline", "Same as teacher")
BALANCED = "balanced_accuracy"


def result_html(
    run: Run, config: RunConfig, status: Status, with_networks: bool = True, tell: Tell = str,
    pooled: dict[str, Any] | None = None,
) -> str:  # fmt: skip
    """What came out of a run that is over: its table, or in words why there is none. Empty while it trains.

    with_networks: offer them to be taken home. tell: makes texts fit for whoever looks.
    pooled: the report with the seeds that other runs add; None: the run's own.
    """
    if status.live:
        return ""
    report = pooled or run.report
    if status.state == FINISHED and report:
        return _finished(run, report, downloads_html(run, with_networks, tell))
    why = {
        STOPPED: "You stopped this run. " + ("Its students are kept as they were." if run.model_folders else
                                             "It had not begun to train students, so there is nothing to compare."),
        FAILED: "This run failed.",
        LOST: "This run ended without a result.",
    }.get(status.state, "There is no report for this run.")  # fmt: skip
    hint = "" if status.state == STOPPED else " The log below has the details."
    reason = f"<p>{escape(tell(status.error))}</p>" if status.error else ""
    again = "<b>New run with these settings</b> to fill in the form and change what you like."
    what = f"Press <b>Resume</b> to go on where it was, or {again}" if status.resumable else f"Press {again}"
    return (
        f'<div class="card {escape(status.state)}"><h3>{escape(why)}</h3>{reason}<p>{what}{hint}</p>'
        f"{downloads_html(run, with_networks, tell)}</div>"
    )


def _finished(run: Run, report: dict[str, Any], downloads: str) -> str:
    found, teacher = summaries(report), report.get("teacher")
    learners: dict[str, list[dict[str, Any]]] = {}
    for learner in report["learners"]:
        learners.setdefault(learner["method"], []).append(learner)
    top = max(s.mean for s in found)
    best = [s for s in found if s.mean >= top - 1e-9]
    columns = [column for column in COLUMNS if column != "Balanced accuracy" or is_imbalanced(report)]
    rows = []
    if teacher:
        name = f"Teacher <small>{escape(model_name(teacher['model']))}</small>"
        texts = {"Accuracy": f"{teacher['accuracy']:.2f} %", "Balanced accuracy": _mean_percent([teacher], BALANCED, 2)}
        rows.append(_row("teacher", name, teacher["params"], columns, texts))
    for summary in found:
        own = learners[summary.method]
        note = f"{summary.n} seeds" if summary.n > 1 else model_name(run.config.student)
        mark = ' <em class="win">best</em>' if summary in best and len(best) < len(found) else ""
        name = f"{escape(method_name(summary.method))} <small>{escape(note)}</small>{mark}"
        texts = {
            "Accuracy": f"{spread(summary.mean, summary.sd)} %", "Balanced accuracy": _mean_percent(own, BALANCED, 2),
            "Against the baseline": _difference(summary),
            "Same as teacher": _mean_percent(own, "agreement_with_teacher"),
        }  # fmt: skip
        rows.append(_row(method_style(summary.method), name, own[0]["params"], columns, texts))
    head = "".join(f"<th>{label}</th>" for label in ("Network", *columns))
    skipped = len(report.get("skipped_files", []))
    facts = f"Accuracy: percent right on {counted(report['test_images'], 'test picture')} after the last epoch"
    many = any(s.n > 1 for s in found)
    facts += ", mean ± standard deviation over seeds." if many else "."
    if many and any(s.difference for s in found):
        facts += (
            " Difference in points. Seeds: what training anew may make of it, 95 % interval and p-value of a paired "
            "test (Holm’s correction)."
        )
    if any(on_other_images(s) for s in found):
        facts += (
            " Pictures: what other pictures like those of the test may make of the difference with these very "
            "networks, 95 % interval; few test pictures make it wide."
        )
    if teacher:
        facts += " Same as teacher: how often the student’s answer is the teacher’s, right or wrong."
    facts += f" {skipped} unreadable picture{'s were' if skipped > 1 else ' was'} skipped." if skipped else ""
    warnings = "".join(f'<p class="warn">{escape(str(note))}</p>' for note in report.get("data_notes", []))
    uneven = imbalance(report, "pictures")
    took = f"{duration(report['seconds'])} on {escape(DEVICES.get(report['device'].split(':')[0], report['device']))}."
    partly = " partly" if warnings or report.get("diverged") else ""
    return (
        f'<div class="card finished{partly}"><h3>All networks</h3>{warnings}'
        f'<div class="scroll"><table class="results"><tr>{head}</tr>{"".join(rows)}</table></div>'
        f"{f'<p>{escape(uneven)}</p>' if uneven else ''}"
        f'<p class="sub">{facts} {took}</p>{downloads}</div>'
    )


def _difference(summary: Summary) -> str:
    difference = summary.difference
    if difference is None:
        return ""
    text = f"{difference.mean:+.2f}"
    if difference.low is not None:
        p = f", p {p_text(difference.p_adjusted)}" if difference.p_adjusted is not None else ""
        text += f"<small>seeds {difference.low:+.2f} to {difference.high:+.2f}{p}</small>"
    if others := on_other_images(summary):
        text += f"<small>pictures {others}</small>"
    return text.replace("-", "−")


def _mean_percent(own: list[dict[str, Any]], key: str, decimals: int = 1) -> str:
    values = [learner[key] for learner in own if key in learner]
    return f"{sum(values) / len(values):.{decimals}f} %" if values else ""


def _row(style: str, name: str, params: int, columns: list[str], texts: dict[str, str]) -> str:
    """A cell for each column; a phone shows their labels, and leaves out the empty ones."""
    filled = {"Parameters": count(params), **texts}
    cells = "".join(
        f'<td data-label="{label}"><span>{f"<b>{text}</b>" if label == "Accuracy" else text}</span></td>'
        if (text := filled.get(label))
        else "<td></td>"
        for label in columns
    )
    return f'<tr><th scope="row"><i class="key {escape(style)}"></i>{name}</th>{cells}</tr>'
