"""What strangers see of a run's texts: without the places of the machine's files, which say more than they need to."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from iekd.data import own_path
from iekd.models.source import is_path
from iekd.paths import home_dir
from iekd.runs.store import Run, Store
from iekd.runs.uploads import is_added
from iekd.ui.server.access import May

Tell = Callable[[str], str]


def teller(run: Run, may: May) -> Tell:
    """What makes a text of the run fit for whoever looks."""
    return str if may(run, "places") else partial(without_places, run)


def without_places(run: Run, text: str) -> str:
    """A log, report or message of the run in which folders and files are named without where they lie.

    Those are the administrator's: the dataset, the teacher's file, the folder of runs and the home directory.
    Uploaded pictures keep their place, by which a program names them again.
    """
    for place, name in _places(run):
        for old, new in ((place, name), (json.dumps(place)[1:-1], json.dumps(name)[1:-1])):  # in report.json
            text = text.replace(old, new)
    return text


def _places(run: Run) -> list[tuple[str, str]]:
    """(path, what to write instead), longer paths first."""
    config, store = run.config, Store(run.path.parent)
    named = []
    if (own := own_path(config.dataset)) is not None and not is_added(store, config.dataset):
        named.append(own)
    if is_path(config.teacher_from):
        named.append(Path(config.teacher_from))
    places = {str(form): path.name for path in named for form in (path, path.expanduser().resolve())}
    if not is_added(store, config.dataset):
        places.update({str(store.root): store.root.name, str(home_dir()): "~"})
    return sorted(((place, name) for place, name in places.items() if len(place) > 1), key=lambda p: -len(p[0]))
