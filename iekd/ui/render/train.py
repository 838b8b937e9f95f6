"""The form of the tab Train as HTML: headings, the two networks, what Start would start, what is wrong. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from html import escape

from iekd.config.methods import method_name
from iekd.config.run import NO_TEACHER, RunConfig
from iekd.errors import UserError
from iekd.language import _, ngettext
from iekd.models.catalog import model_info, model_name
from iekd.runs.card import dataset_of
from iekd.runs.estimate import Estimate
from iekd.runs.store import Run
from iekd.times import time_range
from iekd.ui.render.template import html_text, render
from iekd.ui.render.words import count, file_size, run_title, with_seeds

TEACHER, STUDENT = "teacher", "student"  # also CSS classes of their colours


def step_html(title: str, text: str = "", number: int | str = "") -> str:
    """The heading of a part of the form."""
    return render("train_step", title=title, text=text, number=number)


def networks_html(
    teacher: str, student: str, channels: int = 3, classes: int = 10, side: int = 0,
    seconds: Mapping[str, float | None] | None = None,
) -> str:  # fmt: skip
    """Teacher and student with their sizes, as bars, and what each costs.

    channels, classes, side: of the images, where they are known. seconds: by network, for one image on this machine;
    None while that is being measured.
    """
    named = {TEACHER: teacher, STUDENT: student}
    sizes, facts = {}, {}
    for role, name in named.items():
        if name != NO_TEACHER:
            with suppress(UserError):  # what is wrong with a name is said at its field
                sizes[role] = model_info(name).params(channels, classes)
                facts[role] = _facts(name, sizes[role], side, seconds or {}) if side else ""
    largest = max(sizes.values(), default=1)
    titles = {TEACHER: _("Teacher"), STUDENT: _("Student")}
    rows = [
        (titles[role], role, model_name(named[role]), n, 100 * n / largest, facts[role]) for role, n in sizes.items()
    ]
    return render("train_networks", networks=rows, ratio=_ratio(sizes))


def advice_html(why: str) -> str:
    """A sentence on what would suit the pictures, above the button that takes it."""
    return f'<p class="note">{escape(why)}</p>'


def _facts(name: str, params: int, side: int, seconds: Mapping[str, float | None]) -> str:
    """Bytes in float32, multiply-adds for an image of that side, and how long one takes."""
    macs = model_info(name).macs * (side / 32) ** 2
    parts = [
        file_size(4 * params),
        _("{count} multiply-adds at {side} × {side}", count=count(round(macs)), side=side),
    ]
    if name in seconds:
        taken = seconds[name]
        parts.append(
            _("latency is being measured…")
            if taken is None
            else _("{time} ms per image on this machine", time=f"{1000 * taken:{'.3g' if taken < 0.1 else ',.0f'}}")
        )
    return " · ".join(parts)


def loading_html() -> str:
    """What stands in the place of the networks until their library is imported."""
    return f'<p class="note" role="status">{html_text("Loading the libraries of networks…")}</p>'


def _ratio(sizes: dict[str, int]) -> str:
    if TEACHER not in sizes or STUDENT not in sizes:
        return _("Without a teacher, the student learns from the labels alone.")
    teacher, student = sizes[TEACHER], sizes[STUDENT]
    if teacher > 1.05 * student:
        return _("The student is {times}× smaller than its teacher.", times=f"{teacher / student:.1f}")
    if teacher >= student:
        return _("Both have the same size.")
    return _("The student is {times}× larger than its teacher.", times=f"{student / teacher:.1f}")


def pair_html(config: RunConfig) -> str:
    """Dataset, networks and students of a run, in two lines."""
    students = len(config.methods) * len(config.seeds)
    methods = ", ".join(map(method_name, config.methods))
    title = dataset_of(config)
    taught = f"{model_name(config.teacher)} → " if config.teacher != NO_TEACHER else ""
    return render(
        "train_pair", dataset=title[:1].upper() + title[1:], networks=f"{taught}{model_name(config.student)}",
        students=ngettext("{number} student", "{number} students", students),
        methods=with_seeds(methods, len(config.seeds)),
    )  # fmt: skip


def estimate_html(found: Estimate, ahead: list[Run]) -> str:
    """How long a run takes, and what it waits for. ahead: the runs before it in the queue."""
    time = time_range(found.low, found.high)
    return render("train_estimate", time=time, ahead=[(run.id, run_title(run.config, run)) for run in ahead])


def problem_html(text: object, field: str = "") -> str:
    """Something wrong, said at Start; "" if nothing is. field: the setting to change."""
    return render("train_problem", text=str(text), field=field) if str(text) else ""


def slug(heading: str) -> str:
    """The name of a group of settings in ids."""
    return heading.lower().replace(" ", "-")


def group_html(heading: str) -> str:
    """The heading of a group of expert settings, with its button."""
    return render("train_group", heading=_(heading), slug=slug(heading))


def search_html() -> str:
    """The field that searches the expert settings."""
    return render("train_search")


def changed_html(counts: dict[str, int]) -> str:
    """How many settings of each group are not at their default, for the headings."""
    return render("train_changed", counts=json.dumps({slug(group): count for group, count in counts.items()}))
