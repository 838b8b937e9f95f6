"""A trained network as one program from pixels to probabilities, and the texts that travel inside an exported file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from iekd import __version__
from iekd.errors import UserError
from iekd.export.base import Answer, ExportJob
from iekd.inference.onnx_file import CARD, FIT, LABELS, SIZE
from iekd.models.artifact import ModelCard
from iekd.models.normalise import Normalise

INPUT, OUTPUT = "pixels", "probabilities"
Made = TypeVar("Made")


class PixelsToProbabilities(nn.Module):
    """pixels (B,C,H,W) uint8 -> probabilities (B,K) float32: normalisation, network and softmax."""

    def __init__(self, model: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.normalise, self.model = Normalise(card.mean, card.std), model

    def forward(self, pixels: Tensor) -> Tensor:
        probabilities: Tensor = self.model(self.normalise(pixels)).logits.softmax(1)
        return probabilities


def whole_program(job: ExportJob) -> tuple[nn.Module, dict[str, Any]]:
    """The program to export, and what torch's exporters are told: an example batch whose size may be any other."""
    side = job.card.resolution
    pixels = torch.zeros(2, job.card.channels, side, side, dtype=torch.uint8)
    shapes = {INPUT: {0: torch.export.Dim("batch")}}
    program = PixelsToProbabilities(job.model, job.card).eval().requires_grad_(False)
    return program, {"args": (pixels,), "dynamic_shapes": shapes}


def traced(job: ExportJob, export: Callable[[], Made]) -> Made:
    """What one of torch's exporters makes of the network.

    Raises:
        UserError: it cannot follow the network, which may be anybody's.
    """
    try:
        with torch.no_grad():
            return export()
    except Exception as error:  # whatever the exporter, or a network of somebody else, raises
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f"The network '{job.card.model}' cannot be exported: torch cannot follow what it computes "
            f"({type(error).__name__}: {lines[0][:200] if lines else ''}). Its forward must not depend on the "
            "values or the number of the images. The format 'safetensors' works with every network."
        ) from error


def torch_answer(program: nn.Module) -> Answer:
    """A torch module that takes pixels and gives probabilities, for numpy arrays."""

    def answer(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = program(torch.from_numpy(pixels)).numpy()
        return found

    return answer


def metadata(job: ExportJob) -> dict[str, str]:
    """The texts inside an exported file, by name: what model.json holds, and the parts of it that any reader needs."""
    card = job.card
    return {
        CARD: json.dumps(asdict(card)), LABELS: json.dumps(card.class_names),
        SIZE: f"{card.resolution}x{card.resolution}", FIT: card.fit, "license": job.license,
        "iekd_version": __version__,
    }  # fmt: skip
