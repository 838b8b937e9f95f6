"""Runs in a Ray cluster, each as a Ray job.

The job's command, on the head node, is ray_job.py: it asks Ray for a place with the CPUs and the part of a GPU that the
run wants, has the worker started there, and again elsewhere when that node dies. So the job is the run's lease, and
nothing depends on this launcher, which starts, looks up and stops jobs over HTTP (ray_cluster.py). The folder of runs
must have the same path on all nodes and here, on storage that they share.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import shlex
import sys
import threading
import time
from pathlib import Path
from typing import Any

from iekd import plugins
from iekd.config.run import RunConfig
from iekd.errors import UserError
from iekd.launchers.base import FolderLauncher
from iekd.launchers.ray_cluster import (
    AUTO,
    FINDING,
    SUBMITTING,
    TIMEOUT,
    Cluster,
    UnreachableError,
    as_url,
    find_cluster,
)
from iekd.paths import PACKAGE, python_path
from iekd.runs.lease import FILE, GONE, bar, take_away
from iekd.runs.owner import RECORD, record, set_owner
from iekd.runs.store import Run, Store
from iekd.runs.variables import NPROC

FRESH, AGAIN = 1.0, 10.0  # seconds that an answer is used; that one which did not come is not asked for again
STARTING = FINDING + SUBMITTING + 2 * TIMEOUT  # seconds at most until a run has a job
CPUS = 1.0  # of a run, unless another number is asked for


class RayLauncher(FolderLauncher):
    """Looks after the runs of every cluster; new ones go to that of `address`."""

    name = "ray"

    def __init__(
        self, store: Store, address: str = "", cpus: float | None = None, gpus: float | None = None
    ) -> None:  # fmt: skip
        """Asks nothing yet.

        Args:
            address: "auto" or "": the cluster of this machine; or HOST:PORT of a dashboard.
            cpus: that each run reserves.
            gpus: the part of a GPU that each run reserves, 0 to 1; None: 1 if the cluster has GPUs and the run may use
                one.
        Raises:
            UserError: one of them cannot be used.
        """
        super().__init__(store)
        self.address = as_url(address) if address not in ("", AUTO) else ""
        if cpus is not None and not 0 < cpus < math.inf:
            raise UserError(f"Option --cpus {cpus:g} cannot be used: give a number above 0.")
        if gpus is not None and not 0 <= gpus <= 1:
            raise UserError(f"Option --gpus {gpus:g} cannot be used: a run has one GPU. Give a number from 0 to 1.")
        self.cpus, self.gpus = cpus, gpus
        self._lock = threading.Lock()  # of _asking
        self._asking: dict[str, threading.Lock] = {}  # address -> held while its cluster is asked
        self._seen: dict[str, tuple[float, bool]] = {}  # job -> (until when that holds, whether it lives)
        self._down: dict[str, tuple[float, str]] = {}  # address -> (until when it is not asked, why)
        self._resumed: dict[
            str, dict[str, Any]
        ] = {}  # run -> what was noted of its earlier attempt, while it is started

    def cluster(self) -> Cluster:
        """Where new runs go; looked for once."""
        self.address = self.address or find_cluster()
        return Cluster(self.address)

    def start(self, run: Run, handle: int) -> None:
        before = self._resumed.get(run.id, {})
        cluster = Cluster(before["address"]) if before.get("address") and not self.address else self.cluster()
        cpus = self.cpus or before.get("cpus") or CPUS
        gpus = self._gpus(run.config, cluster, before.get("gpus"))
        job = f"iekd-{run.id}-{run.attempt}-{secrets.token_hex(3)}"
        set_owner(run.path, self.name, job=job, address=cluster.address, cpus=cpus, gpus=gpus)
        try:
            cluster.submit(job, _command(run, job), _environment())
        except BaseException:  # an answer that was lost, say: the job may have begun
            self._withdraw(run, cluster, job)
            raise

    def _withdraw(self, run: Run, cluster: Cluster, job: str) -> None:
        """Have a job, which may have begun or may begin later, write nothing to the run. It takes the folder before it
        looks whether the run is still its own, so here the order is the other."""
        with contextlib.suppress(OSError):  # what went wrong first is what the caller hears of
            set_owner(run.path, self.name)
            take_away(run.path)
        with contextlib.suppress(UnreachableError):
            cluster.stop(job)

    def resume(self, run_id: str) -> None:
        run = self.store.get(run_id)
        before = record(run.path) if run.owner == self.name else {}
        # asked first: a run that cannot be handed over stays as it was
        (Cluster(before["address"]) if before.get("address") and not self.address else self.cluster()).nodes()
        self._resumed[run_id] = before
        try:
            super().resume(run_id)
        finally:
            self._resumed.pop(run_id, None)  # somebody else may have resumed it at the same time

    def width(self, config: RunConfig) -> int:
        gpus = self._gpus(config, self.cluster())
        return max(1, sum(_room(node, self.cpus or CPUS, gpus) for node in self.cluster().nodes()))

    def _gpus(self, config: RunConfig, cluster: Cluster, before: float | None = None) -> float:
        """The part of a GPU that a run reserves. before: in its earlier attempt."""
        gpus = self.gpus if self.gpus is not None else before
        kind = config.device.partition(":")[0]
        if gpus is not None and ((kind == "cpu" and gpus) or (kind == "cuda" and not gpus)):
            raise UserError(f"Option --gpus {gpus:g} does not go with --device {config.device}. Leave one of them out.")
        if gpus is None:
            has = kind == "auto" and any(node.get("GPU") for node in cluster.nodes())
            gpus = 1.0 if has or kind == "cuda" else 0.0
        return gpus

    def alive(self, run_id: str) -> bool:
        return self._look(run_id)[0]

    def doubt(self, run_id: str) -> str:
        return self._look(run_id)[1]

    def _look(self, run_id: str) -> tuple[bool, str]:
        """(whether the run's job lives, why that is unknown)."""
        path = self.store.get(run_id).path
        noted = record(path)
        job, address = str(noted.get("job", "")), str(noted.get("address", ""))
        if not job:
            return self._is_starting(path), ""
        with self._lock:
            asking = self._asking.setdefault(address, threading.Lock())
        with asking:  # one question to a cluster at a time; whoever waits for it then finds the answer
            now = time.monotonic()
            until, why = self._down.get(address, (0.0, ""))
            if now < until:
                return True, why
            until, lives = self._seen.get(job, (0.0, False))
            if now < until:
                return lives, ""
            try:
                ended = Cluster(address).ended(job)
            except UnreachableError as error:
                why = f"{error} This is the last state that it wrote."
                self._down[address] = time.monotonic() + AGAIN, why
                return True, why
            # the worker of a job that was ended by force, whose lease is still there, lives a moment longer
            lives = ended is None or ((path / FILE).exists() and time.time() - ended < GONE)
            # one that the cluster does not know may be on its way there
            self._seen[job] = time.monotonic() + FRESH if lives or not ended else float("inf"), lives
            return lives, ""

    def _is_starting(self, path: Path) -> bool:
        """Whether a run without a job may get one soon. Its lock says so too, where the storage has file locks."""
        try:
            return time.time() - (path / RECORD).stat().st_mtime < STARTING
        except OSError:
            return False

    def kill(self, run: Run) -> bool:
        noted = record(run.path)
        if not noted.get("job"):
            return False
        try:
            Cluster(noted["address"]).stop(noted["job"])
        except UnreachableError:
            return False
        return True

    def disown(self, run: Run) -> None:
        super().disown(run)
        bar(run.path)  # should its node still be there, the worker ends itself


def _room(node: dict[str, float], cpus: float, gpus: float) -> int:
    """How many runs fit on a node."""
    room = node.get("CPU", 0.0) / cpus + 1e-9
    return int(min(room, node.get("GPU", 0.0) / gpus + 1e-9) if gpus else room)


def _command(run: Run, job: str) -> str:
    """For the head node's shell. This Python if it is there too, as in a container or on a shared disk; else the one on
    the PATH that Ray was started with. What it says is in the run's log."""
    python, folder, log = (
        shlex.quote(sys.executable),
        shlex.quote(str(run.path)),
        shlex.quote(str(run.path / "log.txt")),
    )
    return f'P={python}; [ -x "$P" ] || P=python; exec "$P" -m iekd.launchers.ray_job {folder} {job} >>{log} 2>&1'


def _environment() -> dict[str, str]:
    """Our own settings, and the way to this package where it is not installed. No secrets: the dashboard shows it."""
    ours = {
        name: value for name, value in os.environ.items()
        if name.startswith("IEKD_") and "TOKEN" not in name and name != NPROC  # of this machine
    }  # fmt: skip
    installed = "site-packages" in PACKAGE.parts
    return {**ours, **plugins.environment(), **({} if installed else {"PYTHONPATH": python_path()})}
