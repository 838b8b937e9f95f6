"""All networks of a run as an HTML table, live and finished, and why a run that is over has none. No Gradio."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from html import escape
from typing import Any

from iekd.config.methods import method_name
from iekd.config.run import NO_TEACHER, RunConfig
from iekd.data import source_of
from iekd.errors import UserError
from iekd.language import N_, _
from iekd.models import hub_configs
from iekd.models.catalog import model_info, model_name
from iekd.plural import signed
from iekd.results.report import imbalance, is_imbalanced, on_other_images, spread, stops_early, summaries
from iekd.results.significance import Summary, p_text
from iekd.runs.status import FAILED, FINISHED, LOST, STOPPED, Status
from iekd.runs.store import Run
from iekd.times import duration
from iekd.ui.render.so_far import SoFar, so_far
from iekd.ui.render.template import html_plural, html_text
from iekd.ui.render.words import (
    count,
    device_title,
    method_style,
    minus,
    seeds_text,
    teacher_title,
)
from iekd.ui.rights.hidden_paths import Tell

COLUMNS = (
    N_("Parameters"), N_("Accuracy"), N_("Balanced accuracy"), N_("Against the plain student"), N_("Same as teacher"),
)  # fmt: skip
BALANCED = "balanced_accuracy"


def result_html(run: Run, config: RunConfig, status: Status, report: dict[str, Any] | None = None) -> str:
    """The table of a finished run, or of a run that trains with the accuracies so far; "" for any other.

    report: with the seeds that other runs add; None: the run's own.
    """
    if status.live:
        return _so_far(config, so_far(run, config, status))
    report = report or run.report
    return _finished(config, report) if status.state == FINISHED and report else ""


def why_html(run: Run, status: Status, tell: Tell = str, price: str = "") -> str:
    """Why a run that is over has no result, and what to do; "" for any other. tell: makes texts fit for whoever
    looks. price: what resuming it costs, as a sentence."""
    if status.live or (status.state == FINISHED and run.report):
        return ""
    if status.state == STOPPED and set(run.model_folders) - {"teacher"}:
        why = _("You stopped this run. Its students are kept as they were.")
    elif status.state == STOPPED:
        why = _("You stopped this run. It had not begun to train students, so there is nothing to compare.")
    elif status.state == FAILED:
        why = _("This run failed.")
    elif status.state == LOST:
        why = _("This run ended without a result.")
    else:
        why = _("There is no report for this run.")
    hint = "" if status.state == STOPPED else " " + html_text("The log below has the details.")
    reason = f"<p>{escape(tell(status.error))}</p>" if status.error else ""
    what = (
        html_text(
            "Press <b>Resume</b> to go on where it was, or <b>New run with these settings</b> to fill in the form and "
            "change what you like."
        )
        if status.resumable
        else html_text("Press <b>New run with these settings</b> to fill in the form and change what you like.")
    )  # fmt: skip
    paid = f"<p>{escape(price)}</p>" if price and status.resumable else ""
    return f'<div class="card {escape(status.state)}"><h3>{escape(why)}</h3>{reason}<p>{what}{hint}</p>{paid}</div>'


def _so_far(config: RunConfig, found: SoFar) -> str:
    """Laid out as the table of the result will be, so that nothing moves when the run ends."""
    known = {summary.method: summary for summary in found.summaries}
    columns = [column for column in COLUMNS if column != "Balanced accuracy"]
    rows = []
    teacher, student = _sizes(config.dataset, config.test_fraction, config.teacher, config.student)
    if config.needs_teacher:
        name = f"{escape(teacher_title())} <small>{escape(model_name(config.teacher))}</small>"
        accuracy = f"{found.teacher:.2f} %" if found.teacher is not None else "–"
        rows.append(_row("teacher", name, columns, {"Parameters": teacher, "Accuracy": accuracy}))
    for method in config.methods:
        name = f"{escape(method_name(method))} <small>{escape(_seeds(len(config.seeds), config))}</small>"
        own = known.get(method)
        texts = {
            "Parameters": student, "Accuracy": f"{spread(own.mean, own.sd)} %" if own else "–",
            "Against the plain student": signed(own.difference.mean, 2) if own and own.difference else "",
            "Same as teacher": "–" if config.needs_teacher else "",
        }  # fmt: skip
        rows.append(_row(method_style(method), name, columns, texts))
    words = html_text(
        "Accuracy: percent right on the test images, measured after each epoch. The rest comes with the result."
    )
    return (
        f'<div class="card all-networks" style="--rows:{len(rows)}"><h3>{html_text("All networks, so far")}</h3>'
        f'{_table(columns, rows)}<p class="sub">{words}</p></div>'
    )


@lru_cache(maxsize=64)  # of somebody's own images all files are counted
def _sizes(dataset: str, test_fraction: float, *networks: str) -> tuple[str, ...]:
    """Parameters of networks for the classes and channels of a dataset; – where they cannot be known here. Nothing is
    downloaded for it."""
    sizes = dict.fromkeys(networks, "–")
    with suppress(UserError):
        info = source_of(dataset).describe(dataset, test_fraction)
        for name in networks:
            if name != NO_TEACHER and (not hub_configs.is_one(name) or hub_configs.is_known(name)):
                sizes[name] = count(model_info(name).params(info.channels, info.classes))
    return tuple(sizes[name] for name in networks)


def _seeds(count: int, config: RunConfig) -> str:
    return seeds_text(count) if count > 1 else model_name(config.student)


def _finished(config: RunConfig, report: dict[str, Any]) -> str:
    found, teacher = summaries(report), report.get("teacher")
    learners: dict[str, list[dict[str, Any]]] = {}
    for learner in report["learners"]:
        learners.setdefault(learner["method"], []).append(learner)
    top = max(s.mean for s in found)
    best = [s for s in found if s.mean >= top - 1e-9]
    columns = [column for column in COLUMNS if column != "Balanced accuracy" or is_imbalanced(report)]
    rows = []
    if teacher:
        name = f"{escape(teacher_title())} <small>{escape(model_name(teacher['model']))}</small>"
        texts = {
            "Parameters": count(teacher["params"]), "Accuracy": f"{teacher['accuracy']:.2f} %",
            "Balanced accuracy": _mean_percent([teacher], BALANCED, 2),
        }  # fmt: skip
        rows.append(_row("teacher", name, columns, texts))
    for summary in found:
        own = learners[summary.method]
        note = _seeds(summary.n, config)
        mark = f' <em class="win">{html_text("best")}</em>' if summary in best and len(best) < len(found) else ""
        name = f"{escape(method_name(summary.method))} <small>{escape(note)}</small>{mark}"
        texts = {
            "Parameters": count(own[0]["params"]), "Accuracy": f"{spread(summary.mean, summary.sd)} %",
            "Balanced accuracy": _mean_percent(own, BALANCED, 2),
            "Against the plain student": _difference(summary),
            "Same as teacher": _mean_percent(own, "agreement_with_teacher"),
        }  # fmt: skip
        rows.append(_row(method_style(summary.method), name, columns, texts))
    skipped = len(report.get("skipped_files", []))
    many = any(s.n > 1 for s in found)
    facts = [_tested(report["test_images"], many)]
    if stops_early(report):
        facts.append(
            html_text("With early stopping, the epoch with the best validation accuracy counts instead of the last.")
        )
    if many and any(s.difference for s in found):
        facts.append(html_text(
            "Difference in points. Seeds: what training again may make of it, 95 % interval and p-value of a paired "
            "test (Holm’s correction)."
        ))  # fmt: skip
    if any(on_other_images(s) for s in found):
        facts.append(html_text(
            "Images: what other images like those of the test may make of the difference with these very networks, "
            "95 % interval; few test images make it wide."
        ))  # fmt: skip
    if teacher:
        facts.append(html_text("Same as teacher: how often the student’s answer is the teacher’s, right or wrong."))
    if skipped:
        facts.append(html_plural(
            "{number} unreadable image was skipped.", "{number} unreadable images were skipped.", skipped
        ))  # fmt: skip
    facts.append(html_text(
        "{time} on {device}.", time=duration(report["seconds"]), device=device_title(report["device"])
    ))  # fmt: skip
    warnings = "".join(f'<p class="warn">{escape(str(note))}</p>' for note in report.get("data_notes", []))
    uneven = imbalance(report)
    partly = " partly" if warnings or report.get("diverged") else ""
    return (
        f'<div class="card all-networks finished{partly}" style="--rows:{len(rows)}"><h3>'
        f"{html_text('All networks')}</h3>{warnings}"
        f"{_table(columns, rows)}"
        f"{f'<p>{escape(uneven)}</p>' if uneven else ''}"
        f'<p class="sub">{" ".join(facts)}</p></div>'
    )


def _tested(images: int, many: bool) -> str:
    """What the column of accuracies is. many: of several seeds."""
    if many:
        return html_plural(
            "Accuracy: percent right on {number} test image after the last epoch, mean ± standard deviation over "
            "seeds.",
            "Accuracy: percent right on {number} test images after the last epoch, mean ± standard deviation over "
            "seeds.", images,
        )  # fmt: skip
    return html_plural(
        "Accuracy: percent right on {number} test image after the last epoch.",
        "Accuracy: percent right on {number} test images after the last epoch.", images,
    )  # fmt: skip


def _difference(summary: Summary) -> str:
    difference = summary.difference
    if difference is None:
        return ""
    text = signed(difference.mean, 2)
    if difference.low is not None:
        low, high = f"{difference.low:+.2f}", f"{difference.high:+.2f}"
        if difference.p_adjusted is None:
            seeds = html_text("seeds {low} to {high}", low=minus(low), high=minus(high))
        else:
            p = p_text(difference.p_adjusted)
            seeds = html_text("seeds {low} to {high}, p {p}", low=minus(low), high=minus(high), p=p)
        text += f"<small>{seeds}</small>"
    if others := on_other_images(summary):
        text += f"<small>{html_text('images {range}', range=minus(others))}</small>"
    return text


def _mean_percent(own: list[dict[str, Any]], key: str, decimals: int = 1) -> str:
    values = [learner[key] for learner in own if key in learner]
    return f"{sum(values) / len(values):.{decimals}f} %" if values else ""


def _table(columns: list[str], rows: list[str]) -> str:
    heads = [_("Network"), *map(_, columns)]
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in heads)
    return f'<div class="scroll"><table class="results"><tr>{head}</tr>{"".join(rows)}</table></div>'


def _row(style: str, name: str, columns: list[str], texts: dict[str, str]) -> str:
    """A cell for each column; a phone shows their labels, and leaves out the empty ones."""
    cells = "".join(
        f'<td data-label="{escape(_(label))}"><span>{f"<b>{text}</b>" if label == "Accuracy" else text}</span></td>'
        if (text := texts.get(label))
        else "<td></td>"
        for label in columns
    )
    return f'<tr><th scope="row"><i class="key {escape(style)}"></i>{name}</th>{cells}</tr>'
