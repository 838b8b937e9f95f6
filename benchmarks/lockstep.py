"""What training learners in lock-step saves: a step of all of them against a step of each alone, in the real engine.

    python benchmarks/lockstep.py [--rounds 4] [--steps 12] [train options...]

On a CPU also with the learners one after the other (`--eager`) instead of side by side. Everything is measured once in
each round, so that a machine's slow minutes hit all of it; medians are printed, and ratios of them. Nothing else should
run meanwhile. Options as `iekd train` has them, each with its value.
"""

import argparse
import statistics

from train_options import train_options

from iekd.bench.rounds import alone
from iekd.config.run import make_config
from iekd.estimate.timing import engine_step_time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    arguments, rest = parser.parse_known_args()
    config = make_config(**train_options(parser, rest))
    asked = {"together": config, "together, eager": config.model_copy(update={"eager": True})}
    asked.update((method, alone(config, method)) for method in config.methods)
    found: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(arguments.rounds):
        for name, one in asked.items():
            found[name].append(1e3 * engine_step_time(one, arguments.steps))
    median = {name: statistics.median(times) for name, times in found.items()}
    apart = sum(median[method] for method in config.methods) * len(config.seeds)
    print(config.command_line())
    print("\n| learners | ms per step, median | range | to the sum of each alone |\n|---|---|---|---|")
    for name, times in found.items():
        ratio = f"{median[name] / apart:.2f}" if name not in config.methods else ""
        print(f"| {name} | {median[name]:.1f} | {min(times):.1f} to {max(times):.1f} | {ratio} |")


if __name__ == "__main__":
    main()
