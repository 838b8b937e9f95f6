"""What the page knows of the shipped networks without asking them: writes checkpoints/showcase.json, the images of the
landing page (see its module), and their predictions for the whole test set, test-set.npz in the folder of each.

python benchmarks/showcase.py
"""

from __future__ import annotations

import numpy as np

from iekd import data
from iekd.inference.classifier import open_classifier
from iekd.inference.showcase import make_showcase, write_showcase
from iekd.models.shipped import shipped_models
from iekd.paths import checkpoints_dir
from iekd.runs.models import demo_models
from iekd.runs.test_set import ship_predictions


def main() -> None:
    cards = shipped_models()
    models = {"teacher" if card.role == "teacher" else card.method: name for name, card in cards.items()}
    models = {name: models[name] for name in ("teacher", "baseline", *sorted(set(models) - {"teacher", "baseline"}))}
    card = cards[models["baseline"]]  # the teacher may have learned from a larger dataset
    dataset = data.load(card.datasets[0])
    test = dataset.test
    classifiers = {name: open_classifier(checkpoints_dir() / folder) for name, folder in models.items()}
    probabilities = {
        name: np.concatenate([one.probabilities(test.images[i : i + 500]) for i in range(0, len(test), 500)])
        for name, one in classifiers.items()
    }
    showcase = make_showcase(card.datasets[0], models, probabilities, test.labels, card.class_names)
    write_showcase(checkpoints_dir(), showcase)
    ship_predictions(demo_models(), dataset)
    print(
        f"{showcase.images:,} test images: both right {showcase.both:,}, only {showcase.taught} {showcase.gained:,}, "
        f"only the baseline {showcase.lost:,}, none {showcase.neither:,}. Shown: {[s.index for s in showcase.shown]}"
    )


if __name__ == "__main__":
    main()
