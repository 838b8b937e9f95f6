"""What a job needs of this machine: the files that the run reads, this program, and what to install.

Files keep their paths (in_job.py), so the run's configuration is the same there, and so is whatever is recognised by
it, such as a teacher that an earlier run has trained. Of a folder of pictures only those are taken that the run reads,
and the tables that list them: what else lies there may be private.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iekd import data, plugins
from iekd.config.run import NO_TEACHER, RunConfig
from iekd.data.tree import read_tree
from iekd.errors import RunError
from iekd.launchers.in_job import ABSOLUTE, AMONG_RUNS, MODIFIED
from iekd.models.hub_configs import PREPROCESSOR
from iekd.models.source import AUTO, RUN
from iekd.paths import PACKAGE, checkpoints_dir
from iekd.results.predictions import ANSWERS
from iekd.runs.estimate import in_words
from iekd.runs.store import EXPLAINED, EXPORTS, TEST_SET, Run, Store
from iekd.runs.teachers import find_teacher

EXTRAS = ("hub-data", "transformers", "heic")  # what a run may read with, if it is installed here
GIVEN_UP = "given-up-job.json"  # in a run's folder: the options of its job, which may be resumed as another job
LEFT_HERE = (  # of a run's folder
    "run.lock", "control.json", "visitor", "notes.json", GIVEN_UP, EXPORTS, TEST_SET, EXPLAINED,
)  # fmt: skip
OF_A_RUN = ("config.json", "status.json", "report.json", ANSWERS)  # beside models/


@dataclass(frozen=True)
class Inputs:
    """files: (path here, name in the archive). bytes: of all. pictures: how many of them are the user's images."""

    files: tuple[tuple[Path, str], ...]
    bytes: int
    pictures: int

    def said(self, bucket: str) -> str:
        """A sentence; empty if nothing is sent."""
        if not self.files:
            return ""
        images = f"{self.pictures:,} of your images and tables" if self.pictures else "files that the run reads"
        return f"{in_words(self.bytes)} ({images}) will be uploaded to the private bucket '{bucket}' on the Hub."


def inputs_of(config: RunConfig, store: Store) -> Inputs:
    """The files of this machine that a run of this configuration reads.

    Raises:
        RunError: it uses what a plugin registers.
        UserError: one of its methods has no builder.
    """
    if plugins.environment():
        for name, module in _by_plugins(config):
            raise RunError(
                f"A job does not have your module '{module}', which registers '{name}'. Train on this machine."
            )
    pictures = [(path, _absolute(path)) for path in _pictures(config)]
    files = dict([*pictures, *((path, _absolute(path)) for path in _weights(config)), *_of_runs(config, store)])
    size = sum(path.stat().st_size for path in files)
    return Inputs(tuple(sorted(files.items(), key=lambda item: item[1])), size, len(pictures))


def _by_plugins(config: RunConfig) -> Iterator[tuple[str, str]]:
    """What the run uses that a plugin registers: its name, and the module."""
    from iekd.distill.method import builder_of  # these two import torch
    from iekd.models.registry import module_of

    modules = {config.dataset: type(data.source_of(config.dataset)).__module__}
    networks = {config.teacher, *config.more_teachers, config.student} - {NO_TEACHER}
    modules |= {name: module_of(name) for name in networks}
    modules |= {name: builder_of(name).__module__ for name in config.methods}
    yield from ((name, module) for name, module in modules.items() if not plugins.is_ours(module))


def _absolute(path: Path) -> str:
    return f"{ABSOLUTE}{path.absolute().as_posix()}"


def _pictures(config: RunConfig) -> Iterator[Path]:
    yield from data.own_files(config.dataset)
    if config.unlabelled:
        folder = Path(config.unlabelled)
        yield from (folder / name for name in read_tree(folder)[0].files())


def _weights(config: RunConfig) -> Iterator[Path]:
    """The files of weights and folders of models that it names, with what describes them."""
    from iekd.models.class_names import BESIDE
    from iekd.models.weight_files import split_selection  # which imports torch

    for named in config.named_paths:
        if named == config.unlabelled:
            continue
        if (folder := Path(named)).is_dir():
            yield from (path for path in folder.iterdir() if path.is_file())
            continue
        file, _ = split_selection(Path(named))
        yield file
        yield from (path for name in (*BESIDE, PREPROCESSOR) if (path := file.parent / name).is_file())


def _of_runs(config: RunConfig, store: Store) -> Iterator[tuple[Path, str]]:
    """What lies among the runs: models of the runs that it names, and the teacher that an earlier one has trained."""
    for source in (config.teacher_from, *config.more_teachers_from, config.student_from or ""):
        if source.startswith(RUN):
            run = store.get(source.removeprefix(RUN).partition("/")[0].strip())
            wanted = [run.path / name for name in OF_A_RUN]
            wanted += [path for path in (run.path / "models").rglob("*") if path.is_file()]
            yield from ((path, _among(path, store)) for path in wanted if path.exists())
    alone = {"more_teachers": (), "more_teachers_from": ()}
    pairs = ((config.teacher, config.teacher_from), *zip(config.more_teachers, config.sources_of_more, strict=True))
    for name, source in pairs if config.needs_teacher else ():
        one = config.model_copy(update={**alone, "teacher": name, "teacher_from": source})
        found = find_teacher(one, store.root)
        if not isinstance(found, Path) or store.root not in found.parents:
            continue
        if source == AUTO or one.may_fine_tune_teacher:
            yield from ((path, _among(path, store)) for path in found.iterdir() if path.is_file())


def _among(path: Path, store: Store) -> str:
    return f"{AMONG_RUNS}/{path.relative_to(store.root).as_posix()}"


def pack(inputs: Inputs, archive: Path) -> None:
    """Write them to a tar, uncompressed: the Hub then finds out by itself which parts of it it has already.

    Raises:
        RunError: a file cannot be read, or the archive written.
    """
    try:
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as packed:
            for path, name in inputs.files:
                about = path.stat()
                member = tarfile.TarInfo(name)
                member.size, member.mtime = about.st_size, int(about.st_mtime)
                member.pax_headers = {MODIFIED: str(about.st_mtime_ns)}
                with open(path, "rb") as file:
                    packed.addfile(member, file)
    except OSError as error:
        named = error.filename or archive
        raise RunError(f"'{named}' cannot be read or written ({error.strerror}). Nothing was sent.") from None


def pack_program(archive: Path) -> None:
    """Write this very package with its shipped checkpoints to a zip, so that nothing has to be published for a job."""
    shipped = checkpoints_dir()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(PACKAGE.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                packed.write(path, f"iekd/{path.relative_to(PACKAGE).as_posix()}")
        if shipped.is_dir() and PACKAGE not in shipped.parents:
            for path in sorted([*shipped.glob("*/model.*"), *shipped.glob("*/*.npz"), *shipped.glob("*.json")]):
                packed.write(path, f"iekd/_checkpoints/{path.relative_to(shipped).as_posix()}")


def requirements() -> list[str]:
    """What this program needs, as pip reads it."""
    try:
        found = importlib.metadata.requires("iekd") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        lines = (PACKAGE.parent / "requirements.txt").read_text().splitlines()
        return [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]
    return [line for line in found if (extra := _extra(line)) == "" or (extra in EXTRAS and _installed(line))]


def _extra(line: str) -> str:
    found = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
    return found[1] if found else ""


def _installed(line: str) -> bool:
    name = re.match(r"[\w.-]+", line)
    try:
        return name is not None and bool(importlib.metadata.version(name[0]))
    except importlib.metadata.PackageNotFoundError:
        return False


def requirements_text() -> str:
    """The same as a file; of the extras without the condition, which no installer would meet."""
    lines = [re.sub(r"\s*;\s*extra\s*==.*$", "", line) for line in requirements()]
    return "\n".join(dict.fromkeys(lines)) + "\n"


def files_of(run: Run) -> Iterator[tuple[Path, str]]:
    """(file, path inside) of everything in the run's folder that another attempt needs."""
    for folder, _, names in os.walk(run.path):
        for name in sorted(names):
            path = Path(folder, name)
            inside = path.relative_to(run.path).as_posix()
            if inside.partition("/")[0] not in LEFT_HERE and not name.startswith("."):
                yield path, inside
