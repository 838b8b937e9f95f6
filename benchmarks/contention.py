"""ms per training step on an idle machine, and beside one and two busy processes, which this script starts and ends.

    python benchmarks/contention.py [--methods ie-ft/baseline,ie-ft] [--threads auto,1,2] [--rounds 2] [--seconds 5]

Every combination is a process of its own that waits for its turn; all are measured in turn within each round, so that a
machine's slow minutes hit all. A ratio is to the idle step of `auto` with the same learners, or of the first number of
threads without it. `--waiting` measures how waiting threads wait: libgomp's default and other values of its variables.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict

EPOCH, EVERY = 20, 5  # steps between two evaluations, and between two rows
SETTLE = 12.0  # seconds of steps before those that are timed: `auto` looks every two seconds, and adds threads slowly
BURN = "while True: pass"
WAITING = {  # how threads wait -> the environment
    "default": {}, "passive": {"OMP_WAIT_POLICY": "passive"}, "spin 0": {"GOMP_SPINCOUNT": "0"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"}, "spin 20000": {"GOMP_SPINCOUNT": "20000"},
}  # fmt: skip


def trained(methods: str, threads: str, seconds: float) -> None:
    """The measured process: for each line of input, steps not timed, then some timed; prints ms per step."""
    from iekd.config.run import make_config
    from iekd.engine.metrics import Metrics
    from iekd.estimate.subjects import Subject

    config = make_config(methods=methods, threads=threads)
    subject = Subject(config, EPOCH * config.batch_size, EVERY)
    subject.config = subject.config.model_copy(update={"epochs": 10_000})

    def steps():
        rows = defaultdict(int)
        for event in subject.events():
            if isinstance(event, Metrics) and event.stage == "students" and event.kind == "train":
                rows[event.step] += 1
                if rows[event.step] == len(config.learner_names):
                    yield event.step

    made = steps()
    next(made)
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        while time.perf_counter() - began < (SETTLE if threads == "auto" else 1):
            next(made)
        spent, count = 0.0, 0
        while spent < seconds:
            before, step = time.perf_counter(), next(made)
            if step % EPOCH != EVERY:  # an evaluation came before that one
                spent, count = spent + time.perf_counter() - before, count + EVERY
        print(1e3 * spent / count, flush=True)


class Subprocess:
    """A measured process."""

    def __init__(self, methods: str, threads: str, seconds: float, environment: dict[str, str]) -> None:
        words = [sys.executable, __file__, "--one", methods, threads, "--seconds", str(seconds)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self.said()

    def said(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("A measured process has ended.")
        return line.strip()

    def measure(self) -> float:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.said())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def busy(count: int):
    """So many processes at normal priority that compute all the time."""
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", default="ie-ft/baseline,ie-ft", help="learners of each run; runs apart by /")
    parser.add_argument("--threads", default="auto,1,2")
    parser.add_argument("--waiting", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--busy", default="0,1,2")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        trained(*given.one, given.seconds)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started must be ended then too
    loads = [int(word) for word in given.busy.split(",")]
    ways = WAITING if given.waiting else {"": {}}
    names = [(m, t, w) for m in given.methods.split("/") for t in given.threads.split(",") for w in ways]
    measured: dict[tuple[str, str, str], Subprocess] = {}
    found: dict[tuple[str, str, str], dict[int, list[float]]] = {name: defaultdict(list) for name in names}
    try:
        for name in names:
            measured[name] = Subprocess(name[0], name[1], given.seconds, ways[name[2]])
        for _ in range(given.rounds):
            for load in loads:
                with busy(load):
                    for name in names:
                        found[name][load].append(measured[name].measure())
                        print(f"{' '.join(name)} beside {load}: {found[name][load][-1]:.0f} ms", file=sys.stderr)
    finally:
        for process in measured.values():
            process.end()
    print(f"{datetime.date.today()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the end")
    print("| learners | threads | " + " | ".join(f"beside {n} busy: ms | ratio" for n in loads) + " |")
    print("|---|---|" + "---:|---:|" * len(loads))
    idle = {}
    for methods, threads, way in names:
        medians = {load: statistics.median(values) for load, values in found[methods, threads, way].items()}
        idle.setdefault(methods, medians[loads[0]])
        cells = [f"{medians[n]:.0f} | {medians[n] / idle[methods]:.2f}" for n in loads]
        print(f"| {methods} | {threads} {way} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
