"""safetensors: the weights and model.json, as a run saves them; the network's definition stays in this package."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np

from iekd.export.base import Answer, Job
from iekd.export.script import weights_script
from iekd.models.artifact import CARD, WEIGHTS, ModelCard, load_model


class Weights:
    name, title, file = "safetensors", "Weights (safetensors)", WEIGHTS
    summary = "The weights and what they expect, for this package: iekd predict, or the teacher of another run."
    whole_folder, approximate = True, False

    def write(self, job: Job, target: Path) -> None:
        shutil.copyfile(job.folder / WEIGHTS, target)
        target.with_name(CARD).write_text(json.dumps(asdict(job.card), indent=2) + "\n")

    def open(self, target: Path, threads: int | None = None) -> Answer:
        """threads: see TorchProgram."""
        from iekd.export.program import PixelsToProbabilities

        return torch_answer(PixelsToProbabilities(*load_model(target.parent)))

    def script(self, card: ModelCard, file: str, script: str) -> str:
        return weights_script(card, file, script)

    def packages(self) -> tuple[str, ...]:
        return ("torch", "safetensors")


def torch_answer(program: object) -> Answer:
    """A torch module that takes pixels and gives probabilities, for numpy arrays."""
    import torch

    module = program
    assert callable(module)

    def answer(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = module(torch.from_numpy(pixels)).numpy()
        return found

    return answer
