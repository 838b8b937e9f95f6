r"""What the page knows of the shipped networks without asking them: writes checkpoints/showcase.json, the images of the
landing page (see its module), and their predictions for the whole test set, test-set.npz in the folder of each.

    python benchmarks/showcase.py fashion-mnist-sample 10000 \
        fashion-mnist-resnet20-teacher fashion-mnist-resnet8-baseline fashion-mnist-resnet8-ie-ft

The dataset whose test images are shown, how many test images the accuracies in the cards are of, and the folders in
checkpoints/: the teacher, the plain student, others.
"""

from __future__ import annotations

import argparse

import numpy as np

from iekd import data
from iekd.inference.classifier import open_classifier
from iekd.inference.showcase import make_showcase, write_showcase
from iekd.paths import checkpoints_dir
from iekd.runs.models import demo_models
from iekd.runs.test_set import ship_predictions


def main(name: str, tested: int, folders: list[str]) -> None:
    dataset = data.load(name)
    test = dataset.test
    found = [open_classifier(checkpoints_dir() / folder) for folder in folders]
    names = ["teacher" if one.card.role == "teacher" else one.card.method for one in found]
    assert len(set(names)) == len(names), f"{names}: one network of each kind"
    probabilities = {
        name: np.concatenate([one.probabilities(test.images[i : i + 500]) for i in range(0, len(test), 500)])
        for name, one in zip(names, found, strict=True)
    }
    models = dict(zip(names, folders, strict=True))
    showcase = make_showcase(name, models, probabilities, test.labels, dataset.class_names, tested)
    write_showcase(checkpoints_dir(), showcase)
    ship_predictions(demo_models(), dataset)
    print(
        f"{showcase.images:,} test images: both right {showcase.both:,}, only {showcase.taught} {showcase.gained:,}, "
        f"only the baseline {showcase.lost:,}, none {showcase.neither:,}. Shown: {[s.index for s in showcase.shown]}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("tested", type=int)
    parser.add_argument("folders", nargs="+")
    given = parser.parse_args()
    main(given.dataset, given.tested, given.folders)
