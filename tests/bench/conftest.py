from __future__ import annotations

import pytest

from iekd.config import make_config


@pytest.fixture(scope="session")
def small():
    """`small(**changes)`: a configuration whose steps take milliseconds; the first step has the full learning rate."""

    def make(**changes):
        values = {
            "dataset": "fashion-mnist-sample", "resolution": 8, "teacher": "resnet8", "student": "resnet8",
            "methods": ("baseline", "ie-ft"), "batch_size": 8, "schedule": "multi-step", "device": "cpu",
            "precision": "fp32",
        }  # fmt: skip
        return make_config(**{**values, **changes})

    return make
