"""What is measured: noise in the shape of a dataset, networks without training, and the engine's parts made of them.

The speed of a step depends on shapes alone, so nothing is downloaded and nobody waits for a teacher.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from iekd.config.run import RunConfig
from iekd.data import describe
from iekd.data.base import Dataset, Split
from iekd.engine.accelerate import freeze
from iekd.engine.batches import Batches, to_device
from iekd.engine.events import TrainedModel
from iekd.engine.experiment import Experiment
from iekd.engine.frozen_teacher import FrozenTeacher
from iekd.engine.learner import Learner
from iekd.models.catalog import factor_channels
from iekd.models.factors import AutoEncoder
from iekd.models.normalise import Normalise

TEST_IMAGES = 256  # the engine wants some; they are not part of what is timed
ENDLESS = 1_000_000  # steps that a learner's schedule is made for where the number of steps is not known


def image_bytes(config: RunConfig) -> int:
    """Of one image of the configuration's dataset."""
    info = describe(config.dataset)
    return (config.resolution or info.resolution) ** 2 * info.channels


class Noise(Dataset):
    """Its statistics are known: every value from 0 to 255 is as likely."""

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return (0.5,) * self.channels, (((256**2 - 1) / 12) ** 0.5 / 255,) * self.channels


def noise(config: RunConfig, images: int) -> Dataset:
    """So many training images of uint8 noise, in the shape and with the number of classes of config.dataset."""
    info, rng = describe(config.dataset), np.random.default_rng(0)
    side = config.resolution or info.resolution

    def split(count: int) -> Split:
        pixels = rng.integers(0, 256, (count, side, side, info.channels), dtype=np.uint8)
        return Split(pixels, np.arange(count, dtype=np.int64) % info.classes)

    names = tuple(f"class {k}" for k in range(info.classes))
    return Noise(f"noise like {info.name}", names, split(images), split(TEST_IMAGES))


@dataclass(frozen=True)
class Parts:
    """The engine's parts for the plain step; teacher is None where no learner needs one."""

    batches: Batches
    teacher: FrozenTeacher | None
    learners: dict[str, Learner]  # method -> learner of the first seed

    def endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch after batch, epoch after epoch."""
        return itertools.chain.from_iterable(map(self.batches.epoch, itertools.count()))


class Subject(Experiment):
    """The experiment of a configuration on noise, with a teacher at hand: one epoch of the auto-encoders, then one of
    the students.

    report_every: steps between rows; None leaves it to the engine.
    """

    def __init__(self, config: RunConfig, images: int, report_every: int | None = None) -> None:
        short = {
            "epochs": 1, "auto_encoder_epochs": 1, "validation_fraction": 0.0, "limit_train": None, "patience": 0,
            "lr": 1e-6,  # speed does not depend on it, and noise cannot make it diverge
            "student_from": None,  # nor does speed depend on the weights
        }  # fmt: skip
        super().__init__(config.model_copy(update=short), noise(config, images))
        self._every = report_every
        if config.needs_teacher:
            self.teacher = self._untrained_teacher()

    @property
    def _report_every(self) -> int:
        return self._every or super()._report_every

    def _untrained_teacher(self) -> TrainedModel:
        """Its batch norms know the statistics of one batch: without any, features would grow with depth."""
        torch.manual_seed(0)
        model = self._build("teacher").to(self.device)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        images, _ = to_device(self.dataset.test, self.device)
        with torch.no_grad():
            model(Normalise(*self.statistics).to(self.device)(images[:64]))
        for norm in norms:
            norm.momentum = 0.1
        return TrainedModel(model.eval(), *self.statistics)

    def auto_encoders(self) -> list[AutoEncoder]:
        """Untrained ones, for the stages that the methods compare."""
        if not self.config.needs_auto_encoder:
            return []
        return [AutoEncoder(c, factor_channels(c)).to(self.device).eval() for c in self.factor_widths]

    @property
    def factor_widths(self) -> tuple[int, ...]:
        return self._factor_widths()

    def parts(self) -> Parts:
        """Fresh learners of the first seed and what feeds them."""
        every_seed = self.config
        self.config = every_seed.model_copy(update={"seeds": every_seed.seeds[:1]})
        learners = dict(zip(self.config.methods, self._make_students(ENDLESS), strict=True))
        self.config = every_seed
        teacher = None
        if self.teacher is not None and any(learner.method.needs_teacher for learner in learners.values()):
            teacher = FrozenTeacher(self.teacher, self.device, self.precision, self.dataset.shape)
            teacher.encoders = [freeze(coder.encoder, self.precision) for coder in self.auto_encoders()]
        images, labels = to_device(self.dataset.train, self.device)
        batches = Batches(
            images, labels, every_seed.batch_size, every_seed.data_seed, self.augment(), extras=self.extras()
        )
        return Parts(batches, teacher, learners)
