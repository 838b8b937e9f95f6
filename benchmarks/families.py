"""Networks of timm and torchvision as teachers: do they give stages that a small student can learn from?

    python benchmarks/families.py [--side 64] [--batch 16] [--steps 20] [--method ie-ft]

Each teacher has random weights, as it comes from its library. Its features of one batch are computed once, and a
ResNet-8 learns that batch from them. Printed are the stages, the loss of the first and the last step, and the seconds
of the teacher's forward pass. The loss must fall; nothing here says how good a teacher is.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from iekd.config.run import make_config
from iekd.distill.method import build_method
from iekd.distill.targets import Pair, TeacherOutput
from iekd.models.factors import AutoEncoder
from iekd.models.registry import build

TEACHERS = (
    "timm:resnet18", "timm:resnext50_32x4d", "timm:vgg11_bn", "timm:densenet121", "timm:mobilenetv3_small_100",
    "timm:efficientnet_b0", "timm:regnety_004", "timm:convnext_atto", "timm:deit_tiny_patch16_224",
    "timm:swin_tiny_patch4_window7_224", "torchvision:resnet18", "torchvision:resnext50_32x4d",
    "torchvision:vgg11_bn", "torchvision:densenet121", "torchvision:mobilenet_v3_small", "torchvision:efficientnet_b0",
    "torchvision:regnet_y_400mf", "torchvision:convnext_tiny", "torchvision:vit_b_16", "torchvision:swin_t",
)  # fmt: skip
STUDENT, CLASSES = "resnet8", 10
SIDES = {"torchvision:vit_b_16": 224}  # it takes no other


def learned(teacher: str, side: int, count: int, steps: int, name: str) -> tuple[str, float, float, float]:
    """(stages, loss of the first step, of the last, seconds of the teacher's forward pass)."""
    torch.manual_seed(0)
    side = SIDES.get(teacher, side)
    images, labels = torch.randn(count, 3, side, side), torch.arange(count) % CLASSES
    model, student = build(teacher, CLASSES).eval(), build(STUDENT, CLASSES)
    with torch.no_grad():
        began = time.monotonic()
        features = model(images)
        spent = time.monotonic() - began
        width = features.stages[-1].shape[1]
        factor = AutoEncoder(width, width // 2).eval().encoder(features.stages[-1])
    pair = Pair(channels(student(images).stages), channels(features.stages))
    method = build_method(name, make_config(teacher=teacher, student=STUDENT, methods=name, dataset="cifar10"), pair)
    optimizer = torch.optim.SGD([*student.parameters(), *method.parameters()], lr=0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        output = method(student(images), TeacherOutput(features, (factor,)), labels)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    stages = ", ".join("×".join(map(str, stage.shape[1:])) for stage in features.stages)
    return stages, losses[0], losses[-1], spent


def channels(stages: tuple[Tensor, ...]) -> tuple[int, ...]:
    return tuple(stage.shape[1] for stage in stages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--method", default="ie-ft")
    parser.add_argument("--teachers", default=",".join(TEACHERS))
    given = parser.parse_args()
    print(f"{given.method}, batch {given.batch}, {given.steps} steps, torch {torch.__version__}\n")
    print("| teacher | stages | loss, first step | last step | forward, s |\n|---|---|---:|---:|---:|")
    for teacher in given.teachers.split(","):
        stages, first, last, spent = learned(teacher, given.side, given.batch, given.steps, given.method)
        print(f"| {teacher} | {stages} | {first:.2f} | {last:.2f} | {spent:.2f} |", flush=True)


if __name__ == "__main__":
    main()
