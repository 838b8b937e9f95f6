"""A conventional distillation loop, to compare with: plain PyTorch as the public code bases of the field write it.

After RepDistiller (Tian et al. 2020), mdistiller (Zhao et al. 2022) and overhaul-distillation (Heo et al. 2019): images
as a uint8 array in memory, each converted to a PIL image and augmented by torchvision's transforms in a DataLoader with
four workers; float32, eager, contiguous; cudnn.benchmark; one student at a time, with a forward pass of the teacher
(evaluation mode, no gradients) for each; torch's optimiser; `.item()` of loss and accuracy at each step. Networks,
methods and batch size are the engine's, and nothing else: this file does not import it.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from iekd.config.run import RunConfig
from iekd.data.base import Split
from iekd.distill.method import Method
from iekd.distill.targets import TeacherOutput
from iekd.estimate.budget import OutOfTimeError, TimeIsUp, no_limit

WORKERS = 4
WARM_UP = 10  # steps: more than the 8 batches that the workers have ready when the loop starts
LEAST = 4  # steps that are timed at least

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
Loader = DataLoader[Any]  # of (images (B,C,H,W) float32, labels (B,))


class ArrayImages(TorchDataset[tuple[Tensor, int]]):
    """(image (C,H,W) float32, label), as torchvision's CIFAR10 delivers them."""

    def __init__(self, split: Split, transform: transforms.Compose) -> None:
        self.images, self.labels = split.images, split.labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.images[index]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return self.transform(image), int(self.labels[index])


def make_loader(split: Split, statistics: Statistics, batch_size: int, device: torch.device) -> Loader:
    """Shuffled, augmented batches; 4 pixels of padding where the side is 32, as the engine has them."""
    side = split.images.shape[1]
    augmented = transforms.Compose(
        [
            transforms.RandomCrop(side, padding=max(1, side // 8)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(*statistics),
        ]
    )
    with _four_workers():
        return DataLoader(
            ArrayImages(split, augmented), batch_size, shuffle=True, num_workers=WORKERS, drop_last=True,
            pin_memory=device.type == "cuda",
        )  # fmt: skip


class Trainer:
    """One student, its method and its optimiser. peer: the second network of mutual learning and its own method."""

    def __init__(
        self, student: nn.Module, method: Method, config: RunConfig, device: torch.device,
        teacher: nn.Module | None = None, encoders: list[nn.Module] | None = None,
        peer: tuple[nn.Module, Method] | None = None,
    ) -> None:  # fmt: skip
        self.config, self.device = config, device
        self.student, self.method = self._placed(student).train(), self._placed(method).train()
        self.optimizer = self._optimizer(self.student, self.method)
        self.teacher = self._placed(teacher).eval() if teacher is not None and method.needs_teacher else None
        self.encoders = [self._placed(encoder).eval() for encoder in encoders or []]
        self.peer = None
        if peer is not None:
            network, taught = self._placed(peer[0]).train(), self._placed(peer[1]).train()
            self.peer = (network, taught, self._optimizer(network, taught))

    def _placed(self, module: nn.Module) -> nn.Module:
        module.to(self.device)
        return module.to(memory_format=torch.contiguous_format)

    def _optimizer(self, *modules: nn.Module) -> torch.optim.Optimizer:
        config = self.config
        parameters = [p for module in modules for p in module.parameters()]
        if config.optimizer == "adamw":
            flat = {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}
            deep = {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay}
            return torch.optim.AdamW([deep, flat], lr=config.lr)
        return torch.optim.SGD(
            parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay,
            nesterov=config.nesterov and config.momentum > 0,
        )  # fmt: skip

    def step(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """One step on images (B,C,H,W) float32 and labels (B,); the loss and the accuracy in percent."""
        answer = None
        if self.teacher is not None:
            with torch.no_grad():
                features = self.teacher(images)
                last = features.stages[len(features.stages) - len(self.encoders) :]
                factors = tuple(e(stage) for e, stage in zip(self.encoders, last, strict=True))
                answer = TeacherOutput(features, factors)
        other = self.peer[0](images) if self.peer else None
        output = self.method(self.student(images), answer, labels, other)
        correct = (output.logits.argmax(1) == labels).float().mean() * 100
        said = output.loss.item(), correct.item()
        _update(self.optimizer, output.loss)
        if self.peer:  # it learns from the updated student
            _, method, optimizer = self.peer
            with torch.no_grad():
                student = self.student(images)
            _update(optimizer, method(other, answer, labels, student).loss)
        return said


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def step_time(
    trainer: Trainer, loader: Loader, seconds: float, steps: int | None, time_is_up: TimeIsUp = no_limit
) -> float:  # fmt: skip
    """Mean seconds of a step in steady state: the first of every epoch, while workers start, are left out.

    steps: how many are timed; None for as many as take `seconds`, four at least. The loader needs more than WARM_UP
    batches. time_is_up: asked after each step; once it is, what was timed so far counts.

    Raises:
        OutOfTimeError: nothing was timed so far.
    """
    if len(loader) <= WARM_UP:
        raise ValueError(f"{len(loader)} batches are too few: more than {WARM_UP} are needed")
    timed, spent = 0, 0.0
    with _fastest_kernels(), _four_workers():
        while True:
            before = time.perf_counter()
            for i, (images, labels) in enumerate(loader):
                trainer.step(images.to(trainer.device, non_blocking=True), labels.to(trainer.device, non_blocking=True))
                now = time.perf_counter()
                if i >= WARM_UP:
                    timed, spent = timed + 1, spent + now - before
                before = now
                if timed >= (steps or LEAST) and (steps is not None or spent >= seconds):
                    return spent / timed
                if time_is_up():
                    if not timed:
                        raise OutOfTimeError
                    return spent / timed


@contextlib.contextmanager
def _fastest_kernels() -> Iterator[None]:
    """cudnn.benchmark, which all of those code bases set; the engine's own setting is restored afterwards."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextlib.contextmanager
def _four_workers() -> Iterator[None]:
    """Also with fewer cores, without torch's warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield
