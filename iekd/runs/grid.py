"""A grid of runs: pairs of networks x methods x seeds.

Each cell is an ordinary run. A grid that was interrupted continues where it stopped: finished runs of the same
configuration are reused, an interrupted one is resumed from its checkpoint, and a teacher that one run has trained is
used by all later ones. Leaves out: how a run trains, and how the table looks (results/table.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from iekd.config.run import RunConfig, make_config
from iekd.data import describe, own_path
from iekd.errors import TakenError, UserError
from iekd.models.libraries import LIBRARIES
from iekd.results.predictions import ANSWERS, read_right
from iekd.results.table import MISSING, Cell, Pair, to_csv, to_json, to_latex, to_markdown
from iekd.runs.files import write_json
from iekd.runs.owner import LOCAL
from iekd.runs.shared_teacher import missing_teacher
from iekd.runs.side_by_side import Starter, train_all
from iekd.runs.status import FINISHED, LOST, STOPPED
from iekd.runs.store import Run, Store


class Launcher(Starter, Protocol):
    """The part of a launcher that is needed here."""

    @property
    def name(self) -> str: ...

    def resume(self, run_id: str) -> None: ...


OF_LIBRARY = f"(?:{'|'.join(LIBRARIES)}):"
NETWORK = f"{OF_LIBRARY}[^:]+|(?!{OF_LIBRARY})[^:]+"
PAIR = re.compile(f"({NETWORK}):({NETWORK})")


def parse_pairs(text: str) -> list[Pair]:
    """ "resnet56:resnet20,timm:resnet18:resnet8" -> [("resnet56", "resnet20"), ("timm:resnet18", "resnet8")].

    Raises:
        UserError: a pair is not "teacher:student", or named twice. Names are checked with the configuration.
    """
    pairs: list[Pair] = []
    for word in text.replace(" ", ",").split(","):
        if not word:
            continue
        found = PAIR.fullmatch(word)
        if not found:
            raise UserError(f"Pair '{word}' cannot be used: give teacher:student, such as resnet56:resnet20.")
        teacher, student = found.groups()
        if (teacher, student) in pairs:
            raise UserError(f"The pair '{word}' is named twice. Name each pair once.")
        pairs.append((teacher, student))
    if not pairs:
        raise UserError("No pair is named. Give at least one as teacher:student, such as resnet56:resnet20.")
    return pairs


def cells(pairs: Sequence[Pair], config: RunConfig, together: bool) -> list[RunConfig]:
    """The runs of the grid: for each pair one per seed, or one for all seeds together."""
    seeds = [config.seeds] if together else [(seed,) for seed in config.seeds]
    common = config.model_dump()
    return [
        make_config(**{**common, "teacher": teacher, "student": student, "seeds": some})
        for teacher, student in pairs
        for some in seeds
    ]


def finished_run(config: RunConfig, store: Store) -> Run | None:
    """The newest finished run of this configuration, whatever its name; None if there is none.

    Runs of earlier versions are ignored if their reports lack some of today's settings, and so are runs on a folder
    whose files have changed since.
    """
    wanted, now = _unnamed(config), describe(config.dataset).fingerprint
    for run in store.list():
        report = run.report if run.status.state == FINISHED else None
        if report and {**report.get("config", {}), "name": ""} == wanted and report.get("dataset_mark", "") == now:
            return run
    return None


def interrupted_run(config: RunConfig, store: Store) -> Run | None:
    """The newest run of this configuration that was stopped or lost. One that failed might fail again."""
    wanted = _unnamed(config)
    for run in store.list():
        with contextlib.suppress(UserError):  # a damaged folder
            if run.status.state in (STOPPED, LOST) and _unnamed(run.config) == wanted:
                return run
    return None


def live_run(config: RunConfig, store: Store) -> Run | None:
    """The newest run of this configuration that waits or trains, started by whomever."""
    wanted = _unnamed(config)
    for run in store.list():
        with contextlib.suppress(UserError):  # a damaged folder
            if run.status.live and _unnamed(run.config) == wanted:
                return run
    return None


def earlier_run(config: RunConfig, store: Store) -> Run | None:
    """The run with which a cell would go on; None for a new one."""
    return live_run(config, store) or interrupted_run(config, store)


def _unnamed(config: RunConfig) -> dict[str, Any]:
    return {**config.model_dump(mode="json"), "name": ""}


def run_grid(
    configs: Sequence[RunConfig], store: Store, train: Callable[[Run, int | None], object], stop: Callable[[], bool]
) -> list[Cell]:
    """Train every cell in order, and reuse finished runs. A cell that fails does not stop the others.

    Args:
        train: runs one cell, new or interrupted, to its end and releases its lock.
        stop: whether to train nothing more; what was finished before is still used.
    """
    done: list[Cell] = []
    for config in configs:
        found = finished_run(config, store)
        run = found
        if run is None and not (done and stop()):
            run, handle = _begin(config, store)
            train(run, handle)
        done.append(_cell(config, run, found is not None))
    return done


def run_grid_at_once(
    configs: Sequence[RunConfig], launcher: Launcher, width: int, stop: Callable[[], bool],
    follow: Callable[[Mapping[int, Run]], None], stopper: Starter | None = None,
) -> list[Cell]:  # fmt: skip
    """`run_grid` with up to `width` cells at a time, which the launcher trains.

    Args:
        stop: whether to start nothing more, and to stop the cells that train.
        follow: see `side_by_side.train_all`; with numbers of configs.
        stopper: what stops cells that train already, and may be another launcher's; unset: the launcher.
    """
    reused = [finished_run(config, launcher.store) for config in configs]
    missing = [i for i, run in enumerate(reused) if run is None]
    jobs = [lambda i=i: _submit(configs[i], launcher) for i in missing]

    def ready(job: int, training: Mapping[int, Run]) -> bool:
        """Runs of this machine wait for a teacher themselves (shared_teacher.py); others are not started before."""
        if launcher.name == LOCAL or not training:
            return True
        teacher = missing_teacher(configs[missing[job]], launcher.store.root)
        return not teacher or all(
            missing_teacher(run.config, launcher.store.root) != teacher for run in training.values()
        )

    def follow_cells(training: Mapping[int, Run]) -> None:
        follow({missing[job]: run for job, run in training.items()})

    trained = train_all(jobs, stopper or launcher, width, stop, follow_cells, ready)
    runs = {**dict(enumerate(reused)), **dict(zip(missing, trained, strict=True))}
    return [_cell(config, runs[i], reused[i] is not None) for i, config in enumerate(configs)]


def _cell(config: RunConfig, run: Run | None, reused: bool) -> Cell:
    if run is None:
        return Cell(config, "", None, MISSING, False)
    return Cell(config, run.id, run.report, run.status.state, reused, read_right(run.path / ANSWERS))


def _begin(config: RunConfig, store: Store) -> tuple[Run, int | None]:
    """An interrupted run to continue, or a new one; and its lock."""
    earlier = interrupted_run(config, store)
    if earlier is not None:
        with contextlib.suppress(TakenError):  # another process is resuming it
            return earlier, earlier.reopen()
    return store.create(config)


def _submit(config: RunConfig, launcher: Launcher) -> Run:
    """A run that is not over yet, as after a closed terminal; an interrupted run that is continued; or a new one."""
    if (live := live_run(config, launcher.store)) is not None:
        return live
    earlier = interrupted_run(config, launcher.store)
    if earlier is not None:
        with contextlib.suppress(TakenError):  # another process is resuming it
            launcher.resume(earlier.id)
            return earlier
    return launcher.store.get(launcher.submit(config))


def default_folder(pairs: Sequence[Pair], config: RunConfig, root: Path) -> Path:
    """Where a grid's table goes: the same folder for the same grid."""
    files = own_path(config.dataset)
    name = config.name or (config.dataset if files is None else files.name)
    words = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
    what = json.dumps([list(pairs), config.model_dump(mode="json")], sort_keys=True)
    return root / "tables" / f"{words}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


def write_table(done: Sequence[Cell], config: RunConfig, folder: Path) -> dict[str, Path]:
    """table.md, .csv, .tex and .json; returns where they are.

    Raises:
        UserError: the folder cannot be written.
    """
    texts = {"md": to_markdown(done, config), "csv": to_csv(done), "tex": to_latex(done, config)}
    make_folder(folder)
    try:
        for suffix, text in texts.items():
            (folder / f"table.{suffix}").write_text(text, "utf-8")
        write_json(folder / "table.json", to_json(done))
    except OSError as error:
        raise _unwritable(folder, error) from None
    return {suffix: folder / f"table.{suffix}" for suffix in (*texts, "json")}


def make_folder(folder: Path) -> None:
    """Raises UserError if the table cannot go there, which is better known before hours of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"The table cannot be written to '{folder}' ({error.strerror}). Choose another --out.")
