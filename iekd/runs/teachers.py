"""Where a run's teacher comes from: the shipped checkpoints, an earlier run, somebody's file, or nowhere yet."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from iekd.config.run import ABOUT, RunConfig
from iekd.data.base import DatasetInfo
from iekd.data.registry import describe
from iekd.errors import UserError
from iekd.models import hub_configs
from iekd.models.aliases import former
from iekd.models.artifact import CARD, ModelCard, check_classes
from iekd.models.class_names import (
    advice_on_names,
    check_listed,
    class_names_beside,
    class_names_on_hub,
    gives_order,
    matched,
    some_of,
)
from iekd.models.shipped import cards
from iekd.models.source import AUTO, PRETRAINED, TRAIN
from iekd.paths import checkpoints_dir
from iekd.plural import counted
from iekd.runs.starts import FirstWeights, check_usable, find_source, title_of

log = logging.getLogger("iekd")
# a trained teacher: the folder of a model, a file of weights, or weights on the Hub, which are not downloaded before
# the run starts
Found = Path | FirstWeights
EPOCHS = re.compile(r"--teacher-epochs (\d+)", re.ASCII)  # in the command that trained a kept teacher


def origin(config: RunConfig, fingerprint: str | None = None, weights_fingerprint: str = "") -> str:
    """A hash of everything that decides how this run would train its teacher, the weights that it begins with included.

    Two runs with the same hash may share a teacher. The split and a folder's files are part of it, so that no teacher
    has seen the test images of a run that uses it.

    fingerprint: of the dataset as it was read; None: as it is now. weights_fingerprint: of the weights that are
    fine-tuned, see `starts.FirstWeights`; empty for random ones.
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
    if not weights_fingerprint:
        decides.pop("teacher_backbone", None)
    else:
        decides |= {"start": weights_fingerprint, "mean": config.teacher_mean, "std": config.teacher_std}
    return hashlib.sha256(repr(sorted(decides.items())).encode()).hexdigest()[:16]


def to_fine_tune(config: RunConfig, runs_dir: Path, info: DatasetInfo | None = None) -> FirstWeights | None:
    """The weights that this run would fine-tune into its teacher; None for random ones, or a teacher that is used as it
    is. Pretrained weights are always fine-tuned; those of a run, a folder or a file if they are of another number of
    classes, those on the Hub unless they are of the dataset's (`_knows_classes`).

    info: of the configuration's dataset; None: it is described here.

    Raises:
        UserError: there is no such source, or it does not fit.
    """
    if not config.may_fine_tune_teacher:
        return None
    source = find_source(config.teacher_from, "teacher", config, runs_dir)
    return None if _knows_classes(source, config, info or describe(config.dataset)) else source


def _knows_classes(source: FirstWeights, config: RunConfig, info: DatasetInfo) -> bool:
    """Whether weights are taken for those of a teacher that has learned a dataset's classes.

    Of a file as many will do: it is refused later if they are others. On the Hub they have to be the same by name, in
    any order, because most of its networks of as many classes know others. Where nothing is said of them, the user has
    to: by the order of the classes, or by no epochs to fine-tune them.
    """
    if config.teacher_from == PRETRAINED or source.classes != info.classes:
        return False
    if source.path is not None or gives_order(config.class_order):
        return True
    listed = class_names_on_hub(source.network, info.class_names)
    if listed is None or not info.class_names:
        return config.teacher_epochs == 0
    return matched(listed, info.class_names) is not None


def why_as_it_is(source: FirstWeights, config: RunConfig, info: DatasetInfo) -> str:
    """Why weights on the Hub teach without fine-tuning, in a clause after "because"; see `_knows_classes`."""
    listed = class_names_on_hub(source.network, info.class_names)
    if matched(listed or (), info.class_names) is not None:
        return "the names of their classes are the dataset's"
    said = "a class order is given" if gives_order(config.class_order) else "teacher epochs are 0"
    return f"{said}, so they count as weights of the dataset's classes"


def find_teacher(config: RunConfig, runs_dir: Path, info: DatasetInfo | None = None) -> Found | None:
    """The teacher that is at hand for this configuration; None if the run has to train it or to fine-tune it. Where it
    is to be trained for no epochs, one that was trained for some will do. info: see `to_fine_tune`.

    Raises:
        UserError: the configuration names a file or run that does not exist, or that has another network.
    """
    if config.teacher_from == TRAIN:
        return None
    start = to_fine_tune(config, runs_dir, info)
    if start is None and config.teacher_from != AUTO:
        source = find_source(config.teacher_from, "teacher", config, runs_dir)
        return source.path or source
    datasets = {config.dataset, describe(config.dataset).part_of}
    for name, card in cards(checkpoints_dir()) if start is None else ():
        fits = card.role == "teacher" and card.model == config.teacher and not datasets.isdisjoint(card.datasets)
        if fits and config.resolution in (None, card.resolution):
            return checkpoints_dir() / name
    trained = teacher_folder(config, runs_dir, weights_fingerprint=start.fingerprint if start else "")
    if (trained / CARD).is_file():
        return trained
    kept = _kept(config, runs_dir) if start is None and not config.teacher_epochs else None
    return kept[1] if kept else None


def _kept(config: RunConfig, runs_dir: Path) -> tuple[int, Path] | None:
    """The teacher kept by an earlier run whose other settings were the same, that with the most epochs: (how many, its
    folder)."""
    mark, found = describe(config.dataset).fingerprint, []
    folder = teacher_folder(config, runs_dir, mark)
    for one in folder.parent.glob("*"):
        if one.name.rpartition("-")[0] != folder.name.rpartition("-")[0]:
            continue
        try:
            said = EPOCHS.search(ModelCard.read(one).command)
        except UserError:  # it is being written, or damaged
            continue
        epochs = int(said[1]) if said else RunConfig.model_fields["teacher_epochs"].default
        if teacher_folder(config.model_copy(update={"teacher_epochs": epochs}), runs_dir, mark) == one:
            found.append((epochs, one))
    return max(found, default=None)


def sentence_on_epochs(config: RunConfig, found: Found | None, runs_dir: Path) -> str:
    """How long a teacher was trained that a run has found although it asks for no epochs; "" for any other."""
    if config.teacher_epochs or config.teacher_from != AUTO or found is None:
        return ""
    kept = _kept(config, runs_dir)
    if kept is None or kept[1] != found:
        return ""
    return f"The teacher is an earlier run's with the same settings, which trained it for {counted(kept[0], 'epoch')}."


def as_told(found: Found | None) -> str:
    """What `find_teacher` gave, for a process of the same run, perhaps on a machine with the program elsewhere."""
    if found is None:
        return ""
    if isinstance(found, FirstWeights):
        return found.network
    return found.name if found.parent == checkpoints_dir() else str(found.resolve())


def as_heard(told: str, config: RunConfig, runs_dir: Path) -> Found | None:
    """What `as_told` was given."""
    if hub_configs.is_one(told):
        return find_source(told, "teacher", config, runs_dir)
    return checkpoints_dir() / told if told else None


def check_teacher(config: RunConfig, runs_dir: Path, info: DatasetInfo | None = None) -> Found | None:
    """`find_teacher` with all checks that are possible without loading, before a run starts; None without a teacher.

    info: of the configuration's dataset; None: it is described here.

    Raises:
        UserError: as `find_teacher`; or a saved model of as many classes that are not the dataset's.
    """
    found = find_teacher(config, runs_dir, info) if config.needs_teacher else None
    if found is None and (start := to_fine_tune(config, runs_dir, info)):
        check_usable(start, info or describe(config.dataset))
    if found is None or config.teacher_from == AUTO:
        return found
    info = info or describe(config.dataset)
    if isinstance(found, FirstWeights):
        check_usable(found, info)
        return found
    if found.is_file():
        _check_listed(found, config, info)
        return found
    if info.class_names:
        check_classes(ModelCard.read(found), info, found)
        check_usable(find_source(config.teacher_from, "teacher", config, runs_dir), info)
    return found


def check_epochs(config: RunConfig, found: Found | None, start: FirstWeights | None, info: DatasetInfo) -> None:
    """Check that a run which is given no epochs for its teacher needs none. found, start: see `where_from`.

    Raises:
        UserError: there is no trained teacher.
    """
    if found is not None or config.teacher_epochs or not config.needs_teacher:
        return
    epochs = "Teacher epochs '0' trains none"
    if start is None:
        raise UserError(
            f"There is no trained {config.teacher} for these images and settings. {epochs}: give more, such as 30, or "
            "say where a trained one is (teacher from).",
            "teacher_epochs",
        )
    advice = ""
    if start.classes == info.classes:
        listed = some_of(class_names_on_hub(start.network, info.class_names) or ())
        why = f"the weights are of other classes {f'({listed}) ' if listed else ''}than the dataset's"
        advice = f" {advice_on_names()}"
    elif start.classes:
        why = f"the weights are of {counted(start.classes, 'class')} and not of the dataset's {info.classes}"
    else:
        why = "the weights have no classifier: the last layer is missing"
    raise UserError(
        f"The {start.title} cannot teach without fine-tuning, because {why}. {epochs}: give more, such as 30, or "
        f"choose weights of the dataset's classes.{advice}",
        "teacher_epochs",
    )


def _check_listed(file: Path, config: RunConfig, info: DatasetInfo) -> None:
    """Check that a list of classes beside a file of weights has the dataset's; the order is seen to when it is loaded.

    Raises:
        UserError: it has others.
    """
    beside = None if gives_order(config.class_order) else class_names_beside(file)
    if beside and info.class_names and len(set(beside[0])) == len(info.class_names):
        check_listed(*beside, info.class_names)


def where_from(config: RunConfig, found: Found | None, start: FirstWeights | None = None) -> str:
    """The origin of a teacher in a few words; found: what `find_teacher` gave, start: what `to_fine_tune` gave."""
    if start is not None:
        return f"{start.title}, fine-tuned by {'this run' if found is None else 'an earlier run'}"
    if found is None:
        return "trained by this run"
    if isinstance(found, FirstWeights):
        return found.title
    if config.teacher_from != AUTO:
        return title_of(config.teacher_from, found)
    return "this program" if found.parent == checkpoints_dir() else "an earlier run"


def title_of_found(found: Found) -> str:
    """What to call a teacher that is at hand, in messages: the name of its folder or file, or of its weights."""
    return found.name if isinstance(found, Path) else hub_configs.with_short_commit(found.network)


def teacher_folder(
    config: RunConfig, runs_dir: Path, fingerprint: str | None = None, weights_fingerprint: str = ""
) -> Path:
    """Where a teacher trained by this run is saved for later ones; fingerprint, weights_fingerprint: see `origin`."""
    name = former(config.teacher).replace("/", "--")  # of a network on the Hub
    return runs_dir / "teachers" / f"{name}-{origin(config, fingerprint, weights_fingerprint)}"
