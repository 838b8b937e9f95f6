"""An ONNX file as onnxruntime runs it, and what it says of itself: card, class names, size of its images.

Our own exports have one input of bytes and one output of probabilities, so that nothing about pixels has to be known
outside of the file. A file of another tool is read too, as far as it is such a classifier.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iekd.errors import TrainingError, UserError, first_line
from iekd.models.artifact import ModelCard
from iekd.models.class_names import class_names_beside, find_class_names

SUFFIX = ".onnx"
EXPORTED = "model.onnx"  # what an ONNX file of ours is called in a folder
CARD, LABELS, SIZE, FIT = "iekd", "labels", "size", "fit"  # keys of its metadata
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


@dataclass(frozen=True)
class OnnxFile:
    """An opened file.

    Attributes:
        session: onnxruntime's. device: "cuda" or "cpu".
        card: of a model of ours; None for a file of another tool.
        class_names: None where neither the file nor one beside it lists them.
        channels, height, width: of its images; None where it takes any.
        fit: how images became square in training; None where it does not say.
        takes_bytes: whether it normalises pixels 0..255 itself; else it wants floating-point numbers.
        gives_logits: whether its second output is what goes into its softmax.
    """

    path: Path
    session: Any
    device: str
    card: ModelCard | None
    class_names: tuple[str, ...] | None
    channels: int | None
    height: int | None
    width: int | None
    fit: str | None
    takes_bytes: bool
    gives_logits: bool

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Outputs (B,K) for pixels (B,C,H,W) of the type that it takes.

        Raises:
            UserError: it cannot compute that.
        """
        try:
            outputs: list[np.ndarray] = self.session.run(None, {self.session.get_inputs()[0].name: pixels})
        except Exception as error:  # onnxruntime's errors have no common kind
            raise UserError(f"'{self.path}' cannot compute its predictions ({first_line(error)}).") from None
        return outputs


def open_onnx(path: Path, device: str = "cpu") -> OnnxFile:
    """Read a file, and check that it has one input of images.

    Args:
        device: "auto", "cpu" or "cuda".
    Raises:
        UserError: no such file, damaged, or not of this kind; the device is not there.
    """
    import onnxruntime

    provider, place = _provider(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised as well

    def session_of(source: str | bytes) -> Any:
        return onnxruntime.InferenceSession(source, options, providers=[provider])

    if not path.is_file():
        raise UserError(f"There is no file '{path}'. Check the path.")
    try:
        session = session_of(str(path))
        facts = dict(session.get_modelmeta().custom_metadata_map)
    except Exception as error:
        raise UserError(f"'{path}' is damaged or no ONNX file ({first_line(error)}). Export it again.") from None
    images = _input(session, path)
    card = _card(facts, path)
    gives_logits = False
    if card and card.energy_threshold is not None:
        with contextlib.suppress(Exception):  # without it, nobody can tell which images are unlike
            if added := logits_output(path):
                session, gives_logits = session_of(path.read_bytes() + added[1]), True
    height, width = _size(facts, images.shape, path)
    channels = images.shape[1] if isinstance(images.shape[1], int) else None
    names = card.class_names if card else _class_names(facts, path)
    return OnnxFile(
        path, session, place, card, names, channels, height, width, facts.get(FIT), images.type == "tensor(uint8)",
        gives_logits,
    )  # fmt: skip


def _provider(device: str, there: list[str]) -> tuple[str, str]:
    """(the name of onnxruntime's provider, the device) of a device's name."""
    place = device if device != "auto" else next(kind for kind, name in PROVIDERS.items() if name in there)
    if place not in PROVIDERS or PROVIDERS[place] not in there:
        raise TrainingError(
            f"Device '{device}' was asked for, but onnxruntime has none here. Choose 'auto' or 'cpu', or install "
            "onnxruntime-gpu."
        )
    return PROVIDERS[place], place


def _input(session: Any, path: Path) -> Any:
    inputs = session.get_inputs()
    kinds = ("tensor(uint8)", "tensor(float)")
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in kinds:
        listed = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
        raise UserError(
            f"'{path}' does not take images alone: its inputs are {listed}. Give a classifier with one input of shape "
            "(batch, channels, height, width), bytes or float32."
        )
    if not isinstance(inputs[0].shape[0], str) and inputs[0].shape[0] is not None:
        raise UserError(
            f"'{path}' takes {inputs[0].shape[0]} image(s) at a time, no other number. Export it with a dynamic batch."
        )
    return inputs[0]


def _card(facts: dict[str, str], path: Path) -> ModelCard | None:
    if CARD not in facts:
        return None
    try:
        values = json.loads(facts[CARD])
    except ValueError as error:
        raise UserError(f"The model card in '{path}' cannot be read ({error}). Export the model again.") from None
    return ModelCard.from_json(values, path)


def _class_names(facts: dict[str, str], path: Path) -> tuple[str, ...] | None:
    with contextlib.suppress(ValueError):
        if names := find_class_names(json.loads(facts.get(LABELS, "null"))):
            return names
    beside = class_names_beside(path)
    return beside[0] if beside else None


def _size(facts: dict[str, str], shape: list[Any], path: Path) -> tuple[int | None, int | None]:
    """(height, width) of the images: the input's own, else as the metadata says."""
    height, width = (side if isinstance(side, int) else None for side in shape[2:])
    if (height is None or width is None) and SIZE in facts:
        found = re.fullmatch(r"(\d+)x(\d+)", facts[SIZE])
        if not found:
            raise UserError(f"The size '{facts[SIZE]}' in '{path}' is not one such as 32x32. Export the model again.")
        height, width = int(found[1]), int(found[2])
    return height, width


def logits_output(path: Path) -> tuple[str, bytes] | None:
    """What makes the logits a second output of a file that ends with a softmax; None for other files.

    Probabilities no longer tell how large the logits were, which is how images unlike the training images are found.

    Returns:
        The name of that output, and bytes to append to the file: protobuf merges messages that follow each other.
    """
    import onnx

    model = onnx.load(path)
    last = next(node for node in model.graph.node if model.graph.output[0].name in node.output)
    if last.op_type != "Softmax":
        return None
    logits = onnx.helper.make_tensor_value_info(last.input[0], onnx.TensorProto.FLOAT, None)
    added: bytes = onnx.ModelProto(graph=onnx.GraphProto(output=[logits])).SerializeToString()
    return last.input[0], added
