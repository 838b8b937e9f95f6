"""How the page says things: names, sizes, times, states. Plain text only; whoever puts it into HTML escapes it."""

from __future__ import annotations

import time

from iekd.config.methods import method_name, split_name
from iekd.config.run import NO_TEACHER, RunConfig
from iekd.models.catalog import model_name
from iekd.runs.notes import name_of
from iekd.runs.store import Run

STATES = {
    "queued": "Waiting", "running": "Training", "stopping": "Stopping", "stopped": "Stopped",
    "finished": "Finished", "failed": "Failed", "lost": "Lost",
}  # fmt: skip
DEVICES = {"cpu": "the processor (CPU)", "cuda": "the NVIDIA GPU", "mps": "the Apple GPU"}


def method_style(method: str) -> str:
    """CSS classes: the colour of the method, dashed with KD on top."""
    base, with_kd = split_name(method)
    return f"{base} with-kd" if with_kd else base


def in_words(config: RunConfig) -> str:
    """One line that says what a run does."""
    students = [method_name(m) for m in config.methods]
    listed = students[0] if len(students) == 1 else f"{', '.join(students[:-1])} and {students[-1]}"
    seeds = f", {len(config.seeds)} seeds each" if len(config.seeds) > 1 else ""
    taught = f"{model_name(config.teacher)} → " if config.teacher != NO_TEACHER else ""
    return f"{taught}{model_name(config.student)}: {listed}{seeds}"


def model_titles(run: Run) -> dict[str, str]:
    """Title of each saved model of a run, by its name: Teacher, IE-FT; with its seed if there are several."""
    several, titles = len(run.config.seeds) > 1, {}
    for name in run.model_folders:
        method, _, seed = name.rpartition("-seed")
        titles[name] = f"{method_name(method)}{f', seed {seed}' if several else ''}" if method else "Teacher"
    return titles


def first_chosen(run: Run) -> str | None:
    """The model that is chosen until somebody chooses: the student trained last, as a rule an IE student."""
    names = list(run.model_folders)
    students = [name for name in names if name != "teacher"] or names
    return students[-1] if students else None


def run_title(config: RunConfig, run: Run | None = None) -> str:
    """The name that somebody gave the run, later or when it was started, or what it does in words."""
    return (name_of(run, config) if run else config.name) or in_words(config)


def duration(seconds: float | None) -> str:
    """75 -> '1 min 15 s'."""
    if seconds is None:
        return ""
    total = max(0, round(seconds))
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    if total < 48 * 3600:
        return f"{total // 3600} h {total % 3600 // 60:02d} min"
    return f"{total // 86400} days"


def time_range(low: float, high: float) -> str:
    """A time that lies in that range: 'about 3 to 6 min', or 'about 4 min' where both ends say the same."""
    low = max(low, 1.0)
    if high < 10:
        return "a few seconds"
    size, unit, step = next(
        found for found in ((86400, "days", 1), (3600, "h", 1), (60, "min", 1), (1, "s", 10)) if high >= 2 * found[0]
    )  # fmt: skip
    middle = (low * high) ** 0.5
    first, last = (low, high) if high > 1.35 * low else (middle, middle)
    first, last = (max(step, step * round(seconds / size / step)) for seconds in (first, last))
    return f"about {first:,} {unit}" if first == last else f"about {first:,} to {last:,} {unit}"


def count(params: int) -> str:
    """272186 -> '0.27 M'."""
    return f"{params / 1e6:.2f} M" if params >= 10_000 else f"{params:,}"


def when(timestamp: float) -> str:
    """Today as a time of day, earlier as a date."""
    then, now = time.localtime(timestamp), time.localtime()
    return time.strftime("today %H:%M" if then[:3] == now[:3] else "%d %b %Y %H:%M", then)
