"""Brings a run that trains in a job of the Hub back to its folder here: state, curves, log, and at the end its models.

What is here is as old as the last look. A look that fails changes nothing: the run stays as it was seen last, and the
next look tries again. The final state is written once, by the worker if it could, else here.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from iekd.errors import UserError
from iekd.hub_errors import HubError
from iekd.launchers.hub_account import OVER, Account
from iekd.launchers.in_job import HEAVY, RUN, TEACHERS, in_hours
from iekd.runs.checkpoints import Checkpoints
from iekd.runs.files import read_json
from iekd.runs.locks import fcntl
from iekd.runs.owner import record, set_owner
from iekd.runs.status import FAILED, FINISHED, QUEUED, STOPPED, Status
from iekd.runs.store import CHECKPOINTS, Run

log = logging.getLogger("iekd")
LOCK, PARTS = ".follow.lock", ".follow"  # in a run's folder
KEPT_HERE = ("config.json", "launcher.json", "control.json", "run.lock", "visitor", "notes.json")
LAST_LINES = 30  # of the job's own log, where the worker could not write one
TIME_OUT = 60.0  # seconds that a job may have ended before its limit, and still because of it


class Follower:
    """Looks at the runs of one launcher.

    seen: run -> path -> what was fetched last of it. ended: run -> the final state that its worker wrote, which is not
    shown before everything else has been fetched.
    """

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, str]] = {}
        self.ended: dict[str, Status] = {}

    def look(self, run: Run, account: Account) -> bool:
        """Fetch what has changed; returns whether the run is over. Another process that looks at it now is left to it.

        Raises:
            HubError: the Hub cannot be asked.
        """
        with _alone(run) as alone:
            notes = record(run.path)
            if not alone or notes.get("over") or "job" not in notes:
                return bool(notes.get("over"))
            job = account.job(notes["job"])
            if job is None and not account.files(notes["bucket"], notes["folder"]):
                raise HubError(
                    f"The Hub shows {account.namespace} neither the job of this run nor its bucket. Log in as whoever "
                    "started it."
                )
            stage = "DELETED" if job is None else str(getattr(job.status.stage, "value", job.status.stage))
            self._fetch(run, account, notes, heavy=False)
            final = self.ended.get(run.id)
            if final is not None and final.attempt != run.attempt:  # another process saw the end of that one
                final = None
            if final is None and stage not in OVER:
                _show_stage(run, stage, notes)
                return False
            if final is None and not notes.get("gone"):
                # what it wrote last may still be on its way to the bucket: that is looked at once more
                set_owner(run.path, **{**notes, "gone": True})
                return False
            by_worker = final is not None
            final = final or _final(run, stage, job, notes, account)
            self._fetch(run, account, notes, heavy=True, checkpoints=final.state != FINISHED)
            forget_sent(run, notes, lambda: account)  # another attempt gets them again
            run.write_status(final)
            if not by_worker:
                run.event(final.state, error=final.error)
            set_owner(run.path, **{**notes, "over": True})
            self.seen.pop(run.id, None)
            self.ended.pop(run.id, None)
            return True

    def _fetch(self, run: Run, account: Account, notes: dict[str, Any], heavy: bool, checkpoints: bool = False) -> None:
        """heavy: the models too, and teachers for later runs."""
        bucket, folder = notes["bucket"], notes["folder"]
        seen, parts = self.seen.setdefault(run.id, {}), run.path / PARTS
        wanted: list[tuple[Any, str, Path]] = []
        for one in account.files(bucket, folder):
            kind, _, name = one.path.removeprefix(f"{folder}/").partition("/")
            target = _target(run, kind, name, heavy, checkpoints)
            if target is not None and seen.get(one.path) != one.xet_hash:
                wanted.append((one, one.path, target))
        if not wanted:
            return
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir()
        try:
            account.fetch(bucket, [(one, parts / str(number)) for number, (one, _, _) in enumerate(wanted)])
            for number, (one, path, target) in enumerate(wanted):
                part = parts / str(number)
                if not part.exists():  # it was removed or replaced meanwhile
                    continue
                if target == run.path / "status.json":
                    self._take(run, part)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(part, target)
                seen[path] = one.xet_hash
        finally:
            shutil.rmtree(parts, ignore_errors=True)

    def fetch_checkpoints(self, run: Run, account: Account, bucket: str, folder: str) -> None:
        """Of a run that was given up: its job may have learned much that is only in the bucket. Those here stay if they
        are as far."""
        inside = f"{folder}/{RUN}/"
        if not (found := account.files(bucket, f"{inside}{CHECKPOINTS}")):
            return
        here = run.path / CHECKPOINTS
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=run.path.parent) as place:
            targets = [(one, Path(place) / one.path.removeprefix(inside)) for one in found]
            for _, target in targets:
                target.parent.mkdir(parents=True, exist_ok=True)
            account.fetch(bucket, targets)
            fetched = Path(place) / CHECKPOINTS
            if not here.is_dir() or Checkpoints(fetched).reached() > Checkpoints(here).reached():
                shutil.rmtree(here, ignore_errors=True)
                fetched.rename(here)

    def _take(self, run: Run, fetched: Path) -> None:
        """Take over the state that the worker wrote, whose process is on another machine; not an earlier attempt's."""
        values = read_json(fetched)
        known = {f.name for f in fields(Status)}
        status = Status(**{key: value for key, value in values.items() if key in known}) if values else Status()
        if not values or status.attempt != run.attempt:
            return
        status.pid = status.pid_started = None
        if status.live:
            run.write_status(status)
        else:
            self.ended[run.id] = status


def forget_sent(run: Run, notes: dict[str, Any], account: Callable[[], Account]) -> None:
    """Delete from the bucket what was sent for the job only, such as pictures. Where that fails, say where they are."""
    try:
        account().forget(notes["bucket"], [f"{notes['folder']}/{name}" for name in notes.get("inputs", ())])
    except UserError as error:
        log_leftovers(run, notes["bucket"], notes["folder"], error)


def log_leftovers(run: Run, bucket: str, folder: str, error: UserError) -> None:
    run.event("sent files left", bucket=bucket, inside=folder, why=str(error))
    log.warning(
        "action=forget run=%s What was sent for the job, such as pictures, is still in the bucket '%s', in '%s'. "
        "Delete it there. %s", run.id, bucket, folder, error,
    )  # fmt: skip


def _target(run: Run, kind: str, name: str, heavy: bool, checkpoints: bool) -> Path | None:
    """Where a file of the bucket belongs here; None if it is not fetched now."""
    safe = bool(name) and not name.startswith("/") and ".." not in name.split("/")
    first = name.partition("/")[0]
    if kind == TEACHERS and safe and heavy:
        there = run.path.parent / TEACHERS / name
        return None if there.exists() else there  # as for a run here, none is replaced
    if kind != RUN or not safe or first in KEPT_HERE or first.startswith("."):
        return None
    if first in HEAVY:
        return run.path / name if heavy and (checkpoints or first != "checkpoints") else None
    return run.path / name


def _show_stage(run: Run, stage: str, notes: dict[str, Any]) -> None:
    """Say what a run waits for whose worker has not begun."""
    status = _stored(run)
    if status.state != QUEUED:
        return
    waiting = f"Its job on {notes['flavor']} installs what it needs."
    if stage != "RUNNING":
        waiting = f"Its job waits for a machine ({notes['flavor']})."
    if status.waiting != waiting:
        status.waiting = waiting
        run.write_status(status)


def _stored(run: Run) -> Status:
    """What status.json says, whoever lives: without owners, nobody is asked."""
    return Run(run.path).status


def _final(run: Run, stage: str, job: Any, notes: dict[str, Any], account: Account) -> Status:
    """The final state of a run whose job is over and whose worker could not write one."""
    status, asked = _stored(run), run.stop_requested
    limit, said = float(notes["seconds"]), str(getattr(job and job.status, "message", None) or "").strip().rstrip(".")
    began = getattr(job, "started_at", None) or getattr(job, "created_at", None)
    ended = getattr(job, "finished_at", None)
    took = ((ended.timestamp() if ended else time.time()) - began.timestamp()) if began else 0.0
    status.state = STOPPED
    if "timeout" in said.lower() or "timed out" in said.lower() or (stage == "ERROR" and took > limit - TIME_OUT):
        status.error = f"The job reached its time limit of {in_hours(limit)}. Resume the run to go on."
    elif stage == "CANCELED" and asked:
        status.error = "Its job was cancelled before its students were saved. Resume the run to go on."
    elif stage in ("CANCELED", "DELETED"):
        status.error = (
            f"Its job was {'cancelled' if stage == 'CANCELED' else 'deleted'} on the Hub. Resume it to go on."
        )
    else:
        status.state = FAILED
        status.error = (
            f"Its job ended without a result{f' ({said})' if said else ''}. The log has what it wrote last; "
            f"its page has everything: {notes['url']}."
        )
        if written := account.log_of(notes["job"], LAST_LINES):
            with open(run.path / "log.txt", "a", encoding="utf-8") as file:
                file.write(f"{written}\n")
    status.ended, status.waiting = time.time(), ""
    status.eta_seconds = status.eta_range = None
    return status


@contextmanager
def _alone(run: Run) -> Iterator[bool]:
    """Whether this is the only process that looks at the run now."""
    handle = os.open(run.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)
