"""The certificate that goes with an exported file: what it is, what was checked and found, where, and with what.

Everything in it was measured on the written file; what could not be checked is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from iekd.export.check import Latency
from iekd.plural import counted

DIFFERS = 1e-4  # of a probability: more than this is more than rounding
BROKEN = 1e-2  # no float32 file that is right differs by so much
LOST, REFUSED = 1.0, 5.0  # points of accuracy that 8 bits may cost before it is said, and before the file is refused


@dataclass(frozen=True)
class Certificate:
    """What was found of one exported file.

    format, file: its format and name. bytes, original_bytes: its size, and that of the weights it was made from.
    model, params, role, method, seed, trained_by: the network, and what trained it. resolution, channels, fit,
    class_names: what it takes and gives. datasets: what it was trained on; license: of the file, as given.
    accuracy, balanced_accuracy: percent of the `test_images` of `checked_on` that the file itself gets right;
    original_accuracy: of the network it was made from on the same images, where the format is approximate;
    recorded_accuracy: the one in model.json. None where it was not measured.
    difference: the largest of any probability between file and original, over `compared_images`;
    compared_on: "test images" or "random pixels".
    energy_threshold: of the network; images whose log-sum-exp of the logits is below it are unlike its training images.
    latencies: of teacher, original and file. machine, versions, command, created: where, with what and when.
    warnings: what should be known before it is used. not_checked: what could not be checked, and why.
    """

    format: str
    file: str
    bytes: int
    original_bytes: int
    model: str
    params: int
    role: str
    method: str
    seed: int
    trained_by: str
    resolution: int
    channels: int
    fit: str
    class_names: tuple[str, ...]
    datasets: tuple[str, ...]
    license: str
    checked_on: str
    test_images: int
    accuracy: float | None
    balanced_accuracy: float | None
    original_accuracy: float | None
    recorded_accuracy: float | None
    difference: float
    compared_images: int
    compared_on: str
    energy_threshold: float | None
    latencies: tuple[Latency, ...]
    machine: dict[str, Any]
    versions: dict[str, str]
    command: str
    created: str
    warnings: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()

    @property
    def size_ratio(self) -> float:
        """Size of the file by that of the weights it was made from."""
        return self.bytes / self.original_bytes

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "size_ratio": self.size_ratio}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Certificate:
        """What `to_json` gave.

        Raises:
            TypeError: something else.
        """
        known = {f.name for f in fields(Certificate)}
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        given["latencies"] = tuple(Latency(**row) for row in given["latencies"])
        return Certificate(**given)

    def rows(self) -> Iterator[tuple[str, str]]:
        """(what, found) in words, for a table."""
        yield "File", f"{self.file} ({self.format}), {size(self.bytes)}, {self.size_ratio:.2f} times the weights' size"
        made = f", {self.method}, seed {self.seed}" if self.role != "teacher" else ""
        yield "Network", f"{self.model}, {self.params:,} parameters ({self.role}{made})"
        kind = "grey" if self.channels == 1 else "colour"
        yield "Input", f"{self.resolution} x {self.resolution} pixels, {kind}; other shapes: {self.fit}"
        yield "Classes", f"{len(self.class_names)}"
        if self.accuracy is not None and self.balanced_accuracy is not None:
            yield "Accuracy", f"{self.accuracy:.2f} % of {counted(self.test_images, 'test image')} of {self.checked_on}"
            yield "Balanced accuracy", f"{self.balanced_accuracy:.2f} %"
        if self.original_accuracy is not None:
            yield "Accuracy of the original", f"{self.original_accuracy:.2f} % of the same images"
        if self.recorded_accuracy is not None:
            yield "Accuracy after training", f"{self.recorded_accuracy:.2f} %"
        where = f"{self.compared_images:,} {self.compared_on}"
        yield "Largest difference from the original", f"{self.difference:.1e} of a probability, on {where}"
        for found in self.latencies:
            text = f"{found.median:.2f} ms ({found.lower_quartile:.2f} to {found.upper_quartile:.2f})"
            yield f"Latency, {found.model} in {found.runtime}", f"{text}, {counted(found.answers, 'image')}"
        if self.energy_threshold is not None:
            yield "Marked as unlike its training images", f"negative energy below {self.energy_threshold:g}"
        yield "Trained on", ", ".join(self.datasets)
        yield "Licence", self.license or "not stated"

    def to_markdown(self) -> str:
        """A page to read."""
        lines = [f"# Certificate of {self.file}", ""]
        lines += [f"**Warning:** {_escaped(said)}\n" for said in self.warnings]
        lines += [f"**Not checked:** {_escaped(said)}\n" for said in self.not_checked]
        lines += ["| | |", "|---|---|", *(f"| {_escaped(what)} | {_escaped(found)} |" for what, found in self.rows())]
        lines += [
            "",
            "Latency: one image at a time on one CPU thread, after warm-up; median (lower to upper quartile).",
            "",
            f"Classes: {_escaped(', '.join(self.class_names))}.",
            "",
            f"Exported on {self.created} on {_escaped(str(self.machine['processor']))} "
            f"({counted(int(str(self.machine['cores'])), 'core')}, {_escaped(str(self.machine['platform']))}) with "
            + ", ".join(f"{name} {version}" for name, version in self.versions.items()) + ".",
        ]  # fmt: skip
        for what, command in (("Trained", self.trained_by), ("Exported", self.command)):
            lines += ["", f"{what} by:", "", f"    {command}"] if command else []
        return "\n".join(lines) + "\n"


def difference_warning(difference: float, approximate: bool) -> str:
    """What is to be said of a difference to the original that is more than rounding; empty where it is not."""
    if approximate or difference <= DIFFERS:
        return ""
    return (
        f"A probability differs from the original's by {difference:.1e}, which is more than rounding ({DIFFERS:g}). "
        "The most probable class may differ where two are close."
    )


def accuracy_warning(accuracy: float, original: float) -> str:
    """What is to be said of the accuracy that an approximate file has lost; empty for up to a point."""
    if original - accuracy <= LOST:
        return ""
    return f"It has lost {original - accuracy:.2f} points of accuracy: {accuracy:.2f} % instead of {original:.2f} %."


def size(count: int) -> str:
    """Bytes as text: 1.23 MB, 456.7 kB."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _escaped(text: str) -> str:
    """Text from anywhere, such as a class name, within a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
