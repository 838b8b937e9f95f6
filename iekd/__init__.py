"""IE-KD Studio: distil an image classifier with inheritance and exploration (Huang et al., CVPR 2021).

    from iekd import make_config, LocalLauncher, Store
    run_id = LocalLauncher(Store("runs")).submit(make_config(methods=("baseline", "ie-ft")))

Names are loaded when first used, so that `import iekd` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOME = {
    "RunConfig": "iekd.config.run",
    "make_config": "iekd.config.run",
    "Dataset": "iekd.data",
    "load": "iekd.data",
    "Features": "iekd.models.features",
    "build": "iekd.models.registry",
    "Experiment": "iekd.engine.experiment",
    "distill": "iekd.own",
    "Store": "iekd.runs.store",
    "Run": "iekd.runs.store",
    "LocalLauncher": "iekd.launchers.local",
    "Predictor": "iekd.inference.predict",
    "predict": "iekd.inference.predict_files",
    "export_model": "iekd.export",
    "Student": "iekd.hub.student",
    "UserError": "iekd.errors",
}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "distill":  # the package of that name, which is callable: see its docstring
        return import_module("iekd.distill")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'iekd' has no attribute '{name}'")
