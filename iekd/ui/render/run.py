"""One run -> the HTML of its head (state, stages, progress) and its log. Reads the folder; no Gradio."""

from __future__ import annotations

import math
import time
from html import escape
from typing import Any

from markupsafe import Markup

from iekd.config.run import STAGES, RunConfig
from iekd.language import N_, _
from iekd.runs.card import dataset_of
from iekd.runs.owner import LOCAL
from iekd.runs.queue import ahead_of, slots_of
from iekd.runs.slots import slots
from iekd.runs.status import FINISHED, LOADING, QUEUED, STOPPING, Status
from iekd.runs.store import Run, Store
from iekd.runs.watched import size as watched_size
from iekd.times import duration, time_range
from iekd.ui.render.curves import metrics_size, read_curves
from iekd.ui.render.template import html_plural, html_text
from iekd.ui.render.words import (
    device_title,
    epochs_text,
    in_words,
    run_title,
    state_name,
    when,
)
from iekd.ui.rights.hidden_paths import Tell

STAGE_NAMES = {
    "teacher": N_("Teacher"), "auto-encoder": N_("Auto-encoder"), "students": N_("Students"),
    "evaluation": N_("Evaluation"),
}  # fmt: skip
FINE_TUNE = N_("Fine-tune the teacher on these classes")


def badge(state: str) -> str:
    """A run's state as a coloured word."""
    return f'<span class="badge {escape(state)}">{escape(state_name(state))}</span>'


def head_html(run: Run, config: RunConfig, status: Status, store: Store) -> str:
    """Title, state, stages, progress and pace."""
    title, words = escape(run_title(config, run)), escape(in_words(config))
    about = f"{escape(dataset_of(config))} · {'' if title == words else words + ' · '}"
    epochs = epochs_text(config.epochs)
    began = " · " + _("started {when}", when=when(status.created)) if status.created else ""
    lines = [
        f'<div class="runhead"><div class="titleline"><h2>{title}</h2>{badge(status.state)}</div>',
        f'<p class="sub">{about}{epochs}{began} · <code>{escape(run.id)}</code></p>',
    ]
    lines += [stepper(run, config, status), _bar(status)]
    facts = _facts(status, _age(run))
    if status.state == QUEUED:
        facts = [waiting_for(run, store)]
    if status.state == STOPPING or (status.live and run.stop_requested):
        facts = [html_text("Stopping after the current step; what the students have learned is kept.")]
    lines.append(f'<p class="facts">{"".join(f"<span>{fact}</span>" for fact in facts)}</p>')
    lines += [
        f'<p class="warn">{escape(said)}</p>' for said in (status.doubt, *status.cautions) if said and status.live
    ]
    lines += [f'<p class="warn">{escape(status.copy_error)}</p>'] * bool(status.copy_error)
    lines += [f'<p class="warn">{html_text("{why} The other students go on.", why=said)}</p>' for said in _gone(status)]
    lines.append("</div>")
    return "".join(lines)


def _gone(status: Status) -> list[str]:
    """What is to be said of students that diverged, while others train."""
    return list(status.diverged.values()) if status.live else []


def _age(run: Run) -> float:
    """Seconds since the status was written: it comes with the metrics, and the clock goes on in between."""
    try:
        return max(0.0, time.time() - (run.path / "status.json").stat().st_mtime)
    except OSError:
        return 0.0


def _facts(status: Status, age: float) -> list[str]:
    facts: list[str] = []
    if status.live and status.stage == LOADING and 0 < status.stage_progress < 1:
        facts.append(html_text("Reading the images: <b>{share}</b>", share=f"{100 * status.stage_progress:.0f} %"))
    if status.seconds is not None:
        took = duration(status.seconds)
        facts.append(html_text("<b>{time}</b> so far", time=took) if status.live
                     else html_text("<b>{time}</b> in all", time=took))  # fmt: skip
    if status.live and status.eta_range is not None and age < status.eta_range[1]:
        low, high = (seconds - age for seconds in status.eta_range)
        facts.append(html_text("<b>{time}</b> left", time=time_range(low, high)))
    if status.live and status.images_per_second:
        facts.append(html_text("<b>{speed}</b> images/s", speed=f"{status.images_per_second:,.0f}"))
    return [*facts, *filter(None, [_machine(status)])]


def _machine(status: Status) -> str:
    """What it computes on, and how much of that it uses while it trains."""
    if not status.device:
        return ""
    if not status.gpu or not status.gpu_memory:
        device = device_title(status.device)
        if not status.threads:
            return html_text("on {device}", device=device)
        return html_plural(
            "on {device}, {number} thread", "on {device}, {number} threads", status.threads, device=device
        )
    gpu = f"{status.gpu} ({status.slot})" if ":" in status.slot else status.gpu  # not the first of several
    memory = _("{size} GiB", size=_gibibytes(status.gpu_memory))
    if status.live and status.gpu_memory_used is not None:
        memory = _("{used} of {memory}", used=_gibibytes(status.gpu_memory_used), memory=memory)
    if status.live and status.gpu_utilisation is not None:
        return html_text(
            "on {device}, {memory}, utilisation {share}&nbsp;%",
            device=gpu, memory=memory, share=status.gpu_utilisation,
        )  # fmt: skip
    return html_text("on {device}, {memory}", device=gpu, memory=memory)


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.1f}"


def waiting_for(run: Run, store: Store) -> str:
    """What a queued run waits for."""
    if run.owner != LOCAL and (why := run.status.waiting):  # it has another queue than this machine's
        return escape(why)
    places, training = {slot.name for slot in slots(run.config.device)}, []
    for other in store.list():
        # the state first: it is cheap, and a damaged folder is never in one of these
        status = other.status
        if status.state not in ("running", "stopping") or other.owner != run.owner:
            continue
        if not places.isdisjoint(slots_of(other, status)):
            training.append(other)
    if (why := run.status.waiting) and (run.status.yields or not training):
        return escape(why)
    if not training:
        return html_text("Starting: the training process is loading.")
    ahead = len(ahead_of(run, store))
    if len(training) > 1:
        return html_text(
            "{number} runs train now, and {ahead} more wait before it. It starts by itself; you may close this page.",
            number=len(training), ahead=ahead,
        )  # fmt: skip
    link = Markup(f'<a href="?run={escape(training[0].id)}">{escape(run_title(training[0].config, training[0]))}</a>')
    if not ahead:
        return html_text("Waiting for run {run} to finish. It starts by itself; you may close this page.", run=link)
    return html_plural(
        "Waiting for run {run} to finish and {number} more before it. It starts by itself; you may close this page.",
        "Waiting for run {run} to finish and {number} more before it. It starts by itself; you may close this page.",
        ahead, run=link,
    )  # fmt: skip


def stepper(run: Run, config: RunConfig, status: Status) -> str:
    """The four stages: done, now, to come, or not needed."""
    over = status.state == FINISHED
    at = len(STAGES) if over else STAGES.index(status.stage) if status.stage in STAGES else -1
    seen = read_curves(run).stages
    items = []
    for i, stage in enumerate(STAGES):
        state = "done" if i < at else "now" if i == at else "next"
        note = _epoch(stage, config, status) if state == "now" else ""
        if stage == "teacher" and not config.needs_teacher:
            state, note = "skipped", html_text("not needed")
        elif stage == "teacher" and state == "done" and stage not in seen:
            note = html_text("trained before")
        elif stage == "auto-encoder" and not config.needs_auto_encoder:
            state, note = "skipped", html_text("not needed")
        mark = "✓" if state == "done" else "–" if state == "skipped" else str(i + 1)
        fine_tunes = stage == "teacher" and status.fine_tunes
        name = escape(_(FINE_TUNE if fine_tunes else STAGE_NAMES[stage]))
        items.append(f'<li class="{state}"><i>{mark}</i><span>{name}<small>{note}</small></span></li>')
    return f'<ol class="stepper">{"".join(items)}</ol>'


def _epoch(stage: str, config: RunConfig, status: Status) -> str:
    """Where a stage is, in epochs: the percentage on the page is that of the whole run."""
    epochs = {"teacher": config.teacher_epochs, "auto-encoder": config.auto_encoder_epochs, "students": config.epochs}
    if stage not in epochs:
        return html_text("now")
    done = int(status.stage_progress * epochs[stage] + 1e-9)
    if not status.live:
        return html_plural("after {at} of {number} epoch", "after {at} of {number} epochs", epochs[stage], at=done)
    at = min(epochs[stage], done + 1)
    return html_text("epoch {at} of {epochs}", at=at, epochs=epochs[stage])


def _bar(status: Status) -> str:
    done = 1.0 if status.state == FINISHED else max(0.0, min(1.0, status.progress))
    percent = math.floor(done * 100 + 1e-9)  # 100 is shown only when it is done
    reading = status.live and status.stage == LOADING and 0 < status.stage_progress < 1  # which has its own percentage
    return (
        f'<div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}" '
        f'aria-label="{html_text("Progress of the run")}">'
        f'<i style="width:{done:.1%}"></i><b>{"" if reading else f"{percent} %"}</b></div>'
    )


def log_html(run: Run, tell: Tell = str) -> str:
    """The end of the log."""
    return f'<pre class="log">{escape(tell(run.log_tail(40))) or html_text("Nothing written yet.")}</pre>'


def early_html(status: Status, run: Run) -> str:
    """What stands in the place of the curves before there are any."""
    if not status.live or metrics_size(run):
        return ""
    text = (
        html_text("Curves appear here a few seconds after training begins.")
        if status.state != QUEUED
        else html_text("Curves appear when it is this run's turn.")
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
            "watched": watched_size(run),
            "second": int(time.time()) if status.live else 0}  # fmt: skip
