"""The registry of export formats. A new format is one file and one line here; the command line and the page follow."""

from __future__ import annotations

from iekd.errors import unknown_name
from iekd.export.base import ExportJob, Format
from iekd.export.int8 import Int8
from iekd.export.onnx_file import OnnxFormat
from iekd.export.torch_program import TorchProgram
from iekd.export.weights import Weights
from iekd.plugins import load_plugins, remember

__all__ = ["FORMATS", "ExportJob", "Format", "format_called", "register"]

FORMATS: dict[str, Format] = {}


def register(added: Format) -> Format:
    """Add a format under its name; it takes the place of one with the same name.

    Args:
        added: an object with the attributes and functions of `Format`.
    Returns:
        The same object.

    Example:
        register(MyFormat())  # then `iekd export RUN --format my-format`
    """
    FORMATS[added.name] = added
    remember(type(added).__module__)
    return added


for _format in (OnnxFormat(), TorchProgram(), Weights(), Int8()):
    register(_format)


def format_called(name: str, also: tuple[str, ...] = ()) -> Format:
    """The format of that name; also: what else could have been meant, for the message.

    Raises:
        UserError: there is none.
    """
    if name not in FORMATS:
        load_plugins()
    if name not in FORMATS:
        raise unknown_name("format", name, [*FORMATS, *also])
    return FORMATS[name]
