"""The random numbers that a network draws while it is trained, as dropout does: each step has its own.

torch's operations draw them from the one generator that all threads of a process share, so learners that train side by
side would take each other's. Here a learner's forward pass draws what follows from its name and the step, alone or
beside others, also after a stop; nobody else draws meanwhile. Networks that draw nothing are not touched.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

one_at_a_time = threading.Lock()  # of all forward passes that draw, or may draw, and of a loader that does


class StepDraws:
    """Of one learner. drawing: whether its network draws any; None until its first step has shown it."""

    def __init__(self, name: str, wanted: bool) -> None:
        """wanted: whether they shall be the same each time, for which learners that draw wait for each other."""
        self.name, self.drawing = name, None if wanted else False

    @contextmanager
    def of_step(self, step: int, part: int = 0) -> Iterator[None]:
        """Around a forward pass on the CPU. part: which of several in a step, or by which process of several."""
        if self.drawing is False:
            yield
            return
        generator = torch.default_generator
        with one_at_a_time:
            before = generator.get_state()
            generator.manual_seed(_seed(self.name, step, part))
            seeded = b"" if self.drawing else _content(generator)
            try:
                yield
                if self.drawing is None:
                    self.drawing = _content(generator) != seeded
            finally:
                generator.set_state(before)


def _seed(name: str, step: int, part: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{name} {step} {part}".encode()).digest()[:7], "big")


def _content(generator: torch.Generator) -> bytes:
    return generator.get_state().numpy().tobytes()
