"""What a quick measurement of a machine found, to be kept as JSON and read where torch is not wanted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from iekd.errors import UserError


@dataclass(frozen=True)
class Speeds:
    """Seconds per image of what a run is made of, for one pair of networks; see `probe.probe`.

    device, precision: "cuda", "cpu" or "mps"; "fp32" or "bf16".
    teacher: its forward pass, with the encoders that make factors; None where no method needs a teacher.
    auto_encoder: one training step of the auto-encoders, without the teacher's forward pass; None where not needed.
    evaluation: a student's answer in evaluation mode.
    together: the whole step of all chosen learners in lock-step, teacher included, as a run really does it.
    """

    device: str
    precision: str
    teacher: float | None
    auto_encoder: float | None
    evaluation: float
    together: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Speeds:
        """Raises UserError where a field is missing, unknown or no positive number, as in files of other versions."""
        names = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or set(value) != names:
            raise UserError(
                f"Speeds '{_short(value)}' cannot be read: they need the fields {', '.join(sorted(names))}."
            )
        numbers = [value["evaluation"], value["together"]]
        numbers += [value[name] for name in ("teacher", "auto_encoder") if value[name] is not None]
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < float("inf"):
                raise UserError(f"Speeds '{_short(value)}' cannot be read: '{_short(number)}' is no number of seconds.")
        return cls(**value)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
