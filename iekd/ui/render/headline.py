"""The main number of a run as HTML, live and finished: accuracy, gain, size, speed and the gap to the teacher.

Which student it is of is decided by a rule (iekd/results/lead.py). No Gradio.
"""

from __future__ import annotations

from typing import Any

from iekd.config.methods import BASELINE, method_name
from iekd.config.run import RunConfig
from iekd.language import _, ngettext
from iekd.plural import signed
from iekd.results.brief import SEEDS, brief, interval
from iekd.results.card import student_name
from iekd.results.lead import Lead, judgement, lead, lead_of
from iekd.results.report import left_out, remarks
from iekd.results.significance import Difference
from iekd.runs.exported import certificates_in
from iekd.runs.siblings import Family
from iekd.runs.siblings import seeds_text as seeds_of
from iekd.runs.status import FINISHED, Status
from iekd.runs.store import EXPORTS, Run
from iekd.ui.render.so_far import so_far
from iekd.ui.render.template import render
from iekd.ui.render.words import STATES, method_style, seeds_text, state_name


def headline_html(run: Run, config: RunConfig, status: Status, family: Family) -> str:
    """The block; "" for a run that is over and has no number."""
    report = family.report if status.state == FINISHED else None
    shown: dict[str, Any] = {}
    facts, warnings, early = [], [], False
    if report:
        found = lead_of(report)
        when = ngettext("after {number} epoch", "after {number} epochs", config.epochs)
        too_weak = brief(report, method_name).too_weak
        if found:
            shown = _shown(found, too_weak, True)
            facts = [*_size(report, found), *_speed(run), *([] if too_weak else _gap(found))]
        warnings = [*remarks(report, method_name), *_diverged(report)]
    else:
        reached = so_far(run, config, status)
        epoch, found = reached.epoch, lead(reached.summaries, reached.teacher)
        if found is None and not status.live:
            return ""
        when = _("The first numbers come soon")
        if found:
            when = ngettext(
                "after {at} of {number} epoch", "after {at} of {number} epochs", config.epochs, at=f"{epoch:g}"
            )
            shown, facts = _shown(found, "", False, status.live), _gap(found)
            early = status.live and epoch < config.epochs / 3
    return render(
        "headline", when=when, live=status.live, shown=shown, facts=facts, warnings=warnings,
        early=early, note=family.note, siblings=[
            {
                "id": s.run.id, "seeds": seeds_of(s), "why_not": s.why_not, "pooled": s.pooled,
                "state": state_name(s.status.state).lower() if s.status.state in STATES else _("damaged"),
            }
            for s in family.siblings
        ],
    ).strip()  # fmt: skip


def _shown(found: Lead, too_weak: str, over: bool, live: bool = False) -> dict[str, Any]:
    """over: it has a report. live: more is to come."""
    own, gain = found.own, found.gain
    who = student_name(own.method)
    if own.n > 1:
        who = ngettext("{student}, mean of {number} seed", "{student}, mean of {number} seeds", own.n, student=who)
    return {
        "accuracy": f"{own.mean:.1f}", "style": method_style(own.method), "who": who,
        "gain": signed(gain.mean, 1) if gain and not too_weak else "", "too_weak": bool(too_weak),
        "plain": f"{found.plain.mean:.1f}" if found.plain else "", "alone": own.method == BASELINE,
        "over": _interval(gain) if gain and over else _so_far(gain, live) if gain else "",
        "sign": _sign(gain) if gain and over else "",
        "judgement": judgement(gain, found.compared) if gain and over and not too_weak else "",
        "higher": ", ".join(f"{method_name(s.method)} {s.mean:.1f} %" for s in found.higher) if over else "",
    }  # fmt: skip


def _so_far(gain: Difference, live: bool) -> str:
    if not live:
        return seeds_text(gain.n)
    return ngettext("{number} seed so far", "{number} seeds so far", gain.n)


def _interval(gain: Difference) -> str:
    """95 %: +1.6 to +2.5, 3 seeds; and what the interval is over."""
    over, seeds = interval(gain), seeds_text(gain.n)
    if over is None:
        return _("{seeds}, no interval", seeds=seeds)
    low, high = signed(over.low, 1), signed(over.high, 1)
    if over.over == SEEDS:
        return _("95 %: {low} to {high} if trained again with other seeds, {seeds}", low=low, high=high, seeds=seeds)
    return _("95 %: {low} to {high} on other test images, {seeds}", low=low, high=high, seeds=seeds)


def _sign(gain: Difference) -> str:
    over = interval(gain)
    return "" if over is None or over.low <= 0 <= over.high else "up" if gain.mean > 0 else "down"


def _size(report: dict[str, Any], found: Lead) -> list[tuple[str, str]]:
    teacher = (report.get("teacher") or {}).get("params")
    own = next((learner["params"] for learner in report["learners"] if learner["method"] == found.own.method), None)
    if not teacher or not own:
        return []
    return [
        _times(teacher / own, _("smaller than the teacher"), _("larger than the teacher"), _("as large as the teacher"))
    ]


def _times(ratio: float, more: str, less: str, same: str) -> tuple[str, str]:
    if 0.95 < ratio < 1.05:
        return "1×", same
    return (f"{ratio:.1f}×", more) if ratio > 1 else (f"{1 / ratio:.1f}×", less)


def _speed(run: Run) -> list[tuple[str, str]]:
    """How much faster than the teacher, where an export has measured both networks in the same round."""
    root = run.path / EXPORTS
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        for certificate in certificates_in(folder):
            took = {found.model: found.median for found in certificate.latencies if found.runtime == "torch"}
            if took.get("teacher") and took.get("student"):
                ratio = took["teacher"] / took["student"]
                return [_times(
                    ratio,
                    _("faster than the teacher, one image on one CPU thread (measured by an export)"),
                    _("slower than the teacher, one image on one CPU thread (measured by an export)"),
                    _("the teacher's time, one image on one CPU thread (measured by an export)"),
                )]  # fmt: skip
    return []


def _gap(found: Lead) -> list[tuple[str, str]]:
    """The share of the gap to the teacher. That the teacher is worse is one of the warnings."""
    if found.teacher is None:
        return []
    accuracy = f"{found.teacher:.1f} %"
    if found.closed is None:
        return [(accuracy, _("accuracy of the teacher"))]
    if found.closed < -0.5:
        return [(accuracy, _("accuracy of the teacher; the plain student comes closer to it"))]
    if found.closed > 100:
        return [(
            _("all"), _("of the gap to the teacher ({accuracy}) is closed: it is above the teacher", accuracy=accuracy)
        )]  # fmt: skip
    return [(
        f"{abs(found.closed):.0f} %",
        _("of the gap between plain student and the teacher ({accuracy}) closed", accuracy=accuracy),
    )]  # fmt: skip


def _diverged(report: dict[str, Any]) -> list[str]:
    """Which students diverged, what was seen of each, and what to do."""
    said = left_out(report)
    if not said:
        return []
    advice = _("Lower the learning rate or the weights of the method, or give precision fp32 if it was bf16.")
    return [" ".join([said, *report["diverged"].values(), advice])]
