"""Forms in which weights are saved that cannot be used as they are, known by the names of tensors or by a file's first
bytes; and what to do about each."""

from __future__ import annotations

import re
from collections.abc import Iterable

FORMS = (  # what occurs in the names of tensors, what it is, what to do
    (r"(^|\.)(lora_|modules_to_save\.|base_layer\.|original_module\.)",
     "an adapter (LoRA, PEFT) beside the weights", "Merge it with merge_and_unload(), and save the weights of that"),
    (r"_flat_param|(^|\.)flat_param",
     "the flattened pieces of FSDP", "Gather them with FullStateDictConfig, and save the full state_dict()"),
    (r"\.parametrizations\.|\.weight_(orig|mask|g|v|u)$",
     "weights in factors (pruning, weight norm or spectral norm)",
     "Undo that (torch.nn.utils.parametrize.remove_parametrizations, or prune.remove), and save the weights again"),
    (r"_packed_params|(^|\.)(scale|zero_point|SCB|qweight|qzeros|absmax)$",
     "quantised weights", "Save them as float tensors"),
)  # fmt: skip
MARKS = (  # how a file begins, what it is, what to do
    (b"\x89HDF", "an HDF5 file, as Keras writes it", "Save the weights with PyTorch"),
    (b"GGUF", "a GGUF file of a language model", "Give a file of PyTorch's"),
    (b"<?xml", "not the file itself but a page or a pointer to it", "Download the file again"),
    (b"<!doctype", "not the file itself but a page or a pointer to it", "Download the file again"),
    (b"<html", "not the file itself but a page or a pointer to it", "Download the file again"),
    (b"version https://git-lfs", "not the file itself but a page or a pointer to it", "Download it with git lfs pull"),
    (b'{"', "a JSON file, such as an index of others or the answer of a server", "Give the file of weights itself"),
)


def unusable_form(names: Iterable[str]) -> str:
    """What tensors of these names are, and what to do, as a sentence or two; empty if they tell nothing of the kind."""
    names = list(names)
    for pattern, what, remedy in FORMS:
        if (name := next((name for name in names if re.search(pattern, name)), None)) is not None:
            return f"It holds {what}, such as {name}. {remedy}."
    return ""


def other_file(head: bytes) -> str:
    """What else than weights a file is that begins with these bytes, and what to do; empty if that is not known."""
    begun = head.lstrip()
    for mark, what, remedy in MARKS:
        if begun[: len(mark)].lower() == mark.lower():
            return f"is {what}. {remedy}."
    if head[4:8] == b"TFL3":
        return "is a TensorFlow Lite model. Save the weights with PyTorch."
    if head[:1] == b"\x08" and (b"onnx" in head.lower() or b"pytorch" in head):  # its version, then who wrote it
        return (
            "is an ONNX file, which gives predictions but no features, so it cannot teach. iekd eval and iekd predict "
            "read it if its name ends in .onnx."
        )
    return ""
