"""Runs as jobs on the machines of the Hugging Face Hub: Hugging Face Jobs, for whoever has no GPU.

A run's folder is sent to a private bucket, a job is started that trains it there (in_job.py), and what the job writes
is fetched (hub_follow.py), by a thread of each process that looks at a run which is not over.
"""

from __future__ import annotations

import json
import logging
import shlex
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from iekd.config.run import RunConfig
from iekd.errors import RunError, UserError
from iekd.estimate.cost import Plan
from iekd.hub_errors import HubError
from iekd.launchers.base import FolderLauncher
from iekd.launchers.flavors import expected, flavor_called, seconds_in
from iekd.launchers.hub_account import OVER, Account
from iekd.launchers.hub_follow import Follower, forget_sent, log_leftovers
from iekd.launchers.in_job import INPUTS, JOB, RUN
from iekd.launchers.job_offer import JobOptions, Offer, check_device
from iekd.launchers.sending import GIVEN_UP, Inputs, files_of, inputs_of, pack, pack_program, requirements_text
from iekd.runs.estimate import in_words
from iekd.runs.files import read_json, write_json
from iekd.runs.owner import record, set_owner
from iekd.runs.status import FAILED, Status
from iekd.runs.store import CHECKPOINTS, Run, Store
from iekd.runs.teachers import find_teacher

log = logging.getLogger("iekd")
HUB_JOBS = "hf-jobs"
MOUNT = "/iekd"  # where the job finds its part of the bucket
PROGRAM = "iekd.zip"
MOST_SENT = 20e9  # bytes of the user's files
EVERY = 10.0  # seconds between two looks at a run
FIRST_LOOK = 15.0  # seconds that whoever reads a run for the first time waits for news of it
AT_ONCE = 4  # jobs of a table
ENDING = 120.0  # seconds that a cancelled job has to end, before another one takes its place
SEEN, SAVING = 120.0, 300.0  # as GRACE and SAVING of base.py: a request is seen in the mounted bucket after a while


class HubJobsLauncher(FolderLauncher):
    """Each run is a job.

    Its options are those of JobOptions; "" for one that is not given. token: of whoever starts the runs and sees them;
    None for the one of this machine's user. It is kept in memory only.
    """

    name = HUB_JOBS

    def __init__(
        self, store: Store, flavor: str = "", timeout: str = "", image: str = "", package: str = "",
        namespace: str = "", token: str | None = None,
    ) -> None:  # fmt: skip
        if timeout:
            seconds_in(timeout)
        super().__init__(store)
        self.given = {
            "flavor": flavor, "timeout": timeout, "image": image, "package": package, "namespace": namespace,
        }  # fmt: skip
        self.token = token
        self.tokens: dict[str, str] = {}  # run -> of whoever started it, where that is not this machine's user
        self.accounts: dict[tuple[str, str], Account] = {}  # by token and namespace: who a token is, is asked once
        self.earlier: dict[str, dict[str, str]] = {}  # run that is being resumed -> its options so far
        self.follower, self.threads = Follower(), dict[str, _Thread]()
        self.guard = threading.Lock()

    def for_visitor(self, token: str | None, **options: str) -> HubJobsLauncher:
        """The same launcher with other options, and somebody else's token; None for that of this machine's user."""
        made = HubJobsLauncher.__new__(HubJobsLauncher)
        made.__dict__.update(self.__dict__)
        made.given, made.token = {**self.given, **options}, token
        return made

    def without_options(self) -> HubJobsLauncher:
        """The same launcher for runs that are resumed with the options that they were started with."""
        return self.for_visitor(self.token, **dict.fromkeys(self.given, ""))

    def welcome(self, token: str) -> None:
        """Look after the running jobs of somebody who has just signed in; they may be older than this process.

        Raises:
            HubError: the Hub cannot be asked who it is.
        """
        for run in self.store.list():
            notes = record(run.path)
            mine = notes.get("name") == self.name and notes.get("visitors") and not notes.get("over")
            if mine and run.id not in self.tokens and self._account("", token).namespace == notes.get("namespace"):
                self.tokens[run.id] = token

    def check_flavor(self) -> None:
        """Raises UnknownNameError if the Hub has no machine of the flavor that was given; where it cannot be asked,
        that is found when a run starts."""
        with suppress(HubError):
            flavor_called(self.options().flavor, self._account(self.options().namespace).flavors())

    def options(self, earlier: Mapping[str, str] | None = None) -> JobOptions:
        """earlier: those of a run that is resumed, for what is not given."""
        given = {name: value for name, value in self.given.items() if value}
        return JobOptions(**{**(earlier or {}), **given})

    # before a run starts

    def offer(self, config: RunConfig, plan: Plan, resumed: Run | None = None) -> Offer:
        """What the Hub asks for the run, and how long it may take; nothing is sent.

        resumed: the run that is to be resumed.

        Raises:
            UserError: it cannot be a job: no token, no such flavor, too much to send, the Hub cannot be reached.
        """
        options = self.options(None if resumed is None else self._options_of(resumed))
        limit, account = seconds_in(options.timeout), self._account(options.namespace)
        flavors = account.flavors()
        flavor = flavor_called(options.flavor, flavors)
        check_device(config, flavor)
        inputs = self._inputs(config)
        taken, spread, basis = expected(plan, flavor, self.store)
        return Offer(
            flavor, tuple(flavors), limit, taken / spread, taken * spread, basis, inputs, account.bucket,
            config.device == "cpu",
        )  # fmt: skip

    def _inputs(self, config: RunConfig) -> Inputs:
        inputs = inputs_of(config, self.store)
        if inputs.bytes > MOST_SENT:
            raise RunError(
                f"The run reads {in_words(inputs.bytes)} of files of this machine, and at most {in_words(MOST_SENT)} "
                "are sent to a job. Train here, or put fewer or smaller pictures into a folder."
            )
        return inputs

    def submit(self, config: RunConfig, key: str | None = None, visitor: str = "") -> str:
        options = self.options()
        self._check(config, options, self._account(options.namespace))
        return super().submit(config, key, visitor)

    def _check(self, config: RunConfig, options: JobOptions, account: Account) -> None:
        """What is wrong is said before there is a run, or another attempt of one."""
        seconds_in(options.timeout)
        check_device(config, flavor_called(options.flavor, account.flavors()))
        self._inputs(config)

    def resume(self, run_id: str) -> None:
        run = self.store.get(run_id)
        self._token_of(run)  # another's token does not pay for a visitor's run
        self.earlier[run.id] = self._options_of(run)
        try:
            options = self.options(self.earlier[run.id])
            self._check(run.config, options, self._account(options.namespace, self.token or self.tokens.get(run.id)))
            super().resume(run.id)
        finally:
            self.earlier.pop(run.id, None)

    def _options_of(self, run: Run) -> dict[str, str]:
        """As it was started, if it was a job, also one that was given up."""
        notes = record(run.path)
        if notes.get("name") != self.name:
            notes = read_json(run.path / GIVEN_UP) or {}
        return {name: str(notes[name]) for name in self.given if name in notes}

    # FolderLauncher's four

    def start(self, run: Run, handle: int) -> None:
        """Send what the job needs and start it."""
        options = self.options(self.earlier.get(run.id))
        limit = seconds_in(options.timeout)
        token = self.token or self.tokens.get(run.id)
        account = self._account(options.namespace, token)
        flavor = flavor_called(options.flavor, account.flavors())
        before = account.job_labelled(run.id) if run.attempt > 1 else None
        if before is not None:
            _end(account, before)  # it was given up, and would write to the same place
        bucket, folder = account.make_bucket(), f"runs/{run.id}"
        given_up = (run.path / GIVEN_UP).exists()
        if before is not None and (given_up or not (run.path / CHECKPOINTS).is_dir()):
            self.follower.fetch_checkpoints(run, account, bucket, folder)
        about: dict[str, Any] = {
            "bucket": bucket, "folder": folder, "namespace": account.namespace, "flavor": flavor.name,
            "seconds": limit, "timeout": options.timeout, "image": options.image, "package": options.package,
            "per_hour": flavor.per_hour, "sent": time.time(), "visitors": token is not None,
        }  # fmt: skip
        set_owner(run.path, self.name, **about)
        job, asked = None, False
        try:
            about["inputs"] = self._send(run, account, about)
            if self.stopping():
                raise HubError("Its job was not started, because it was to stop while its files were sent.")
            asked = True
            job = account.start(
                options.image, command(options.package), flavor.name, limit, {"iekd-run": run.id}, bucket, folder, MOUNT
            )
            set_owner(run.path, self.name, **about, job=job.id, url=job.url)
        except BaseException as error:
            left = _cancelled(run, account, job) if asked else ""  # the answer may have been lost
            try:  # nothing is left that shows pictures
                account.forget(bucket, [one.path for one in account.files(bucket, folder)])
            except UserError as unasked:
                log_leftovers(run, bucket, folder, unasked)
            if left and isinstance(error, UserError):
                raise HubError(f"{error} {left}") from error
            raise
        (run.path / GIVEN_UP).unlink(missing_ok=True)  # what that job has learned is here
        if token is not None:
            self.tokens[run.id] = token
        self._follow(run)

    def _send(self, run: Run, account: Account, about: dict[str, Any]) -> list[str]:
        """Returns what of it is only for the job, by its names in the run's part of the bucket."""
        bucket, folder = str(about["bucket"]), str(about["folder"])
        inputs = self._inputs(run.config)
        with tempfile.TemporaryDirectory(prefix=".sending-", dir=self.store.root) as place:
            files: list[tuple[Path | bytes, str]] = [
                (path, f"{folder}/{RUN}/{name}") for path, name in files_of(run)
            ]  # fmt: skip
            if inputs.files:
                pack(inputs, Path(place) / INPUTS)
                files.append((Path(place) / INPUTS, f"{folder}/{INPUTS}"))
            if not about["package"]:
                pack_program(Path(place) / PROGRAM)
                files.append((Path(place) / PROGRAM, f"{folder}/{PROGRAM}"))
            needed = str(about["package"] or requirements_text())
            files.append((needed.encode(), f"{folder}/requirements.txt"))
            job = {"run": run.id, "seconds": about["seconds"]}
            files.append((json.dumps(job).encode(), f"{folder}/{JOB}"))
            sent = {name for _, name in files}
            # of an earlier attempt: a request to stop, above all
            account.forget(bucket, [one.path for one in account.files(bucket, folder) if one.path not in sent])
            account.send(bucket, files)
        return [name for name in (INPUTS, PROGRAM) if f"{folder}/{name}" in sent]

    def doubt(self, run_id: str) -> str:
        """Why what is here of a run may be old, as a sentence; "" if it is as it was seconds ago."""
        thread = self.threads.get(run_id)
        return thread.said if thread else ""

    def alive(self, run_id: str) -> bool:
        run = self.store.get(run_id)
        notes = record(run.path)
        if notes.get("over"):
            return False
        self._follow(run).first.wait(FIRST_LOOK)
        return not record(run.path).get("over")

    def hurry(self, run: Run) -> None:
        """Ask in the bucket; a job that has no machine yet is cancelled, as nothing has been learned."""
        notes = record(run.path)
        try:
            if "job" not in notes:
                raise HubError("The run is just being sent to the Hub.")
            account = self._account_of(run)
            job = account.job(notes["job"])
            if job is not None and job.status.stage not in (*OVER, "RUNNING"):
                account.cancel(notes["job"])
            request = json.dumps({"request": "stop", "time": time.time()}).encode()
            account.send(notes["bucket"], [(request, f"{notes['folder']}/control.json")])
        except HubError as error:
            (run.path / "control.json").unlink(missing_ok=True)
            raise HubError(f"{error} The run was not asked to stop; try again.") from None

    def kill(self, run: Run) -> bool:
        notes = record(run.path)
        self._account_of(run).cancel(notes["job"])
        return True

    def disown(self, run: Run) -> None:
        """Cancel the job, which costs money, and delete the pictures that it was sent, if the Hub can be asked; else
        the log says what is left."""
        notes = record(run.path)
        try:
            if "job" in notes:
                self._account_of(run).cancel(notes["job"])
        except UserError as error:
            run.event("job left", job=notes["job"], url=notes.get("url", ""), why=str(error))
            log.warning("The job of run %s may still be running and cost money: %s", run.id, notes.get("url", ""))
        if "bucket" in notes:
            forget_sent(run, notes, lambda: self._account_of(run))
        write_json(run.path / GIVEN_UP, {name: notes[name] for name in self.given if name in notes})
        super().disown(run)

    def width(self, config: RunConfig) -> int:
        """One at a time where the first trains a teacher: jobs that run at once would train, and pay for, one each."""
        trains = config.needs_teacher and find_teacher(config, self.store.root) is None
        return 1 if trains else AT_ONCE

    def stop_and_wait(self, run_id: str, grace: float = 0.0, saving: float = 0.0) -> Status:
        return super().stop_and_wait(run_id, max(grace, SEEN), max(saving, SAVING))

    def end_stuck(self, grace: float = 0.0, saving: float = 0.0) -> None:
        super().end_stuck(max(grace, SEEN), max(saving, SAVING))

    def look(self, run_id: str) -> bool:
        """Fetch what is new of a run, now; returns whether it is over.

        Raises:
            HubError: the Hub cannot be asked, or there is no token that may.
        """
        run = self.store.get(run_id)
        if run.owner != self.name:  # it was given up, or is another launcher's now
            return True
        if "job" not in record(run.path):
            self._find_job(run)
        return self.follower.look(run, self._account_of(run))

    def _find_job(self, run: Run) -> None:
        """The process that started the job died before it could note its id."""
        notes = record(run.path)
        if run.locked():
            return  # another process starts it just now
        job = self._account_of(run).job_labelled(run.id) if "bucket" in notes else None
        if job is None:
            status = Run(run.path).status
            status.state, status.ended = FAILED, time.time()
            status.error = "It was never started: the program that sent it was ended before. Resume it to try again."
            run.write_status(status)
            run.event(status.state, error=status.error)
            set_owner(run.path, **{**notes, "over": True})
        else:
            set_owner(run.path, **{**notes, "job": job.id, "url": job.url})

    def _follow(self, run: Run) -> _Thread:
        """The thread that looks at a run; there is one in each process that wants to know of it."""
        with self.guard:
            thread = self.threads.get(run.id)
            if thread is None or not thread.is_alive():
                thread = self.threads[run.id] = _Thread(self, run.id)
                thread.start()
            return thread

    def _account(self, namespace: str, token: str | None = None) -> Account:
        from iekd.hub.push import machine_token

        found = token or self.token or machine_token()
        return self.accounts.setdefault((found, namespace), Account(found, namespace))

    def _account_of(self, run: Run) -> Account:
        """With the token of whoever started the run. Raises HubError as `_token_of`."""
        return self._account(str(record(run.path).get("namespace", "")), self._token_of(run))

    def _token_of(self, run: Run) -> str | None:
        """None for this machine's user.

        Raises:
            HubError: it is a visitor's, who is not here any more.
        """
        token = self.tokens.get(run.id) or self.token
        if token is None and record(run.path).get("visitors"):
            raise HubError(f"The job of the run '{run.id}' is a visitor's, and only their login can be used for it.")
        return token


class _Thread(threading.Thread):
    """Looks at a run until it is over. first: set after the first look, whether it succeeded or not."""

    def __init__(self, launcher: HubJobsLauncher, run_id: str) -> None:
        super().__init__(name=f"look-at-{run_id}", daemon=True)
        self.launcher, self.run_id, self.first = launcher, run_id, threading.Event()
        self.said = ""  # why the last look failed

    def run(self) -> None:
        while True:
            try:
                if self.launcher.look(self.run_id):
                    break
                self.said = ""
            except RunError:  # it was deleted
                break
            except UserError as error:  # the Hub cannot be asked; the run stays as it was seen last
                if str(error) != self.said:
                    log.warning("action=look run=%s %s", self.run_id, error)
                self.said = str(error)
            except Exception:
                log.exception("action=look run=%s", self.run_id)
            self.first.set()
            time.sleep(EVERY)
        self.first.set()


def _end(account: Account, job: Any) -> None:
    """Cancel a job, unless it is over, and wait until it is.

    Raises:
        HubError: it goes on; or the Hub cannot be asked.
    """
    if job.status.stage in OVER:
        return
    account.cancel(job.id)
    deadline = time.monotonic() + ENDING
    while (now := account.job(job.id)) is not None and now.status.stage not in OVER:
        if time.monotonic() > deadline:
            raise HubError(
                f"The run's earlier job has not ended {ENDING:.0f} s after it was cancelled, and still writes to the "
                f"bucket: {job.url}. Resume the run once it is over."
            )
        time.sleep(1.0)


def _cancelled(run: Run, account: Account, job: Any | None) -> str:
    """Have no job left that costs money. job: None if it is not known whether there is one.

    Returns what to say, and logs it, if there may be one nevertheless; else "".
    """
    try:
        left = job or account.job_labelled(run.id)
        if left is not None and left.status.stage not in OVER:
            account.cancel(left.id)
    except UserError as error:
        who = account.namespace
        said = (
            f"A job of {who} with the label iekd-run={run.id} may be running and cost money. Look for it with "
            f"'hf jobs ps --namespace {who}', and end it with 'hf jobs cancel'."
        )
        log.warning("action=start run=%s %s (%s)", run.id, said, error)
        return said
    return ""


def command(package: str) -> str:
    """What the job's shell executes: install, then train. One line, in a shell that may be a very plain one."""
    needed = f"{MOUNT}/requirements.txt"
    install = (
        f"if command -v uv >/dev/null 2>&1; then uv pip install --system --break-system-packages -q -r {needed}; "
        f"else python -m pip install -q -r {needed}; fi"
    )
    unpack = "" if package else f" && python -m zipfile -e {shlex.quote(f'{MOUNT}/{PROGRAM}')} /tmp/iekd-program"
    found = "" if package else "PYTHONPATH=/tmp/iekd-program "
    train = f'{found}exec python -m iekd.launchers.in_job {MOUNT} --began "$began"'
    return f"began=$(date +%s); cd /tmp && {install}{unpack} && {train}"
