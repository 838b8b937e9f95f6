"""How fast this machine would train a configuration, measured in the background for the page's estimate.

A process of its own measures one configuration at a time on noise (`estimate.probe`), only while no run has the device,
and ends at once when one starts. The results are stored beside the runs, so that nothing is measured twice.
Set `IEKD_PROBE=0` to measure nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from iekd import __version__, data, plugins
from iekd.config.run import ABOUT, RunConfig
from iekd.data.memory import free_memory
from iekd.errors import UserError
from iekd.estimate.cost import plan_of
from iekd.estimate.speeds import Speeds
from iekd.paths import python_path
from iekd.runs.files import read_json, write_json
from iekd.runs.locks import fcntl
from iekd.runs.queue import device_free
from iekd.runs.store import Store

log = logging.getLogger(__name__)

# what the time of a step does not depend on
IRRELEVANT = frozenset(name for name, about in ABOUT.items() if not about.step_time)
LONGEST = 60.0  # seconds; networks that take longer are estimated from their arithmetic
BUSY, AGAIN = 0.3, 120.0  # cores that others used meanwhile, and seconds after which that measurement is repeated
OTHERS = "others"  # of a result: cores that other programs used


class Probes:
    """The speeds that are known for a folder of runs, and the one process that measures more."""

    def __init__(self, store: Store) -> None:
        self.store, self.folder = store, store.root / ".speeds"

    def known(self, config: RunConfig) -> Speeds | None:
        """What was measured for that configuration; None if nothing was, or could be."""
        found = read_json(self._result(config))
        if not isinstance(found, dict) or "failed" in found:
            return None
        try:
            return Speeds.from_json({name: value for name, value in found.items() if name != OTHERS})
        except UserError:  # of another version
            return None

    def disturbed(self, config: RunConfig) -> bool:
        """Whether other programs used the machine while that configuration was measured."""
        found = read_json(self._result(config))
        return isinstance(found, dict) and found.get(OTHERS, 0.0) > BUSY

    def ask(self, config: RunConfig) -> bool:
        """Measure that configuration in the background, unless it is known, too large, or the device is busy. What was
        measured beside other programs is measured again after a while.

        Returns:
            Whether a measurement, of this or another configuration, is running now.
        """
        result = self._result(config)
        again = self.disturbed(config) and time.time() - result.stat().st_mtime > AGAIN
        if os.environ.get("IEKD_PROBE") == "0" or (self.known(config) is not None and not again):
            return False
        if not device_free(config, self.store):
            return False
        with held(self.folder / "lock") as turn:
            if turn is None:
                return True
            if (read_json(result) is not None and not again) or not _fits(config):
                return False
            request = self.folder / "request.json"
            write_json(request, config.model_dump(mode="json"))
            with open(self.folder / "log.txt", "wb") as output:
                # the process inherits the lock, which says that it lives
                subprocess.Popen(
                    [sys.executable, "-m", "iekd.runs.probes", str(self.store.root), str(request), str(result)],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[turn], start_new_session=True,
                    env={**os.environ, "PYTHONPATH": python_path(), **plugins.environment()},
                )  # fmt: skip
        return True

    def _result(self, config: RunConfig) -> Path:
        """A file for everything that the time of a step depends on."""
        asked = config.model_dump(mode="json", exclude=set(IRRELEVANT))
        asked["seeds"] = len(config.seeds)
        if asked["threads"] == "auto":  # what was measured before there was a choice stays valid
            del asked["threads"]
        # a folder of runs may be shared by machines, and outlives their software
        asked["here"] = [__version__, importlib.metadata.version("torch"), platform.node(), os.cpu_count()]
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"{name}.json"


def _fits(config: RunConfig) -> bool:
    """Whether a step of it certainly fits into memory: nobody has pressed Start, so nothing else may suffer."""
    info = data.describe(config.dataset, config.test_fraction)
    return plan_of(config, info, teacher_at_hand=True).memory < free_memory() / 2


@contextlib.contextmanager
def held(path: Path) -> Iterator[int | None]:
    """A descriptor that holds the lock of that file while the block lasts; None if another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        held = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = False
        yield handle if held else None
    finally:
        os.close(handle)  # a process that inherited it still holds the lock


def _give_way(config: RunConfig, store: Store, result: Path) -> None:
    """End this process when a run wants the device, or when it takes too long."""
    began = time.monotonic()
    while time.monotonic() - began < LONGEST:
        if not device_free(config, store):
            result.unlink(missing_ok=True)
            os._exit(0)
        time.sleep(0.5)
    write_json(result, {"failed": f"longer than {LONGEST:.0f} s"})
    os._exit(0)


def main() -> int:
    store, request, result = Store(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
    config = RunConfig(**json.loads(request.read_text()))
    os.nice(5)  # the page comes first
    if read_json(result) is None:
        write_json(result, {"failed": "ended without a result"})  # as a process that is killed leaves it
    threading.Thread(target=_give_way, args=(config, store, result), daemon=True).start()
    from iekd.engine.threads import Load
    from iekd.estimate.probe import probe

    try:
        load = Load()
        found = probe(config).to_json()
        others = load() or 0.0
        write_json(result, {**found, OTHERS: round(others, 1)} if others > BUSY else found)
    except Exception as error:  # not asked again: the estimate goes on without
        log.exception("Nothing was measured")
        write_json(result, {"failed": str(error)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
