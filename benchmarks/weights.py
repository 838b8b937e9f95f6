"""Choose default weights on held-out training images, never on the test set.

    python benchmarks/weights.py [--epochs 10] [--seeds 0,1,2] "ie-ft inheritance_weight=50" "od overhaul_weight=3" ...
    python benchmarks/weights.py --folder CIFAR10 --teacher-from benchmarks/paper/resnet20-teacher --epochs 30 ...

Trains the default run's student once per learner and seed, all in lock-step on the shipped sample, and judges them on
10,000 training images of Fashion-MNIST that are not in the sample (the first 1,000 of each class after those). Needs
the full Fashion-MNIST on this machine. A learner is a method with settings that differ from the run's; without any, the
weights of ie-ft that the default was chosen from. With --folder they learn from the first images of each class in
FOLDER/train instead, --per-class of them, and are judged on the 1,000 of each class before its last 1,000.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np

from iekd import data
from iekd.config.run import RunConfig, learner_name, make_config
from iekd.data.base import Dataset, Split
from iekd.data.bundled import SAMPLE
from iekd.engine.events import StageStart, TrainedModel
from iekd.engine.experiment import Experiment
from iekd.engine.learner import Learner
from iekd.engine.metrics import Metrics
from iekd.models.artifact import load_model
from iekd.paths import checkpoints_dir
from iekd.runs.teachers import find_teacher

PAIRS = ((50, 50), (500, 0), (500, 50), (500, 500), (1000, 50))
CANDIDATES = ["baseline", "ft", *(f"ie-ft inheritance_weight={i} exploration_weight={e}" for i, e in PAIRS)]


class Grid(Experiment):
    """The default experiment with the learners of several configurations side by side."""

    def __init__(self, configs: dict[str, RunConfig], *arguments: object) -> None:
        super().__init__(next(iter(configs.values())), *arguments)
        self.configs = configs

    def _make_students(self, steps_per_epoch: int) -> list[Learner]:
        first, learners = self.config, []
        for name, config in self.configs.items():
            self.config = config
            for learner in super()._make_students(steps_per_epoch):
                learner.name = f"{name} {learner.name}"
                learners.append(learner)
        self.config = first
        return learners


def of_each_class(full: Split, rows: slice) -> Split:
    """Those rows of each class's images, in the order of all."""
    classes = range(int(full.labels.max()) + 1)
    chosen = np.sort(np.concatenate([np.flatnonzero(full.labels == k)[rows] for k in classes]))
    return Split(full.images[chosen], full.labels[chosen])


def divided(folder: str, per_class: int) -> Dataset:
    """What is learned from, and held-out training images in the place of the test split."""
    if not folder:  # the sample holds the first 1,000 of each class
        full = data.load("fashion-mnist").train
        return replace(data.load(SAMPLE), test=of_each_class(full, slice(1000, 2000)))
    whole = data.load(f"folder:{folder}", resolution=32)
    train, test = of_each_class(whole.train, slice(per_class)), of_each_class(whole.train, slice(-2000, -1000))
    return replace(whole, train=train, test=test)


def configuration(text: str, **common: object) -> RunConfig:
    """ "ie-ft distance=l2" -> the default run with that one method and that setting."""
    method, *settings = text.split()
    return make_config(methods=(method,), **common, **dict(setting.split("=") for setting in settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("learners", nargs="*", default=CANDIDATES)
    parser.add_argument("--epochs", type=int, default=RunConfig.model_fields["epochs"].default)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--auto-encoder-epochs", type=int, default=3)
    parser.add_argument("--folder", default="")
    parser.add_argument("--teacher-from", type=Path)
    parser.add_argument("--per-class", type=int, default=1000)
    arguments = parser.parse_args()
    common = {
        "epochs": arguments.epochs, "seeds": tuple(map(int, arguments.seeds.split(","))), "validation_fraction": 0,
        "auto_encoder_epochs": arguments.auto_encoder_epochs, "preset": "paper" if arguments.folder else None,
    }  # fmt: skip
    configs = {text: configuration(text, **common) for text in arguments.learners}
    # the first decides which auto-encoders are trained
    first = sorted(configs, key=lambda text: (not configs[text].needs_auto_encoder, configs[text].ie_stages != "all"))
    config = configs[first[0]]
    model, card = load_model(arguments.teacher_from or find_teacher(config, checkpoints_dir()))
    dataset = divided(arguments.folder, arguments.per_class)
    grid = Grid({text: configs[text] for text in first}, dataset, TrainedModel(model, card.mean, card.std))
    found: dict[str, dict[str, float]] = {}
    for event in grid.events():
        if isinstance(event, StageStart) and event.stage == "evaluation":
            break
        if isinstance(event, Metrics) and event.kind == "test":
            found[event.learner] = event.values
            if event.epoch == config.epochs:
                print(event.learner, f"{event.values['accuracy']:.2f}", flush=True)
    print(f"\nheld-out accuracy (%), {len(config.seeds)} seeds, {config.epochs} epochs, teacher {card.accuracy}")
    print("| learner | mean | standard deviation |\n|---|---|---|")
    for text, own in configs.items():
        values = [found[f"{text} {learner_name(*which)}"]["accuracy"] for which in own.learner_names]
        print(f"| {text} | {statistics.mean(values):.2f} | {statistics.pstdev(values):.2f} |")


if __name__ == "__main__":
    main()
