"""Which models a name means: those of a run, of one of its seeds, or the shipped ones."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from iekd.config.methods import BASELINE
from iekd.config.run import learner_name
from iekd.errors import UserError
from iekd.inference.showcase import read_showcase
from iekd.models.shipped import shipped_models
from iekd.paths import checkpoints_dir
from iekd.runs.store import Run, Store


def models_called(store: Store, name: str) -> dict[str, Path]:
    """The models of a run by its id, or of one of its seeds, as ID/SEED; "" for the shipped ones.

    Raises:
        UserError: no such run or seed, or no models.
    """
    if not name:
        return demo_models()
    run_id, _, seed = name.partition("/")
    return run_models(store.get(run_id), seed)


def model_of(run: Run, learner: str = "", before: str = "") -> Path:
    """The folder of a run's model; without a name, of its only student. before: what the names in errors begin with."""
    found = run.model_folders
    students = [name for name in found if name != "teacher"]
    if learner in found or (not learner and len(students) == 1):
        return found[learner or students[0]]
    if not found:
        raise _no_models(run)
    listed = ", ".join(f"{before}{run.id}/{name}" for name in found)
    if learner:
        raise UserError(f"The run '{run.id}' has no model '{learner}'. Choose one of: {listed}.")
    raise UserError(f"The run '{run.id}' has several models. Name one of them: {listed}.")


def models_of_page(run: Run, learner: str = "") -> list[Path]:
    """The models of a run that a page shows side by side, the teacher first: it and the one that is named, a seed's
    students, or without a name those of the first seed.

    Raises:
        UserError: there are none.
    """
    if learner in ("", *map(str, saved_seeds(run))):
        return list(run_models(run, learner).values())
    named = model_of(run, learner)
    return list(dict.fromkeys([run.model_folders.get("teacher", named), named]))


def _no_models(run: Run) -> UserError:
    return UserError(f"The run '{run.id}' has no trained models ({run.status.state}). Choose one that has finished.")


def run_models(run: Run, seed: str = "") -> dict[str, Path]:
    """The models of a run to compare: the teacher, and each method's student of that seed; "" for the first seed.

    Raises:
        UserError: the run has saved none.
    """
    saved, chosen = run.model_folders, {}
    if not saved:
        raise _no_models(run)
    seeds = saved_seeds(run)
    if seed and seed not in map(str, seeds):
        there = ", ".join(map(str, seeds)) or "none"
        raise UserError(f"The run '{run.id}' has no students of seed '{seed}'. It has those of: {there}.")
    if "teacher" in saved:
        chosen["teacher"] = saved["teacher"]
    for method, own in run.config.learner_names:
        if learner_name(method, own) in saved and seed in ("", str(own)):
            chosen.setdefault(method, saved[learner_name(method, own)])
    return chosen


def saved_seeds(run: Run) -> list[int]:
    """The seeds that have students in a run's folder, in the order of training."""
    saved = run.model_folders
    there = {seed for method, seed in run.config.learner_names if learner_name(method, seed) in saved}
    return [seed for seed in run.config.seeds if seed in there]


def demo_models() -> dict[str, Path]:
    """The shipped models that the page opens with, as a run would name them: teacher, baseline, ie-ft. Without the file
    about them, those for the classes of the first plain student.

    Raises:
        UserError: no shipped models on this machine.
    """
    root, found = checkpoints_dir(), dict[str, str]()
    with suppress(UserError):  # a damaged file, which the landing page needs and nothing here
        show = read_showcase(root)
        if show and all((root / folder).is_dir() for folder in show.models.values()):
            return {name: root / folder for name, folder in show.models.items()}
    cards = shipped_models()
    first = next((card for card in cards.values() if card.method == BASELINE and card.role != "teacher"), None)
    for folder, card in cards.items():
        if first is None or card.class_names == first.class_names:
            found["teacher" if card.role == "teacher" else card.method] = folder
    if not found:
        raise UserError(f"There are no shipped models in '{root}'. Finish a run and compare that.")
    order = ["teacher", BASELINE, *sorted(set(found) - {"teacher", BASELINE})]
    return {name: root / found[name] for name in order if name in found}
