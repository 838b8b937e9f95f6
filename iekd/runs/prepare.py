"""From a configuration to what a run needs: the step between RunConfig, which looks at no file, and a run that starts.

The page, the command line and the endpoints call `prepare` once when a run is to start; the page also while the form
is filled in, after a pause.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from iekd import data
from iekd.config.run import RunConfig, check_cutout, check_maps
from iekd.data import DatasetInfo
from iekd.data.unlabelled import check_unlabelled
from iekd.errors import UserError, about_setting, check_text
from iekd.estimate.cautions import Caution, cautions, learned_from
from iekd.models import hub_configs, libraries
from iekd.models.class_names import class_order_of
from iekd.models.source import FILE_ONLY, RUN, check_path, is_path
from iekd.plural import counted
from iekd.runs.more_teachers import check_more
from iekd.runs.slots import check_device
from iekd.runs.starts import FirstWeights, check_usable, find_source, network_in, student_source
from iekd.runs.teachers import Found, check_epochs, check_teacher, sentence_on_epochs, to_fine_tune, why_as_it_is

MOST_SIDE = 512  # of the setting

ROLES = ("teacher", "student", "peer")  # settings that name a network
WITH_SOURCE = ("teacher", "student")  # those whose weights another setting names


@dataclass(frozen=True)
class Prepared:
    """A run that can start.

    Args:
        config: with the dataset's name as it is loaded: links followed, archives unpacked.
        info: of the dataset.
        teacher: the trained teacher that is at hand; None if the run trains it or needs none.
        start: the weights that the run fine-tunes into its teacher, or that an earlier run did; None for none.
        student: the weights that its students begin with; None for random ones.
        notes: what the settings do not say, in sentences.
    """

    config: RunConfig
    info: DatasetInfo
    teacher: Found | None
    start: FirstWeights | None = None
    student: FirstWeights | None = None
    notes: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """What networks begin with, and what the settings do not say."""
        said = list(self.notes)
        if self.start is not None:
            epochs, rate = counted(self.config.teacher_epochs, "epoch"), self.config.teacher_lr or self.config.lr
            slower = f"layers with weights {rate * self.config.teacher_backbone:g}"
            then = f"it will be fine-tuned on these classes first ({epochs}, learning rate {rate:g}, {slower})"
            if self.teacher is not None:
                then = "an earlier run has fine-tuned it on these classes"
            said.append(f"The teacher begins with the {self.start.title}; {then}.")
        elif isinstance(self.teacher, FirstWeights):
            why = why_as_it_is(self.teacher, self.config, self.info)
            said.append(f"The teacher has the {self.teacher.title}, as they are, because {why}.")
        if self.student is not None:
            said.append(f"The students begin with the {self.student.title}.")
        return said

    def cautions(self, images: str = "images", fitting: int | None = None) -> list[Caution]:
        """What makes the result worth little, to be said before it starts; images: how images are called; fitting: see
        `estimate.cautions.cautions`."""
        learned, tunes = learned_from(self.config, self.info), self.start is not None and self.teacher is None
        return cautions(self.config, learned, self.info.test_images, images, fitting, fine_tunes=tunes)


def prepare(config: RunConfig, runs_dir: Path, here: bool = True) -> Prepared:
    """Find the dataset, the device and the teacher of a run; an archive of images is unpacked. A network of another
    library must take images of that size.

    Args:
        here: whether it will be trained on this machine, which must then have the device.
    Raises:
        UserError: one of them is not there or cannot be used; the message says what to do.
    """
    asked, config = config, resolve(config, runs_dir)
    with about_setting("dataset"):
        info = data.describe(config.dataset, config.test_fraction, config.class_order)
    if here:
        with about_setting("device"):
            check_device(config.device)
    with about_setting("teacher_from"):
        start = to_fine_tune(config, runs_dir, info)
        named = config.may_fine_tune_teacher and find_source(config.teacher_from, "teacher", config, runs_dir)
    with about_setting("student_from"):
        if student := student_source(config, runs_dir):
            check_usable(student, info)
    config, notes = _at_their_resolution(config, info, named or None, student)
    for role in WITH_SOURCE:
        if role not in asked.model_fields_set and getattr(config, role) != getattr(asked, role):
            name = hub_configs.without_commit(getattr(config, role))
            source = getattr(config, f"{role}_from")
            said = f"The {role} is {name}, as '{source}' says."
            if hub_configs.is_one(source):
                said = f"The {role} is {name}, the network of its weights, because none is named."
            notes = (*notes, said)
    side = config.resolution or info.resolution
    check_cutout(config, side)
    for role in ROLES:
        name = getattr(config, role)
        if name and libraries.names_one(name):
            with about_setting(role):
                libraries.check_side(name, side)
    check_maps(config)
    if config.unlabelled:
        with about_setting("unlabelled"):
            check_unlabelled(config.unlabelled)
    check_more(config, runs_dir, info)
    with about_setting("teacher_from"):
        teacher = check_teacher(config, runs_dir, info)
        check_epochs(config, teacher, start, info)
    said = sentence_on_epochs(config, teacher, runs_dir)
    return Prepared(config, info, teacher, start, student, (*notes, said) if said else notes)


def _at_their_resolution(
    config: RunConfig, info: DatasetInfo, teacher: FirstWeights | None, student: FirstWeights | None
) -> tuple[RunConfig, tuple[str, ...]]:
    """The configuration with the resolution of the weights that networks begin with, the teacher's before the
    student's, where none is set; and a sentence on that."""
    for source, name in ((teacher, config.teacher), (student, config.student)):
        if config.resolution is None and source is not None and source.side is not None:
            if source.side == info.resolution:
                return config, ()
            whose, side = hub_configs.without_commit(source.network or name), min(source.side, MOST_SIDE)
            as_they = "as those" if side == source.side else f"the most that there can be instead of the {source.side}"
            note = (
                f"Images are {side} x {side} pixels, {as_they} that {whose}'s weights were trained with: "
                f"no resolution is set, and the dataset's own is {info.resolution}."
            )
            return config.model_copy(update={"resolution": side}), (note,)
    return config, ()


def resolve(config: RunConfig, runs_dir: Path) -> RunConfig:
    """The configuration with its names as they are loaded; networks on the Hub with their commit. Where no teacher or
    student was named, it is the network on the Hub, or what the folder or run says, that its weights come from.

    Raises:
        UserError: there are no such files or runs, or no such network on the Hub.
    """
    found: dict[str, object] = {}
    for role in WITH_SOURCE:
        field = f"{role}_from"
        source = getattr(config, field)
        if is_path(source) or str(source).startswith(RUN):
            with about_setting(field):
                found[field] = check_path(source) if is_path(source) else source
                said = network_in(str(found[field]), runs_dir)  # also makes known what only the folder describes
            if said and role not in config.model_fields_set:
                found[role] = said
        elif hub_configs.is_one(source):
            with about_setting(field):
                found[field] = said = hub_configs.look_up(source)
            if role not in config.model_fields_set:
                found[role] = said
    for role in ROLES:
        if hub_configs.is_one(name := getattr(config, role)):
            with about_setting(role):
                found[role] = hub_configs.look_up(name)
    with about_setting("dataset"):
        found["dataset"] = check_text(data.prepare(config.dataset))
    with about_setting("class_order"):
        found["class_order"] = class_order_of(config.class_order)
    with about_setting("more_teachers_from"):
        found["more_teachers_from"] = sources = tuple(map(_source, config.more_teachers_from))
        for source in sources:
            if is_path(source) or source.startswith(RUN):
                network_in(source, runs_dir)  # makes known what only the folder describes
    with about_setting("more_teachers"):
        found["more_teachers"] = tuple(
            hub_configs.look_up(name) if hub_configs.is_one(name) else name for name in config.more_teachers
        )
    if config.teacher_mean and os.path.isdir(str(found.get("teacher_from", ""))):
        raise UserError(FILE_ONLY, "teacher_from")
    return config.model_copy(update=found)


def _source(source: str) -> str:
    """Where weights come from, as it is loaded: the path of a file, or a network on the Hub with its commit."""
    if is_path(source):
        return check_path(source)
    return hub_configs.look_up(source) if hub_configs.is_one(source) else source
