"""One run -> the HTML of its head (state, stages, progress) and its log. Reads the folder; no Gradio."""

from __future__ import annotations

import math
import time
from html import escape
from typing import Any

from iekd.config.run import STAGES, RunConfig
from iekd.plural import counted
from iekd.runs.card import dataset_of
from iekd.runs.queue import ahead_of, device_name
from iekd.runs.store import FINISHED, LOADING, QUEUED, STOPPING, Run, Status, Store
from iekd.runs.watched import size as watched_size
from iekd.ui.render.curves import metrics_size, read_curves
from iekd.ui.render.words import (
    DEVICES,
    STATES,
    duration,
    in_words,
    run_title,
    time_range,
    when,
)
from iekd.ui.server.hidden_paths import Tell

STAGE_NAMES = {"teacher": "Teacher", "auto-encoder": "Auto-encoder", "students": "Students", "evaluation": "Evaluation"}


def badge(state: str) -> str:
    return f'<span class="badge {escape(state)}">{escape(STATES.get(state, state))}</span>'


def head_html(run: Run, config: RunConfig, status: Status, store: Store) -> str:
    """Title, state, stages, progress and pace."""
    title, words = escape(run_title(config, run)), escape(in_words(config))
    about = f"{escape(dataset_of(config))} · {'' if title == words else words + ' · '}"
    epochs = counted(config.epochs, "epoch")
    began = f" · started {when(status.created)}" if status.created else ""
    lines = [
        f'<div class="runhead"><div class="titleline"><h2>{title}</h2>{badge(status.state)}</div>',
        f'<p class="sub">{about}{epochs}{began} · <code>{escape(run.id)}</code></p>',
    ]
    lines += [stepper(run, config, status), _bar(status)]
    facts = _facts(status, _age(run))
    if status.state == QUEUED:
        facts = [waiting_for(run, store)]
    if status.state == STOPPING or (status.live and run.stop_requested):
        facts = ["Stopping after the current step; what the students have learned is kept."]
    lines.append(f'<p class="facts">{"".join(f"<span>{fact}</span>" for fact in facts)}</p>')
    lines += [f'<p class="warn">{escape(said)}</p>' for said in status.cautions if status.live]
    lines += [f'<p class="warn">{escape(said)} The other students go on.</p>' for said in _gone(status)]
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
    facts = []
    if status.live and status.stage == LOADING and 0 < status.stage_progress < 1:
        facts.append(f"Reading the images: <b>{status.stage_progress:.0%}</b>")
    if status.seconds is not None:
        facts.append(f"<b>{duration(status.seconds)}</b> {'so far' if status.live else 'in all'}")
    if status.live and status.eta_range is not None and age < status.eta_range[1]:
        low, high = (seconds - age for seconds in status.eta_range)
        facts.append(f"<b>{time_range(low, high)}</b> left")
    if status.live and status.images_per_second:
        facts.append(f"<b>{status.images_per_second:,.0f}</b> images/s")
    return facts + _machine(status)


def _machine(status: Status) -> list[str]:
    """What it computes on, and how much of that it uses while it trains."""
    if not status.device:
        return []
    if not status.gpu or not status.gpu_memory:
        threads = f", {counted(status.threads, 'thread')}" if status.threads else ""
        return [f"on {escape(DEVICES.get(status.device.split(':')[0], status.device))}{threads}"]
    used = busy = ""
    if status.live and status.gpu_memory_used is not None:
        used = f"{_gibibytes(status.gpu_memory_used)} of "
    if status.live and status.gpu_utilisation is not None:
        busy = f", utilisation {status.gpu_utilisation}&nbsp;%"
    return [f"on {escape(status.gpu)}, {used}{_gibibytes(status.gpu_memory)} GiB{busy}"]


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.1f}"


def waiting_for(run: Run, store: Store) -> str:
    """What a queued run waits for."""
    device = device_name(run.config.device)
    training = None
    for other in store.list():
        # the state first: it is cheap, and a damaged folder is never in one of these
        if other.status.state not in ("running", "stopping") or other.owner != run.owner:
            continue
        if device_name(other.config.device) == device:
            training = other
            break
    if training is None and (why := run.status.waiting):
        return escape(why)
    if training is None:
        return "Starting: the training process is loading."
    link = f'<a href="?run={escape(training.id)}">{escape(run_title(training.config, training))}</a>'
    ahead = len(ahead_of(run, store))
    more = f" and {ahead} more before it" if ahead else ""
    return f"Waiting for run {link} to finish{more}. It starts by itself; you may close this page."


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
            state, note = "skipped", "not needed"
        elif stage == "teacher" and state == "done" and stage not in seen:
            note = "trained before"
        elif stage == "auto-encoder" and not config.needs_auto_encoder:
            state, note = "skipped", "not needed"
        mark = "✓" if state == "done" else "–" if state == "skipped" else str(i + 1)
        items.append(f'<li class="{state}"><i>{mark}</i><span>{STAGE_NAMES[stage]}<small>{note}</small></span></li>')
    return f'<ol class="stepper">{"".join(items)}</ol>'


def _epoch(stage: str, config: RunConfig, status: Status) -> str:
    """Where a stage is, in epochs: the percentage on the page is that of the whole run."""
    epochs = {"teacher": config.teacher_epochs, "auto-encoder": config.auto_encoder_epochs, "students": config.epochs}
    if stage not in epochs:
        return "now"
    return f"epoch {min(epochs[stage], int(status.stage_progress * epochs[stage]) + 1)} of {epochs[stage]}"


def _bar(status: Status) -> str:
    done = 1.0 if status.state == FINISHED else max(0.0, min(1.0, status.progress))
    percent = math.floor(done * 100 + 1e-9)  # 100 is shown only when it is done
    reading = status.live and status.stage == LOADING and 0 < status.stage_progress < 1  # which has its own percentage
    return (
        f'<div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}" '
        f'aria-label="Progress of the run">'
        f'<i style="width:{done:.1%}"></i><b>{"" if reading else f"{percent}%"}</b></div>'
    )


def log_html(run: Run, tell: Tell = str) -> str:
    """The end of the log."""
    return f'<pre class="log">{escape(tell(run.log_tail(40))) or "Nothing written yet."}</pre>'


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
            "watched": watched_size(run),
            "second": int(time.time()) if status.live else 0}  # fmt: skip
