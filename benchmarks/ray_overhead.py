"""What Ray adds to a run: seconds of a run beyond its own, and how old its metrics are when the page can read them.

    python benchmarks/ray_overhead.py [--runs 3] [--page]

It starts a cluster of a head and one node of one CPU on this machine, and trains the same small run with the local
launcher and with Ray, in turn. Both start the same worker, which imports torch; what is left is Ray's. Times depend on
how busy the machine is, also because Ray gives its workers a low priority; the CPU time of Ray's three processes of a
run hardly does. With --page it prints only how late a browser shows the rows of such runs (needs one, see browser.py).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from iekd.config.run import make_config
from iekd.launchers.base import Launcher
from iekd.launchers.factory import make_launcher
from iekd.runs.status import FINISHED

STORE = 100 * 2**20  # bytes
RAYS = ("ray::JobSupervisor", "iekd.launchers.ray_job", "ray::train_here")  # what a run adds to the cluster
HERE = {"node_ip_address": "127.0.0.2"}  # Ray replaces 127.0.0.1 by an address that others reach
SMALL = {
    "dataset": "fashion-mnist-sample", "limit_train": 256, "teacher": "none", "student": "resnet8",
    "methods": ("baseline",), "device": "cpu", "threads": 1, "batch_size": 32,
}  # fmt: skip


def timed(launcher: Launcher, epochs: int) -> dict[str, float]:
    """Seconds from the call of `submit` until: it returned, the worker began, training began, the run was over and its
    launcher said so. And the largest and the mean age of a row when a reader of the folder found it."""
    began, clock = time.time(), time.monotonic()
    run = launcher.store.get(launcher.submit(make_config(**SMALL, epochs=epochs)))
    found, ages, offset = {"submitted": time.monotonic() - clock, "CPU of Ray's processes": 0.0}, [], 0
    while launcher.status(run.id).live:
        if run.status.started and not found["CPU of Ray's processes"]:
            found["CPU of Ray's processes"] = cpu_seconds()
        rows, offset = run.metrics(offset)
        ages += [time.time() - row["time"] for row in rows]
        time.sleep(0.02)
    found["over"] = time.monotonic() - clock
    while run.alive():
        time.sleep(0.02)
    found["free"] = time.monotonic() - clock
    status = run.status
    assert status.state == FINISHED, run.log_tail(40)
    found["worker"], found["training"] = status.pid_started - began, status.started - began
    found["age, mean"], found["age, most"] = statistics.mean(ages), max(ages)
    return found


def watched(launcher: Launcher, epochs: int) -> list[float]:
    """Seconds from the writing of each row to the moment at which the open page showed it."""
    from browser import ARGUMENTS, HOW_TO_GET, find_browser
    from page import WATCH, delays, free_port, start_page
    from playwright.sync_api import sync_playwright

    if (browser := find_browser()) is None:
        raise SystemExit(f"There is no browser to drive. {HOW_TO_GET}.")
    port = free_port()
    server, _ = start_page(port, str(launcher.store.root))
    try:
        with sync_playwright() as playwright:
            page = playwright.chromium.launch(executable_path=browser, args=ARGUMENTS).new_page()
            run = launcher.store.get(launcher.submit(make_config(**{**SMALL, "limit_train": 1000}, epochs=epochs)))
            page.goto(f"http://127.0.0.1:{port}/?run={run.id}")
            page.evaluate(WATCH)
            while launcher.status(run.id).live:
                page.wait_for_timeout(500)
            page.wait_for_timeout(2500)
            return delays(run, page.evaluate("() => window.shown"))
    finally:
        server.terminate()
        server.wait()


def cpu_seconds() -> float:
    """Used so far by Ray's processes of the run that trains now; 0 without Ray."""
    total = 0.0
    for process in psutil.process_iter(["cmdline", "cpu_times"]):
        if any(name in " ".join(process.info["cmdline"] or ()) for name in RAYS):
            total += sum(process.info["cpu_times"][:2])
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--page", action="store_true", help="measure how late the open page is, and nothing else")
    arguments = parser.parse_args()
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": True, "dashboard_port": 0, **HERE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=STORE, dashboard_agent_listen_port=0, **HERE)
        with tempfile.TemporaryDirectory() as folder:
            launchers = {
                "local": make_launcher(Path(folder) / "local"),
                "ray": make_launcher(Path(folder) / "ray", "ray", address=cluster.head_node.webui_url),
            }
            if arguments.page:
                for name, launcher in launchers.items():
                    late = [age for _ in range(arguments.runs) for age in watched(launcher, arguments.epochs)]
                    print(f"{name}: {len(late)} rows, on the page after {statistics.median(late):.2f} s (median), "
                          f"{max(late):.2f} s (most)")  # fmt: skip
                return 0
            for launcher in launchers.values():
                timed(launcher, 1)  # reads the sample, and starts what is started once
            all_found: dict[str, list[dict[str, float]]] = {name: [] for name in launchers}
            for _ in range(arguments.runs):
                for name, launcher in launchers.items():
                    all_found[name].append(timed(launcher, arguments.epochs))
    finally:
        cluster.shutdown()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"load of the machine over 1, 5 and 15 minutes: {load}; {os.cpu_count()} cores; {arguments.runs} runs each")
    print("seconds after submit".ljust(24), *(name.rjust(8) for name in launchers), "  Ray's part")
    for what in all_found["ray"][0]:
        local, ray = (statistics.median(found[what] for found in all_found[name]) for name in ("local", "ray"))
        print(what.ljust(24), f"{local:8.2f} {ray:8.2f} {ray - local:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
