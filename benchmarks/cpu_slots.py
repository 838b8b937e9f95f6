"""A table of four small runs on the CPU: one run at a time, which uses all cores, or several at a time.

    python benchmarks/cpu_slots.py [--slots 2] [--rounds 2] [--options "--epochs 3"]

Whole `iekd table` commands in a new folder each, in turn; the teacher is trained by the first cell and used by all.
Prints seconds and their ratio. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GRID = "--pairs resnet20:resnet8,resnet20:resnet14 --seeds 0,1 --methods baseline,ie-ft --teacher-epochs 2 --device cpu"


def seconds(slots: int, options: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "iekd", "table", *shlex.split(f"{GRID} {options}"), "--json"]
        command += ["--cpu-slots", str(slots), "--runs-dir", folder]
        began = time.perf_counter()
        path = str(Path(__file__).parents[1])
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
        )
        if done.returncode:
            raise SystemExit(f"The table with {slots} slots failed:\n{done.stderr}")
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--options", default="--epochs 3", help="more options of iekd table")
    given = parser.parse_args()
    times: dict[int, list[float]] = {1: [], given.slots: []}
    for number in range(given.rounds):
        for slots in sorted(times, reverse=number % 2 == 1):
            times[slots].append(seconds(slots, given.options))
            print(f"{slots} at a time: {times[slots][-1]:.1f} s", flush=True)
    alone, shared = (statistics.median(times[slots]) for slots in (1, given.slots))
    print(f"{given.slots} runs at a time take {shared:.1f} s, one at a time {alone:.1f} s: {alone / shared:.2f} times")


if __name__ == "__main__":
    main()
