"""How long a run takes from the command to its first point, and to its report.

    python benchmarks/start.py [--rounds 3] [--beside CHECKOUT] [train options...]

Without options one epoch of 2,000 images of the default run, which is mostly start and evaluation. `--beside` times
another checkout (an earlier version) with the same interpreter, in turn with this one, so that a machine's slow minutes
hit both; medians are printed, and ratios of them. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHORT = ["--epochs", "1", "--limit-train", "2000"]


def timed(checkout: Path, options: list[str]) -> tuple[float, float]:
    """Seconds until there is a row of metrics, and until the command has ended."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "iekd", "train", *options, "--runs-dir", runs]
        began, first = time.monotonic(), 0.0
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(checkout)}, cwd=checkout,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None:
            if not first and any(rows.stat().st_size for rows in Path(runs).glob("*/metrics.jsonl")):
                first = time.monotonic() - began
            time.sleep(0.02)
        if process.returncode or not first:
            sys.exit(f"It failed; see for yourself in {checkout}: {' '.join(command)}")
        return first, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", type=Path)
    arguments, options = parser.parse_known_args()
    checkouts = [Path(__file__).resolve().parents[1], *([arguments.beside.resolve()] if arguments.beside else [])]
    found: list[list[tuple[float, float]]] = [[] for _ in checkouts]
    for _ in range(arguments.rounds):
        for checkout, times in zip(checkouts, found, strict=True):
            times.append(timed(checkout, options or SHORT))
    print("| version | to the first point (s) | median | to the report (s) | median |\n|---|---|---|---|---|")
    medians = []
    for name, times in zip(("now", "beside"), found, strict=False):
        columns = list(zip(*times, strict=True))
        medians.append([statistics.median(column) for column in columns])
        cells = (f"{', '.join(f'{t:.1f}' for t in c)} | {m:.1f}" for c, m in zip(columns, medians[-1], strict=True))
        print(f"| {name} | {' | '.join(cells)} |")
    if len(medians) > 1:
        print("ratios of the medians:", *(f"{a / b:.2f}" for a, b in zip(*medians, strict=True)))


if __name__ == "__main__":
    main()
