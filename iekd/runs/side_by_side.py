"""Several runs that belong together, trained at the same time by a launcher: a table's, or one whose seeds are spread
over devices."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from iekd.config.run import RunConfig, make_config
from iekd.errors import UserError
from iekd.runs.gpus import gpus
from iekd.runs.siblings import note_extension
from iekd.runs.slots import device_name, slots
from iekd.runs.store import Run, Store
from iekd.runs.variables import COPY_TO

log = logging.getLogger(__name__)
POLL = 0.3  # seconds
PATIENCE = 30.0  # seconds that runs are waited for which should stop, when the places that train them do not answer
AUTO = "auto"


class Starter(Protocol):
    """The part of a launcher that is needed here."""

    @property
    def store(self) -> Store: ...

    def submit(self, config: RunConfig, key: str | None = None, visitor: str = "") -> str: ...

    def request_stop(self, run_id: str) -> None: ...

    def end_stuck(self) -> None: ...


def train_all(
    jobs: Sequence[Callable[[], Run]], launcher: Starter, width: int, stop: Callable[[], bool],
    follow: Callable[[Mapping[int, Run]], None],
    ready: Callable[[int, Mapping[int, Run]], bool] = lambda job, training: True,
) -> list[Run | None]:  # fmt: skip
    """Start every job, at most `width` at a time, and wait until their runs are over.

    Args:
        jobs: each starts a run and returns it.
        stop: whether to start no more, and to stop those that train; what does not stop by itself is ended.
        follow: called a few times a second with the runs that are not over, by the number of their job.
        ready: whether a job may start while those train; later ones may start before it.
    Returns:
        The runs in the order of the jobs; None for one that was not started. One whose place does not answer when it
        should stop may still be live.
    Raises:
        UserError: a run could not be started; raised when those that had been are over.
    """
    refused: UserError | None = None
    runs: list[Run | None] = [None] * len(jobs)
    training: dict[int, Run] = {}
    waiting, asked, unanswered = list(range(len(jobs))), set[int](), 0.0
    said = set[str]()
    while training or (waiting and not stop()):
        for job in list(waiting):
            if len(training) < width and not stop() and ready(job, training):
                waiting.remove(job)
                try:
                    runs[job] = training[job] = jobs[job]()
                except UserError as error:
                    if not training:
                        raise
                    refused = error
                    waiting.clear()
                    log.warning("%s No more runs are started; those that train go on.", error)
                    break
        if stop():
            asked |= {job for job, run in training.items() if job not in asked and _ask_to_stop(run, launcher, said)}
            _end_stuck(launcher, said)
        follow(training)
        training = {job: run for job, run in training.items() if run.status.live or (not stop() and _copies(run))}
        if not (stop() and training and all(run.status.doubt for run in training.values())):
            unanswered = 0.0
        elif time.monotonic() - (unanswered := unanswered or time.monotonic()) > PATIENCE:
            for job, run in training.items():
                asked_to = "It was asked to stop" if job in asked else "It could not be asked to stop"
                log.warning("%s %s; 'iekd runs show %s' says later how it is.", run.status.doubt, asked_to, run.id)
            return runs
        if training:
            time.sleep(POLL)
    follow(training)
    if refused is not None:
        raise refused
    return runs


def _copies(run: Run) -> bool:
    """Whether its worker may still copy the run to another place, and will say so if it cannot."""
    return bool(os.environ.get(COPY_TO)) and run.alive()


def _end_stuck(launcher: Starter, said: set[str]) -> None:
    """Those that were asked to stop and do not are ended after a while; a job that is paid for must not go on."""
    try:
        launcher.end_stuck()
    except UserError as error:
        _warn_once(str(error), said)


def _ask_to_stop(run: Run, launcher: Starter, said: set[str]) -> bool:
    """Whether that was possible; it is tried again otherwise, and no run keeps the others from being asked."""
    try:
        launcher.request_stop(run.id)
    except UserError as error:
        if run.status.live:  # it has not just ended
            _warn_once(str(error), said)
            return False
    return True


def _warn_once(why: str, said: set[str]) -> None:
    if why not in said:
        said.add(why)
        log.warning("%s", why)


def spread(config: RunConfig, devices: str) -> list[RunConfig]:
    """One configuration for each device, with a block of the seeds each, as even as possible.

    Args:
        devices: "auto", as many as there are, of which each run takes one that is free; or numbers of GPUs as in "0,1".
    Raises:
        UserError: there are no such GPUs, or only one device.
    """
    if devices == AUTO:
        places = [config.device] * len(slots(config.device))
    elif config.device not in (AUTO, "cuda"):
        raise UserError(
            f"Devices '{devices}' are GPUs, and device is '{config.device}'. Leave one of the two options out."
        )
    else:
        places = [f"cuda:{number}" for number in _numbers(devices)]
    if len(places) < 2:
        raise UserError(
            f"Devices '{devices}' cannot be used: the seeds of a run are spread over several devices, and here is one. "
            "Leave the option out."
        )
    count = min(len(places), len(config.seeds))
    blocks = [config.seeds[len(config.seeds) * i // count : len(config.seeds) * (i + 1) // count] for i in range(count)]
    return [
        make_config(**{**config.model_dump(), "device": place, "seeds": seeds})
        for place, seeds in zip(places, blocks, strict=False)
    ]


def _numbers(devices: str) -> list[int]:
    words = [word for word in devices.replace(" ", ",").split(",") if word]
    count = len(gpus()) if device_name("auto") == "cuda" else 0
    wrong = next((word for word in words if not word.isdecimal() or int(word) >= count), None)
    if wrong is not None or not words or len(set(map(int, words))) < len(words):
        there = f"this machine's are 0 to {count - 1}" if count else "this machine has none"
        raise UserError(
            f"Devices '{devices}' cannot be used: give 'auto', or the numbers of different GPUs, such as 0,1; {there}."
        )
    return [int(word) for word in words]


def jobs_of(parts: Sequence[RunConfig], launcher: Starter) -> list[Callable[[], Run]]:
    """Jobs for `train_all` of the configurations that `spread` gave: the later runs add their seeds to the first."""
    started: list[Run] = []

    def start(config: RunConfig) -> Run:
        run = launcher.store.get(launcher.submit(config))
        if started:
            note_extension(run, started[0], planned=True)
        started.append(run)
        return run

    return [lambda config=config: start(config) for config in parts]  # type: ignore[misc]
