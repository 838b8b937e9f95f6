"""Inheritance and exploration (IE-FT) in a training loop of your own, with your own networks."""

import torch
from own_modules import loaders, network
from torch.nn.functional import cross_entropy

from iekd.distill.targets import split_channels
from iekd.losses import ExplorationLoss, InheritanceLoss, ReconstructionLoss
from iekd.models.factors import AutoEncoder, FactorEncoder
from iekd.models.taps import Tapped, find_taps


def main(images: int = 4000, epochs: int = 3) -> None:
    batches, _ = loaders(images)
    plain, small, example = network(16), network(4), torch.zeros(1, 1, 28, 28)  # `plain`: with your trained weights
    teacher = Tapped(plain, find_taps(plain, example)).eval()  # gives Features: logits, and maps of its stages
    student, halves = Tapped(small, find_taps(small, example)).train(), split_channels(16, 0.5, at_random=False)
    auto_encoder = AutoEncoder(64, 32)  # the teacher's last maps have 64 channels, their factors 32
    encoders = FactorEncoder(8, 32), FactorEncoder(8, 32)  # each for half of the student's 16 channels
    optimizer = torch.optim.SGD(auto_encoder.parameters(), 0.1, momentum=0.9)
    for pixels, _ in batches:  # first the auto-encoder: an epoch here, better a few
        feature = teacher(pixels).stages[-1].detach()  # (B,64,h,w)
        optimizer.zero_grad()
        ReconstructionLoss()(auto_encoder(feature)[1], feature).backward()
        optimizer.step()
    auto_encoder.eval()
    optimizer = torch.optim.SGD([p for m in (student, *encoders) for p in m.parameters()], 0.05, momentum=0.9)
    for pixels, labels in (batch for _ in range(epochs) for batch in batches):  # then the student with its encoders
        factor, output = auto_encoder.encoder(teacher(pixels).stages[-1]).detach(), student(pixels)
        first, second = (e(output.stages[-1][:, half]) for e, half in zip(encoders, halves, strict=True))
        inherit, explore = InheritanceLoss()(first, factor), ExplorationLoss()(second, factor)
        loss = cross_entropy(output.logits, labels) + 500 * inherit + 50 * explore
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(student.released().state_dict(), "student.pt")  # the plain network


if __name__ == "__main__":
    main()
