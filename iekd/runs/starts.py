"""Where the first weights of a network come from: its library, an earlier run, a model's folder, or a file.

This is the one place that knows the kinds of sources. A new kind is a word in models/source.py, an answer of
`find_source` here, and a way to load it in `load_start`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from iekd.config.run import RunConfig
from iekd.data.registry import describe, relative_name, source_of
from iekd.errors import UserError
from iekd.models.artifact import WEIGHTS, ModelCard
from iekd.models.class_names import gives_order
from iekd.models.model_folder import config_beside
from iekd.models.pretrained import check_at_hand as check_cached
from iekd.models.pretrained import pretrained
from iekd.models.source import HUB, PRETRAINED, RUN, check_path
from iekd.results.predictions import ANSWERS, harmless, read_right
from iekd.runs.files import content_sum
from iekd.runs.models import model_of
from iekd.runs.store import Run, Store

if TYPE_CHECKING:
    from iekd.data.base import Dataset, DatasetInfo
    from iekd.models.start import Start

Role = Literal["teacher", "student"]


@dataclass(frozen=True)
class FirstWeights:
    """Weights that a network may begin with.

    title: what they are, in a few words. path: the folder or file; None for those that a library has for `network`.
    classes: of the last layer; None without one. channels, side: of the images that they were trained with; None: not
    known.
    fingerprint: other weights have another one.
    """

    title: str
    path: Path | None
    classes: int | None
    channels: int | None
    side: int | None
    fingerprint: str
    network: str = ""


def find_source(source: str, role: Role, config: RunConfig, runs_dir: Path) -> FirstWeights:
    """What a setting such as teacher_from names, for that network of the run; not the words auto and train.

    Raises:
        UserError: there is no such thing, it cannot be read, or it is of another network.
    """
    name: str = getattr(config, role)
    if source == PRETRAINED:
        about = pretrained(name)
        return FirstWeights(
            f"pretrained weights ({about.title})", None, about.classes, 3, about.side, about.title, name
        )
    if source.startswith(HUB):
        return _on_hub(source, role, name)
    path = _of_run(source, config, runs_dir) if source.startswith(RUN) else Path(check_path(source))
    return _of_folder(source, path, role, config) if path.is_dir() else _of_file(source, path, role, name)


def network_in(source: str, runs_dir: Path) -> str:
    """The network that the folder of a model says it is of; "" where it says nothing or there is none.

    source: a path, as `models.source.check_path` gives it, or a model of a run.

    Raises:
        UserError: what the folder says cannot be read, or is of no network that can be used; or there is no such run.
    """
    path = _named_in_run(source, runs_dir)[1] if source.startswith(RUN) else Path(source)
    if path.is_dir():
        return _known_card(path).model
    described = config_beside(path)
    return described.model if described else ""


def title_of(source: str, path: Path) -> str:
    """What a setting such as teacher_from names, in a few words; path: the folder or file that it means."""
    if source.startswith(RUN):
        return f"run {path.parents[1].name} ({path.name})"
    return f"{'folder' if path.is_dir() else 'file'} {path.name}"


def check_usable(source: FirstWeights, info: DatasetInfo) -> None:
    """Check that weights will do for the images, and can be loaded when the run starts: pretrained ones may not be on
    this machine.

    Raises:
        UserError: they will not, or cannot.
    """
    if source.channels == 1 and _in_colour(info):
        raise UserError(
            f"The {source.title} is of a network for grey images, but those of {info.title} are in colour. Choose a "
            "dataset of grey images, or other weights."
        )
    if source.path is None:
        check_cached(source.network, pretrained(source.network))


def _in_colour(info: DatasetInfo) -> bool:
    """Whether a dataset surely has images in colour; of files, what their first of each class are like."""
    if not source_of(info.name).may_stream:
        return info.channels == 3
    first = (image for image, _ in source_of(info.name).thumbnails(info.name, 1))  # (h,w,3)
    return any(bool((image != image[..., :1]).any()) for image in first)


def student_source(config: RunConfig, runs_dir: Path) -> FirstWeights | None:
    """What the students begin with; None for random weights. Raises UserError as `find_source`."""
    return find_source(config.student_from, "student", config, runs_dir) if config.student_from else None


def load_start(source: FirstWeights, role: Role, config: RunConfig, dataset: Dataset) -> Start:
    """The weights, made to fit the images and classes of a dataset.

    Raises:
        UserError: they cannot be loaded, or do not fit.
    """
    from iekd.models.start import from_file, from_library

    name: str = getattr(config, role)
    sure = gives_order(config.class_order)
    if source.path is None:
        return from_library(name, dataset.class_names, dataset.channels, source.network, sure)
    given = (config.teacher_mean, config.teacher_std) if role == "teacher" else (None, None)
    return from_file(source.path, name, dataset.class_names, dataset.channels, *given, sure=sure)


def _on_hub(source: str, role: Role, name: str) -> FirstWeights:
    """The weights of a repository, for that network or for the architecture of timm that it is."""
    from iekd.models import hub_configs

    pinned = hub_configs.look_up(source)
    architecture = str(hub_configs.config_of(pinned).get("architecture", "")).partition(".")[0]
    same = name.partition("@")[0] == pinned.partition("@")[0]
    if not same and name != f"timm:{architecture}":
        meant = f"timm:{architecture}" if architecture else pinned.partition("@")[0]
        raise UserError(
            f"The weights in '{source}' are not those of {name}. Set {role} to {meant}, or choose other weights."
        )
    about = pretrained(pinned)
    return FirstWeights(f"weights of {about.title}", None, about.classes, 3, about.side, about.repo, pinned)


def _of_folder(source: str, folder: Path, role: Role, config: RunConfig) -> FirstWeights:
    card = _known_card(folder)
    _check_same(folder, card.model, role, getattr(config, role))
    try:
        fingerprint = content_sum(folder / WEIGHTS)
    except OSError as error:
        raise UserError(f"The weights in '{folder}' cannot be read ({error.strerror}). Choose another model.") from None
    return FirstWeights(
        title_of(source, folder), folder, len(card.class_names), card.channels, card.resolution, fingerprint
    )


def _known_card(folder: Path) -> ModelCard:
    """The card of a model, whose network can be built from now on also where the Hub has not been asked for it."""
    card = ModelCard.read(folder)
    card.make_known()
    return card


def _check_same(folder: Path, found: str, role: Role, name: str) -> None:
    if found != name:
        raise UserError(
            f"The model in '{folder}' is a {found}, but the {role} is a {name}. "
            f"Set {role} to {found}, or choose another model."
        )


def _of_file(source: str, path: Path, role: Role, name: str) -> FirstWeights:
    from iekd.models.libraries import names_one
    from iekd.models.libraries import pretrained as known
    from iekd.models.start import sizes_in
    from iekd.models.weight_files import split_selection

    file, selected = split_selection(path)
    if (described := config_beside(file)) is not None:
        _check_same(file.parent, described.model, role, name)
    try:
        fingerprint, changed = f"{content_sum(file)}{selected}", file.stat().st_mtime
    except OSError as error:
        raise UserError(f"'{file}' cannot be read ({error.strerror}). Check the path and its permissions.") from None
    about = known(name) if names_one(name) else None  # None too for what only its folder describes
    side = (described.resolution if described else None) or (about.side if about else None)
    classes, channels = sizes_in(path, name, changed)
    return FirstWeights(title_of(source, path), path, classes, channels, side, fingerprint)


def _of_run(source: str, config: RunConfig, runs_dir: Path) -> Path:
    run, folder = _named_in_run(source, runs_dir)
    _same_split(run, config)
    return folder


def _named_in_run(source: str, runs_dir: Path) -> tuple[Run, Path]:
    """The model that `run:ID` or `run:ID/LEARNER` names; without a learner, the run's only student."""
    run_id, _, learner = source.removeprefix(RUN).partition("/")
    run = Store(runs_dir).get(run_id.strip())
    return run, model_of(run, learner.strip(), before=RUN)


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
