"""Where a run's teacher comes from: the shipped checkpoints, an earlier run, somebody's file, or nowhere yet."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from iekd.config.run import ABOUT, RunConfig
from iekd.data.base import DatasetInfo
from iekd.data.registry import describe, relative_name, source_of
from iekd.errors import UserError
from iekd.models.aliases import former
from iekd.models.artifact import CARD, ModelCard
from iekd.models.shipped import cards
from iekd.models.source import AUTO, RUN, TRAIN, check_path
from iekd.paths import checkpoints_dir
from iekd.plural import counted
from iekd.results.predictions import ANSWERS, harmless, read_right
from iekd.runs.models import model_of
from iekd.runs.store import Run, Store

log = logging.getLogger("iekd")


def origin(config: RunConfig, fingerprint: str | None = None) -> str:
    """A hash of everything that decides how this run would train its teacher.

    Two runs with the same hash may share a teacher. The split and a folder's files are part of it, so that no teacher
    has seen the test images of a run that uses it.

    fingerprint: of the dataset as it was read; None: as it is now.
    """
    always, if_changed = (
        {name for name, about in ABOUT.items() if about.trains_teacher == when} for when in ("always", "if changed")
    )
    decides = (
        config.model_dump(include=always)
        | {"teacher": former(config.teacher)}
        | config.model_dump(include=if_changed, exclude_defaults=True)
    )
    if fingerprint := describe(config.dataset).fingerprint if fingerprint is None else fingerprint:
        decides["mark"] = fingerprint
    return hashlib.sha256(repr(sorted(decides.items())).encode()).hexdigest()[:16]


def find_teacher(config: RunConfig, runs_dir: Path) -> Path | None:
    """The folder of the teacher for this configuration, or its file of weights; None if the run has to train it.

    Raises:
        UserError: the configuration names a file or run that does not exist, or that has another network.
    """
    if config.teacher_from == TRAIN:
        return None
    if config.teacher_from.startswith(RUN):
        return _of_run(config, runs_dir)
    if config.teacher_from != AUTO:
        path = Path(check_path(config.teacher_from))
        return _same_network(path, config) if path.is_dir() else path
    datasets = {config.dataset, describe(config.dataset).part_of}
    for name, card in cards(checkpoints_dir()):
        fits = card.role == "teacher" and card.model == config.teacher and not datasets.isdisjoint(card.datasets)
        if fits and config.resolution in (None, card.resolution):
            return checkpoints_dir() / name
    trained = teacher_folder(config, runs_dir)
    return trained if (trained / CARD).is_file() else None


def check_teacher(config: RunConfig, runs_dir: Path, info: DatasetInfo | None = None) -> Path | None:
    """`find_teacher` with all checks that are possible without loading, before a run starts; None without a teacher.

    info: of the configuration's dataset; None: it is described here.

    Raises:
        UserError: as `find_teacher`; or a saved model whose number of classes differs from the dataset's.
    """
    found = find_teacher(config, runs_dir) if config.needs_teacher else None
    if found is None or config.teacher_from == AUTO or found.is_file():
        return found
    known, info = len(ModelCard.read(found).class_names), info or describe(config.dataset)
    if info.classes != known:
        raise UserError(
            f"The teacher in '{found}' knows {counted(known, 'class')}, but {info.title} has {info.classes}. "
            "Choose a teacher that was trained on this dataset."
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


def teacher_folder(config: RunConfig, runs_dir: Path, fingerprint: str | None = None) -> Path:
    """Where a teacher trained by this run is saved for later ones; fingerprint: see `origin`."""
    name = former(config.teacher).replace("/", "--")  # of a network on the Hub
    return runs_dir / "teachers" / f"{name}-{origin(config, fingerprint)}"


def _of_run(config: RunConfig, runs_dir: Path) -> Path:
    """The model that `run:ID` or `run:ID/LEARNER` names; without a learner, the run's only student."""
    run_id, _, learner = config.teacher_from.removeprefix(RUN).partition("/")
    run = Store(runs_dir).get(run_id.strip())
    folder = model_of(run, learner.strip(), before=RUN)
    _same_split(run, config)
    return _same_network(folder, config)


def _same_split(run: Run, ours: RunConfig) -> None:
    """Refuse a teacher that may have been trained on this run's test images.

    A folder without test/ is split at random, differently with other settings or other files. One with test/ may grow,
    as long as no test image is new: a new one may have been trained on before.
    """
    name, theirs = ours.dataset, run.config
    if name != theirs.dataset or not source_of(name).uses_test_fraction:
        return
    info = describe(name)
    split, other = (ours.data_seed, ours.test_fraction), (theirs.data_seed, theirs.test_fraction)
    if split != other and info.test_is_drawn:
        raise UserError(
            f"The run '{run.id}' split '{name}' in another way, so its models may have seen this run's test images. "
            f"Set data seed {other[0]} and test fraction {other[1]:g}."
        )
    before = (run.report or {}).get("dataset_mark")  # unfinished runs and those of earlier versions have none
    if not before or before == info.fingerprint:
        return
    answers, skipped = read_right(run.path / ANSWERS), (run.report or {}).get("skipped_files", [])
    tested = {image for image, _ in answers.images} if answers else set()
    tested |= {harmless(relative_name(name, path)) for path in skipped}
    files = source_of(name).test_files(name)
    if files is None or not tested.issuperset(harmless(relative_name(name, path)) for path in files):
        raise UserError(
            f"The files in '{name}' are no longer those of the run '{run.id}', so its models may have seen this run's "
            "test images. Train a new teacher."
        )


def _same_network(folder: Path, config: RunConfig) -> Path:
    card = ModelCard.read(folder)
    if card.model != config.teacher:
        raise UserError(
            f"The model in '{folder}' is a {card.model}, but the teacher is a {config.teacher}. "
            f"Set teacher to {card.model}, or choose another model."
        )
    return folder
