"""int8: the ONNX file with weights and activations of 8 bits, by onnxruntime's static quantisation.

Calibrated on training images: what range an activation needs is measured, not guessed. Weights have one scale per
output channel. Activations are signed as the weights are: with unsigned ones, processors without VNNI cut sums off.
Normalisation and softmax stay in float32, where 8 bits would cost accuracy and save nothing.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from iekd.errors import UserError
from iekd.export.base import ExportJob, require
from iekd.export.check import batches, spread_over
from iekd.export.onnx_file import PACKAGES, OnnxFormat, graph_of, save_graph
from iekd.plural import counted

CALIBRATION = 512  # training images
COMPUTING = ("Conv", "Gemm", "MatMul")


class Int8(OnnxFormat):
    """The format int8, see `base.Format`. It needs training images to find the range of each activation."""

    name, title = "int8", "ONNX, 8 bits"
    summary = "Like ONNX with 8 bits for weights and activations: smaller. What that costs in accuracy is measured."
    approximate = True

    def write(self, job: ExportJob, target: Path) -> None:
        require(self.name, *PACKAGES, "onnxruntime.quantization")
        if job.dataset is None:
            raise UserError(
                "The format 'int8' needs training images to calibrate with, but no dataset is at hand. Name one with "
                "--dataset, or choose another format."
            )
        train = job.dataset.train
        graph = graph_of(job)
        job.say(f"Calibrating on {counted(min(CALIBRATION, len(train)), 'training image')} ...")
        images = train.images[spread_over(len(train), CALIBRATION)]
        save_graph(quantised(graph, images), job, target)


def quantised(graph: Any, images: np.ndarray) -> Any:
    """An ONNX ModelProto with 8 bits.

    Args:
        graph: in float32.
        images: (N,H,W,C) uint8 to calibrate on.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[np.ndarray] = batches(images)

        def get_next(self) -> Any:
            pixels = next(self.left, None)
            return None if pixels is None else {"pixels": pixels}

    with tempfile.TemporaryDirectory() as place:
        plain, prepared, written = (str(Path(place, name)) for name in ("plain.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(graph, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        names = _left_in_float32(onnx.load(prepared))
        with _without_warnings():
            quantization.quantize_static(
                prepared, written, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                weight_type=quantization.QuantType.QInt8, activation_type=quantization.QuantType.QInt8,
                nodes_to_exclude=names,
            )  # fmt: skip
        found = onnx.load(written)
        del found.graph.value_info[:]  # shapes between the layers, which every runtime infers: 1 % of a small file
        return found


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """onnxruntime logs a line for each batch norm that does not follow a convolution, which is no fault."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _left_in_float32(graph: Any) -> list[str]:
    """Nodes before the first convolution, and the softmax."""
    nodes = list(graph.graph.node)
    first = next((i for i, node in enumerate(nodes) if node.op_type in COMPUTING), 0)
    return [node.name for i, node in enumerate(nodes) if i < first or node.op_type == "Softmax"]
