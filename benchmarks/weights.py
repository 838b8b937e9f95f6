"""Choose the default weights of ie-ft on held-out training images, never on the test set.

    python benchmarks/weights.py [--epochs 10] [--seeds 0,1,2]

Trains the default run's student with each pair of weights on the shipped sample, all in lock-step, and judges them on
10,000 training images of Fashion-MNIST that are not in the sample (the first 1,000 of each class after those). Needs
the full Fashion-MNIST on this machine.
"""

import argparse
import copy
import statistics
from dataclasses import replace

import numpy as np
import torch

from iekd import data
from iekd.config import RunConfig, make_config
from iekd.data.dataset import Split
from iekd.engine.experiment import Experiment, Network, StageStart
from iekd.engine.learner import Learner
from iekd.engine.metrics import Metrics
from iekd.methods import MethodOptions, build_method
from iekd.models.artifact import load_model
from iekd.models.catalog import models
from iekd.models.registry import build
from iekd.teachers import checkpoints_dir, find_teacher

WEIGHTS = ((50, 50), (500, 0), (500, 50), (500, 500), (1000, 50))  # (inheritance, exploration)


class Grid(Experiment):
    """The default experiment, but with one ie-ft student per pair of weights beside the baseline."""

    def _make_students(self, steps_per_epoch: int) -> list[Learner]:
        learners = super()._make_students(steps_per_epoch)  # baseline and ft
        width = models()[self.config.student].feature_channels
        for seed in self.config.seeds:
            torch.manual_seed(seed)
            student = build(self.config.student, len(self.dataset.class_names), self.dataset.channels)
            for inheritance, exploration in WEIGHTS:
                torch.manual_seed(seed)
                method = build_method("ie-ft", MethodOptions(inheritance, exploration, 0, 4, 0.9), width, 32)
                name = f"ie-ft({inheritance},{exploration})-seed{seed}"
                learners.append(
                    self._learner(name, "students", copy.deepcopy(student), method, self.config.epochs, steps_per_epoch)
                )
        return learners


def held_out() -> Split:
    """The 1,001st to 2,000th training image of each class: the sample holds the 1,000 before them."""
    full = data.load("fashion-mnist").train
    chosen = np.sort(np.concatenate([np.flatnonzero(full.labels == k)[1000:2000] for k in range(10)]))
    return Split(full.images[chosen], full.labels[chosen])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=RunConfig.model_fields["epochs"].default)
    parser.add_argument("--auto-encoder-epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    config = make_config(
        epochs=arguments.epochs,
        seeds=tuple(int(s) for s in arguments.seeds.split(",")),
        methods=("baseline", "ft"),
        auto_encoder_epochs=arguments.auto_encoder_epochs,
        batch_size=arguments.batch_size,
        lr=arguments.lr,
    )
    folder = find_teacher(config, checkpoints_dir())
    assert folder is not None, "the shipped teacher is missing"
    model, card = load_model(folder)
    dataset = replace(data.load(config.dataset), test=held_out())
    accuracies: dict[str, list[float]] = {}
    for event in Grid(config, dataset, Network(model, card.mean, card.std)).events():
        if isinstance(event, StageStart) and event.stage == "evaluation":
            break
        if isinstance(event, Metrics) and event.kind == "test" and event.epoch == config.epochs:
            accuracies.setdefault(event.learner.rsplit("-seed", 1)[0], []).append(event.values["accuracy"])
    print(f"held-out accuracy (%), {len(config.seeds)} seeds, {config.epochs} epochs, teacher {card.accuracy}")
    print("| learner | mean | standard deviation |\n|---|---|---|")
    for name, values in accuracies.items():
        print(f"| {name} | {statistics.mean(values):.2f} | {statistics.pstdev(values):.2f} |")


if __name__ == "__main__":
    main()
