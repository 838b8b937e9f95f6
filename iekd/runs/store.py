"""Run folders: create, list, read, delete. The folder is the truth; nothing is kept in memory.

runs/<id>/config.json    what was asked, immutable
          status.json    state, stage, progress, error; replaced in one step
          metrics.jsonl  one row per line, append-only
          events.jsonl   changes of state
          log.txt        what a person would want to read
          control.json   what a person asked since then (to stop, to move in the queue)
          launcher.json  which launcher owns it and its job there; absent for runs of this machine (owner.py)
          ray.json       who may write here, while it trains in a Ray cluster (lease.py)
          run.lock       held by the worker while it lives, or by whoever starts it
          checkpoints/   where another attempt would continue; removed once the run is finished
          models/        teacher and students, loadable by themselves
          exports/       what was exported from the page; can be made again
          report.json    results; report.md the same to read
          answers.csv    each network's prediction for each test image
          watched/       a few held-out images and what is predicted for them while it trains (watched.py)
          test-set/      how sure each network is of its predictions; can be made again (test_set.py)
          notes.json     a name, a star and a note that somebody gave it since; see notes.py
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from iekd.config.run import RunConfig, learner_name
from iekd.data import AS_TEXT, own_path
from iekd.errors import RunError, TakenError
from iekd.models import hub_configs
from iekd.models.aliases import canonical
from iekd.runs.events import append_event
from iekd.runs.files import LineWriter, read_json, read_lines, read_tail, truncate_lines, write_json
from iekd.runs.lease import bar, take_away
from iekd.runs.locks import fcntl
from iekd.runs.owner import LOCAL, Owner, owner_of, set_owner
from iekd.runs.status import FINISHED, LIVE, LOST, QUEUED, Status

CHECKPOINTS = "checkpoints"  # in a run folder
EXPORTS = "exports"  # likewise
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what storage without file locks answers
TEST_SET = "test-set"  # likewise
EXPLAINED = "explained"  # likewise
WATCHED = "watched"  # likewise
LAST_MOMENTS = 30  # seconds that a run's process gets to end once its final state is written


class Run:
    """One run folder. Every property reads the disk.

    owners: the launchers that are known here, by name; they say whether runs of theirs live.
    """

    def __init__(self, path: Path, owners: Mapping[str, Owner] | None = None) -> None:
        self.path = path
        self.id = path.name
        self.owners = {} if owners is None else owners

    @property
    def config(self) -> RunConfig:
        values = read_json(self.path / "config.json")
        if not isinstance(values, dict):
            raise RunError(f"The run '{self.id}' has no readable config.json. Delete it.")
        # not checked: folders may be gone by now, and a run that exists can still be shown
        stored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        stored.setdefault("validation_fraction", 0.0)  # runs of version 0.1 had none
        if "class_order" not in stored and own_path(str(stored.get("dataset", ""))) is not None:
            stored["class_order"] = (AS_TEXT,)  # before there was a choice, a folder's classes were sorted as text
        for role in ("teacher", "student", "peer"):
            if isinstance(stored.get(role), str):  # old names stay usable
                stored[role] = canonical(stored[role])
        named = [stored.get(role) for role in ("teacher", "student", "peer", "teacher_from", "student_from")]
        more = [name for key in ("more_teachers", "more_teachers_from") for name in stored.get(key, ())]
        if any(map(hub_configs.is_one, [*named, *more])):
            networks = read_json(self.path / hub_configs.FILES)
            hub_configs.remember(networks if isinstance(networks, dict) else {})
        return RunConfig.model_construct(None, **stored)

    @property
    def status(self) -> Status:
        """The state; a run whose worker has gone without a final state is `lost`."""
        status = self._stored_status()
        if status.live and not self.alive():
            status = self._stored_status()  # it may have ended between the two looks
            if status.live:
                status.state = LOST
                status.error = "The training process is gone: it was killed, or the machine was restarted."
        status.doubt = self._doubt() if status.live else ""
        return status

    @property
    def created(self) -> float:
        """When it was asked for, in seconds since 1970."""
        return self._stored_status().created

    @property
    def attempt(self) -> int:
        """How often it was started, resuming included."""
        return self._stored_status().attempt

    def _stored_status(self) -> Status:
        values = read_json(self.path / "status.json")
        known = {f.name for f in fields(Status)}
        status = Status(**{k: v for k, v in values.items() if k in known} if isinstance(values, dict) else {})
        if not isinstance(status.created, (int, float)):  # runs are sorted by it; a broken one must not stop that
            status.created = 0.0
        return status

    def write_status(self, status: Status) -> None:
        write_json(self.path / "status.json", asdict(status))

    def alive(self) -> bool:
        """Whether its worker lives: the run's lock is held, or the launcher that owns it says so.

        If that launcher is not known here, the last state that was written decides.
        """
        return self.locked() or self._alive_elsewhere()

    def _alive_elsewhere(self) -> bool:
        name = self.owner
        if name == LOCAL:
            return False
        owner = self.owners.get(name)
        return owner.alive(self.id) if owner else self._stored_status().live

    def _doubt(self) -> str:
        owner = self.owners.get(self.owner)
        return owner.doubt(self.id) if owner else ""

    @property
    def owner(self) -> str:
        """The name of the launcher that owns it."""
        return owner_of(self.path)

    def locked(self) -> bool:
        """True while a process holds the run's lock; the kernel drops it when the process dies."""
        try:
            with open(self.path / "run.lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def lock(self, needed: bool = True) -> int:
        """Take the run's lock; return the file descriptor that holds it (and may be inherited by a worker).

        needed: False where the worker does without it: shared storage may have no file locks.

        Raises:
            TakenError: another process has it.
            RunError: it is needed, and there are none.
        """
        handle = os.open(self.path / "run.lock", os.O_RDWR | os.O_CREAT, 0o644)
        for _ in range(20):  # a reader's look holds it for a moment
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
            except BlockingIOError:
                time.sleep(0.05)
            except OSError as error:
                if error.errno in NO_LOCKS and not needed:
                    return handle
                os.close(handle)
                raise no_locks(self.path.parent, error) from None
        os.close(handle)
        raise self._taken()

    def _taken(self) -> TakenError:
        return TakenError(f"The run '{self.id}' is already being worked on by another process.")

    def metrics(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """(rows after byte `offset`, next offset)."""
        return read_lines(self.path / "metrics.jsonl", offset)

    def metrics_writer(self) -> LineWriter:
        return LineWriter(self.path / "metrics.jsonl")

    def event(self, name: str, **values: Any) -> None:
        append_event(self.path, name, **values)

    def reopen(self, owner: str = LOCAL) -> int:
        """Prepare a run that is over for another attempt; returns the descriptor of its lock, for the worker.

        owner: the launcher that continues it. On this machine nobody begins before an earlier worker elsewhere, which
        may have been cut off only, is gone; another launcher sees to that itself.

        Raises:
            TakenError: somebody else does so at this moment, or it has just finished.
            RunError: it is not over, or there is nothing left to do.
        """
        status = self.status
        if status.live:
            raise RunError(f"The run '{self.id}' is still {status.state}; there is nothing to resume.")
        if status.state == FINISHED:
            raise RunError(f"The run '{self.id}' is finished. Start a new one to train for more epochs.")
        _ = self.config  # a folder without a readable one is said here
        handle = self.lock(needed=owner == LOCAL)
        try:
            if self._alive_elsewhere():  # another process has resumed it since, on another launcher
                raise self._taken()
            (self.path / "control.json").unlink(missing_ok=True)  # now: a request that comes later is for this attempt
            if owner == LOCAL:
                take_away(self.path)
            else:
                bar(self.path)
            status = self._stored_status()
            if status.state == FINISHED:
                raise TakenError(f"The run '{self.id}' has just finished.")
            set_owner(self.path, owner)
            self._queue_again(status, "resumed")
        except BaseException:
            os.close(handle)
            raise
        return handle

    def retry(self, why: str) -> None:
        """Prepare another attempt of a run that is not over, but whose worker is gone. Only for the launcher that owns
        it, which knows that.

        why: what became of the worker, as a sentence.
        """
        self._queue_again(self._stored_status(), "retried", why=why)

    def _queue_again(self, status: Status, event: str, **values: Any) -> None:
        truncate_lines(self.path / "events.jsonl")
        status.state, status.queued, status.attempt = QUEUED, time.time(), status.attempt + 1
        status.would_repeat, status.diverged, status.waiting, status.doubt = False, {}, "", ""
        status.slot, status.yields = "", False
        status.error = status.pid = status.pid_started = status.ended = status.started = None
        status.eta_seconds = status.eta_range = None
        self.write_status(status)
        self.event(event, attempt=status.attempt, **values)

    @property
    def report(self) -> dict[str, Any] | None:
        """Results, or None while there are none."""
        return read_json(self.path / "report.json")

    def log_tail(self, lines: int = 12) -> str:
        return read_tail(self.path / "log.txt", lines)

    @property
    def stop_requested(self) -> bool:
        return (read_json(self.path / "control.json") or {}).get("request") == "stop"

    @property
    def model_folders(self) -> dict[str, Path]:
        """Saved models by name: "teacher" first, then the learners in the order of training."""
        root = self.path / "models"
        found = {p.name: p for p in sorted(root.iterdir()) if (p / "model.json").is_file()} if root.is_dir() else {}
        order = ["teacher", *(learner_name(m, s) for m, s in self.config.learner_names)]
        return {name: found[name] for name in order if name in found}


def not_writable(root: Path, error: OSError) -> RunError:
    """The error of a runs folder in which nothing can be written."""
    return RunError(
        f"The runs folder '{root}' cannot be written ({error.strerror}). "
        "Choose another with --runs-dir or the environment variable IEKD_RUNS_DIR, or free some space."
    )


def no_locks(root: Path, error: OSError) -> RunError:
    """The error of a runs folder in which no file can be locked."""
    return RunError(
        f"The runs folder '{root}' is on storage without file locks ({error.strerror}), which runs of this machine "
        "need. Choose another with --runs-dir or the environment variable IEKD_RUNS_DIR."
    )


class Store:
    """All runs below one folder."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().resolve()
        self.owners: dict[str, Owner] = {}  # a launcher adds itself when it is made

    def create(
        self, config: RunConfig, key: str | None = None, visitor: str = "", owner: str = LOCAL
    ) -> tuple[Run, int | None]:
        """Make the folder of a run, in state queued.

        Args:
            config: what the run is asked to do.
            key: the same key always means the same run, so that twenty clicks start one; None: always a new run.
            visitor: who asks for it, stored in the folder.
            owner: the launcher that trains it.
        Returns:
            The run, and the descriptor of its lock (None if `key` was already used).
        Raises:
            RunError: the folder cannot be written.
        """
        run_id = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if key is not None:
                taken = self._claim(key, run_id)
                if taken != run_id:
                    return self._wait_for(taken), None
            run = Run(self.root / run_id, self.owners)
            # complete before it gets its name: no reader sees a folder without a configuration
            part = self.root / f".{run_id}.part"
            part.mkdir()
            write_json(part / "config.json", config.model_dump(mode="json"))
            named = (config.teacher, config.student, config.peer, *config.more_teachers)
            sources = (config.teacher_from, config.student_from, *config.more_teachers_from)
            if networks := hub_configs.of_these(named, sources):
                write_json(part / hub_configs.FILES, networks)
            set_owner(part, owner)
            handle = Run(part).lock(needed=owner == LOCAL)
            write_json(part / "status.json", asdict(Status(created=time.time())))
            if visitor:
                (part / "visitor").write_text(visitor)
            part.rename(run.path)
        except OSError as error:
            self._forget_keys(run_id)
            raise not_writable(self.root, error) from None
        run.event(QUEUED)
        return run, handle

    def get(self, run_id: str) -> Run:
        """The run of that id.

        Raises:
            RunError: there is none; names the closest.
        """
        path = self.root / run_id
        with suppress(OSError, ValueError):  # names that no file can have
            if (
                run_id
                and Path(run_id).name == run_id
                and not run_id.startswith(".")
                and (path / "config.json").is_file()
            ):
                return Run(path, self.owners)
        configs = {run.id: read_json(run.path / "config.json") for run in self.list()}
        names = {known: stored.get("name") for known, stored in configs.items() if isinstance(stored, dict)}
        if named := [known for known, name in names.items() if run_id and name == run_id]:
            raise RunError(f"'{run_id}' is the name of a run, not its id. Give the id: {', '.join(named)}.")
        close = difflib.get_close_matches(run_id, list(configs), n=1, cutoff=0.9)  # ids of one day are similar anyway
        hint = f"Did you mean '{close[0]}'?" if close else "'iekd runs list' shows those there are."
        raise RunError(f"There is no run '{run_id}' in the folder '{self.root.name}'. {hint}")

    def list(self) -> list[Run]:
        """Every run, newest first."""
        if not self.root.is_dir():
            return []
        found = (p for p in self.root.iterdir() if not p.name.startswith(".") and (p / "config.json").is_file())
        runs = (Run(path, self.owners) for path in found)
        return sorted(runs, key=lambda run: (run.created, run.id), reverse=True)

    def delete(self, run_id: str) -> None:
        """Remove a run that is over, with its whole folder.

        Raises:
            RunError: no such run, or it is still going.
        """
        trash = self.root / f".{run_id}.deleted"
        self.move_out(run_id, trash)
        shutil.rmtree(trash)

    def move_out(self, run_id: str, target: Path) -> None:
        """Move the folder of a run that is over to `target` on the same disk, where it is no run of the store.

        Raises:
            RunError: no such run, or it is still going.
        """
        run = self.get(run_id)
        deadline = time.monotonic() + LAST_MOMENTS
        while run.alive():
            state = run.status.state
            if state in LIVE:
                raise RunError(f"The run '{run_id}' is still {state}. Stop it first.")
            if time.monotonic() > deadline:
                raise RunError(f"The run '{run_id}' is {state}, but its process has not ended yet. Try again.")
            time.sleep(0.1)  # it is over, and its process is about to end
        run.path.rename(target)
        self._forget_keys(run_id)

    def _forget_keys(self, run_id: str) -> None:
        """The keys of this run may start another one."""
        for key in (self.root / ".keys").glob("*"):
            with suppress(OSError):
                if key.read_text() == run_id:
                    key.unlink()

    def _claim(self, key: str, run_id: str) -> str:
        """The run that owns `key`: `run_id` if nobody had it."""
        keys = self.root / ".keys"
        keys.mkdir(exist_ok=True)
        path = keys / hashlib.sha256(key.encode()).hexdigest()[:32]
        part = keys / f"{path.name}.{run_id}"
        part.write_text(run_id)
        try:
            os.link(part, path)  # fails if it is there, and never shows an empty file
            return run_id
        except FileExistsError:
            return path.read_text()
        finally:
            part.unlink()

    def _wait_for(self, run_id: str) -> Run:
        for _ in range(100):
            if (self.root / run_id / "config.json").is_file():
                break
            time.sleep(0.05)
        return self.get(run_id)


@contextmanager
def released(handle: int) -> Iterator[None]:
    """Close a lock's descriptor at the end, which releases it unless a worker inherited it."""
    try:
        yield
    finally:
        os.close(handle)
