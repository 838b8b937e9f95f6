"""The process that trains one run: `python -m iekd.runs.worker RUN_DIR [--lock FD] [--lifeline] [--holder TOKEN]`.
The command line calls `execute`.

It waits for its turn on the device, trains (training.py), and leaves exactly one final state. Not here: what training
does (engine/), and who started it (launchers/, cli/).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from iekd.errors import UserError, as_text
from iekd.runs.checkpoints import Checkpoints
from iekd.runs.copies import Copies
from iekd.runs.lease import holds
from iekd.runs.owner import LOCAL
from iekd.runs.processes import Place, nproc, together
from iekd.runs.queue import ahead_of, device_turn, several_slots
from iekd.runs.shared_teacher import SharedTeacher
from iekd.runs.slots import Slot, device_name
from iekd.runs.status import FAILED, FINISHED, QUEUED, STOPPED, Status
from iekd.runs.status_writer import StatusWriter, Watcher
from iekd.runs.store import CHECKPOINTS, Run, Store
from iekd.runs.training import Stopped, Training
from iekd.runs.variables import COPY_TO

log = logging.getLogger("iekd")
RESERVE = 64 * 1024  # bytes
# how systems and CUDA's libraries say that memory is short
NO_MEMORY = (
    "out of memory", "can't allocate memory", "status_alloc_failed", "unable to find an engine to execute",
)  # fmt: skip


def execute(
    run: Run, stop: Callable[[], bool], watch: Watcher | None = None, place: Place | None = None, holder: str = ""
) -> Status:
    """Train a run whose lock the caller holds; returns its final status.

    stop: asked between steps; True ends the run as `stopped`.
    watch: see StatusWriter.
    place: the first of the processes that torchrun has started; None: this process starts others where it should.
    holder: what says that this worker may write to the folder (lease.py); "" where a lock says so.
    """
    me = psutil.Process()
    status = replace(
        run.status, state=QUEUED, pid=me.pid, pid_started=me.create_time(), error=None, slot="", yields=False
    )
    writer, store = StatusWriter(run, status, watch), Store(run.path.parent)
    run.write_status(status)
    reserve = run.path / ".reserve"  # room for the final state on a disk that is full
    copies = Copies(run, os.environ.get(COPY_TO, ""))
    with _log_to(run.path / "log.txt"), copies:
        try:
            reserve.write_bytes(bytes(RESERVE))
            if waiting := len(ahead_of(run, store)):
                log.info("Waiting for %d earlier run(s) on this device.", waiting)
            with _turn(run, store, stop, writer, place) as mine:
                if mine is None:
                    raise Stopped
                with together(run, place, mine, partial(_abandon, run, writer)) as team:
                    Training(run, writer, stop, team).train()
            status.state = FINISHED
            status.progress = status.stage_progress = 1.0
        except (Stopped, KeyboardInterrupt):
            status.state = STOPPED
        except UserError as error:
            status.state, status.error, status.would_repeat = FAILED, str(error), error.would_repeat
        except BaseException as error:
            status.state, status.error = FAILED, error_sentence(error)
            log.exception("Training failed")
        if holder and not holds(run.path, holder):
            log.warning("Another attempt has the run, so this one leaves no final state.")
            return status
        reserve.unlink(missing_ok=True)
        status.ended = time.time()
        status.eta_seconds = status.eta_range = None
        status.waiting = ""
        log.info("The run is %s.%s", status.state, f" {status.error}" if status.error else "")
        run.write_status(status)
        run.event(status.state, **({"error": status.error} if status.error else {}))
        if status.state == FINISHED:
            Checkpoints(run.path / CHECKPOINTS).remove()
        copies.copy_at_last(status)
        if watch:
            watch(status, None)
    return status


def _abandon(run: Run, writer: StatusWriter, why: str) -> None:
    """Leave the final state from another thread, where training hangs because another process is gone."""
    status = writer.status
    status.state, status.error, status.ended = FAILED, why, time.time()
    status.eta_seconds = status.eta_range = None
    if os.environ.get(COPY_TO):
        status.copy_error = "There is no last copy of this run: its process had to end at once. Resume it to have one."
    log.error("The run is %s. %s", FAILED, why)
    (run.path / ".reserve").unlink(missing_ok=True)
    run.write_status(status)
    run.event(FAILED, error=why)
    sys.stderr.write(f"{why}\n")
    os._exit(1)


@contextlib.contextmanager
def _turn(
    run: Run, store: Store, stop: Callable[[], bool], writer: StatusWriter, place: Place | None
) -> Iterator[tuple[Slot, ...] | None]:
    """Wait until the run may train, and yield its slots, none where others look after that; None if it was asked to
    stop first."""
    # that launcher, or whoever has started torchrun, starts the worker when it is the run's turn, on chosen devices
    if run.owner != LOCAL or place is not None:
        yield None if stop() else ()
        return
    status, count = writer.status, nproc() if device_name(run.config.device) == "cuda" else 1
    with SharedTeacher(run) as teacher:

        def ready() -> bool:
            found = teacher.ready()
            if not found and not status.yields:
                status.yields = True
                writer.wait("Waiting for the teacher, which another run is training.")
            return found

        with contextlib.ExitStack() as held:
            if count > 1:
                taken = held.enter_context(several_slots(run, store, stop, count, writer.wait, ready))
            else:
                one = held.enter_context(device_turn(run, store, stop, tell=writer.wait, ready=ready))
                taken = None if one is None else (one,)
            status.yields = False
            if taken is not None:
                taken[0].use()
                status.slot = ",".join(slot.name for slot in taken)
            yield taken


def error_sentence(error: BaseException) -> str:
    """One sentence for any error: its own if it is a UserError, else what happened and what to try."""
    text = as_text(str(error)).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, UserError):
        return text
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in NO_MEMORY):
        return "Out of memory. Use a smaller batch size, fewer seeds or methods at once, or a smaller model."
    if "no space left" in text.lower() or getattr(error, "errno", None) == 28:
        return "The disk is full. Free some space, then start the run again."
    return f"Unexpected error ({type(error).__name__}: {text}). The log has the details."


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("iekd")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()


def stop_on_signals(run: Run | None = None) -> Callable[[], bool]:
    """A stop() that turns true on SIGTERM, SIGINT, SIGHUP or a written request for that run; a second SIGINT stops
    without waiting for the step."""
    asked: list[int] = []

    def on_signal(number: int, _: object) -> None:
        if number == signal.SIGINT and asked:
            raise KeyboardInterrupt
        asked.append(number)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # its terminal was closed; nohup ignores that
        signal.signal(signal.SIGHUP, on_signal)
    return lambda: bool(asked) or (run is not None and run.stop_requested)


def _end_with_input() -> None:
    """Whoever started this process holds the other end of its standard input, and must not be outlived."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)  # the children too


def main() -> int:
    gc.disable()  # torch's import makes a million objects, and none is garbage; Training enables it again
    parser = argparse.ArgumentParser(description="Train one run (started by iekd itself).")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--lock", type=int, help="inherited descriptor of the run's lock")
    parser.add_argument("--lifeline", action="store_true", help="end at once when standard input ends")
    parser.add_argument("--holder", default="", help="end without a final state once another holder has the folder")
    arguments = parser.parse_args()
    if arguments.lifeline:
        threading.Thread(target=_end_with_input, daemon=True).start()
    run = Run(arguments.run_dir)
    handle = arguments.lock
    if handle is None and run.owner == LOCAL:  # another launcher knows by itself whether its worker lives
        handle = run.lock()
    if handle is not None:
        os.set_inheritable(handle, False)
    status = execute(run, stop_on_signals(run), holder=arguments.holder)
    return 0 if status.state in (FINISHED, STOPPED) else 1


if __name__ == "__main__":
    sys.exit(main())
