"""Functions that several losses share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def as_float32(x: Tensor) -> Tensor:
    """float32 at least: losses are not computed in half precision."""
    return x if x.dtype == torch.float64 else x.float()


def unit_vectors(x: Tensor) -> Tensor:
    """Each sample flattened and divided by its L2 norm: (B,...) -> (B,D)."""
    return F.normalize(as_float32(x).flatten(1), dim=1)


def unit_pair(student_factor: Tensor, teacher_factor: Tensor) -> tuple[Tensor, Tensor]:
    """Both as unit vectors of the same size, (B,...) -> (B,D).

    Raises:
        ValueError: they differ in size; subtracting them would fail, or repeat the smaller one without a word.
    """
    student, teacher = unit_vectors(student_factor), unit_vectors(teacher_factor)
    if student.shape != teacher.shape:
        raise ValueError(
            f"The student's factor has the shape {tuple(student_factor.shape)} and the teacher's "
            f"{tuple(teacher_factor.shape)}. Give both the same, for example with iekd.models.factors.FactorEncoder."
        )
    return student, teacher


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(q || p) of log probabilities (B,K), mean over the batch; torch's own cannot be stacked over seeds."""
    return (log_q.exp() * (log_q - log_p)).sum() / len(log_p)


def pool_to_common_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (B,c,h,w), the larger one average-pooled to the smaller one's (h,w)."""
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    first, second = (x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size) for x in (a, b))
    return first, second


def match_stages(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
    """Pairs of stage ends (B,c,h,w), each pair brought to one size.

    Raises:
        ValueError: different numbers of stages.
    """
    if len(student) != len(teacher):
        raise ValueError(f"The student has {len(student)} stages and the teacher {len(teacher)}. Give as many of each.")
    return [pool_to_common_size(s, t) for s, t in zip(student, teacher, strict=True)]


def larger_share(labels: Tensor) -> Tensor:
    """Class indices (B,) as they are; of shares of classes (B,K), as mixed images have, the class with the largest."""
    return labels if labels.ndim == 1 else labels.argmax(1)
