"""`--launcher hf-jobs`: what is said, and at a terminal asked, before a job starts that costs money."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from iekd.cli.common import err
from iekd.plural import counted

if TYPE_CHECKING:
    from iekd.launchers.base import Launcher
    from iekd.launchers.by_owner import ByOwner
    from iekd.runs.prepare import Prepared
    from iekd.runs.store import Run


def asks_money(launcher: str) -> bool:
    """Whether the runs of the launcher of that name are paid for."""
    from iekd.launchers.hub_jobs import HUB_JOBS

    return launcher == HUB_JOBS


def as_choice(launcher: ByOwner) -> ByOwner:
    """For a page: whoever starts a run chooses whether to pay for a job.

    Raises:
        UserError: the flavor that is to be offered does not exist.
    """
    from iekd.launchers.hub_jobs import HubJobsLauncher

    hub = launcher.new
    assert isinstance(hub, HubJobsLauncher)
    hub.check_flavor()
    return launcher.as_choice(hub.without_options())


def say_offer(prepared: Prepared, launcher: Launcher, yes: bool, jobs: int = 1, resumed: Run | None = None) -> None:
    """On standard error: price, time, the most that it can cost, and what is uploaded; then, at a terminal, a question.

    Args:
        prepared: of the run, or of the first of a table's.
        yes: do not ask.
        jobs: how many are started. resumed: the run, if it is not a new one.
    Raises:
        UserError: there can be no such job.
        typer.Abort: the answer is no.
    """
    from iekd.estimate.cost import plan_of
    from iekd.launchers.hub_jobs import HubJobsLauncher
    from iekd.times import time_range

    assert isinstance(launcher, HubJobsLauncher)
    plan = plan_of(prepared.config, prepared.info, prepared.teacher is not None)
    offer = launcher.offer(prepared.config, plan, resumed)
    for said in offer.sentences(time_range(offer.low, offer.high)):
        err.print(escape(said), highlight=False, soft_wrap=True)
    if jobs > 1:
        err.print(f"That is of one job; {counted(jobs, 'job')} will be started.", highlight=False, soft_wrap=True)
    if sys.stdin.isatty() and not yes:
        typer.confirm("Start it?" if jobs == 1 else "Start them?", abort=True, err=True)
