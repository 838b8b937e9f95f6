"""What may be wrong with the values of a network's weights, whoever they come from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from iekd.errors import UserError

COUNTER = "num_batches_tracked"  # batch norm's, which old checkpoints lack and evaluation ignores


def check_values(given: Mapping[str, Tensor], own: Mapping[str, Tensor], whose: str) -> None:
    """Check that the weights of a network are numbers that it can have been trained to.

    whose: what has the weights, for messages; at the beginning of a sentence.

    Raises:
        UserError: they are not.
    """
    if not any(bool(v.any()) for k, v in given.items() if own[k].ndim > 1):
        raise UserError(f"{whose} cannot be used: all its weights are 0. Get the file again.")
    for name in [k for k in own if k in given and not k.endswith(COUNTER)]:
        value = given[name]
        if not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise UserError(f"{whose} cannot be used: {name} holds {kind} values. Save the weights as float tensors.")
        what = "" if torch.isfinite(value.float()).all() else "values that are not numbers"
        if name.endswith("running_var") and bool((value.float() < 0).any()):
            what = "negative variances"
        if what:
            raise UserError(f"{whose} is damaged: {name} holds {what}. Get the file again.")


def size_text(tensor: Tensor) -> str:
    """A tensor's shape for messages: 64 x 3 x 3 x 3."""
    return " x ".join(map(str, tensor.shape)) or "one number"
