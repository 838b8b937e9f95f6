"""The stages of a run for networks and loaders of somebody else's: what Experiment does, with another data side."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import nn

from iekd.config.run import RunConfig
from iekd.data.base import Dataset, Split
from iekd.engine.batches import TrainingBatches
from iekd.engine.events import Event, TrainedModel
from iekd.engine.experiment import Experiment, Role
from iekd.engine.loaders import LoaderImages
from iekd.models.own import OwnNetwork

AS_THEY_ARE = (0.0, 1 / 255)  # the mean and deviation with which Normalise changes nothing


@dataclass(frozen=True)
class LoaderDataset(Dataset):
    """What is known of the images of loaders: how many, their shape and their labels. The pixels are the loaders'."""

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        mean, std = AS_THEY_ARE
        return (mean,) * self.channels, (std,) * self.channels


def without_pixels(labels: np.ndarray, image_shape: tuple[int, ...]) -> Split:
    """A split of those labels (N,); its images (C,H,W) are all zeros and take no memory."""
    channels, height, width = image_shape
    return Split(np.broadcast_to(np.zeros(1, np.uint8), (len(labels), height, width, channels)), labels)


class BuiltStudent(NamedTuple):
    """How students are built: `build` gives a module, with weights by torch's global generator; it is then tapped."""

    build: Callable[[], nn.Module]
    found: OwnNetwork


class OwnExperiment(Experiment):
    """An Experiment on a teacher that is trained already, students by a function, and batches of loaders."""

    def __init__(
        self, config: RunConfig, dataset: LoaderDataset, batches: TrainingBatches, test: LoaderImages,
        student: BuiltStudent, teacher: nn.Module | None, teacher_widths: tuple[int, ...],
    ) -> None:  # fmt: skip
        """config: its names of networks and dataset mean nothing; teacher: it gives Features, None without one."""
        super().__init__(config, dataset, None if teacher is None else TrainedModel(teacher, *dataset.statistics))
        self.batches, self.test, self.student, self.teacher_widths = batches, test, student, teacher_widths

    def events(self) -> Generator[Event, None, None]:
        with self.threads.used():
            yield from self._stages(self.batches, {"test": (self.test, self.test.labels.to(self.device))})

    def _build(self, role: Role) -> nn.Module:
        return self.student.found.wrapped(self.student.build())

    def _widths(self, role: Role) -> tuple[int, ...]:
        return self.teacher_widths if role == "teacher" else self.student.found.widths
