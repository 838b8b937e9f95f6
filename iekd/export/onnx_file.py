"""ONNX: one file with weights, normalisation, softmax and class names, for onnxruntime and whatever else reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from iekd.errors import UserError
from iekd.export.base import Answer, ExportJob, require
from iekd.export.script import onnx_script
from iekd.inference.onnx_file import EXPORTED
from iekd.models.artifact import ModelCard

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 2**31 - 1  # bytes of one protobuf message


class OnnxFormat:
    """The format onnx, see `base.Format`."""

    name, title, file = "onnx", "ONNX", EXPORTED
    summary = "One file for onnxruntime and most other programs. It takes pixels and gives probabilities."
    whole_folder, approximate = False, False

    def write(self, job: ExportJob, target: Path) -> None:
        require(self.name, *PACKAGES)
        save_graph(graph_of(job), job, target)

    def open(self, target: Path, threads: int | None = None) -> Answer:
        return open_session(target, threads)

    def script(self, card: ModelCard, file: str, script: str) -> str:
        return onnx_script(card, file, script)

    def packages(self) -> tuple[str, ...]:
        return PACKAGES


def graph_of(job: ExportJob) -> Any:
    """The model as an ONNX ModelProto, by torch's dynamo exporter.

    Raises:
        UserError: torch cannot follow the network, or it is too large for one file.
    """
    import torch

    from iekd.export.program import INPUT, OUTPUT, traced, whole_program

    program, how = whole_program(job)
    if sum(p.numel() * p.element_size() for p in program.state_dict().values()) > LARGEST:
        raise UserError(
            f"The network '{job.card.model}' is larger than the 2 GB that one ONNX file can hold. "
            "Export it with the format torch or safetensors."
        )
    made: Any = traced(
        job,
        # torch 2.8 still takes the older exporter unless told otherwise, and would write weights to a second file
        lambda: torch.onnx.export(
            program, **how, dynamo=True, external_data=False, input_names=[INPUT], output_names=[OUTPUT], verbose=False
        ),
    )
    graph = made.model_proto
    _remove_traces(graph)
    return graph


def save_graph(graph: Any, job: ExportJob, target: Path) -> None:
    """Write a ModelProto with the texts of `metadata`, after ONNX's own check.

    Raises:
        UserError: it is not valid.
    """
    import onnx

    from iekd.export.program import metadata

    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, metadata(job))
    try:
        onnx.checker.check_model(graph, full_check=True)
    except Exception as error:  # onnx has several kinds
        raise UserError(
            f"The exported network '{job.card.model}' is not a valid ONNX file ({str(error).splitlines()[0]}). "
            "Use another version of torch or onnxscript, or the format torch."
        ) from error
    target.write_bytes(graph.SerializeToString())


def open_session(target: Path, threads: int | None = None) -> Answer:
    """An ONNX file in onnxruntime, on the CPU."""
    import onnxruntime

    from iekd.export.program import INPUT

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])

    def answer(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {INPUT: pixels})[0], np.float32)

    return answer


def _remove_traces(graph: Any) -> None:
    """Take out what the exporter writes about the Python code, which names folders of this machine."""
    for part in (graph.graph, *graph.functions):
        part.doc_string = ""
        del part.metadata_props[:]
        for node in part.node:
            node.doc_string = ""
            del node.metadata_props[:]
        for value in part.value_info:
            value.doc_string = ""
            del value.metadata_props[:]
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
