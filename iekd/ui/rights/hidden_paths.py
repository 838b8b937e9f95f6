"""What strangers see of a run's texts: the names of the machine's files, without their paths."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from iekd.data import own_path
from iekd.paths import home_dir
from iekd.runs.store import Run, Store
from iekd.runs.uploads import is_added
from iekd.ui.rights.access import May

Tell = Callable[[str], str]


def teller(run: Run, may: May) -> Tell:
    """What makes a text of the run fit for whoever looks."""
    return str if may(run, "paths") else partial(without_paths, run)


def without_paths(run: Run, text: str) -> str:
    """A log, report or message of the run in which folders and files are named without their paths.

    Those are the administrator's: the dataset, the teacher's file, the folder of runs and the home directory.
    Uploaded images keep their path, by which a program names them again.
    """
    for path, name in _paths(run):
        for old, new in ((path, name), (json.dumps(path)[1:-1], json.dumps(name)[1:-1])):  # in report.json
            text = text.replace(old, new)
    return text


def _paths(run: Run) -> list[tuple[str, str]]:
    """(path, what to write instead), longer paths first."""
    config, store = run.config, Store(run.path.parent)
    named = []
    if (own := own_path(config.dataset)) is not None and not is_added(store, config.dataset):
        named.append(own)
    named += map(Path, config.named_paths)
    paths = {str(form): path.name for path in named for form in (path, path.expanduser().resolve())}
    if not is_added(store, config.dataset):
        paths.update({str(store.root): store.root.name, str(home_dir()): "~"})
    return sorted(((path, name) for path, name in paths.items() if len(path) > 1), key=lambda p: -len(p[0]))
