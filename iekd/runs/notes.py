"""What people write about a run after it was started: a name, a star, a note.

They are in notes.json of the run's folder, because config.json says what was asked and never changes.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace

from iekd.config.run import RunConfig
from iekd.errors import RunError, as_text
from iekd.runs.files import read_json, write_json
from iekd.runs.store import Run

log = logging.getLogger(__name__)
NOTES = "notes.json"
MOST_NAME, MOST_NOTE = 80, 2000  # characters; a configuration's name has as many


@dataclass(frozen=True)
class Notes:
    """name: shown in place of the configuration's; empty: that one. note: any text."""

    name: str = ""
    starred: bool = False
    note: str = ""


def read_notes(run: Run) -> Notes:
    """The notes of a run. A damaged file counts as none, which the log says."""
    path = run.path / NOTES
    if not path.exists():
        return Notes()
    values = read_json(path)
    if not isinstance(values, dict):
        log.warning("action=read-notes run=%s %s is damaged and is ignored", run.id, NOTES)
        return Notes()
    name, note = (as_text(str(values.get(key) or "").replace("\r\n", "\n")) for key in ("name", "note"))
    return Notes(" ".join(name.split())[:MOST_NAME], values.get("starred") is True, note[:MOST_NOTE])


def write_notes(
    run: Run, name: str | None = None, starred: bool | None = None, note: str | None = None
) -> Notes:  # fmt: skip
    """Change what is given and leave the rest as it is; returns all of it. Empty texts remove a name or a note.

    Raises:
        RunError: a text is too long, or the file cannot be written.
    """
    for what, text, most in (("name", name, MOST_NAME), ("note", note, MOST_NOTE)):
        if text is not None and len(text) > most:
            raise RunError(f"The {what} has {len(text):,} characters. At most {most:,} are possible; make it shorter.")
    changed = read_notes(run)
    if name is not None:
        changed = replace(changed, name=as_text(" ".join(name.split())))
    if note is not None:
        changed = replace(changed, note=as_text(note.replace("\r\n", "\n")).strip())
    if starred is not None:
        changed = replace(changed, starred=starred)
    try:
        write_json(run.path / NOTES, asdict(changed))
    except OSError as error:
        raise RunError(f"The notes of run '{run.id}' cannot be written ({error.strerror}).") from None
    return changed


def name_of(run: Run, config: RunConfig) -> str:
    """The name that somebody gave the run, later or when it was started; empty if nobody did."""
    return read_notes(run).name or config.name
