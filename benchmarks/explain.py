"""How long `iekd explain` takes for the shipped networks: each diagnostic, and the whole command.

    python benchmarks/explain.py [--images 32] [--rounds 3] [--threads 2]

The goal is 32 images in under 10 seconds on two cores. Medians are printed; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from iekd import data
from iekd.explain.about import DIAGNOSTICS
from iekd.explain.explain import SAMPLE, explain
from iekd.explain.network import open_networks
from iekd.explain.report import write
from iekd.explain.sample import held_out
from iekd.runs.models import demo_models

CHECKOUT = Path(__file__).resolve().parents[1]


def median(rounds: int, work: Callable[[], Any]) -> str:
    """Seconds, and those of all rounds."""
    times = []
    for _ in range(rounds):
        began = time.monotonic()
        work()
        times.append(time.monotonic() - began)
    return f"{statistics.median(times):.2f} | {', '.join(f'{t:.2f}' for t in times)}"


def command(images: int, threads: int) -> None:
    """The command as a user starts it."""
    with tempfile.TemporaryDirectory() as out:
        words = [sys.executable, "-m", "iekd", "explain", "--out", out, "--count", str(images), "--json"]
        own = {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": str(threads)}
        subprocess.run(words, env={**os.environ, **own}, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    networks = open_networks(demo_models())
    loaded = data.load(networks[-1].card.datasets[0])
    sample = held_out(loaded, networks[-1].card.class_names, SAMPLE)
    pictures = sample.first(given.images)
    load = os.getloadavg()[0]
    print(
        f"{given.images} images, {len(networks)} networks, {given.threads} threads; load average before: {load:.1f}\n"
    )
    print("| | seconds (median) | rounds |\n|---|---|---|")
    for name in DIAGNOSTICS:
        print(f"| {name} | {median(given.rounds, lambda: explain(networks, pictures, sample, (name,)))} |")  # noqa: B023
    found = explain(networks, pictures, sample)
    with tempfile.TemporaryDirectory() as out:
        print(f"| writing | {median(given.rounds, lambda: write(found, Path(out)))} |")
    print(f"| the whole command | {median(given.rounds, lambda: command(given.images, given.threads))} |")


if __name__ == "__main__":
    main()
