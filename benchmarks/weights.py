"""Choose default weights on held-out training images, never on the test set.

    python benchmarks/weights.py [--epochs 10] [--seeds 0,1,2] "ie-ft inheritance_weight=50" "od overhaul_weight=3" ...

Trains the default run's student once per learner and seed, all in lock-step on the shipped sample, and judges them on
10,000 training images of Fashion-MNIST that are not in the sample (the first 1,000 of each class after those). Needs
the full Fashion-MNIST on this machine. A learner is a method with settings that differ from the run's; without any, the
weights of ie-ft that the default was chosen from.
"""

import argparse
import statistics
from dataclasses import replace

import numpy as np

from iekd import data
from iekd.config.run import RunConfig, learner_name, make_config
from iekd.data.base import Split
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


def held_out() -> Split:
    """The 1,001st to 2,000th training image of each class: the sample holds the 1,000 before them."""
    full = data.load("fashion-mnist").train
    chosen = np.sort(np.concatenate([np.flatnonzero(full.labels == k)[1000:2000] for k in range(10)]))
    return Split(full.images[chosen], full.labels[chosen])


def configuration(text: str, **common: object) -> RunConfig:
    """ "ie-ft distance=l2" -> the default run with that one method and that setting."""
    method, *settings = text.split()
    return make_config(methods=(method,), **common, **dict(setting.split("=") for setting in settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("learners", nargs="*", default=CANDIDATES)
    parser.add_argument("--epochs", type=int, default=RunConfig.model_fields["epochs"].default)
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    common = {
        "epochs": arguments.epochs, "seeds": tuple(map(int, arguments.seeds.split(","))), "validation_fraction": 0,
    }  # fmt: skip
    configs = {text: configuration(text, **common) for text in arguments.learners}
    # the first decides which auto-encoders are trained
    first = sorted(configs, key=lambda text: (not configs[text].needs_auto_encoder, configs[text].ie_stages != "all"))
    config = configs[first[0]]
    model, card = load_model(find_teacher(config, checkpoints_dir()))
    dataset = replace(data.load(config.dataset), test=held_out())
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
