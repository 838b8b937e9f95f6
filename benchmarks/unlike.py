"""How many pictures of other things are marked as unlike the training images, and how many test images by mistake.

Half of the test images set each network's threshold, the other half measure it. With --write, the threshold of all test
images goes into the cards of the shipped models.

    python benchmarks/unlike.py FOLDER_OF_PHOTOS [FOLDER ...] [--write]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from iekd import data
from iekd.data.decoding import to_array
from iekd.engine.learner import predict
from iekd.engine.scoring import UNLIKE, energy
from iekd.inference.compare import _opposite_background
from iekd.models.artifact import CARD, ModelCard, load_model
from iekd.models.normalise import Normalise
from iekd.paths import checkpoints_dir

ENDINGS = (".jpg", ".jpeg", ".png")
SCORES = {
    "energy (Liu et al. 2020)": energy,
    "max logit (Vaze et al. 2022)": lambda logits: logits.max(1)[0],
    "max softmax (Hendrycks & Gimpel 2017)": lambda logits: logits.softmax(1).max(1)[0],
}


def as_seen(path: Path, card: ModelCard) -> np.ndarray:
    """A picture as Compare shows it to the network."""
    seen = to_array(path, card.resolution, card.channels, path.name)
    return 255 - seen if _opposite_background(seen, card) else seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true", help="store the thresholds in the shipped models' cards")
    given = parser.parse_args()
    test = data.load("fashion-mnist-sample").test
    rng, device = np.random.default_rng(0), torch.device("cpu")
    order = torch.from_numpy(rng.permutation(len(test)))
    for folder in sorted(path.parent for path in checkpoints_dir().glob(f"*/{CARD}")):
        model, card = load_model(folder)
        normalise, side = Normalise(card.mean, card.std), card.resolution
        others = {
            f"{path.name} ({len(files)})": np.stack([as_seen(file, card) for file in files])
            for path in given.folders
            if (files := sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS))
        }
        others["noise (300)"] = rng.integers(0, 256, (300, side, side, card.channels), dtype=np.uint8)

        def logits(images: np.ndarray, model=model, normalise=normalise) -> torch.Tensor:
            return predict(model, normalise, torch.from_numpy(images).permute(0, 3, 1, 2), device)

        known, unknown = logits(test.images[:]), {name: logits(images) for name, images in others.items()}
        print(f"{folder.name}: marked of")
        for name, score in SCORES.items():
            of_test = score(known)[order]
            half = len(order) // 2
            threshold = of_test[:half].quantile(UNLIKE)
            marked = {"test images by mistake": of_test[half:], **{n: score(found) for n, found in unknown.items()}}
            shown = ", ".join(f"{n} {100 * (v < threshold).float().mean():.1f} %" for n, v in marked.items())
            print(f"  {name}: {shown}")
        sure = {
            n: (found.softmax(1).max(1)[0] >= 0.9).nonzero()[:, 0] for n, found in unknown.items()
        }  # called something with 90 % or more
        threshold = float(energy(known).double().quantile(UNLIKE))
        shown = ", ".join(
            f"{n} {int((energy(unknown[n][rows]) < threshold).sum())} of {len(rows)}" for n, rows in sure.items()
        )
        print(f"  by energy, of those that are named with 90 % or more: {shown}")
        if given.write:
            card = replace(card, energy_threshold=round(threshold, 4))
            stored = json.loads((folder / CARD).read_text())
            (folder / CARD).write_text(
                json.dumps({**stored, "energy_threshold": card.energy_threshold}, indent=2) + "\n"
            )


if __name__ == "__main__":
    main()
