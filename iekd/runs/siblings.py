"""Runs that add seeds to another: what such a run is to train, which there are, and the results of all of them.

A run that adds seeds names in extends.json which run it extends. That is no setting: it changes nothing of how the run
trains, and a setting would come along where somebody trains "a new run with these settings". The claim is not trusted
either: whether two runs may be pooled is decided from their settings, weights and predictions (results/pool.py).
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from iekd import __version__
from iekd.config.run import RunConfig, make_config
from iekd.data.registry import describe
from iekd.errors import RunError, UserError
from iekd.language import _
from iekd.models.artifact import TEACHER, WEIGHTS, ModelCard
from iekd.models.source import AUTO, RUN
from iekd.results.pool import (
    PooledRun,
    added_seeds,
    choose,
    circumstances,
    named_seeds,
    pool,
    to_markdown,
    why_other_circumstances,
)
from iekd.results.predictions import ANSWERS, read_right
from iekd.runs.files import content_sum, read_json, write_json
from iekd.runs.index import DAMAGE
from iekd.runs.slots import device_name
from iekd.runs.status import FINISHED, Status
from iekd.runs.store import Run, Store

EXTENDS = "extends.json"
USUAL = 2  # seeds that are added where no number is given


@dataclass(frozen=True)
class Sibling:
    """Another run of the same family. why_not: why it is not pooled, as the end of a sentence; "" where it is, and
    while it has no result."""

    run: Run
    status: Status
    seeds: tuple[int, ...]
    pooled: bool = False
    why_not: str = ""


@dataclass(frozen=True)
class Family:
    """A run with those that share its students but for the seeds.

    report: of all that may be pooled, in the form of report.json; None while the run has none. note: what has to be
    known of pooled numbers; "" for those of one run.
    """

    report: dict[str, Any] | None
    siblings: tuple[Sibling, ...] = ()
    note: str = ""

    @property
    def growing(self) -> bool:
        """Whether one of the others is waiting or training."""
        return any(sibling.status.live for sibling in self.siblings)

    def sentences(self) -> list[str]:
        """What a reader has to know of the other runs."""
        said = [self.note] if self.note else []
        for other in self.siblings:
            name = f"Run {other.run.id} ({seeds_text(other)})"
            if other.why_not:
                said.append(f"{name} is not counted: {other.why_not}.")
            elif not other.pooled:
                said.append(f"{name} is {other.status.state or 'damaged'}; its seeds are not counted yet.")
        return said

    @property
    def pooled(self) -> list[Sibling]:
        return [sibling for sibling in self.siblings if sibling.pooled]


def extended_by(run: Run) -> str:
    """The id of the run whose seeds this one adds to; "" if none."""
    named = _extension(run).get("run")
    return named if isinstance(named, str) else ""


def _extension(run: Run) -> dict[str, Any]:
    values = read_json(run.path / EXTENDS) if (run.path / EXTENDS).is_file() else None
    return values if isinstance(values, dict) else {}


def note_extension(run: Run, of: Run, planned: bool = False) -> None:
    """Write down that a run adds seeds to `of`, or to the run that `of` adds to itself.

    planned: whether that was decided before there was a result.

    Raises:
        RunError: it cannot be written.
    """
    try:
        write_json(run.path / EXTENDS, {"run": extended_by(of) or of.id, **({"planned": True} if planned else {})})
    except OSError as error:
        raise RunError(f"The run '{run.id}' cannot be changed ({error.strerror}).") from None


def relatives(store: Store, run: Run) -> list[Run]:
    """The run that was first, and all that add seeds to it, oldest first; without `run` itself."""
    first, found = extended_by(run) or run.id, []
    with os.scandir(store.root) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    for name in names:
        other = Run(store.root / name, store.owners)
        if name != run.id and (name == first or extended_by(other) == first) and (other.path / "config.json").is_file():
            found.append(other)
    return sorted(found, key=lambda other: (other.created, other.id))


def growing(store: Store, run: Run) -> Run | None:
    """A run of the family that is adding seeds now: it waits or trains."""
    return next((other for other in relatives(store, run) if extended_by(other) and other.status.live), None)


def more_seeds(store: Store, run: Run, count: int = USUAL) -> RunConfig:
    """The configuration of a run that adds seeds: the same settings, the next seeds, the very teacher of `run`.

    Raises:
        UserError: there is no result to add to, the teacher's weights are gone, or what would be trained now could not
            be pooled with it.
    """
    config, report = run.config, run.report
    if run.status.state != FINISHED or report is None:
        raise RunError(f"The run '{run.id}' has not finished. Seeds can be added to a run that has a result.")
    if count < 1:
        raise RunError(f"{count} seeds cannot be added. Give 1 or more.")
    values = {**config.model_dump(), "seeds": _next_seeds(store, run, count), "name": ""}
    if config.name:
        values["name"] = f"{config.name[:60]}, more seeds"
    if config.needs_teacher:
        try:
            card = ModelCard.read(run.path / "models" / TEACHER)
        except UserError:
            raise RunError(
                f"The run '{run.id}' has no teacher in its folder, and its students have to be compared with others of "
                "the same teacher. Start a new run with all seeds."
            ) from None
        values |= {
            "teacher": card.model, "teacher_from": f"{RUN}{run.id}/{TEACHER}", "teacher_mean": None,
            "teacher_std": None,
        }  # fmt: skip
    else:
        values["teacher_from"] = AUTO
    made = make_config(**values)
    now = {"iekd": __version__, "torch": metadata.version("torch")}
    why = why_other_circumstances(
        circumstances(report.get("versions", {}), report["device"]), circumstances(now, device_name(made.device))
    )
    marked = report.get("dataset_mark", "")
    if not why and marked != describe(made.dataset).fingerprint:
        why = "the files of its dataset have changed"
    if why:
        raise RunError(
            f"No seeds can be added to the run '{run.id}', because a run of today could not be pooled with it: "
            f"{why}. Start a new run with all seeds."
        )
    return made


def _next_seeds(store: Store, run: Run, count: int) -> tuple[int, ...]:
    """The smallest numbers that no run of the family has, from the run's first seed on."""
    used = set(run.config.seeds)
    for other in relatives(store, run):
        used |= set(other.config.seeds)
    free = (seed for seed in itertools.count(min(run.config.seeds)) if seed not in used)
    return tuple(itertools.islice(free, count))


def key_of(run: Run, config: RunConfig) -> str:
    """The same for everybody who asks for these seeds at the same moment, so that they start one run."""
    return f"add-seeds {extended_by(run) or run.id} {','.join(map(str, config.seeds))}"


def family_of(store: Store, run: Run) -> Family:
    """All results that belong together with those of `run`, and which runs do not and why."""
    others = relatives(store, run)
    report = run.report
    if not others or report is None or run.status.state != FINISHED:
        return Family(report, tuple(_sibling(other) for other in others))
    parts = {part.run: part for part in map(_part, others) if part is not None}
    chosen, refused = choose(_required(run, report), parts.values())
    names = {part.run for part in chosen}
    siblings = tuple(_sibling(other, other.id in names, refused.get(other.id, "")) for other in others)
    if len(chosen) == 1:
        return Family(report, siblings)
    chosen = [chosen[0], *sorted(chosen[1:], key=lambda part: min(part.config.seeds))]
    # seeds that were spread over devices from the start are no second look at a result
    extending = {other.id for other in (run, *others) if extended_by(other) and not _extension(other).get("planned")}
    before = [seed for part in chosen if part.run not in extending for seed in part.config.seeds]
    added = [seed for part in chosen if part.run in extending for seed in part.config.seeds]
    return Family(pool(chosen), siblings, added_seeds(before, added))


def _sibling(run: Run, pooled: bool = False, why_not: str = "") -> Sibling:
    try:
        return Sibling(run, run.status, run.config.seeds, pooled, why_not)
    except DAMAGE:
        return Sibling(run, Status(state=""), (), False, "its files cannot be read")


def _part(run: Run) -> PooledRun | None:
    """A finished run for pooling; None if it has no result, or cannot be read."""
    try:
        report = run.report if run.status.state == FINISHED else None
        return _required(run, report) if report else None
    except DAMAGE:
        return None


def _required(run: Run, report: dict[str, Any]) -> PooledRun:
    config = run.config
    teacher = _fingerprint(run.path / "models" / TEACHER / WEIGHTS) if config.needs_teacher else ""
    return PooledRun(run.id, config, report, teacher, read_right(run.path / ANSWERS))


def _fingerprint(path: Path) -> str:
    """Of a file of weights; of one that is gone something that no other has."""
    try:
        return content_sum(path)
    except OSError:
        return f"missing {path}"


def seeds_text(sibling: Sibling) -> str:
    """seeds 1 and 2."""
    return named_seeds(sibling.seeds) if sibling.seeds else _("unknown seeds")


def pooled_markdown(store: Store, run: Run) -> str:
    """What follows report.md where other runs have added seeds; "" where none have."""
    family = family_of(store, run)
    if not family.pooled or family.report is None:
        return ""
    return to_markdown(family.report, [run.id, *(sibling.run.id for sibling in family.pooled)], family.note)


def to_json(run: Run, family: Family) -> dict[str, Any]:
    """The family for programs; `summary` is that of all pooled seeds, None where nothing is pooled."""
    return {
        "extends": extended_by(run),
        "runs": [
            {"run": s.run.id, "state": s.status.state, "seeds": list(s.seeds), "pooled": s.pooled, "why_not": s.why_not}
            for s in family.siblings
        ],
        "summary": family.report["summary"] if family.pooled and family.report else None,
        "note": family.note,
    }  # fmt: skip
