"""Copy a trained model of a run to checkpoints/, where the page and `iekd compare` find it.

python benchmarks/release.py RUN_DIR/models/ie-ft-seed0 fashion-mnist-resnet8-ie-ft
python benchmarks/release.py RUN_DIR/models/baseline-seed0 fashion-mnist-resnet20-teacher --role teacher
"""

import argparse
from dataclasses import replace
from pathlib import Path

from iekd.models.artifact import load_model, save_model
from iekd.paths import checkpoints_dir


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("name")
    parser.add_argument("--role", choices=("teacher", "student"), default="student")
    arguments = parser.parse_args()
    model, card = load_model(arguments.model)
    save_model(checkpoints_dir() / arguments.name, model, replace(card, role=arguments.role))
    print(f"{arguments.name}: {card.model}, {card.method}, {card.accuracy:.2f} %, trained by: {card.command}")


if __name__ == "__main__":
    main()
