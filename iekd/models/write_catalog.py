"""Writes `catalog.json`, the sizes of this package's networks: `python -m iekd.models.write_catalog`."""

from __future__ import annotations

import json
from dataclasses import asdict

from iekd.models.catalog import CATALOG
from iekd.models.info import ModelInfo
from iekd.models.measure import measure
from iekd.models.registry import FAMILIES, builders


def measure_own() -> list[ModelInfo]:
    """Build every network of this package and measure it."""
    families = {family.__name__ for family in FAMILIES}
    return [measure(name, build) for name, build in builders().items() if build.__module__ in families]


if __name__ == "__main__":
    CATALOG.write_text(json.dumps([asdict(row) for row in measure_own()], indent=1) + "\n")
