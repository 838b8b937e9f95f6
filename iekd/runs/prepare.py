"""From a configuration to what a run needs: the step between RunConfig, which looks at no file, and a run that starts.

The page, the command line and the endpoints call `prepare` once when a run is to start; the page also while the form
is filled in, after a pause.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from iekd import data
from iekd.config.run import RunConfig
from iekd.data import DatasetInfo
from iekd.data.unlabelled import check_unlabelled
from iekd.errors import UserError, about_setting, check_text
from iekd.estimate.cautions import Caution, cautions, learned_from
from iekd.models import libraries
from iekd.models.class_names import class_order_of
from iekd.models.source import FILE_ONLY, check_path, is_path
from iekd.runs.more_teachers import check_more
from iekd.runs.queue import check_device
from iekd.runs.teachers import check_teacher


@dataclass(frozen=True)
class Prepared:
    """A run that can start.

    Args:
        config: with the dataset's name as it is loaded: links followed, archives unpacked.
        info: of the dataset.
        teacher: the folder of the trained teacher, or its file of weights; None if the run trains it or needs none.
    """

    config: RunConfig
    info: DatasetInfo
    teacher: Path | None

    def cautions(self, images: str = "images", fitting: int | None = None) -> list[Caution]:
        """What makes the result worth little, to be said before it starts; images: how images are called; fitting: see
        `estimate.cautions.cautions`."""
        return cautions(self.config, learned_from(self.config, self.info), self.info.test_images, images, fitting)


def prepare(config: RunConfig, runs_dir: Path) -> Prepared:
    """Find the dataset, the device and the teacher of a run; an archive of images is unpacked. A network of another
    library must take images of that size.

    Raises:
        UserError: one of them is not there or cannot be used; the message says what to do.
    """
    config = resolve(config)
    with about_setting("dataset"):
        info = data.describe(config.dataset, config.test_fraction, config.class_order)
    with about_setting("device"):
        check_device(config.device)
    side = config.resolution or info.resolution
    for role in ("teacher", "student", "peer"):
        name = getattr(config, role)
        if name and libraries.names_one(name):
            with about_setting(role):
                libraries.check_side(name, side)
    if config.unlabelled:
        with about_setting("unlabelled"):
            check_unlabelled(config.unlabelled)
    check_more(config, runs_dir, info)
    with about_setting("teacher_from"):
        return Prepared(config, info, check_teacher(config, runs_dir, info))


def resolve(config: RunConfig) -> RunConfig:
    """The configuration with its names as they are loaded. Raises UserError if there are no such files."""
    found: dict[str, object] = {}
    with about_setting("dataset"):
        found["dataset"] = check_text(data.prepare(config.dataset))
    with about_setting("class_order"):
        found["class_order"] = class_order_of(config.class_order)
    with about_setting("more_teachers_from"):
        found["more_teachers_from"] = tuple(
            check_path(source) if is_path(source) else source for source in config.more_teachers_from
        )
    if is_path(config.teacher_from):
        with about_setting("teacher_from"):
            found["teacher_from"] = teacher = check_path(config.teacher_from)
        if config.teacher_mean and os.path.isdir(teacher):
            raise UserError(FILE_ONLY, "teacher_from")
    return config.model_copy(update=found)
