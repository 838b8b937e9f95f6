"""Two to eight runs side by side: their results, gains with intervals, and the settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iekd.config.run import RunConfig
from iekd.errors import RunError
from iekd.results.brief import interval, settings_that_differ
from iekd.runs.index import Entry, read_entry
from iekd.runs.store import Store

FEWEST, MOST = 2, 8


@dataclass(frozen=True)
class ComparedRuns:
    """entries: the runs, in the order asked for. settings: field of RunConfig -> its value in each run, where they are
    not all the same."""

    entries: list[Entry]
    settings: dict[str, list[Any]]

    @property
    def configs(self) -> list[RunConfig]:
        return [entry.config for entry in self.entries if entry.config is not None]


def compare_runs(store: Store, run_ids: Sequence[str]) -> ComparedRuns:
    """The runs of these ids, side by side.

    Raises:
        RunError: there are fewer than two or more than eight; one is not there, or cannot be read.
    """
    ids = list(dict.fromkeys(run_ids))
    if not FEWEST <= len(ids) <= MOST:
        raise RunError(f"{len(ids)} different runs are named. Name {FEWEST} to {MOST} to compare them.")
    entries = [read_entry(store.get(run_id)) for run_id in ids]
    for entry in entries:
        if entry.config is None:
            raise RunError(f"The files of run '{entry.run.id}' cannot be read. Leave it out.")
    return ComparedRuns(entries, settings_that_differ([entry.config for entry in entries if entry.config is not None]))


def to_json(compared: ComparedRuns) -> dict[str, Any]:
    """For programs: `runs`, each with its results, and `settings` that differ, each with its value in every run."""
    settings = [{"name": name, "values": values} for name, values in compared.settings.items()]
    return {"runs": [_row(entry) for entry in compared.entries], "settings": settings}


def _row(entry: Entry) -> dict[str, Any]:
    """One run's results as JSON; None where there is nothing yet."""
    found, gain = entry.brief, entry.brief.gain if entry.brief else None
    over = interval(gain) if gain else None
    return {
        "run": entry.run.id, "name": entry.name, "state": entry.status.state,
        "teacher_accuracy": found.teacher if found else None,
        "plain_accuracy": found.plain.mean if found and found.plain else None,
        "method": found.taught.method if found and found.taught else "",
        "accuracy": found.taught.mean if found and found.taught else None,
        "gain": gain.mean if gain else None,
        "interval": [over.low, over.high] if over else None,
        "interval_over": over.over if over else "",
        "seeds": gain.n if gain else 0,
        "too_weak": found.too_weak if found else "",
    }  # fmt: skip
