"""How long networks take for one image on this machine, measured in the background for the page's form.

A process of its own measures one network at a time, only while no run has the device, and ends when it has taken too
long. The results are stored beside the runs. Set `IEKD_PROBE=0` to measure nothing.
"""

from __future__ import annotations

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
from pathlib import Path

from iekd import plugins
from iekd.config.run import RunConfig
from iekd.data.base import DatasetInfo
from iekd.models import hub_configs
from iekd.paths import python_path
from iekd.runs.files import read_json, write_json
from iekd.runs.probes import held
from iekd.runs.queue import device_free
from iekd.runs.slots import device_name
from iekd.runs.store import Store

log = logging.getLogger(__name__)
LONGEST = 30.0  # seconds of a measurement, building the network included
WARM_UP, LEAST, MOST = 3, 10, 30  # passes before; after them, at least and at most
ENOUGH, PATIENCE = 2.0, 10.0  # seconds after which LEAST will do, and after which fewer do


class Latencies:
    """What is known for a folder of runs, and the one process that measures more."""

    def __init__(self, store: Store) -> None:
        self.store, self.folder = store, store.root / ".speeds"

    def known(self, name: str, config: RunConfig, info: DatasetInfo) -> float | None:
        """Seconds for one image; None if that was not measured, or could not be."""
        found = read_json(self._result(_request(name, config, info)))
        seconds = found.get("seconds") if isinstance(found, dict) else None
        return float(seconds) if isinstance(seconds, (int, float)) else None

    def ask(self, names: list[str], config: RunConfig, info: DatasetInfo) -> bool:
        """Measure the first of these networks that was not yet.

        Returns:
            Whether a measurement is running now.
        """
        requests = [_request(name, config, info) for name in names]
        missing = [request for request in requests if read_json(self._result(request)) is None]
        if not missing or os.environ.get("IEKD_PROBE") == "0" or not device_free(config, self.store):
            return False
        with held(self.folder / "latency.lock") as turn:
            if turn is None:
                return True
            asked = {**missing[0], "networks": hub_configs.of_these([str(missing[0]["model"])])}
            with open(self.folder / "latency.txt", "wb") as output:
                # the process inherits the lock, which says that it lives
                subprocess.Popen(
                    [sys.executable, "-m", "iekd.runs.latencies", json.dumps(asked), str(self._result(missing[0]))],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[turn], start_new_session=True,
                    env={**os.environ, "PYTHONPATH": python_path(), **plugins.environment()},
                )  # fmt: skip
        return True

    def _result(self, request: dict[str, object]) -> Path:
        here = [importlib.metadata.version("torch"), platform.node(), os.cpu_count(), "shortest"]
        key = hashlib.sha256(json.dumps([request, here], sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"latency-{key}.json"


def _request(name: str, config: RunConfig, info: DatasetInfo) -> dict[str, object]:
    return {
        "model": name, "classes": info.classes, "channels": info.channels,
        "side": config.resolution or info.resolution, "device": device_name(config.device),
    }  # fmt: skip


def measure(model: str, classes: int, channels: int, side: int, device: str) -> float:
    """Seconds that a network takes for one image (1,C,H,W) in float32: the shortest of several passes, because whatever
    else the machine does only makes them longer."""
    import torch

    from iekd.engine.accelerate import channels_last, choose_device
    from iekd.models.registry import build

    place = choose_device(device)
    network = channels_last(build(model, classes, channels).eval(), place)
    image, times = torch.zeros(1, channels, side, side, device=place), list[float]()
    with torch.inference_mode():
        while not _are_enough(times):
            began = time.perf_counter()
            network(image)
            if place.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
    return min(times[WARM_UP:])


def _are_enough(times: list[float]) -> bool:
    """Whether these seconds, of passes in a row, can be judged."""
    passes, taken = len(times) - WARM_UP, sum(times)
    return passes >= 1 and (passes >= MOST or taken >= PATIENCE or (passes >= LEAST and taken >= ENOUGH))


def main() -> int:
    asked, result = json.loads(sys.argv[1]), Path(sys.argv[2])
    os.nice(5)  # the page comes first
    write_json(result, {"failed": "ended without a result"})  # as a process that is killed leaves it
    hub_configs.remember(asked.pop("networks"))
    try:
        write_json(result, {"seconds": measure(**asked)})
    except Exception as error:  # not asked again
        log.exception("Nothing was measured")
        write_json(result, {"failed": str(error)})
    return 0


def _end_late() -> None:
    time.sleep(LONGEST)
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_late, daemon=True).start()  # it ends the whole process
    sys.exit(main())
