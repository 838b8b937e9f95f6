"""Texts of a run without what they say of this machine and its user, before they leave it.

Taken out: where folders and files lie (their last name stays), home directories, process ids, and the names of image
files, which may be those of people. Leaves in what the run is about: settings, names of classes, numbers, versions.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

from iekd.data import own_path, relative_name
from iekd.data.decoding import HEIC, SUFFIXES
from iekd.errors import RunError
from iekd.export.sharing import command_without_folders, without_folders
from iekd.runs.store import Run

ENDING = "|".join(sorted(suffix.lstrip(".") for suffix in SUFFIXES | HEIC))
# names of image files: in quotes, as notes and errors write them, or at the end of a line of the log
IMAGES = re.compile(rf"(['\"`])(?:(?!\1)[^\n])*\.(?:{ENDING})\1|(?<=: )[^\n:'\"`]+\.(?:{ENDING})$", re.I | re.M)
DROPPED = ("pid", "pid_started", "path")  # keys of status.json, events.jsonl and report.json
COMMAND = "command"
EXACT = ("class_names", "class_order")  # a class may be called anything; one name is that of a file of them


class Scrubber:
    """Takes out of texts what is nobody else's business.

    run: whose folders are known by name, so that a space in one does not hide its end; None for a model by itself.
    """

    def __init__(self, run: Run | None = None) -> None:
        self.names = {} if run is None else _of_run(run)
        self.images = {} if run is None else _skipped(run)

    def text(self, text: str) -> str:
        for known in (self.images, self.names):
            for old in sorted(known, key=len, reverse=True):
                for form in {old, json.dumps(old)[1:-1]}:
                    text = text.replace(form, known[old])
        text = IMAGES.sub(lambda found: f"{found[1] or ''}image file{found[1] or ''}", text)
        return without_folders(text)

    def value(self, value: Any) -> Any:
        """JSON with every text in it scrubbed, and without the keys that are about this machine only."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {key: self._of_key(key, item) for key, item in value.items() if key not in DROPPED}
        return value

    def _of_key(self, key: str, item: Any) -> Any:
        if key in EXACT and isinstance(item, list) and len(item) > 1:
            return item
        return self.value(command_without_folders(item) if key == COMMAND and isinstance(item, str) else item)

    def file(self, path: Path) -> bytes:
        """What a file of a run folder holds, scrubbed by its kind; files of numbers and weights as they are."""
        content = path.read_bytes()
        if path.suffix == ".json":
            return as_json(self.value(json.loads(content)))
        if path.name == "events.jsonl":
            rows = [json.loads(line) for line in content.splitlines() if line.strip()]
            return "".join(json.dumps(self.value(row), separators=(",", ":")) + "\n" for row in rows).encode()
        if path.suffix in (".txt", ".md"):
            return self.text(content.decode("utf-8", "replace")).encode()
        return _numbered(content) if path.suffix == ".csv" else content


def as_json(value: Any) -> bytes:
    """A value as the bytes of a JSON file."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _of_run(run: Run) -> dict[str, str]:
    """The folders of a run: its images, the files that its networks come from, the folder of runs."""
    found = {str(run.path.parent): "runs"}
    try:
        config = run.config
    except RunError:
        return found
    named = [own_path(config.dataset), *map(Path, config.named_paths)]
    for path in filter(None, named):
        found |= {str(form): path.name for form in (path, path.expanduser().resolve())}
    return {place: name for place, name in found.items() if len(place) > 1}


def _skipped(run: Run) -> dict[str, str]:
    """The image files that a report names, by number."""
    report = run.report or {}
    files = [str(file) for file in report.get("skipped_files", [])]
    found = {}
    for number, file in enumerate(files, 1):
        for form in (file, relative_name(str(report.get("dataset", "")), file)):
            found[form] = f"image file {number}"
    return found


def _numbered(content: bytes) -> bytes:
    """answers.csv with numbers for the names of the images."""
    rows = list(csv.reader(io.StringIO(content.decode("utf-8", "replace"))))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows(rows[:1])
    writer.writerows([number, *row[1:]] for number, row in enumerate(rows[1:]))
    return out.getvalue().encode()
