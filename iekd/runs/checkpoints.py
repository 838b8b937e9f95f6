"""Checkpoints of a run: what an attempt saves so that the next one continues bit for bit.

checkpoints/<stage>-<step>/state.safetensors   every learner's tensors, "<learner>/<kind>/<name>"
                           manifest.json       sizes, SHA-256 of the file and of the manifest itself, numbers, notes
            teacher/                           the frozen teacher as a model folder, from the first stage that needs it

A folder appears whole or not at all, and what is read is checked against its sums: a truncated file or a flipped bit
would load without a word otherwise. Leaves out: what a state is (engine/state.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iekd import __version__
from iekd.config.run import STAGES
from iekd.errors import RunError
from iekd.models.artifact import WEIGHTS
from iekd.runs.files import sync_folder, write_json

if TYPE_CHECKING:
    from iekd.engine.state import Snapshot

FORMAT = 1
MOST = 2  # of each stage; older ones are removed
STATE, MANIFEST, TEACHER = "state.safetensors", "manifest.json", "teacher"
# of a state's tensors: stored as -> field of LearnerState
KINDS = ("weights", "weights"), ("momentum", "momentum"), ("sums", "sums"), ("answers", "predictions")


@dataclass(frozen=True)
class Checkpoint:
    """A snapshot, with what the run noted beside it (JSON)."""

    snapshot: Snapshot
    notes: dict[str, Any]


class Checkpoints:
    """The checkpoints below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def teacher(self) -> Path:
        return self.folder / TEACHER

    def teacher_sum(self) -> str:
        """SHA-256 of the teacher's weights; empty without one."""
        weights = self.teacher / WEIGHTS
        return _sum_of(weights) if weights.is_file() else ""

    def write(self, snapshot: Snapshot, notes: Mapping[str, Any]) -> None:
        """Add one; all but the newest `MOST` of its stage are removed afterwards.

        Raises:
            OSError: it could not be written; the others are unchanged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        name = f"{snapshot.stage}-{snapshot.step:08d}"
        part = self.folder / f".{name}.part"
        self.clean()
        try:
            part.mkdir(parents=True)
            tensors, numbers = {}, {}
            for learner, state in snapshot.states.items():
                for kind, field in KINDS:
                    tensors.update({f"{learner}/{kind}/{key}": t for key, t in getattr(state, field).items()})
                numbers[learner] = {**state.numbers, "sums": list(state.sums)}
            try:
                save_file(tensors, part / STATE)
            except SafetensorError as error:  # which has the system's message, but is not an OSError
                raise OSError(str(error)) from None
            with open(part / STATE, "rb") as written:
                os.fsync(written.fileno())
            content = {
                "format": FORMAT, "iekd": __version__, "stage": snapshot.stage, "step": snapshot.step,
                "numbers": numbers, "notes": dict(notes),
                "bytes": (part / STATE).stat().st_size, "sha256": _sum_of(part / STATE),
            }  # fmt: skip
            write_json(part / MANIFEST, {"content": content, "sha256": _sum(content)})
            shutil.rmtree(self.folder / name, ignore_errors=True)
            part.rename(self.folder / name)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)  # frees the room that the final state needs
            raise
        sync_folder(self.folder)
        for _, old in self._of(snapshot.stage)[MOST:]:
            shutil.rmtree(old)

    def newest(self, damaged: Callable[[str, str], None] = lambda name, why: None) -> dict[str, Checkpoint]:
        """stage -> the newest undamaged checkpoint, stages in order.

        damaged: called with the name of each damaged one and the reason; the one before is used then.

        Raises:
            RunError: one is of a later version.
        """
        found = {}
        for stage in STAGES:
            for _, folder in self._of(stage):
                try:
                    found[stage] = _read(folder)
                    break
                except _Damaged as error:
                    damaged(folder.name, str(error))
        return found

    def reached(self) -> tuple[int, int]:
        """(number of the stage, step) of the newest one, damaged or not; (-1, -1) without any."""
        complete = (
            (number, step) for number, stage in enumerate(STAGES)
            for step, folder in self._of(stage) if (folder / MANIFEST).is_file()
        )  # fmt: skip
        return max(complete, default=(-1, -1))

    def go_back_to(self, steps: Mapping[str, int]) -> None:
        """Put aside checkpoints later than these steps per stage, and those of other stages.

        Otherwise new ones, which have earlier steps, would be removed as the older ones.
        """
        for stage in STAGES:
            for step, folder in self._of(stage):
                if step > steps.get(stage, -1):
                    aside = self.folder / f"aside-{folder.name}"
                    shutil.rmtree(aside, ignore_errors=True)
                    folder.rename(aside)

    def clean(self) -> None:
        """Remove what a killed attempt left half written."""
        for part in self.folder.glob(".*.part"):
            shutil.rmtree(part, ignore_errors=True)

    def remove(self) -> None:
        """Remove all of them: the run no longer needs any."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _of(self, stage: str) -> list[tuple[int, Path]]:
        """(step, folder) of a stage, newest first."""
        found = ((f.name.rpartition("-"), f) for f in self.folder.glob(f"{stage}-*"))
        return sorted(((int(n), f) for (name, _, n), f in found if name == stage and n.isdigit()), reverse=True)


class _Damaged(Exception):  # noqa: N818 - the next one is taken
    pass


def _read(folder: Path) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from iekd.engine.state import LearnerState, Snapshot

    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        content = manifest["content"]
        if manifest["sha256"] != _sum(content):
            raise _Damaged(f"{MANIFEST} does not match its sum")
        if content["format"] > FORMAT:
            raise RunError(
                f"The checkpoint '{folder.name}' was written by iekd {content['iekd']}. Resume it with that version."
            )
        if (folder / STATE).stat().st_size != content["bytes"]:
            raise _Damaged(f"{STATE} has {(folder / STATE).stat().st_size} bytes instead of {content['bytes']}")
        if _sum_of(folder / STATE) != content["sha256"]:
            raise _Damaged(f"{STATE} does not match its sum")
        tensors = load_file(folder / STATE)
    except RunError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _Damaged(f"it cannot be read: {error}") from None
    states = {}
    for learner, numbers in content["numbers"].items():
        own = {kind: dict(_named(tensors, f"{learner}/{kind}/")) for kind, _ in KINDS}
        # safetensors keeps no order, and the rows' columns have one
        sums = {key: own["sums"][key] for key in numbers.pop("sums")}
        states[learner] = LearnerState(own["weights"], own["momentum"], sums, numbers, own["answers"])
    return Checkpoint(Snapshot(content["stage"], content["step"], states), content["notes"])


def _named(tensors: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    return ((key[len(prefix) :], tensor) for key, tensor in tensors.items() if key.startswith(prefix))


def _sum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sum_of(path: Path) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
