"""What of a run, of one of its seeds or of the shipped models somebody may see: images, and texts without paths.

A source is named as `runs.models.models_called` takes it: RUN, RUN/SEED, or "" for the shipped models.
"""

from __future__ import annotations

from iekd.data import own_path
from iekd.errors import UserError
from iekd.runs.store import Run, Store
from iekd.ui.rights.access import May
from iekd.ui.rights.hidden_paths import Tell, teller


def run_called(store: Store, source: str) -> Run | None:
    """The run of a source; None for the shipped models. Raises UserError if there is no such run."""
    return store.get(source.partition("/")[0]) if source else None


def may_look(run: Run | None, may: May) -> bool:
    """Whether images are shown and probabilities computed: of somebody's own dataset, to those who may have them."""
    return run is None or own_path(run.config.dataset) is None or may(run, "download")


def redact_for(store: Store, source: str, may: May) -> Tell:
    """`teller` for a source; what is said of a run that is not there is shown as it is."""
    try:
        run = run_called(store, source)
    except UserError:
        return str
    return str if run is None else teller(run, may)
