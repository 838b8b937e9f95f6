"""What training two learners in lock-step saves: whole runs, from the command to the report.

    python benchmarks/lockstep.py [--repeats 3] [train options...]

Runs `iekd train` three ways in turn (baseline + ie-ft together, baseline alone, ie-ft alone), several times, and prints
the ratio together / (one + the other) of each round and the median. Nothing else should run meanwhile.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time


def seconds(methods: str, options: list[str], runs_dir: str) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-m", "iekd", "train", "--methods", methods, "--runs-dir", runs_dir, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    arguments, options = parser.parse_known_args()
    ratios = []
    print("| round | together (s) | baseline alone (s) | ie-ft alone (s) | ratio |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as runs_dir:
        for i in range(arguments.repeats):
            together, baseline, ie = (seconds(m, options, runs_dir) for m in ("baseline,ie-ft", "baseline", "ie-ft"))
            ratios.append(together / (baseline + ie))
            print(f"| {i + 1} | {together:.1f} | {baseline:.1f} | {ie:.1f} | {ratios[-1]:.3f} |", flush=True)
    print(f"median ratio: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
