"""torch: a program of `torch.export` (.pt2) that runs with torch alone, labels and card inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iekd.export.base import Answer, ExportJob
from iekd.export.script import torch_script
from iekd.models.artifact import ModelCard

TRACES = ("stack_trace", "source_fn_stack", "nn_module_stack", "torch_fn")


class TorchProgram:
    """The format torch, see `base.Format`: a program of torch.export."""

    name, title, file = "torch", "PyTorch program", "model.pt2"
    summary = "For PyTorch 2.8 or later, without this package. It takes pixels and gives probabilities."
    whole_folder, approximate = False, False

    def write(self, job: ExportJob, target: Path) -> None:
        import torch

        from iekd.export.program import metadata, traced, whole_program

        program, how = whole_program(job)
        exported: Any = traced(job, lambda: torch.export.export(program, **how))
        for node in exported.graph.nodes:
            for trace in TRACES:  # they name folders of this machine
                node.meta.pop(trace, None)
        torch.export.save(exported, target, extra_files=metadata(job))

    def open(self, target: Path, threads: int | None = None) -> Answer:
        """threads: that torch uses here; the caller sets them, because torch has one number for the whole process."""
        import torch

        from iekd.export.program import torch_answer

        return torch_answer(torch.export.load(target).module())

    def script(self, card: ModelCard, file: str, script: str) -> str:
        return torch_script(card, file, script)

    def packages(self) -> tuple[str, ...]:
        return ("torch",)
