"""Where a run's teacher comes from: the shipped checkpoints, an earlier run, somebody's file, or nowhere yet."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from iekd.config.run import ABOUT, RunConfig
from iekd.data.base import FOLDER
from iekd.data.folder import has_test, test_files
from iekd.data.registry import describe
from iekd.errors import UserError
from iekd.models.artifact import CARD, ModelCard
from iekd.models.shipped import cards
from iekd.models.source import AUTO, RUN, TRAIN, check_path
from iekd.paths import checkpoints_dir
from iekd.results.predictions import ANSWERS, harmless, read_right
from iekd.runs.store import Run, Store


def origin(config: RunConfig, mark: str | None = None) -> str:
    """A fingerprint of all that decides how this run would train its teacher.

    Two runs with the same fingerprint may share one; the split and a folder's files are part of it, so that no teacher
    has seen the test images of a run that uses it.

    mark: of the data set as it was read; unset: as it is now.
    """
    always, if_changed = (
        {name for name, about in ABOUT.items() if about.trains_teacher == when} for when in ("always", "if changed")
    )
    decides = config.model_dump(include=always) | config.model_dump(include=if_changed, exclude_defaults=True)
    if mark := describe(config.dataset).mark if mark is None else mark:
        decides["mark"] = mark
    return hashlib.sha256(repr(sorted(decides.items())).encode()).hexdigest()[:16]


def find_teacher(config: RunConfig, runs_dir: Path) -> Path | None:
    """The folder of the teacher for this configuration, or its file of weights; None if the run has to train it.

    Raises:
        UserError: the configuration names a file or a run that is not there, or whose network is another.
    """
    if config.teacher_from == TRAIN:
        return None
    if config.teacher_from.startswith(RUN):
        return _of_run(config, runs_dir)
    if config.teacher_from != AUTO:
        path = Path(check_path(config.teacher_from))
        return _same_network(path, config) if path.is_dir() else path
    datasets = {config.dataset}
    if not config.dataset.startswith(FOLDER):
        datasets.add(describe(config.dataset).part_of)
    for name, card in cards(checkpoints_dir()):
        fits = card.role == "teacher" and card.model == config.teacher and not datasets.isdisjoint(card.datasets)
        if fits and config.resolution in (None, card.resolution):
            return checkpoints_dir() / name
    trained = teacher_folder(config, runs_dir)
    return trained if (trained / CARD).is_file() else None


def check_teacher(config: RunConfig, runs_dir: Path) -> Path | None:
    """`find_teacher` before a run starts, which says as much as can be known without loading; None without a teacher.

    Raises:
        UserError: as `find_teacher`; or a saved model of as many classes as the data set has not.
    """
    found = find_teacher(config, runs_dir) if config.needs_teacher else None
    if found is None or config.teacher_from == AUTO or found.is_file():
        return found
    known, info = len(ModelCard.read(found).class_names), describe(config.dataset)
    if info.classes not in (0, known):
        raise UserError(
            f"The teacher in '{found}' knows {known} classes, but {info.title} has {info.classes}. "
            "Choose a teacher that was trained on this data set."
        )
    return found


def where_from(config: RunConfig, found: Path | None) -> str:
    """The origin of a teacher in a few words; `found` is what `find_teacher` gave."""
    if found is None:
        return "trained by this run"
    if config.teacher_from.startswith(RUN):
        return f"run {found.parents[1].name} ({found.name})"
    if config.teacher_from != AUTO:
        return f"{'folder' if found.is_dir() else 'file'} {found.name}"
    return "this program" if found.parent == checkpoints_dir() else "an earlier run"


def teacher_folder(config: RunConfig, runs_dir: Path, mark: str | None = None) -> Path:
    """Where a teacher trained by this run is kept for later ones; mark: see `origin`."""
    return runs_dir / "teachers" / f"{config.teacher}-{origin(config, mark)}"


def _of_run(config: RunConfig, runs_dir: Path) -> Path:
    """The model that `run:ID` or `run:ID/LEARNER` names; without a learner, the run's only student."""
    run_id, _, learner = config.teacher_from.removeprefix(RUN).partition("/")
    run = Store(runs_dir).get(run_id.strip())
    found, learner = run.model_folders, learner.strip()
    students = [name for name in found if name != "teacher"]
    if learner in found or (not learner and len(students) == 1):
        _same_split(run, config)
        return _same_network(found[learner or students[0]], config)
    if not found:
        raise UserError(f"The run '{run.id}' has no trained models ({run.status.state}). Choose one that has finished.")
    listed = ", ".join(f"{RUN}{run.id}/{name}" for name in found)
    if learner:
        raise UserError(f"The run '{run.id}' has no model '{learner}'. Choose one of: {listed}.")
    raise UserError(f"The run '{run.id}' has several models. Name the one that is to teach: {listed}.")


def _same_split(run: Run, ours: RunConfig) -> None:
    """Whoever has learned from a folder's test images must not teach on it.

    A folder without test/ is split by chance, in another way with other settings or other files. One with test/ may
    grow, as long as no test image is new: it may have been learned from before.
    """
    name, theirs = ours.dataset, run.config
    if name != theirs.dataset or not name.startswith(FOLDER):
        return
    split, other = (ours.data_seed, ours.test_fraction), (theirs.data_seed, theirs.test_fraction)
    if split != other and not has_test(name):
        raise UserError(
            f"The run '{run.id}' split '{name}' in another way, so its models may have seen this run's test images. "
            f"Set data seed {other[0]} and test fraction {other[1]:g}."
        )
    mark = (run.report or {}).get("dataset_mark")  # of the files; neither unfinished runs nor earlier versions have it
    if not mark or mark == describe(name).mark:
        return
    answers, skipped = read_right(run.path / ANSWERS), (run.report or {}).get("skipped_files", [])
    judged = {image for image, _ in answers.images} if answers else set()
    judged |= {harmless(os.path.relpath(path, name.removeprefix(FOLDER))) for path in skipped}
    if not has_test(name) or not judged.issuperset(map(harmless, test_files(name))):
        raise UserError(
            f"The files in '{name}' are no longer those of the run '{run.id}', so its models may have seen this run's "
            "test images. Train a teacher anew."
        )


def _same_network(folder: Path, config: RunConfig) -> Path:
    card = ModelCard.read(folder)
    if card.model != config.teacher:
        raise UserError(
            f"The model in '{folder}' is a {card.model}, but the teacher is a {config.teacher}. "
            f"Set teacher to {card.model}, or choose another model."
        )
    return folder
