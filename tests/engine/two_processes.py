"""What the processes of test_data_parallel.py do: `python two_processes.py RANK COUNT FOLDER CASE...`. The test trains
the same cases in one process, by the same functions."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from iekd.config.run import RunConfig, make_config
from iekd.data import Dataset, Split
from iekd.engine.events import Result
from iekd.engine.experiment import Experiment
from iekd.engine.metrics import Metrics, Watched
from iekd.engine.parallel import Processes
from iekd.engine.state import Snapshot
from iekd.engine.synced_norms import SyncedNorms

SHARED = {
    "resolution": 8, "teacher": "resnet8", "student": "resnet8", "teacher_epochs": 1, "auto_encoder_epochs": 1,
    "batch_size": 32, "device": "cpu", "precision": "fp32", "epochs": 2, "lr": 1e-4,
}  # fmt: skip
DISTORTED = {
    "mixup": 0.4, "cutmix": 1.0, "cutout": 4, "random_erasing": 0.5, "colour_jitter": 0.3,
    "auto_augment": "randaugment", "augmentation": "resized-crop",
}  # fmt: skip
CASES = {
    # twenty steps; with the usual weights of the L1 losses, whose gradients jump, three steps multiply rounding by
    # thousands, also that of two threads instead of one
    "plain": {
        "methods": ("baseline", "ie-ft"), "inheritance_weight": 5.0, "exploration_weight": 0.5, "lr": 2e-4,
        "validation_fraction": 0.2, "batch_size": 24, "epochs": 5,
    },
    # batches of 31, 31 and 29 of 91 images with 15 unlabelled ones: no part is as large as another
    "uneven": {
        "methods": ("baseline", "kd", "dkd", "at", "od", "rkd", "dist", "ie-at+kd"), "batch_size": 31,
        "drop_last": False, "class_weights": "balanced", "label_smoothing": 0.1, "validation_fraction": 0, **DISTORTED,
    },
    "mutual": {"methods": ("dml", "ie-dml"), "clip_norm": 1.0, "ema": 0.9, "validation_fraction": 0},
    "own norms": {"methods": ("baseline",), "sync_bn": False, "validation_fraction": 0},
}  # fmt: skip


def config_of(case: str) -> RunConfig:
    return make_config(**{**SHARED, **CASES[case]})


def split(count: int, seed: int) -> Split:
    """Noise whose strongest channel is the class; the first class has more images."""
    rng = np.random.default_rng(seed)
    labels = np.where(np.arange(count) % 4 == 3, 0, np.arange(count) % 4)
    images = rng.integers(0, 160, (count, 8, 8, 3))
    images[np.arange(count), :, :, labels] += 90
    return Split(images.clip(0, 255).astype(np.uint8), labels.astype(np.int64))


def dataset(case: str) -> Dataset:
    return Dataset("noise", ("red", "green", "blue"), split(91 if case != "plain" else 120, 0), split(61, 1))


def trained(case: str, processes: Processes | None) -> dict:
    """Everything that a run has of it, as tensors, numbers and text."""
    unlabelled = Split(split(45, 2).images, np.full(45, -1)) if case == "uneven" else None
    done = Experiment(
        config_of(case), dataset(case), should_snapshot=lambda: False, unlabelled=unlabelled, processes=processes
    )
    events = list(done.events())
    states = [event for event in events if isinstance(event, Snapshot)][-1].states
    result = events[-1]
    assert isinstance(result, Result)
    every = [r for r in (result.teacher, *result.learners) if r is not None]
    return {
        "step": max(event.step for event in events if isinstance(event, Metrics) and event.stage == "students"),
        "weights": {f"{name}.{key}": t for name, state in states.items() for key, t in state.weights.items()},
        "rows": [(f"{e.stage} {e.learner} {e.kind} {e.step}", e.values) for e in events if isinstance(e, Metrics)],
        "predictions": {r.name: r.predictions for r in every},
        "results": {r.name: [r.accuracy_last, r.energy_threshold, *r.class_accuracy] for r in every},
        "watched": [(e.learner, e.epoch, e.predictions, e.probabilities) for e in events if isinstance(e, Watched)],
    }


def normalised(x: torch.Tensor, processes: Processes | None) -> list[torch.Tensor]:
    """A norm's output, its gradients and running statistics; where several processes share x, those of this one."""
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(5, momentum=0.3)
    torch.nn.init.normal_(norm.weight)
    whole = x
    if processes is not None:
        x = x[processes.part.of(len(x))]
    x = x.clone().requires_grad_()
    if processes is None:
        y = norm(x)
    else:
        with SyncedNorms(processes):
            y = norm(x)
    target = torch.linspace(-1, 2, whole.numel()).view_as(whole)
    mine = target if processes is None else target[processes.part.of(len(whole))]
    (y * mine).square().sum().backward()
    made = [y.detach(), x.grad]
    gradients = [norm.weight.grad, norm.bias.grad]
    if processes is not None:
        made = [processes.rows(t, len(whole)) for t in made]
        gradients = [processes.add_up(t) for t in gradients]
    return [*made, *gradients, norm.running_mean, norm.running_var]


def features() -> torch.Tensor:
    """(7,5,4,4), far from zero."""
    return torch.randn(7, 5, 4, 4, generator=torch.Generator().manual_seed(3)) + 10


def disagreement(processes: Processes) -> str:
    try:
        processes.check_equal({"one": torch.ones(3), "two": torch.full((3,), 1.0 + 1e-7 * processes.rank)}, "a test")
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    rank, count, folder, cases = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(folder / "store"), count)
    device = torch.device("cpu")
    processes = Processes.join(store, rank, count, device)
    found = {
        "norm": normalised(features(), processes),
        "disagreement": disagreement(processes),
        "totals": processes.totals(0.1, rank),
    }
    for case in cases:
        own = Processes(rank, count, device, config_of(case).sync_bn)
        found[case] = trained(case, own)
    torch.save(found, folder / f"found-{rank}.pt")
    processes.leave()


if __name__ == "__main__":
    main()
