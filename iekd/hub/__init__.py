"""The Hugging Face Hub: push a student, a demo or a run; pull a model. Nothing is sent or fetched unless asked for."""

from __future__ import annotations

import os

# huggingface_hub reads it when it is imported; who wants the statistics of use to be sent sets it to 0
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from iekd.hub.pull import pulled

__all__ = ["pulled"]
