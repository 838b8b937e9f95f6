"""The page as a Hugging Face Space: which folder keeps the runs, and who lends a GPU.

A Space's own disk is emptied whenever it restarts. A storage bucket that is attached at `/data` lasts; it is used if it
can do what runs need (see runs/filesystem.py).

On ZeroGPU a GPU is lent for a call of some seconds, to functions that are marked for it. Comparing is such a call. Runs
are processes of their own that last for minutes, so they train on the CPU there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from iekd.language import _
from iekd.space import in_space, on_zero_gpu

log = logging.getLogger(__name__)
BUCKET = Path("/data")
GPU_SECONDS = 15  # asked for one comparison; shorter requests are served sooner


def bucket_problem() -> str:
    """Why runs do not outlast a restart of this Space; "" if they do, or if this is no Space."""
    own = os.environ.get("IEKD_RUNS_DIR")
    if not in_space() or (own and not Path(own).is_relative_to(BUCKET)):
        return ""
    if not os.path.ismount(BUCKET):
        return _("no storage bucket is attached at {folder}", folder=BUCKET)
    from iekd.runs.filesystem import what_it_lacks  # late: it needs file locks, which Windows has not

    if lacks := what_it_lacks(BUCKET):
        return _("the bucket at {folder} cannot hold runs: it lacks {lacks}", folder=BUCKET, lacks=lacks)
    return ""


def notices() -> list[str]:
    """What somebody who trains in this Space has to know, a sentence or two each; none outside a Space."""
    found = []
    if problem := bucket_problem():
        found.append(
            _("Runs are lost when this Space restarts, because {problem}. Attach a bucket at {folder} in the Space's "
              "settings, or download or publish a finished run from its page.", problem=problem, folder=BUCKET)
        )  # fmt: skip
    if on_zero_gpu():
        found.append(
            _("This Space is on ZeroGPU, which lends a GPU for some seconds at a time. That suits comparing; "
              "runs train on the CPU.")
        )  # fmt: skip
    return found


def default_runs_dir() -> Path:
    """Where the runs are unless the user says otherwise: `$IEKD_RUNS_DIR`, a Space's bucket, `./runs`."""
    if own := os.environ.get("IEKD_RUNS_DIR"):
        return Path(own)
    return BUCKET / "runs" if in_space() and not bucket_problem() else Path("runs")


def default_host() -> str:
    """The address to listen on: a Space is reached from outside its container."""
    return "0.0.0.0" if in_space() else "127.0.0.1"


def prepare() -> None:
    """To be called before anything imports torch: ZeroGPU's package has to come first."""
    if on_zero_gpu():
        import spaces  # noqa: F401


def with_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, called with device="cuda" while a GPU is lent on ZeroGPU; anywhere else `function` itself.

    If no GPU is lent (the visitor's daily share is used up, none is free) the function is called without `device`: an
    answer from the CPU, milliseconds later, is better than none.
    """
    if not on_zero_gpu():
        return function
    import spaces

    def on_gpu(*args: Any) -> Any:
        return function(*args, device="cuda")

    lent = spaces.GPU(duration=GPU_SECONDS)(on_gpu)

    @wraps(function)
    def wrapped(*args: Any) -> Any:
        try:
            return lent(*args)
        except Exception as error:  # of several kinds; what is wrong with the images is raised again below
            log.warning("action=compare no answer from a GPU (%s); on the CPU instead", str(error).split("\n", 1)[0])
            return function(*args)

    return wrapped
