"""A run as one zip file: to another machine, and back into a folder of runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from iekd.errors import RunError
from iekd.runs.store import Run, Store

LEFT_OUT = ("run.lock", ".reserve", "visitor", "control.json")
MOST_ENTRIES = 2_000  # a run of a hundred students has seven hundred
MOST_BYTES = 20 * 2**30
MOST_RATIO = 1_000  # of what an entry unpacks to; metrics shrink to a tenth
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")


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
        with zipfile.ZipFile(part, "x", zipfile.ZIP_DEFLATED) as archive:
            for path in _files(run, checkpoints):
                archive.write(path, f"{run.id}/{path.relative_to(run.path).as_posix()}")
        os.link(part, target)
    except OSError as error:
        raise RunError(f"'{target}' cannot be written ({error.strerror}). Choose another place with --out.") from None
    finally:
        part.unlink(missing_ok=True)


def import_run(store: Store, source: Path) -> Run:
    """Unpack what `export_run` wrote; the run keeps its id.

    Nothing of the archive is trusted: only plain files below one folder are written, beside the runs first.
    Raises:
        RunError: no such archive, one that holds anything else, or a run of that id is there.
    """
    try:
        archive = zipfile.ZipFile(source)
    except (OSError, zipfile.BadZipFile) as error:
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
            if not isinstance(json.loads((part / "config.json").read_text()), dict):
                raise ValueError("config.json is no object")
            part.rename(path)
        except OSError as error:
            raise RunError(
                f"The run cannot be written into '{store.root}' ({error.strerror}). Choose another with --runs-dir."
            ) from None
        except (ValueError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise RunError(f"'{source}' is damaged or no exported run ({error}). Export it again.") from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return Run(path)


def _files(run: Run, checkpoints: bool) -> Iterator[Path]:
    left_out = LEFT_OUT if checkpoints else (*LEFT_OUT, "checkpoints")
    for path in sorted(run.path.rglob("*")):
        first = path.relative_to(run.path).parts[0]
        if path.is_file() and not path.is_symlink() and first not in left_out and not first.startswith("."):
            yield path


def _check(entries: list[zipfile.ZipInfo], source: Path) -> str:
    """The run's id; RunError unless all entries are plain files of one run, and not too much."""

    def refuse(why: str) -> RunError:
        return RunError(f"'{source}' is not taken: {why}. Only files that 'iekd runs export' wrote are.")

    if len(entries) > MOST_ENTRIES:
        raise refuse(f"it has {len(entries):,} entries, and a run has at most {MOST_ENTRIES:,}")
    total, ids = 0, set()
    for entry in entries:
        name = PurePosixPath(entry.filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename:
            raise refuse(f"'{entry.filename}' would lie outside of the run's folder")
        if kind not in (0, stat.S_IFREG):
            raise refuse(f"'{entry.filename}' is no plain file")
        if len(name.parts) < 2 or name.parts[1] in LEFT_OUT or name.parts[1].startswith("."):
            raise refuse(f"'{entry.filename}' is no part of a run")
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
