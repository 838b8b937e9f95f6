"""Whether this process runs in a Hugging Face Space, and of which kind, told by the variables that Spaces set."""

from __future__ import annotations

import os


def in_space() -> bool:
    """Whether this is a Space."""
    return bool(os.environ.get("SPACE_ID"))


def on_zero_gpu() -> bool:
    """Whether this is a Space on ZeroGPU, which lends a GPU for seconds to a call, and never to another process."""
    return in_space() and os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")
