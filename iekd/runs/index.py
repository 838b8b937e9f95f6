"""All runs with what a list shows of them, quickly: a run whose small files have not changed is not read again."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field

from iekd.config.methods import method_name
from iekd.config.run import RunConfig
from iekd.errors import UserError
from iekd.results.brief import Brief, brief
from iekd.runs.notes import NOTES, Notes, read_notes
from iekd.runs.status import LIVE, LOST, Status
from iekd.runs.store import Run, Store

READ = ("config.json", "status.json", "report.json", NOTES)
DAMAGE = (UserError, KeyError, TypeError, AttributeError, ValueError)
Stamp = tuple[tuple[int, int, int] | None, ...]  # of each file in READ; None where it is not there


@dataclass(frozen=True)
class Entry:
    """One run of the list. config is None for a folder that cannot be read; brief until the run has a report."""

    run: Run
    status: Status
    config: RunConfig | None = None
    notes: Notes = field(default_factory=Notes)
    brief: Brief | None = None

    @property
    def name(self) -> str:
        """What somebody called it; may be empty."""
        return self.notes.name or (self.config.name if self.config else "")


class Index:
    """The runs of a store. May be used by several threads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, tuple[Stamp, Entry]] = {}
        self._lock = threading.Lock()

    def entries(self) -> list[Entry]:
        """Every run, newest first."""
        with self._lock:
            before, self._known = self._known, {}
            try:
                names = [e.name for e in os.scandir(self.store.root) if not e.name.startswith(".") and e.is_dir()]
            except FileNotFoundError:
                return []
            for run_id in names:
                stamp = _stamp(os.path.join(self.store.root, run_id))
                if stamp[0] is None:
                    continue  # no run
                known = before.get(run_id)
                # whether a run still lives is not written anywhere
                if known is None or known[0] != stamp or known[1].status.state in (*LIVE, LOST):
                    run = Run(self.store.root / run_id, self.store.owners)
                    known = stamp, read_entry(run)
                self._known[run_id] = known
            found = [entry for _, entry in self._known.values()]
        return sorted(found, key=lambda entry: (entry.status.created, entry.run.id), reverse=True)


def read_entry(run: Run) -> Entry:
    """One run, read now."""
    status = Status()
    try:
        status = run.status
        report = run.report
        return Entry(run, status, run.config, read_notes(run), brief(report, method_name) if report else None)
    except DAMAGE:
        return Entry(run, Status(created=status.created, state=""))


def _stamp(folder: str) -> Stamp:
    """Changes whenever one of the files is replaced."""
    found: list[tuple[int, int, int] | None] = []
    for name in READ:
        try:
            about = os.stat(os.path.join(folder, name))
            found.append((about.st_ino, about.st_mtime_ns, about.st_size))
        except OSError:
            found.append(None)
    return tuple(found)
