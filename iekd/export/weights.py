"""safetensors: the weights and model.json, as a run saves them; the network's definition stays in this package."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from iekd.export.base import Answer, ExportJob
from iekd.export.script import weights_script
from iekd.models.artifact import CARD, WEIGHTS, ModelCard, load_model


class Weights:
    """The format safetensors, see `base.Format`: the model's own folder."""

    name, title, file = "safetensors", "Weights (safetensors)", WEIGHTS
    summary = "The weights and what they expect, for this package: iekd predict, or the teacher of another run."
    whole_folder, approximate = True, False

    def write(self, job: ExportJob, target: Path) -> None:
        shutil.copyfile(job.folder / WEIGHTS, target)
        target.with_name(CARD).write_text(json.dumps(asdict(job.card), indent=2) + "\n")

    def open(self, target: Path, threads: int | None = None) -> Answer:
        """threads: see TorchProgram."""
        from iekd.export.program import PixelsToProbabilities, torch_answer

        return torch_answer(PixelsToProbabilities(*load_model(target.parent)))

    def script(self, card: ModelCard, file: str, script: str) -> str:
        return weights_script(card, file, script)

    def packages(self) -> tuple[str, ...]:
        return ("torch", "safetensors")
