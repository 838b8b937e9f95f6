"""A run as one zip file: to another machine, and back into a folder of runs."""

from __future__ import annotations

import json
import lzma
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from iekd.config.run import RunConfig
from iekd.errors import RunError, UnknownNameError
from iekd.plugins import VARIABLE
from iekd.results.report import to_markdown
from iekd.runs.status import FAILED, FINISHED, LIVE, LOST, STOPPED
from iekd.runs.store import CHECKPOINTS, EXPLAINED, EXPORTS, TEST_SET, WATCHED, Run, Store

STATES = (*LIVE, FINISHED, STOPPED, FAILED, LOST)
LEFT_OUT = (
    "run.lock", ".reserve", "visitor", "control.json", "launcher.json", "ray.json",
    EXPORTS, TEST_SET, EXPLAINED, WATCHED,
)  # fmt: skip
MOST_ENTRIES = 2_000  # a run of a hundred students has seven hundred
MOST_BYTES = 20 * 2**30
MOST_RATIO = 1_000  # of what an entry unpacks to; metrics shrink to a tenth
PLUGIN = f"Set {VARIABLE} to the module that registers it, then import the run again."
OTHER_VERSION = "Import it with a version of iekd that has it."  # methods are not registered by plugins
ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4,8}")
DAMAGE = (
    ValueError, TypeError, KeyError, AttributeError, EOFError, NotImplementedError, RuntimeError, zlib.error,
    lzma.LZMAError, zipfile.BadZipFile,
)  # fmt: skip


def export_run(run: Run, target: Path, checkpoints: bool = True) -> None:
    """Write a run that is over to `target`, which must not exist.

    checkpoints: with them it can be resumed elsewhere.

    Raises:
        RunError: it is still going, or the file cannot be written.
    """
    status = run.status
    if status.live:
        raise RunError(f"The run '{run.id}' is still {status.state}. Stop it first, or wait for its end.")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    if target.exists():
        raise RunError(f"'{target}' is there already. Choose another name with --out.")
    try:
        write_archive(run, part, checkpoints)
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))  # nobody else's is replaced
        os.replace(part, target)
    except OSError as error:
        raise RunError(f"'{target}' cannot be written ({error.strerror}). Choose another path with --out.") from None
    finally:
        part.unlink(missing_ok=True)


def write_archive(run: Run, target: Path, checkpoints: bool = True) -> None:
    """The zip file of a run, whatever its state.

    Raises:
        OSError: `target` cannot be written or is there already, or a file went away meanwhile.
    """
    with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED) as archive:
        for path in files_of(run, checkpoints):
            # weights do not shrink, and trying takes longer than copying them
            kind = zipfile.ZIP_STORED if path.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
            archive.write(path, f"{run.id}/{path.relative_to(run.path).as_posix()}", kind)


def import_run(store: Store, source: Path) -> Run:
    """Unpack what `export_run` wrote; the run keeps its id.

    Nothing in the archive is trusted: only plain files below one folder are written, at first beside the runs.

    Raises:
        RunError: no such archive, or it holds anything else; a run of that id is there; or the run's dataset, model or
            method is not registered here.
    """
    try:
        archive = zipfile.ZipFile(source)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise RunError(f"'{source}' cannot be read as an exported run ({error}). Export it again.") from None
    with archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        run_id = _check(entries, source)
        path = store.root / run_id
        if path.exists():
            raise RunError(f"A run '{run_id}' is there already. Delete it first, or use another --runs-dir.")
        part = store.root / f".{run_id}.part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            for entry in entries:
                _unpack(archive, entry, part)
            _check_contents(Run(part), source)
            part.rename(path)
        except RunError:
            raise
        except OSError as error:
            raise RunError(
                f"The run cannot be written into '{store.root}' ({error.strerror}). Choose another with --runs-dir."
            ) from None
        except DAMAGE as error:
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise RunError(f"'{source}' is damaged or not an exported run ({why}). Export it again.") from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return Run(path)


def _check_config(values: Any, source: Path) -> None:
    """Names and ranges; the files that it names need not exist on this machine.

    Raises:
        RunError: a name is not registered here, which is no damage.
        ValueError, TypeError: anything else is wrong.
    """
    try:
        RunConfig(**values)
    except ValidationError as error:
        for problem in error.errors():
            unknown = problem.get("ctx", {}).get("error")
            if isinstance(unknown, UnknownNameError):
                raise RunError(
                    f"'{source}' cannot be imported: there is no {unknown.kind} '{unknown.name}' here. "
                    f"{OTHER_VERSION if unknown.kind == 'method' else PLUGIN}"
                ) from None
        raise


def _check_contents(run: Run, source: Path) -> None:
    """Raises one of DAMAGE unless everything is what this program writes, because pages and workers rely on it.

    Raises RunError where only a name is not registered here.
    """
    _check_config(json.loads((run.path / "config.json").read_text()), source)
    status = json.loads((run.path / "status.json").read_text())
    if status.get("state") not in STATES or not isinstance(status.get("created"), (int, float)):
        raise ValueError("status.json has no known state")
    gone = status.get("diverged", {})
    if not isinstance(gone, dict) or not all(isinstance(text, str) for text in gone.values()):
        raise ValueError("status.json has an unreadable list of diverged students")
    for row in run.metrics()[0]:
        numbers = [row["epoch"], row["step"], *row["values"].values()]
        texts = [row["stage"], row["learner"], row["kind"]]
        if not all(isinstance(n, (int, float)) for n in numbers) or not all(isinstance(t, str) for t in texts):
            raise ValueError("metrics.jsonl has an unreadable row")
    report = run.report
    if report is not None:
        to_markdown(report)
        if not isinstance(report.get("diverged", {}), dict):
            raise ValueError("report.json has an unreadable list of diverged students")
        best = [learner.get("best_epoch", 0) for learner in report["learners"]]  # version 0.1 had none
        if not all(isinstance(epoch, int) for epoch in best):
            raise ValueError("report.json has an epoch that is not a number")


def files_of(run: Run, checkpoints: bool) -> Iterator[Path]:
    """The files of a run that travel with it, in the order of their names."""
    left_out = LEFT_OUT if checkpoints else (*LEFT_OUT, CHECKPOINTS)
    for path in sorted(run.path.rglob("*")):
        parts = path.relative_to(run.path).parts
        hidden = any(part.startswith(".") for part in parts)  # what is being written, too
        if path.is_file() and not path.is_symlink() and parts[0] not in left_out and not hidden:
            yield path


def _check(entries: list[zipfile.ZipInfo], source: Path) -> str:
    """The run's id; RunError unless all entries are plain files of one run, and not too much."""

    def refuse(why: str) -> RunError:
        return RunError(f"'{source}' is refused: {why}. Give a file that 'iekd runs export' wrote.")

    if len(entries) > MOST_ENTRIES:
        raise refuse(f"it has {len(entries):,} entries, and a run has at most {MOST_ENTRIES:,}")
    total, ids = 0, set()
    for entry in entries:
        name = PurePosixPath(entry.filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename:
            raise refuse(f"'{entry.filename}' would lie outside of the run's folder")
        if kind not in (0, stat.S_IFREG):
            raise refuse(f"'{entry.filename}' is not a plain file")
        if len(name.parts) < 2 or name.parts[1] in LEFT_OUT or name.parts[1].startswith("."):
            raise refuse(f"'{entry.filename}' does not belong to a run")
        if entry.file_size > MOST_RATIO * max(1024, entry.compress_size):
            raise refuse(f"'{entry.filename}' unpacks to {entry.file_size:,} bytes")
        total += entry.file_size
        ids.add(name.parts[0])
    if total > MOST_BYTES:
        raise refuse(f"it unpacks to {total / 2**30:.0f} GB")
    if len(ids) != 1 or not ID.fullmatch(run_id := ids.pop()):
        raise refuse("it does not hold one run")
    if not any(entry.filename == f"{run_id}/config.json" for entry in entries):
        raise refuse("there is no config.json in it")
    return run_id


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    target = folder.joinpath(*PurePosixPath(entry.filename).parts[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with archive.open(entry) as packed, open(target, "xb") as file:
        while piece := packed.read(1 << 20):
            left -= len(piece)
            if left < 0:
                raise ValueError(f"'{entry.filename}' is longer than it says")
            file.write(piece)
