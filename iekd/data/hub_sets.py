"""`hf:ORG/NAME`: image datasets of the Hugging Face Hub, through its library `datasets`.

The images are stored once as files in the cache folder, one at a time as they arrive, so a dataset may be larger than
the memory. From there they are read as a folder is. A name is completed with the commit that was fetched, so that a run
says exactly what it was trained on. Code of a dataset is never run. hub_rows.py reads what the Hub sends.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from iekd.data.archives import ARCHIVES
from iekd.data.base import Dataset, DatasetInfo, Progress, Request, Source
from iekd.data.file_images import Files
from iekd.data.found import Found, drawn_of, load_found, thumbnails_of
from iekd.data.hub_rows import Announced, HubUnreachableError, Row, announced, check_installed, commit_of, images_of
from iekd.data.labels import natural_order
from iekd.data.tree import TABLES
from iekd.errors import DataError, as_text
from iekd.hub_names import COMMIT, PREFIX, named_in
from iekd.paths import cache_dir, make_cache_dir
from iekd.plural import counted

log = logging.getLogger(__name__)

SCHEME = PREFIX
OPTIONS = ("config", "train", "test", "image", "label")
NAME = re.compile(r"(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?(\?(?P<options>.*))?", re.ASCII)
ABOUT = "dataset.json"
VERSION = 1  # of the stored form; raise it when that changes
SAID = 10_000  # images between lines of the log


@dataclass(frozen=True)
class Asked:
    """What a name asks for: a repository, its revision (empty for the newest), and the options that were given."""

    repo: str
    revision: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        options = "&".join(f"{key}={value}" for key, value in self.options)
        return SCHEME + self.repo + (f"@{self.revision}" if self.revision else "") + (f"?{options}" if options else "")

    @property
    def option(self) -> dict[str, str]:
        return dict(self.options)

    @property
    def folder(self) -> Path:
        """Where it is stored, or would be."""
        mark = hashlib.sha256(repr((VERSION, self.revision, self.options)).encode()).hexdigest()[:16]
        return cache_dir() / "hub-data" / f"{self.repo.replace('/', '--')}-{mark}"

    @property
    def said(self) -> Path:
        """Where it is noted what the dataset says of itself."""
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def fetched(self) -> bool:
        return (self.folder / ABOUT).is_file()


class HubDatasets(Source):
    """Any of them: one column of images, one of classes."""

    name = SCHEME
    usage = "hf:ORG/NAME"
    note = "a dataset of the Hugging Face Hub, also hf:ORG/NAME@REVISION?label=COLUMN"
    uses_test_fraction = True
    may_stream = True
    for_guests = False

    def check(self, name: str) -> str:
        return _asked(name).name

    def meant(self, name: str) -> str:
        return "" if name.lower().endswith((*TABLES, *ARCHIVES)) else named_in(name, datasets=True)

    def prepare(self, name: str) -> str:
        """The name with the commit. The images are fetched when they are loaded; now, if the dataset does not say how
        many there are and of which classes."""
        asked = _asked(name)
        if not COMMIT.fullmatch(asked.revision):
            asked = _at_commit(asked)
        if not asked.fetched and not asked.said.is_file():
            if (found := announced(asked.repo, asked.revision, asked.option)) is None:
                _fetch(asked)
            else:
                make_cache_dir(asked.said.parent)
                asked.said.write_text(json.dumps(found._asdict()))
        return asked.name

    def at_hand(self, name: str) -> bool:
        return _asked(name).fetched

    def title(self, name: str) -> str:
        found = NAME.fullmatch(name.removeprefix(SCHEME))
        return found["repo"] if found else name

    def describe(self, name: str, test_fraction: float) -> DatasetInfo:
        asked = _asked(name)
        if not asked.fetched and asked.said.is_file():
            return self._described(asked, test_fraction)
        about, found = self._stored(name)
        sizes = np.bincount(found.train.which, minlength=len(found.class_names))
        if found.test is not None:
            tested = np.bincount(found.test.which, minlength=len(found.class_names))
        else:
            tested = np.array([drawn_of(int(n), test_fraction) for n in sizes])
            sizes = sizes - tested
        tested_on = f"from its split '{about['test']}'" if about["test"] else "drawn by chance"
        return DatasetInfo(
            name, self.title(name), int(sizes.sum()), int(tested.sum()), len(found.class_names), 3, self.resolution,
            "of the Hugging Face Hub", class_sizes=tuple(sizes.tolist()), tested_on=tested_on,
            test_is_drawn=found.test is None, fingerprint=about["revision"][:16],
            class_names=tuple(map(as_text, found.class_names)), test_sizes=tuple(tested.tolist()), notes=found.notes,
            side=found.side,
        )  # fmt: skip

    def _described(self, asked: Asked, test_fraction: float) -> DatasetInfo:
        """By what the dataset says of itself."""
        said = Announced(**json.loads(asked.said.read_text()))
        train, tested, classes = said.train, said.test, len(said.class_names)
        if not said.test_name:
            tested = classes * drawn_of(train // classes, test_fraction)
            train -= tested
        tested_on = f"from its split '{said.test_name}'" if said.test_name else "drawn by chance"
        return DatasetInfo(
            asked.name, asked.repo, train, tested, classes, 3, self.resolution, "to be fetched from the Hub",
            tested_on=tested_on, test_is_drawn=not said.test_name, fingerprint=asked.revision[:16],
            class_names=tuple(map(as_text, said.class_names)),
        )  # fmt: skip

    def load(self, request: Request) -> Dataset:
        if not (asked := _asked(request.name)).fetched:
            _fetch(asked, request.progress)
        about, found = self._stored(request.name)
        request = replace(request, resolution=request.resolution or self.resolution)
        return load_found(found, request, self._root(request.name), fingerprint=about["revision"][:16])

    def thumbnails(self, name: str, per_class: int) -> list[tuple[np.ndarray, str]]:
        return thumbnails_of(self._stored(name)[1], per_class) if self.at_hand(name) else []

    def root_of(self, name: str) -> Path | None:
        return self._root(name)

    def test_files(self, name: str) -> list[str] | None:
        test = self._stored(name)[1].test if self.at_hand(name) else None
        return None if test is None else [test[i] for i in range(len(test))]

    def _root(self, name: str) -> Path:
        return _asked(name).folder

    def _stored(self, name: str) -> tuple[dict[str, Any], Found]:
        """(what was written of the dataset, its files)."""
        root = self._root(name)
        try:
            about = json.loads((root / ABOUT).read_text())
            splits = [_listed(root / part, about["folders"]) for part in ("train", *(["test"] * bool(about["test"])))]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"The images of '{self.title(name)}' in '{root}' are not complete ({error}). "
                "Remove that folder and try again."
            ) from None
        test = splits[1] if about["test"] else None
        return about, Found(tuple(about["class_names"]), splits[0], test, notes=tuple(about["notes"]))


def _asked(name: str) -> Asked:
    """Raises DataError if it is no such name."""
    found = NAME.fullmatch(name.removeprefix(SCHEME).strip())
    if not found or ".." in name:
        raise DataError(
            f"'{name}' is no name of a dataset on the Hub. Give {SCHEME}ORG/NAME, such as {SCHEME}ylecun/mnist."
        )
    options = parse_qsl(found["options"] or "", keep_blank_values=True)
    for key, value in options:
        if key not in OPTIONS or not value:
            raise DataError(
                f"'?{key}={value}' cannot be used: the options are {', '.join(OPTIONS)}, each with a value."
            )
    return Asked(found["repo"], found["revision"] or "", tuple(sorted(options)))


def _at_commit(asked: Asked) -> Asked:
    """The same at the commit that the revision is now; what was fetched before, where the Hub cannot be reached."""
    reference = asked.folder.with_name(f"{asked.folder.name}.ref")
    if not reference.is_file():
        check_installed()
    try:
        commit = commit_of(asked.repo, asked.revision)
    except HubUnreachableError as error:
        if not reference.is_file():
            raise
        log.warning("%s Until then the copy of '%s' that was fetched before is used.", error, asked.repo)
        return replace(asked, revision=reference.read_text())
    make_cache_dir(reference.parent)
    reference.write_text(commit)
    return replace(asked, revision=commit)


def _fetch(asked: Asked, progress: Progress | None = None) -> None:
    """Store the images of a commit in its folder, which appears whole or not at all.

    progress: called now and then; what it raises ends the fetching.
    """
    folder = asked.folder
    part = Path(tempfile.mkdtemp(prefix=".fetching-", dir=make_cache_dir(folder.parent)))
    log.info("Fetching %s from the Hub into %s", asked.repo, folder)
    try:
        rows = images_of(asked.repo, asked.revision, asked.option)
        folders: dict[str, int] = {}  # class -> the number of its folder, in the order in which they come
        notes = list(rows.notes)
        for split, some in (("train", rows.train), ("test", rows.test)):
            left = _write(part / split, some, folders, progress) if some is not None else 0
            if left:
                notes.append(f"Not used: {counted(left, 'image')} without a class in the {split} images.")
        names = [name for name in rows.class_names or natural_order(list(folders)) if name in folders]
        if len(names) < 2:
            raise DataError(f"'{asked.repo}' has images of {counted(len(names), 'class')}, and two are needed.")
        about = {
            "repo": asked.repo, "revision": asked.revision, "options": asked.option, "class_names": names,
            "folders": [folders[name] for name in names], "test": rows.test_name, "notes": notes,
        }  # fmt: skip
        (part / ABOUT).write_text(json.dumps(about, indent=2))
        part.chmod(0o755)
        try:
            part.rename(folder)
        except OSError:
            if not (folder / ABOUT).is_file():  # else another process was quicker, and its copy is as good
                raise
    except OSError as error:
        raise DataError(
            f"The images of '{asked.repo}' cannot be stored in '{folder.parent}' ({error.strerror or error}). "
            "Make room, or set IEKD_CACHE_DIR to another folder."
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(folder: Path, rows: Iterable[Row], folders: dict[str, int], progress: Progress | None) -> int:
    """Write each image to the folder of its class; returns how many have none."""
    left = written = 0
    for content, name in rows:
        if name is None or content is None:
            left += 1
            continue
        number = folders.setdefault(name, len(folders))
        place = folder / f"{number:05d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{written:08d}.{_ending(content)}").write_bytes(content)
        written += 1
        if written % SAID == 0:
            log.info("%d images are stored.", written)
        if progress is not None and written % 100 == 0:
            progress(0, 1)  # how many there are is not known for all
    return left


def _ending(content: bytes) -> str:
    marks = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp"}
    return next((ending for mark, ending in marks.items() if content.startswith(mark)), "tif")


def _listed(part: Path, folders: list[int]) -> Files:
    """The files of each class, whose label is its place in `folders`."""
    places = [part / f"{number:05d}" for number in folders]
    return Files.of(list(map(str, places)), (sorted(os.listdir(p)) if p.is_dir() else [] for p in places))
