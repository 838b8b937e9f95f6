"""How time and memory grow: with images, learners, the size of the student, and epochs. Prints Markdown.

    python benchmarks/growth.py [--tables images,learners,students,memory] [--images 1000,10000,50000]
        [--learners 1,2,4,8] [--students resnet8,resnet20,resnet56,resnet110] [--epochs 1,2,4,8] [--steps N]
        [train options...]

Images are noise in the shape of --dataset (cifar10 unless given), the teacher is untrained: speed depends on shapes
alone. Every measurement of time is the median of three. Nothing else should run meanwhile.
"""

import argparse
import itertools
import statistics
import time
from collections import defaultdict

import torch
from train_options import train_options

from iekd.config.run import RunConfig, make_config
from iekd.engine.events import StageStart
from iekd.engine.experiment import STUDENTS
from iekd.engine.metrics import Metrics
from iekd.estimate.phases import measure_phases
from iekd.estimate.subjects import Subject
from iekd.estimate.timing import engine_step_time, fitting_steps

TABLES = ("images", "learners", "students", "memory")
METHODS = ("baseline", "ie-ft", "ft", "kd")


class Epochs(Subject):
    """A subject that is trained for several epochs."""

    def __init__(self, config: RunConfig, images: int, epochs: int) -> None:
        super().__init__(config, images)
        self.config = self.config.model_copy(update={"epochs": epochs})

    def ends(self) -> "list[tuple[float, int]]":
        """(seconds since the students' start, bytes in use) as each epoch ends, its evaluation included."""
        began, found, rows = 0.0, [], defaultdict(int)
        for event in self.events():
            if isinstance(event, StageStart) and event.stage == STUDENTS:
                began = time.perf_counter()
            elif isinstance(event, StageStart) and found:
                break  # the evaluation
            elif isinstance(event, Metrics) and event.stage == STUDENTS and event.kind == "test":
                rows[event.step] += 1
                if rows[event.step] == len(self.config.learner_names):
                    found.append((time.perf_counter() - began, in_use(self.device)))
        return found


def in_use(device: torch.device) -> int:
    """Bytes: allocated on a CUDA device, or resident of the process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    import psutil

    return psutil.Process().memory_info().rss


def step_time(config: RunConfig, steps: "int | None") -> float:
    """Seconds of one step of all learners, the median of three measurements of two seconds or `steps` steps."""
    if steps is None:
        subject = Subject(config, 8 * config.batch_size)
        phases = measure_phases(subject.parts(), subject.device, 0.5, None)
        steps = fitting_steps(config, phases.step([method for method, _ in config.learner_names]), 2.0)
    return statistics.median(engine_step_time(config, steps) for _ in range(3))


def table(title: str, head: str, rows: "list[tuple[object, ...]]") -> None:
    columns = head.split("|")
    print(f"\n## {title}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def by_images(config: RunConfig, counts: "list[int]") -> None:
    rows = []
    for count in counts:
        ends = [0.0, *(seconds for seconds, _ in Epochs(config, count, 4).ends())]
        epochs = [after - before for before, after in itertools.pairwise(ends[1:])]  # the first warms up
        seconds = statistics.median(epochs)
        rows.append((f"{count:,}", f"{seconds:.3f}", f"{1e6 * seconds / count:.1f}"))
    table("Epoch time against the number of images", "images|epoch (s)|per image (µs)", rows)


def by_learners(config: RunConfig, counts: "list[int]", steps: "int | None") -> None:
    def measured(title: str, configs: "dict[str, RunConfig]") -> None:
        rows, first = [], 0.0
        for name, each in configs.items():
            seconds = step_time(each, steps)
            first = first or seconds
            rows.append((name, f"{1e3 * seconds:.2f}", f"{seconds / first:.2f}"))
        table(title, "learners|step (ms)|times the first", rows)

    one = config.methods[-1:]
    seeds = {
        f"{n} x {one[0]}": config.model_copy(update={"methods": one, "seeds": tuple(range(n))}) for n in counts
    }  # fmt: skip
    measured("Step time against the number of seeds", seeds)
    several = {
        ", ".join(METHODS[:n]): config.model_copy(update={"methods": METHODS[:n], "seeds": (0,)})
        for n in range(1, 1 + min(max(counts), len(METHODS)))
    }
    measured("Step time against the number of methods", several)


def by_students(config: RunConfig, students: "list[str]", steps: "int | None") -> None:
    rows = []
    for name in students:
        seconds = step_time(config.model_copy(update={"student": name}), steps)
        rows.append((name, f"{1e3 * seconds:.2f}", f"{config.batch_size / seconds:,.0f}"))
    table(f"Step time against the student, methods {', '.join(config.methods)}", "student|step (ms)|images/s", rows)


def by_epochs(config: RunConfig, images: int, epochs: "list[int]") -> None:
    ends = Epochs(config, images, max(epochs)).ends()
    rows = [(epoch, f"{ends[epoch - 1][1] / 1e6:.1f}") for epoch in epochs]
    table("Memory in use after an epoch (one run)", "epochs|MB", rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--images", default="1000,10000,50000")
    parser.add_argument("--learners", default="1,2,4,8")
    parser.add_argument("--students", default="resnet8,resnet20,resnet56,resnet110")
    parser.add_argument("--epochs", default="1,2,4,8")
    parser.add_argument("--steps", type=int)
    arguments, rest = parser.parse_known_args()
    config = make_config(**{"dataset": "cifar10", "methods": ("ie-ft",), **train_options(parser, rest)})
    images, learners, epochs = (
        [int(word) for word in text.split(",")] for text in (arguments.images, arguments.learners, arguments.epochs)
    )
    device = Subject(config, 2 * config.batch_size).device
    name = torch.cuda.get_device_name() if device.type == "cuda" else str(device)
    print(f"# Growth on {name}, torch {torch.__version__}\n\n`{config.command_line()}`", flush=True)
    for wanted in arguments.tables.split(","):
        if wanted == "images":
            by_images(config, images)
        elif wanted == "learners":
            by_learners(config, learners, arguments.steps)
        elif wanted == "students":
            by_students(config, arguments.students.split(","), arguments.steps)
        elif wanted == "memory":
            by_epochs(config, images[0], epochs)
        else:
            parser.error(f"unknown table '{wanted}': choose of {', '.join(TABLES)}")


if __name__ == "__main__":
    main()
