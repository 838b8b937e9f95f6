"""Exports that stay in the run's folder, for whoever downloads them later: made once, in a process of their own.

A process of its own, because an export loads the dataset, computes on all cores and then times networks on one: inside
a server it would disturb everybody else, and be disturbed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from iekd import plugins
from iekd.errors import UserError
from iekd.export import Certificate
from iekd.export.formats import format_called
from iekd.export.write import RECORD
from iekd.models.artifact import WEIGHTS
from iekd.paths import python_path
from iekd.runs.files import read_json
from iekd.runs.models import model_of
from iekd.runs.store import EXPORTS, Run

PATIENCE = 1800  # seconds that an export may take


def export_in_run(run: Run, learner: str, format: str) -> Certificate:
    """The certificate of an export of one of the run's models, which is made now unless it has been before.

    Raises:
        UserError: no such model or format, or it cannot be exported.
    """
    folder, model = export_folder(run, learner, format), model_of(run, learner)
    if (found := read_certificate(folder)) and folder.stat().st_mtime >= (model / WEIGHTS).stat().st_mtime:
        return found
    shutil.rmtree(folder, ignore_errors=True)  # the run was resumed since
    words = [f"{run.id}/{learner}", "--format", format, "--out", str(folder), "--runs-dir", str(run.path.parent)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "iekd", "export", *words, "--json"], stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace", timeout=PATIENCE, check=False, cwd=run.path,
            env={**os.environ, "PYTHONPATH": python_path(), **plugins.environment()},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(f"The export was not done after {PATIENCE // 60} minutes. Use 'iekd export' instead.") from None
    if done.returncode == 0 and (found := read_certificate(folder)):
        return found
    lines = done.stderr.strip().splitlines()
    _, said, why = (lines[-1] if lines else "").partition("Error: ")
    raise UserError(why if said else f"The export has failed (exit status {done.returncode}). Try 'iekd export'.")


def export_folder(run: Run, learner: str, format: str) -> Path:
    """Where an export of one of the run's models lies, or would.

    Raises:
        UserError: the run has no such model, or there is no such format.
    """
    return run.path / EXPORTS / f"{model_of(run, learner).name}-{format_called(format).name}"


def read_certificate(folder: Path) -> Certificate | None:
    """The certificate in an exported folder; None where there is none that can be read."""
    values = read_json(folder / RECORD)
    try:
        return Certificate.from_json(values) if isinstance(values, dict) else None
    except (TypeError, KeyError):
        return None


def files_of(folder: Path) -> list[Path]:
    """Every file of an exported folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
