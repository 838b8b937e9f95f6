"""How OpenMP's threads wait for each other: to be set before torch is loaded, which reads it once."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

# turns of libgomp's loop before a waiting thread sleeps; see benchmarks/RESULTS.md, "Beside other processes"
SPINS = "20000"
OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # what the user may have set


def let_threads_sleep(environment: MutableMapping[str, str] | None = None) -> None:
    """Let waiting threads give up their core early, unless the user has said how they wait, or torch is there."""
    environment = os.environ if environment is None else environment
    if "torch" not in sys.modules and not any(name in environment for name in OWN):
        environment["GOMP_SPINCOUNT"] = SPINS
