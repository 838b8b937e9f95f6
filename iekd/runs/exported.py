"""Exports that stay in the run's folder, for whoever downloads them later: made once, in a process of their own.

A process of its own, because an export loads the dataset, computes on all cores and then times networks on one: inside
a server it would disturb everybody else, and be disturbed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from iekd import plugins
from iekd.config.run import learner_name
from iekd.data import own_path
from iekd.errors import UserError
from iekd.export import Certificate
from iekd.export.formats import format_called
from iekd.export.web import MODELS, WEB
from iekd.export.write import RECORD
from iekd.models.artifact import WEIGHTS, ModelCard
from iekd.paths import python_path
from iekd.runs.files import read_json
from iekd.runs.models import model_of, models_of_page, saved_seeds
from iekd.runs.store import EXPORTS, Run

PATIENCE = 1800  # seconds that an export may take


def export_in_run(run: Run, learner: str, format: str) -> Certificate:
    """The certificate of an export of one of the run's models, which is made now unless it has been before.

    "web" makes a page of the teacher and all students of the model's seed. The images of somebody's own dataset are
    not put on it: who exports on the page may only want to pass the networks on.

    Raises:
        UserError: no such model or format, or it cannot be exported.
    """
    folder, card = export_folder(run, learner, format), ModelCard.read(model_of(run, learner))
    what, models, options = f"{run.id}/{learner}", [model_of(run, learner)], []
    if format == WEB:
        seed = _seed_of(run, learner)
        what, models = f"{run.id}/{seed}" if seed else run.id, models_of_page(run, seed)
        options = ["--examples", "0"] if own_path(run.config.dataset) is not None else []

    def made() -> Certificate | None:
        found = certificates_in(folder)
        return next((c for c in found if c.role == card.role and c.method == card.method), None)

    newest = max((model / WEIGHTS).stat().st_mtime for model in models)
    if (found := made()) and folder.stat().st_mtime >= newest:
        return found
    shutil.rmtree(folder, ignore_errors=True)  # the run was resumed since
    words = [what, "--format", format, *options, "--out", str(folder), "--runs-dir", str(run.path.parent)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "iekd", "export", *words, "--json"], stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace", timeout=PATIENCE, check=False, cwd=run.path,
            env={**os.environ, "PYTHONPATH": python_path(), **plugins.environment()},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(f"The export was not done after {PATIENCE // 60} minutes. Use 'iekd export' instead.") from None
    if done.returncode == 0 and (found := made()):
        return found
    lines = done.stderr.strip().splitlines()
    _, said, why = (lines[-1] if lines else "").partition("Error: ")
    raise UserError(why if said else f"The export has failed (exit status {done.returncode}). Try 'iekd export'.")


def export_folder(run: Run, learner: str, format: str) -> Path:
    """Where an export of one of the run's models lies, or would.

    Raises:
        UserError: the run has no such model, or there is no such format.
    """
    if format == WEB:
        seed = _seed_of(run, learner)
        return run.path / EXPORTS / f"{f'seed{seed}' if seed else 'teacher'}-{WEB}"
    return run.path / EXPORTS / f"{model_of(run, learner).name}-{format_called(format).name}"


def certificates_in(folder: Path) -> list[Certificate]:
    """The certificates in an exported folder: of a page one for each network; empty where none can be read."""
    of_page = sorted((folder / MODELS).glob(f"*.{RECORD}"), key=lambda path: int(path.name.partition("-")[0]))
    found = []
    for path in of_page or [folder / RECORD]:
        values = read_json(path)
        with contextlib.suppress(TypeError, KeyError):
            found += [Certificate.from_json(values)] if isinstance(values, dict) else []
    return found


def _seed_of(run: Run, learner: str) -> str:
    """The seed of one of the run's models, with the teacher the first; "" if it has saved no student."""
    name, seeds = model_of(run, learner).name, saved_seeds(run)
    own = [seed for method, seed in run.config.learner_names if learner_name(method, seed) == name]
    return str([*own, *seeds][0]) if own or seeds else ""


def files_of(folder: Path) -> list[Path]:
    """Every file of an exported folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
