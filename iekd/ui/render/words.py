"""How the page says things: names, sizes, times, states. Plain text only; whoever puts it into HTML escapes it."""

from __future__ import annotations

import time
from collections.abc import Iterable

from iekd.config.methods import method_name, split_name
from iekd.config.run import NO_TEACHER, RunConfig
from iekd.data import title_of
from iekd.language import N_, _, ngettext
from iekd.models.catalog import model_name
from iekd.runs.notes import name_of
from iekd.runs.store import Run

STATES = {
    "queued": N_("Waiting"), "running": N_("Training"), "stopping": N_("Stopping"), "stopped": N_("Stopped"),
    "finished": N_("Finished"), "failed": N_("Failed"), "lost": N_("Lost"),
}  # fmt: skip
DEVICES = {"cpu": N_("the processor (CPU)"), "cuda": N_("the NVIDIA GPU"), "mps": N_("the Apple GPU")}


def state_name(state: str) -> str:
    """A run's state, as a word."""
    return _(STATES[state]) if state in STATES else state


def device_title(device: str) -> str:
    """What "cuda" or "cuda:1" is called."""
    kind = device.split(":", maxsplit=1)[0]
    return _(DEVICES[kind]) if kind in DEVICES else device


def teacher_title() -> str:
    """What the teacher is called beside its students' methods."""
    return _("Teacher")


def dataset_title(name: str) -> str:
    """What a dataset is called."""
    return _(title_of(name))


def epochs_text(number: int) -> str:
    """1 epoch, 10 epochs."""
    return ngettext("{number} epoch", "{number} epochs", number)


def seeds_text(number: int) -> str:
    """1 seed, 3 seeds."""
    return ngettext("{number} seed", "{number} seeds", number)


def listed(texts: Iterable[str]) -> str:
    """ "a, b and c"."""
    *first, last = texts
    return _("{first} and {last}", first=", ".join(first), last=last) if first else last


def method_style(method: str) -> str:
    """CSS classes: the colour of the method, dashed with KD on top."""
    base, with_kd = split_name(method)
    return f"{base} with-kd" if with_kd else base


def in_words(config: RunConfig) -> str:
    """One line that says what a run does."""
    students = [method_name(m) for m in config.methods]
    taught = f"{model_name(config.teacher)} → " if config.teacher != NO_TEACHER else ""
    return f"{taught}{model_name(config.student)}: {with_seeds(listed(students), len(config.seeds))}"


def with_seeds(students: str, seeds: int) -> str:
    """ "IE-FT" as it is for one seed, else "IE-FT, 3 seeds each"."""
    if seeds == 1:
        return students
    return ngettext("{students}, {number} seed each", "{students}, {number} seeds each", seeds, students=students)


def model_titles(run: Run) -> dict[str, str]:
    """Title of each saved model of a run, by its name: Teacher, IE-FT; with its seed if there are several."""
    several, titles = len(run.config.seeds) > 1, {}
    for name in run.model_folders:
        method, _dash, seed = name.rpartition("-seed")
        if not method:
            titles[name] = teacher_title()
        elif several:
            titles[name] = _("{method}, seed {seed}", method=method_name(method), seed=seed)
        else:
            titles[name] = method_name(method)
    return titles


def first_chosen(run: Run) -> str | None:
    """The model that is chosen until somebody chooses: the student trained last, as a rule an IE student."""
    names = list(run.model_folders)
    students = [name for name in names if name != "teacher"] or names
    return students[-1] if students else None


def run_title(config: RunConfig, run: Run | None = None) -> str:
    """The name that somebody gave the run, later or when it was started, or what it does in words."""
    return (name_of(run, config) if run else config.name) or in_words(config)


def count(params: int) -> str:
    """272186 -> '0.27 M'."""
    return f"{params / 1e6:.2f} M" if params >= 10_000 else f"{params:,}"


def file_size(size: int) -> str:
    """311000 -> '311 kB', 1100000 -> '1.1 MB'."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def minus(text: str) -> str:
    """Numbers with a real minus."""
    return text.replace("-", "\u2212")


def when(timestamp: float) -> str:
    """Today as a time of day, earlier as a date."""
    then, now = time.localtime(timestamp), time.localtime()
    return time.strftime(_("today %H:%M") if then[:3] == now[:3] else _("%d %b %Y %H:%M"), then)
