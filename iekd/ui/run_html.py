"""One run -> the HTML of its head (state, stages, progress), its result and its log. Reads the folder; no Gradio."""

from __future__ import annotations

import base64
import statistics
import time
from html import escape
from typing import Any

from iekd.config import RunConfig
from iekd.plan import STAGES
from iekd.runs.queue import ahead_of, device_name
from iekd.runs.report import verdict
from iekd.runs.store import FAILED, FINISHED, LOST, QUEUED, STOPPED, STOPPING, Run, Status, Store
from iekd.ui.curves import metrics_size, read_curves
from iekd.ui.words import (
    DEVICES,
    STATES,
    count,
    dataset_title,
    duration,
    in_words,
    method_name,
    model_name,
    run_title,
    when,
)

STAGE_NAMES = {"teacher": "Teacher", "auto-encoder": "Auto-encoder", "students": "Students", "evaluation": "Evaluation"}


def badge(state: str) -> str:
    return f'<span class="badge {escape(state)}">{escape(STATES.get(state, state))}</span>'


def head_html(run: Run, config: RunConfig, status: Status, store: Store) -> str:
    """Title, state, stages, progress and pace."""
    title = escape(run_title(run.id, config))
    about = f"{escape(dataset_title(config.dataset))} · {'' if not config.name else escape(in_words(config)) + ' · '}"
    epochs = f"{config.epochs} epoch{'s' if config.epochs > 1 else ''}"
    began = f" · started {when(status.created)}" if status.created else ""
    lines = [
        f'<div class="runhead"><div class="titleline"><h2>{title}</h2>{badge(status.state)}</div>',
        f'<p class="sub">{about}{epochs}{began} · <code>{escape(run.id)}</code></p>',
    ]
    if status.live or status.state in (STOPPED, FAILED, LOST):
        lines += [stepper(run, config, status), _bar(status)]
    facts = _facts(status, _age(run))
    if status.state == QUEUED:
        facts = [waiting_for(run, store)]
    if status.state == STOPPING or (status.live and run.stop_requested):
        facts = ["Stopping after the current step; what the students have learned is kept."]
    lines.append(f'<p class="facts">{"".join(f"<span>{fact}</span>" for fact in facts)}</p></div>')
    return "".join(lines)


def _age(run: Run) -> float:
    """Seconds since the status was written: it comes with the metrics, and the clock goes on in between."""
    try:
        return max(0.0, time.time() - (run.path / "status.json").stat().st_mtime)
    except OSError:
        return 0.0


def _facts(status: Status, age: float) -> list[str]:
    facts = []
    if status.seconds is not None:
        facts.append(f"<b>{duration(status.seconds)}</b> {'so far' if status.live else 'in all'}")
    if status.live and status.eta_seconds is not None:
        facts.append(f"about <b>{duration(max(1.0, status.eta_seconds - age))}</b> left")
    if status.live and status.images_per_second:
        facts.append(f"<b>{status.images_per_second:,.0f}</b> images/s")
    if status.device:
        facts.append(f"on {escape(DEVICES.get(status.device.split(':')[0], status.device))}")
    return facts


def waiting_for(run: Run, store: Store) -> str:
    """What a queued run waits for."""
    device = device_name(run.config.device)
    training = None
    for other in store.list():
        # the state first: it is cheap, and a damaged folder is never in one of these
        if other.status.state in ("running", "stopping") and device_name(other.config.device) == device:
            training = other
            break
    if training is None:
        return "Starting: the training process is loading."
    link = f'<a href="?run={escape(training.id)}">{escape(run_title(training.id, training.config))}</a>'
    ahead = len(ahead_of(run, store))
    more = f" and {ahead} more before it" if ahead else ""
    return f"Waiting for run {link} to finish{more}. It starts by itself; you may close this page."


def stepper(run: Run, config: RunConfig, status: Status) -> str:
    """The four stages: done, now, to come, or not needed."""
    at = STAGES.index(status.stage) if status.stage in STAGES else -1
    seen = read_curves(run).stages
    items = []
    for i, stage in enumerate(STAGES):
        state = "done" if i < at else "now" if i == at else "next"
        note = f"{status.stage_progress:.0%}" if state == "now" else ""
        if stage == "teacher" and not config.needs_teacher:
            state, note = "skipped", "not needed"
        elif stage == "teacher" and state == "done" and stage not in seen:
            note = "trained before"
        elif stage == "auto-encoder" and not config.needs_auto_encoder:
            state, note = "skipped", "not needed"
        mark = "✓" if state == "done" else "–" if state == "skipped" else str(i + 1)
        items.append(f'<li class="{state}"><i>{mark}</i><span>{STAGE_NAMES[stage]}<small>{note}</small></span></li>')
    return f'<ol class="stepper">{"".join(items)}</ol>'


def _bar(status: Status) -> str:
    done = max(0.0, min(1.0, status.progress))
    return (
        f'<div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{done * 100:.0f}">'
        f'<i style="width:{done:.1%}"></i><b>{done:.0%}</b></div>'
    )


def result_html(run: Run, config: RunConfig, status: Status) -> str:
    """What came out of a run that is over: its table, or in words why there is none. Empty while it trains."""
    if status.live:
        return ""
    report = run.report
    if status.state == FINISHED and report:
        return _finished(run, report)
    why = {
        STOPPED: "You stopped this run. " + ("Its students are kept as they were." if run.model_folders else
                                             "It had not begun to train students, so there is nothing to compare."),
        FAILED: "This run failed.",
        LOST: "This run ended without a result.",
    }.get(status.state, "There is no report for this run.")  # fmt: skip
    hint = "" if status.state == STOPPED else " The log below has the details."
    reason = f"<p>{escape(status.error)}</p>" if status.error else ""
    what = "Press <b>Start again with these settings</b> to fill in the form; change what you like and start."
    return f'<div class="card {escape(status.state)}"><h3>{escape(why)}</h3>{reason}<p>{what}{hint}</p></div>'


def _finished(run: Run, report: dict[str, Any]) -> str:
    sentence = plain_verdict(report)
    teacher = report.get("teacher")
    by_method: dict[str, list[dict[str, Any]]] = {}
    for learner in report["learners"]:
        by_method.setdefault(learner["method"], []).append(learner)
    means = {m: statistics.mean(r["accuracy_last"] for r in rows) for m, rows in by_method.items()}
    top = max(means.values())
    rows = []
    if teacher:
        name = f"Teacher <small>{escape(model_name(teacher['model']))}</small>"
        rows.append(_row("teacher", name, teacher["params"], f"{teacher['accuracy']:.2f} %", "", ""))
    for method, found in by_method.items():
        many = len(found) > 1
        last, best = _spread(found, "accuracy_last"), _spread(found, "accuracy_best")
        agree = [r["agreement_with_teacher"] for r in found if "agreement_with_teacher" in r]
        note = f"{len(found)} seeds" if many else model_name(run.config.student)
        mark = ' <em class="win">best</em>' if len(means) > 1 and means[method] >= top - 1e-9 else ""
        name = f"{escape(method_name(method))} <small>{escape(note)}</small>{mark}"
        rows.append(
            _row(method, name, found[0]["params"], last, best, f"{statistics.mean(agree):.1f} %" if agree else "")
        )
    head = "<tr><th>Network</th><th>Parameters</th><th>Accuracy</th><th>Best epoch</th><th>Same as teacher</th></tr>"
    skipped = len(report.get("skipped_files", []))
    facts = f"Accuracy: percent right on {report['test_images']:,} test pictures after the last epoch"
    facts += ", mean ± standard deviation over seeds." if any(len(f) > 1 for f in by_method.values()) else "."
    facts += f" {skipped} unreadable picture{'s were' if skipped > 1 else ' was'} skipped." if skipped else ""
    took = f"{duration(report['seconds'])} on {escape(DEVICES.get(report['device'].split(':')[0], report['device']))}."
    return (
        f'<div class="card finished"><h3>{escape(sentence)}</h3><div class="scroll"><table class="results">{head}'
        f'{"".join(rows)}</table></div><p class="sub">{facts} {took}</p><p class="downloads">{downloads(run)}</p></div>'
    )


def plain_verdict(report: dict[str, Any]) -> str:
    """The report's verdict with the page's names; says so too where there was nothing to compare with."""
    sentence = verdict(report)
    if not sentence:
        return "Done."
    first, rest = sentence.split(" ", 1)
    return f"{method_name(first)} {rest}"


def _row(style: str, name: str, params: int, last: str, best: str, agree: str) -> str:
    cells = "".join(f'<td data-label="{label}">{text}</td>' for label, text in (
        ("Parameters", count(params)), ("Accuracy", f"<b>{last}</b>"), ("Best epoch", best), ("Same as teacher", agree),
    ) if text)  # fmt: skip
    cells += "<td></td>" * (4 - cells.count("<td "))
    return f'<tr><th scope="row"><i class="key {escape(style)}"></i>{name}</th>{cells}</tr>'


def _spread(rows: list[dict[str, Any]], key: str) -> str:
    values = [row[key] for row in rows]
    if len(values) == 1:
        return f"{values[0]:.2f} %"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} %"


def downloads(run: Run) -> str:
    """Links that carry the report in themselves: the runs folder is never served."""
    links = []
    for name, kind, label in (
        ("report.md", "text/markdown", "Report to read"),
        ("report.json", "application/json", "Report as data"),
    ):
        try:
            content = base64.b64encode((run.path / name).read_bytes()).decode()
        except OSError:
            continue
        links.append(
            f'<a class="download" download="{escape(run.id)}-{name}" href="data:{kind};base64,{content}">⬇ {label}</a>'
        )
    return "".join(links)


def log_html(run: Run) -> str:
    """The end of the log."""
    return f'<pre class="log">{escape(run.log_tail(40)) or "Nothing written yet."}</pre>'


def early_html(status: Status, run: Run) -> str:
    """What stands in the place of the curves before there are any."""
    if not status.live or metrics_size(run):
        return ""
    text = (
        "Curves appear here a few seconds after training begins."
        if status.state != QUEUED
        else "Curves appear when it is this run's turn."
    )
    return f'<div class="placeholder">{text}</div>'


def signature(run: Run, status: Status) -> dict[str, Any]:
    """What decides whether a part of the view has to be drawn again."""
    try:
        log = (run.path / "log.txt").stat().st_size
    except OSError:
        log = 0
    # a live head shows seconds, so it changes with the clock
    return {"id": run.id, "state": status.state, "stage": status.stage, "metrics": metrics_size(run), "log": log,
            "second": int(time.time()) if status.live else 0}  # fmt: skip
