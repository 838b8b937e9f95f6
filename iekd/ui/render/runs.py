"""The list of runs as HTML: which of them are shown, in which order, and what of each. Reads folders; no Gradio."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from iekd.config.methods import method_name
from iekd.config.run import RunConfig
from iekd.language import N_, _, ngettext
from iekd.launchers.flavors import resumed_price
from iekd.models.catalog import model_name
from iekd.plural import signed
from iekd.results.brief import SEEDS, Interval, interval
from iekd.runs import trash
from iekd.runs.index import Entry, Index
from iekd.runs.owner import record
from iekd.runs.queue import ahead_of
from iekd.runs.status import FINISHED, LIVE, QUEUED, RUNNING, STOPPING
from iekd.runs.store import Store
from iekd.times import duration
from iekd.ui.render.curves import read_curves, teacher_accuracy
from iekd.ui.render.run import badge
from iekd.ui.render.sparkline import Sparklines
from iekd.ui.render.template import render
from iekd.ui.render.words import (
    dataset_title,
    epochs_text,
    method_style,
    seeds_text,
    state_name,
    when,
)
from iekd.ui.rights.access import May

PAGE = 50  # runs of one page
CHANGE = "change"  # the right to give a run a name, a star or a note
STARRED, WEAK = "starred", "weak"  # filters beside the states
SORTS = {
    "newest": N_("Newest first"), "gain": N_("Largest gain first"), "accuracy": N_("Most accurate first"),
    "name": N_("By name"),
}  # fmt: skip


@dataclass(frozen=True)
class Query:
    """What somebody wants to see of the list. dataset, state: "" for all; page: from 0."""

    search: str = ""
    dataset: str = ""
    state: str = ""
    sort: str = "newest"
    page: int = 0

    @classmethod
    def read(cls, values: Any) -> Query:
        """From what the page sent, which may be anything."""
        if not isinstance(values, dict):
            return cls()
        texts = {key: str(values.get(key) or "")[:200] for key in ("search", "dataset", "state")}
        sort, page = values.get("sort"), values.get("page")
        return cls(
            **texts, sort=sort if isinstance(sort, str) and sort in SORTS else "newest",
            page=max(0, page) if isinstance(page, int) else 0,
        )  # fmt: skip


def title(entry: Entry) -> str:
    """What the list calls a run: its name, or its methods."""
    if entry.config is None:
        return entry.run.id
    return entry.name or ", ".join(map(method_name, entry.config.methods))


def select(entries: Sequence[Entry], query: Query, may: May) -> list[Entry]:
    """The runs that are wanted, in the order that is wanted; those without a gain or an accuracy come last."""
    words = query.search.casefold().split()
    found = []
    for entry in entries:
        editor = may(entry.run, CHANGE)
        if query.dataset and (entry.config is None or dataset_title(entry.config.dataset) != query.dataset):
            continue
        if query.state and not _in_state(entry, query.state, editor):
            continue
        if words and not all(word in _text(entry, editor) for word in words):
            continue
        found.append(entry)
    if query.sort == "name":
        return sorted(found, key=lambda entry: title(entry).casefold())
    if query.sort == "gain":
        return sorted(found, key=lambda e: -e.brief.gain.mean if e.brief and e.brief.gain else float("inf"))
    if query.sort == "accuracy":
        return sorted(
            found, key=lambda e: -e.brief.best if e.brief and e.brief.best is not None else float("inf")
        )  # fmt: skip
    return found


def _in_state(entry: Entry, wanted: str, editor: bool) -> bool:
    if wanted == STARRED:
        return editor and entry.notes.starred
    if wanted == WEAK:
        return bool(entry.brief and entry.brief.too_weak)
    return entry.status.state == wanted


def _text(entry: Entry, editor: bool) -> str:
    """Everything that a search looks at, in small letters."""
    config, parts = entry.config, [title(entry), entry.run.id]
    if config is not None:
        parts += [dataset_title(config.dataset), config.teacher, config.student, *config.methods, networks(config)]
        parts += [method_name(method) for method in config.methods]
    if editor:
        parts.append(entry.notes.note)
    return " ".join(parts).casefold()


def networks(config: RunConfig) -> str:
    """ResNet-20 → ResNet-8."""
    student = model_name(config.student)
    return f"{model_name(config.teacher)} → {student}" if config.needs_teacher else student


def about(config: RunConfig) -> str:
    """10 epochs, 2 seeds; the usual seed 0 is not named."""
    epochs = epochs_text(config.epochs)
    if config.seeds == (0,):
        return epochs
    seeds = seeds_text(len(config.seeds)) if len(config.seeds) > 1 else _("seed {seed}", seed=config.seeds[0])
    return f"{epochs}, {seeds}"


def interval_text(found: Interval) -> tuple[str, str]:
    """("+1.6 to +2.5", "95 % interval over 3 seeds")."""
    if found.over == SEEDS:
        meaning = ngettext("95 % interval over {number} seed", "95 % interval over {number} seeds", found.n)
    else:
        meaning = ngettext("95 % interval over {number} test image", "95 % interval over {number} test images", found.n)
    return _("{low} to {high}", low=signed(found.low, 1), high=signed(found.high, 1)), meaning


def results(entry: Entry) -> dict[str, Any]:
    """What the templates show of a run's numbers; texts are "" where there is nothing."""
    brief, gain = entry.brief, entry.brief.gain if entry.brief else None
    over = interval(gain) if gain else None
    low_high, meaning = interval_text(over) if over else ("", "")
    taught = brief.taught if brief else None
    weak = brief.too_weak if brief else ""
    few = _("one seed") if gain and gain.n == 1 else ""
    return {
        "teacher": f"{brief.teacher:.1f}" if brief and brief.teacher is not None else "",
        "plain": f"{brief.plain.mean:.1f}" if brief and brief.plain else "",
        "taught": f"{taught.mean:.1f}" if taught else "",
        "method": method_name(taught.method) if taught else "",
        "style": method_style(taught.method) if taught else "",
        "gain": signed(gain.mean, 1) if gain else "",
        "interval": low_high, "interval_meaning": meaning, "few": few,
        "sign": "" if weak or not gain or not over or over.low <= 0 <= over.high else "up" if gain.mean > 0 else "down",
        "too_weak": weak,
        "diverged": ", ".join(brief.diverged) if brief else "", "lost": len(brief.diverged) if brief else 0,
        "all": ", ".join(f"{method_name(m)} {mean:.1f} %" for m, mean in brief.methods) if brief else "",
    }  # fmt: skip


def _row(entry: Entry, store: Store, sparks: Sparklines, may: May) -> dict[str, Any]:
    run, config, status = entry.run, entry.config, entry.status
    shared: dict[str, Any] = {
        "id": run.id, "title": title(entry), "starred": entry.notes.starred, "editable": may(run, CHANGE),
        "stoppable": False, "resumable": False, "movable": False, "deletable": not status.live and may(run, "delete"),
    }  # fmt: skip
    if config is None:
        return {**shared, "damaged": True}
    known = results(entry)
    if status.live and entry.brief is None and (teacher := teacher_accuracy(run, config, read_curves(run))) is not None:
        known["teacher"] = f"{teacher:.1f}"
    stopping = status.live and run.stop_requested
    progress = f"{math.floor(100 * status.progress)} %" if status.state == RUNNING else duration(status.seconds)
    return {
        **shared,
        "damaged": False,
        "stoppable": status.live and not stopping and may(run, "stop"),
        "resumable": status.resumable and may(run, "resume"),
        "price": resumed_price(record(run.path)) if status.resumable else "",
        "movable": status.state == QUEUED and may(run, "move") and bool(ahead_of(run, store)),
        "name": entry.name,
        "note": entry.notes.note if shared["editable"] else "",
        "when": when(status.created),
        "badge": Markup(badge(STOPPING if stopping else status.state)),
        "time": progress,
        "dataset": dataset_title(config.dataset),
        "networks": networks(config),
        "about": about(config),
        "spark": Markup(sparks.draw(run, status.attempt)),
        **known,
    }  # fmt: skip


def list_html(index: Index, sparks: Sparklines, query: Query, may: May, empty: str = "") -> str:
    """One page of the list, with buttons for what whoever looks may do; `empty` where there are no runs at all."""
    entries, undone = index.entries(), undo_of(index.store, may)
    if not entries:
        return undone + empty
    found = select(entries, query, may)
    pages = max(1, -(-len(found) // PAGE))
    query = replace(query, page=min(query.page, pages - 1))
    first = query.page * PAGE
    rows = [_row(entry, index.store, sparks, may) for entry in found[first : first + PAGE]]
    return render(
        "runs", rows=rows, undone=Markup(undone), page=query.page, pages=pages, first=first + 1, last=first + len(rows),
        found=len(found), deletable=any(row["deletable"] for row in rows),
    ).strip()  # fmt: skip


def undo_of(store: Store, may: May) -> str:
    """What was deleted last, with a button that brings it back, for those who may delete."""
    known = trash.deletions(store)
    if not known or not all(may(run, "delete") for run in known[0].runs):
        return ""
    until = time.strftime("%H:%M", time.localtime(known[0].at + trash.KEPT))
    return render("runs_undo", batch=known[0].name, count=len(known[0].runs), until=until).strip()


def tools_html(index: Index, query: Query, may: May) -> str:
    """The fields above the list: search, filters, order."""
    entries = index.entries()
    sets = sorted({dataset_title(entry.config.dataset) for entry in entries if entry.config}, key=str.casefold)
    states = {state: state_name(state) for state in (*LIVE, FINISHED, "stopped", "failed", "lost")}
    if any(entry.brief and entry.brief.too_weak for entry in entries):
        states[WEAK] = _("Too weak to judge")
    if any(may(entry.run, CHANGE) for entry in entries):
        states[STARRED] = _("★ Starred")
    sorts = {key: _(text) for key, text in SORTS.items()}
    return render("runs_tools", query=query, datasets=sets, states=states, sorts=sorts).strip()
