"""The further teachers of a run whose answers are averaged with the first one's: found, checked and loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from iekd.config.run import RunConfig
from iekd.data.base import Dataset, DatasetInfo
from iekd.errors import UserError, about_setting
from iekd.models import libraries
from iekd.runs.teachers import check_teacher, find_teacher, to_fine_tune

if TYPE_CHECKING:
    from iekd.runs.teacher_model import LoadedTeacher


def check_more(config: RunConfig, runs_dir: Path, info: DatasetInfo) -> None:
    """Whether all of them are at hand, and take images of the run's size.

    Raises:
        UserError: one would have to be trained first, or cannot be used.
    """
    side = config.resolution or info.resolution
    for one in _each(config):
        if libraries.names_one(one.teacher):
            with about_setting("more_teachers"):
                libraries.check_side(one.teacher, side)
        if check_teacher(one, runs_dir, info) is None:
            start, why = to_fine_tune(one, runs_dir, info), "is not at hand"
            if start is not None:
                why = f"from '{one.teacher_from}' ({start.title}) does not know these classes yet"
            begin = f" --student-from {one.teacher_from}" if start is not None else ""
            raise UserError(
                f"Teacher '{one.teacher}' {why}, and a run trains its first teacher only. Train it first (--teacher "
                f"none --student {one.teacher}{begin} --methods baseline), and give run:ID as its source.",
                "more_teachers_from",
            )


def load_more(config: RunConfig, runs_dir: Path, dataset: Dataset) -> Iterator[LoadedTeacher]:
    """Each of them, with its classes in the dataset's order.

    Raises:
        UserError: it is not there any more, or does not fit.
    """
    from iekd.runs.teacher_model import load_teacher

    for one in _each(config):
        found = find_teacher(one, runs_dir)
        if found is None:
            raise UserError(f"Teacher '{one.teacher}' is not at hand any more. Put it back, or start a new run.")
        yield load_teacher(found, one, dataset, further=True)


def _each(config: RunConfig) -> Iterator[RunConfig]:
    """The run's configuration with each further teacher in place of the first, whose pixels are not theirs."""
    alone = {"more_teachers": (), "more_teachers_from": (), "teacher_mean": None, "teacher_std": None}
    for name, source in zip(config.more_teachers, config.sources_of_more, strict=True):
        yield config.model_copy(update={**alone, "teacher": name, "teacher_from": source})
