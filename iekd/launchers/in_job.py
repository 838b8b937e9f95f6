"""What a job of Hugging Face Jobs runs: it trains a run on the job's own disk and copies what changes to the bucket.

`python -m iekd.launchers.in_job /iekd`, where the run's part of the bucket is mounted at /iekd:

    job.json    the run's id, and how many seconds the job may take
    run/        the run's folder, as it was sent, and then as it is
    inputs.tar  files of the user's machine that the run reads, see sending.py
    teachers/   teachers that this run has trained, for later ones

A bucket that is mounted is no file system for a worker: a file is uploaded when it is closed, none can be appended to
or locked, and what others write is seen half a minute later. So the worker, `iekd.runs.worker`, has its own folder.
The job needs no token: what it may read and write is what is mounted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from iekd.errors import RunError, UserError
from iekd.runs.checkpoints import MANIFEST
from iekd.runs.files import read_json, write_json
from iekd.runs.status import FAILED, LIVE, STOPPED
from iekd.runs.store import Run

JOB, RUN, INPUTS, TEACHERS = "job.json", "run", "inputs.tar", "teachers"  # in the mounted folder
ABSOLUTE, AMONG_RUNS = "root", "runs"  # first parts of the names in inputs.tar
MODIFIED = "IEKD.mtime"  # nanoseconds; a dataset is recognised by them, and tar's own are rounded
EVERY = 10.0  # seconds between two looks
HEAVY_EVERY = 60.0  # seconds between copies of checkpoints and models
HEAVY = ("checkpoints", "models")
STATE = "status.json"
OWN = ("control.json", "run.lock", ".reserve")  # files of one side only
WAITS = (2.0, 5.0, 10.0)  # seconds between the last attempts to copy
SAVING, SHARE_SAVING = 180.0, 0.1  # of the job's time: seconds before its end, and at most so much of it, to save


class Mirror:
    """Copies what has changed of a folder to another, which only this class writes."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source, target
        self.copied: dict[str, tuple[int, int]] = {}  # path -> size and time of change

    def copy(self, heavy: bool, without: str = "") -> None:
        """heavy: checkpoints and models too. without: a file that is left out.

        The state goes last: whoever reads that a run is over finds everything else. So does the manifest of a
        checkpoint, without which the rest of it counts for nothing.
        """
        there = {str(path.relative_to(self.source)): path for path in self._files() if heavy or not self._heavy(path)}
        there.pop(without, None)
        for name in sorted(there, key=lambda name: (not self._heavy(there[name]), self._late(name), name)):
            with contextlib.suppress(FileNotFoundError):  # an old checkpoint was removed meanwhile
                mark = _mark(there[name])
                if self.copied.get(name) != mark:
                    (self.target / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(there[name], self.target / name)
                    self.copied[name] = mark
        if heavy:
            for name in [name for name in self.copied if not (self.source / name).exists()]:
                (self.target / name).unlink(missing_ok=True)
                del self.copied[name]

    def keep(self) -> None:
        """Take what is there as copied."""
        self.copied = {str(path.relative_to(self.source)): _mark(path) for path in self._files()}

    def _files(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self.source):
            folders[:] = [name for name in folders if not name.endswith(".part")]  # checkpoints that are being written
            for name in names:
                if name not in OWN and not name.endswith(".part"):
                    yield Path(folder, name)

    def _heavy(self, path: Path) -> bool:
        return path.relative_to(self.source).parts[0] in HEAVY

    def _late(self, name: str) -> int:
        return 2 if name == STATE else int(PurePosixPath(name).name == MANIFEST)


def _mark(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


class Job:
    """One attempt of a run inside a job. mount: the mounted folder; work: a folder on the job's disk; began: when the
    job did, in seconds since 1970."""

    def __init__(self, mount: Path, work: Path, began: float, every: float = EVERY) -> None:
        self.mount, self.began, self.every = mount, began, every
        about = read_json(mount / JOB) or {}
        self.seconds = float(about["seconds"])
        self.runs = work / "runs"
        self.run = Run(self.runs / str(about["run"]))
        self.why = ""  # a sentence, if the job itself has the worker stop
        self.cancelled = False

    def execute(self) -> int:
        """Returns the exit status of the job: 0 if the run is finished or stopped."""
        shutil.copytree(self.mount / RUN, self.run.path)
        if (self.mount / INPUTS).exists():
            try:
                unpack(self.mount / INPUTS, self.runs)
            except UserError as error:
                self._fail(str(error))
        self.mirrors = Mirror(self.run.path, self.mount / RUN), Mirror(self.runs / TEACHERS, self.mount / TEACHERS)
        self.mirrors[1].keep()  # those that were sent
        if self.run.status.live:
            self._work()
        for wait in (*WAITS, None):
            if self._copied(heavy=True, last=True) or wait is None:
                break
            time.sleep(wait)
        status = self.run.status
        print(self.run.log_tail(), flush=True)  # for who looks at the job's log on the Hub
        return 1 if status.state == FAILED else 0

    def _copied(self, heavy: bool, last: bool = False) -> bool:
        """Whether everything has arrived; a bucket that cannot be written for a while is no reason to end training.

        last: the worker has ended. Only then a final state is copied, after all the rest.
        """
        mirror, teachers = self.mirrors
        try:
            if heavy:
                teachers.copy(heavy)
            mirror.copy(heavy, "" if last else STATE)
            state = (self.run.path / STATE).read_text()
            if not last and json.loads(state)["state"] in LIVE:
                (mirror.target / STATE).write_text(state)
        except OSError as error:
            print(f"The bucket cannot be written now ({error.strerror or error}).", flush=True)
            return False
        return True

    def _work(self) -> None:
        signal.signal(signal.SIGTERM, self._on_cancel)
        with open(self.run.path / "log.txt", "ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "iekd.runs.worker", str(self.run.path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        asked, copied = False, time.monotonic()
        while worker.poll() is None:
            if not asked and self._should_stop():
                asked = True
                self.run.event("stop requested", **({"why": self.why} if self.why else {}))
                # no signal: it would kill a worker that has only just been started
                write_json(self.run.path / "control.json", {"request": "stop", "time": time.time()})
            heavy = time.monotonic() - copied > HEAVY_EVERY
            self._copied(heavy)
            copied = time.monotonic() if heavy else copied
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(min(1.0, self.every) if asked else self.every)
        self._conclude(worker.returncode)

    def _should_stop(self) -> bool:
        saving = min(SAVING, SHARE_SAVING * self.seconds)
        if time.time() - self.began > self.seconds - saving:
            self.why = f"The job's time of {in_hours(self.seconds)} was nearly over. Resume it to go on."
        elif self.cancelled:
            self.why = "Its job was cancelled on the Hub."
        return bool(self.why) or (read_json(self.mount / "control.json") or {}).get("request") == "stop"

    def _on_cancel(self, *_: object) -> None:
        self.cancelled = True

    def _conclude(self, code: int) -> None:
        """Add to the final state why the worker was stopped; write one where it could not."""
        status = self.run.status
        if status.live:
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            short = ", as when memory is short. Take a larger flavor or a smaller batch size" if code == -9 else ""
            self._fail(f"The training process was ended by {how}{short}. The log may say more.")
        elif status.state == STOPPED and self.why and not status.error:
            status.error = self.why
            self.run.write_status(status)

    def _fail(self, why: str) -> None:
        status = self.run.status
        status.state, status.error, status.ended = FAILED, why, time.time()
        self.run.write_status(status)
        self.run.event(FAILED, error=why)


def unpack(archive: Path, runs: Path) -> None:
    """Put the user's files where they were on the user's machine, so that every path of the run means the same here.

    What is there already stays as it is.

    Raises:
        RunError: a file cannot be written.
    """
    with tarfile.open(archive) as packed:
        for member in packed:
            first, _, name = member.name.partition("/")
            content = packed.extractfile(member)
            if content is None or ".." in PurePosixPath(name).parts or first not in (ABSOLUTE, AMONG_RUNS):
                raise RunError(f"'{member.name}' in the sent files is none that a run reads. Start the run again.")
            target = Path("/", name) if first == ABSOLUTE else runs / name
            if target.exists():
                continue
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "wb") as file:
                    shutil.copyfileobj(content, file)
                changed = int(member.pax_headers.get(MODIFIED, int(member.mtime * 1e9)))
                os.utime(target, ns=(changed, changed))
            except OSError as error:
                raise RunError(
                    f"The job cannot write '{target}' ({error.strerror}), where this machine has it. Use an image "
                    "whose user is root, or put the files into another folder."
                ) from None


def in_hours(seconds: float) -> str:
    """7200 -> '2 h'; 90 -> '1.5 min'."""
    size, unit = (3600, "h") if seconds >= 3600 else (60, "min")
    return f"{seconds / size:.3g} {unit}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Train one run in a job (started by iekd itself).")
    parser.add_argument("mount", type=Path)
    parser.add_argument("--began", type=float, default=time.time(), help="when the job did")
    parser.add_argument("--every", type=float, default=EVERY)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="iekd-job-") as work:
        return Job(arguments.mount, Path(work), arguments.began, arguments.every).execute()


if __name__ == "__main__":
    sys.exit(main())
