"""Your own teacher, student and DataLoaders in the loop of iekd: train a teacher, distil it, save the best method."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import iekd


def network(width: int) -> nn.Sequential:
    """Any module does that takes images and gives logits; this one for grey images of ten classes."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
        block = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)
        layers.append(nn.Sequential(*block))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


def loaders(images: int) -> list[DataLoader]:
    data, found = iekd.load("fashion-mnist-sample").limited(images), []
    for split in (data.train, data.test):
        pixels = (torch.from_numpy(split.images[:]).permute(0, 3, 1, 2) / 255 - 0.286) / 0.353  # (N,1,28,28) float32
        dataset = TensorDataset(pixels, torch.from_numpy(split.labels))
        found.append(DataLoader(dataset, batch_size=64, shuffle=split is data.train))
    return found


def main(images: int = 4000, epochs: int = 3) -> None:
    train, test = loaders(images)
    taught = iekd.distill(None, lambda: network(16), train, test, methods=["baseline"], epochs=epochs)
    teacher = taught.students["baseline-seed0"]  # or any trained module of yours
    found = iekd.distill(teacher, lambda: network(4), train, test, methods=["baseline", "kd", "ie-ft"], epochs=epochs)
    print(found.summary())
    best = max(found.report["learners"], key=lambda learner: learner["accuracy_last"])
    student = found.students[f"{best['method']}-seed{best['seed']}"]  # a plain nn.Sequential again
    torch.save(student.state_dict(), "student.pt")


if __name__ == "__main__":
    main()
