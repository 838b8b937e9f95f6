"""Explanations for the page: computed once by a process of their own, however many ask, and stored for the next time.

A process of its own, because it computes on all cores for seconds to minutes, can be ended, and gives its memory back.
What is found for a run is stored in its folder, for the shipped models in the cache, and for somebody's own images in
a temporary folder of the server, for the last few who asked.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, Union

import numpy as np
from PIL import Image

from iekd import __version__, plugins
from iekd.config.methods import BASELINE, explores
from iekd.errors import UserError
from iekd.explain.about import DIAGNOSTICS, JSON, MAPS, NUMBERS
from iekd.models.artifact import TEACHER, WEIGHTS
from iekd.paths import cache_dir, python_path
from iekd.plural import counted
from iekd.runs.files import read_json, write_json
from iekd.runs.models import models_called
from iekd.runs.store import EXPLAINED, Store

log = logging.getLogger(__name__)
IMAGES = 8  # that maps are made of
MADE_FROM = "made-from.json"  # beside the files that `iekd explain` writes
PATIENCE = 1800  # seconds that an explanation may take
MOST_LIVE = 4  # explanations that may be computed or wait, while a stranger asks for another
MOST_LINKS = 1000
MOST_OWN = 24  # explanations of somebody's own images that are stored
Own = Sequence[tuple[str, Union[Path, np.ndarray]]]  # names, and files or pixels (H,W,C)
WAITING, COMPUTING, DONE, FAILED, CANCELLED = "waiting", "computing", "done", "failed", "cancelled"


@dataclass(frozen=True)
class Chosen:
    """The networks that are explained side by side: of a run's seed the teacher, the plain student and one other.

    source: see `models_called`. student: the method of the other one; "" if there is none.
    students: the methods to choose from. models: folders by method, "teacher" for the teacher.
    """

    source: str
    student: str
    students: tuple[str, ...]
    models: Mapping[str, Path]

    @property
    def name(self) -> str:
        """What the folder of the explanation is called."""
        return list(self.models.values())[-1].name


@dataclass(frozen=True)
class Explained:
    """An explanation that was read again.

    found: what `explain.json` has. images: (B,H,W,C) uint8. maps: (B,H,W) each, in the order of `found["maps"]`.
    """

    found: dict[str, Any]
    images: np.ndarray
    maps: list[np.ndarray]


@dataclass(eq=False)
class ExplainJob:
    """An explanation that is computed for whoever waits for it.

    key: by which it is found again. folder: where it will be; run: the folder of the run that this is in, if any.
    own: the images it is of, none for test images; given: how many were given.
    behind: whether another one was not done when it was asked for.
    who: those who wait. doing: what is being computed, in words; step: how many of DIAGNOSTICS have begun.
    """

    key: str
    folder: Path
    models: tuple[Path, ...]
    run: Path | None = None
    own: tuple[str, ...] = ()
    given: int = 0
    behind: bool = False
    who: set[str] = field(default_factory=set)
    state: str = WAITING
    doing: str = ""
    step: int = 0
    error: str = ""
    process: subprocess.Popen[str] | None = None

    @property
    def live(self) -> bool:
        return self.state in (WAITING, COMPUTING)

    @property
    def steps(self) -> int:
        return 2 if self.own else len(DIAGNOSTICS)


def choose(store: Store, source: str, student: str = "") -> Chosen:
    """The networks of a source to explain; without a student the first IE student, else the last student.

    Raises:
        UserError: no such run, seed or student, or no models.
    """
    models = models_called(store, source)
    students = tuple(name for name in models if name not in (TEACHER, BASELINE))
    if student and student not in students:
        raise UserError(f"There is no student '{student}'. There are: {', '.join(students) or 'none'}.")
    first = next((name for name in students if explores(name)), students[-1] if students else "")
    chosen = student or first
    return Chosen(source, chosen, students, {n: models[n] for n in (TEACHER, BASELINE, chosen) if n in models})


def read(folder: Path) -> Explained:
    """An explanation from its folder.

    Raises:
        UserError: it is not there or damaged.
    """
    try:
        found = read_json(folder / JSON)
        with np.load(folder / NUMBERS, allow_pickle=False) as saved:
            maps = [saved[f"map{i}"] for i in range(len(found["maps"]))] if found else []
            return Explained(found or {}, saved["images"], maps)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        raise UserError("This explanation is not there any more. Press Explain again.") from None


def explainer_of(store: Store) -> Explainer:
    """The one of this process for the folder of runs, which the page, its endpoints and its downloads share."""
    return _explainer(store.root.resolve())


@lru_cache(maxsize=8)
def _explainer(root: Path) -> Explainer:
    return Explainer(Store(root))


class Explainer:
    """Computes explanations one at a time, and each of them once, however many ask."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._jobs: dict[str, ExplainJob] = {}
        self._links: dict[str, Path] = {}
        self._place = tempfile.TemporaryDirectory(prefix="iekd-explained-")  # removed when the server ends

    def find(self, chosen: Chosen) -> Path | None:
        """The folder of what was found with the same weights and version; None if it has to be computed."""
        folder = self._folder(chosen)
        return folder if read_json(folder / MADE_FROM) == made_from(chosen.models.values()) else None

    def ask(self, chosen: Chosen, who: str, own: Own = (), limited: bool = False) -> ExplainJob:
        """Have it computed, unless that is going on already.

        Args:
            who: who asks, for `leave`.
            own: names of images with their files or their pixels, of which the first `IMAGES` get maps; none: test
                images, and every diagnostic.
            limited: a stranger asks, who may not fill the queue.
        Raises:
            UserError: too many are waiting.
        """
        with self._lock:
            key = secrets.token_urlsafe(16) if own else str(self._folder(chosen))
            job = self._jobs.get(key)
            if job is not None and job.live:
                job.who.add(who)
                return job
            live = [other for other in self._jobs.values() if other.live]
            if limited and any(other.own and who in other.who for other in live):
                raise UserError("Your last images are still being explained. Wait until they are done, or cancel.")
            if limited and len(live) >= MOST_LIVE:
                raise UserError(
                    f"{counted(len(live), 'explanation is', 'explanations are')} being computed for others. "
                    "Try again in a minute."
                )
            folder = Path(self._place.name) / key if own else self._folder(chosen)
            run = None if own or not chosen.source else folder.parent.parent
            copied, models = self._copied(key, own), tuple(chosen.models.values())
            job = ExplainJob(key, folder, models, run, copied, len(own), bool(live), {who})
            self._jobs[key] = job
            self._forget()
        threading.Thread(target=self._work, args=(job,), daemon=True).start()
        return job

    def job(self, key: str) -> ExplainJob | None:
        """The job about somebody's own images that has this key, which only they know."""
        job = self._jobs.get(key)
        return job if job is not None and job.own else None

    def job_of(self, chosen: Chosen) -> ExplainJob | None:
        """The newest job about the test images."""
        return self._jobs.get(str(self._folder(chosen)))

    def leave(self, job: ExplainJob, who: str) -> None:
        """Somebody does not wait for it any more; it ends if nobody else does."""
        with self._lock:
            job.who.discard(who)
            if job.who or not job.live:
                return
            job.state = CANCELLED
            if job.process is not None:
                job.process.terminate()

    def link(self, folder: Path) -> str:
        """A word that nobody can guess, by which an explanation's folder can be downloaded while the server runs."""
        with self._lock:
            word = secrets.token_urlsafe(16)
            self._links[word] = folder
            for old in list(self._links)[:-MOST_LINKS]:
                del self._links[old]
        return word

    def linked(self, word: str) -> Path | None:
        """The folder of a link."""
        return self._links.get(word)

    def _folder(self, chosen: Chosen) -> Path:
        run_id = chosen.source.partition("/")[0]
        root = self.store.get(run_id).path if run_id else cache_dir()
        return root / EXPLAINED / chosen.name

    def _given(self, key: str) -> Path:
        return Path(self._place.name) / f"{key}-given"

    def _copied(self, key: str, own: Own) -> tuple[str, ...]:
        """The images as files whose places say nothing of where they come from: uploads may be removed meanwhile."""
        names = []
        for i, (name, image) in enumerate(own[:IMAGES]):
            names.append(f"{i}/{_file_name(name, i, image)}")
            target = self._given(key) / names[-1]
            target.parent.mkdir(parents=True)
            if isinstance(image, Path):
                shutil.copyfile(image, target)
            else:
                Image.fromarray(image.squeeze()).save(target, "PNG")
        return tuple(names)

    def _forget(self) -> None:
        """The oldest explanations of somebody's own images."""
        own = [job for job in self._jobs.values() if job.own and not job.live]
        for job in own[: max(0, len(own) - MOST_OWN)]:
            del self._jobs[job.key]
            shutil.rmtree(job.folder, ignore_errors=True)

    def _work(self, job: ExplainJob) -> None:
        with self._turn:
            try:
                with tempfile.TemporaryDirectory(dir=self._place.name) as place:
                    error = self._compute(job, Path(place))
            except UserError as problem:
                error = str(problem)
            except OSError as problem:
                error = f"The explanation could not be stored ({problem.strerror}). Free some space, or try again."
            except Exception:  # whoever waits has to be told
                log.exception("action=explain")
                error = "Something went wrong; the server's log says what. Try again."
            shutil.rmtree(self._given(job.key), ignore_errors=True)
            with self._lock:
                if job.live:
                    job.state, job.error = (FAILED, error) if error else (DONE, "")

    def _compute(self, job: ExplainJob, place: Path) -> str:
        """Compute it and put it into its folder; why that failed, or ""."""
        weights, target = made_from(job.models), place / "out"
        words = [*map(str, job.models), "--out", str(target), "--count", str(IMAGES), "--save-maps", "--json"]
        words += ["--differ"] if not job.own else ["--what", MAPS]
        for name in job.own:
            words += ["--images", name]
        with self._lock:
            if not job.live:
                return ""
            job.state = COMPUTING
            job.process = process = subprocess.Popen(
                [sys.executable, "-m", "iekd", "explain", *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
                cwd=self._given(job.key) if job.own else place,
                env={**os.environ, "PYTHONPATH": python_path(), **plugins.environment()},
            )  # fmt: skip
        end = weakref.finalize(job, process.terminate)  # also when the server ends
        watch = threading.Timer(PATIENCE, process.kill)
        watch.start()
        error = ""
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Computing "):
                job.doing, job.step = line.strip(), job.step + 1
            _, said, why = line.partition("Error: ")
            error = _without_folders(why.strip(), job.own) if said else error
        status = process.wait()
        watch.cancel()
        end.detach()
        if not job.live:
            return ""
        if not (target / JSON).is_file():
            return error or f"The explanation has failed (exit status {status}). Try 'iekd explain'."
        found = read_json(target / JSON) or {}
        for image in found["images"]:  # on the page and in downloads, without the folders that they are in
            image["name"] = PurePath(image["name"]).name
        found["unreadable"] = [_without_folders(text, job.own) for text in found["unreadable"]]
        write_json(target / JSON, found)
        write_json(target / MADE_FROM, weights)
        return _publish(target, job)


def _without_folders(text: str, names: Iterable[str]) -> str:
    """A sentence about images, with their own names."""
    for name in names:
        text = text.replace(f"'{name}'", f"'{PurePath(name).name}'")
    return text


def _file_name(name: str, i: int, image: Path | np.ndarray) -> str:
    """An uploaded file's own name; of anything else its place."""
    plain = PurePath(name).name
    return plain if isinstance(image, Path) and PurePath(plain).suffix else f"image {i + 1}.png"


def _publish(made: Path, job: ExplainJob) -> str:
    """Move it to its place; why that cannot be, or ""."""
    if job.run is not None and not job.run.is_dir():
        return "The run was deleted meanwhile."
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    part = job.folder.with_name(f".{job.folder.name}.{secrets.token_hex(4)}")
    try:
        shutil.copytree(made, part)
        shutil.rmtree(job.folder, ignore_errors=True)
        os.replace(part, job.folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return ""


def made_from(models: Iterable[Path]) -> dict[str, Any]:
    """Changes with the weights and with the version of the program."""
    try:
        weights = {folder.name: hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest() for folder in models}
    except OSError as error:
        raise UserError(f"The weights of a model cannot be read ({error.strerror}).") from None
    return {"version": __version__, "weights": weights}
