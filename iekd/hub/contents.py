"""What a push sends, made beforehand as a whole: files of a student, of a demo in the browser, or of a run."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from iekd import __version__
from iekd.data import own_path
from iekd.errors import RunError, UserError
from iekd.export.sharing import shareable
from iekd.export.web import EXAMPLES
from iekd.hub.card import CURVES, run_readme, student_readme
from iekd.hub.curves import curves_png
from iekd.hub.privacy import Scrubber, as_json
from iekd.inference.onnx_file import EXPORTED as ONNX
from iekd.models.artifact import CARD, WEIGHTS, ModelCard
from iekd.runs.models import models_of_page
from iekd.runs.notes import NOTES
from iekd.runs.store import CHECKPOINTS, Run
from iekd.runs.transfer import files_of

README, CONFIG = "README.md", "config.json"
MARK = "iekd.json"  # in every repository that a push has filled: what it holds, so that the next push knows its own
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
What = Literal["student", "demo", "run"]
KINDS: dict[What, str] = {"student": "model", "demo": "space", "run": "dataset"}  # of repositories


@dataclass(frozen=True)
class Contents:
    """Files by their path in the repository: bytes, or where they lie on the disk.

    notes: what was left out, as sentences.
    """

    what: What
    files: dict[str, bytes | Path]
    notes: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """Of repository: model, space or dataset."""
        return KINDS[self.what]

    @property
    def bytes(self) -> int:
        return sum(len(c) if isinstance(c, bytes) else c.stat().st_size for c in self.files.values())

    def write(self, folder: Path) -> None:
        """Write everything to a folder that does not exist or is empty, to be looked at.

        Raises:
            UserError: something is there, or it cannot be written.
        """
        try:
            if folder.exists() and any(folder.iterdir()):
                raise UserError(f"'{folder}' is not empty. Give --out a new folder.")
            for name, content in self.files.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        except OSError as error:
            raise UserError(f"'{folder}' cannot be written ({error.strerror}). Give --out another folder.") from None


@contextmanager
def gathered(
    what: What, repo: str, *, run: Run | None = None, model: Path | None = None, license: str = "",
    checkpoints: bool = False, examples: int | None = None,
) -> Iterator[Contents]:  # fmt: skip
    """The files of a push; those that had to be made are removed at the end.

    Args:
        repo: ORG/NAME, which the README speaks of.
        run: what is pushed, or where the model comes from.
        model: the folder of a student; for "demo" None means all of the run's first seed.
        license: for the README, as the Hub writes it (mit, apache-2.0, cc-by-4.0); empty: none is stated.
        checkpoints: with them a run can be continued elsewhere.
        examples: test images that a demo shows; None: ten of a dataset that is anybody's, none of one's own files.
    Raises:
        UserError: it is not complete, or cannot be read, or the licence has no such name.
    """
    check_license(license)
    with tempfile.TemporaryDirectory(prefix="iekd-push-") as place:
        try:
            if what == "student":
                assert model is not None
                contents = _student(model, repo, run, license, Path(place))
            else:
                assert run is not None
                contents = (
                    _run(run, repo, license, checkpoints)
                    if what == "run"
                    else _demo(run, model, repo, license, examples, Path(place))
                )
        except UserError:
            raise
        except (OSError, ValueError) as error:  # a file is missing, or is not JSON
            raise UserError(f"What is to be pushed cannot be read ({error}). Check the run's folder.") from None
        mark = {
            "what": what, "iekd_version": __version__, "run": run.id if run else "",
            "learner": model.name if model else "", "files": sorted(contents.files),
        }  # fmt: skip
        yield replace(contents, files={**contents.files, MARK: as_json(mark)})


def check_license(license: str) -> None:
    """Raises UserError for what the Hub would refuse as a licence, after the repository has been made."""
    if license and not LICENSE.fullmatch(license):
        raise UserError(
            f"The licence '{license}' cannot be written as the Hub does. Take its name there, in lower case, such as "
            "mit, apache-2.0 or cc-by-4.0; 'other' for one that it does not know."
        )


def _student(model: Path, repo: str, run: Run | None, license: str, place: Path) -> Contents:
    scrub = Scrubber(run)
    clean, card = _scrubbed(model, scrub, place)
    files: dict[str, bytes | Path] = {name: clean / name for name in (WEIGHTS, CARD)}
    files[CONFIG] = as_json(_config(card))
    notes = []
    try:
        files[ONNX] = _exported(clean, place / ONNX, license)
    except UserError as error:  # a network that has no ONNX can be pushed all the same
        notes.append(f"Without {ONNX}: {error}")
    curves = curves_png(run) if run is not None else None
    if curves is not None:
        files[CURVES] = curves
    report = scrub.value(run.report) if run is not None and run.report else None
    cautions = [scrub.text(caution) for caution in run.status.cautions] if run is not None else []
    files[README] = student_readme(repo, card, report, license, set(files), cautions).encode()
    return Contents("student", files, notes)


def _demo(run: Run, model: Path | None, repo: str, license: str, examples: int | None, place: Path) -> Contents:
    """The page of `iekd export --format web`; test images are in it only where they are anybody's, or asked for."""
    from iekd.runs.export import export_saved_page

    notes, own = [], own_path(run.config.dataset) is not None
    if own and examples is None:
        notes.append("No test images are on the page, because they are your own files. --examples 10 shows ten.")
    shown = examples if examples is not None else 0 if own else EXAMPLES
    folder = place / "page"
    models = models_of_page(run, model.name if model else "")
    export_saved_page(models, folder, license=license, examples=shown, title=repo.partition("/")[2])
    scrub = Scrubber(run)
    files: dict[str, bytes | Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            files[name] = scrub.file(path) if path.suffix in (".json", ".md") else path
    return Contents("demo", files, notes)


def _scrubbed(model: Path, scrub: Scrubber, place: Path) -> tuple[Path, ModelCard]:
    """A copy of a model's folder whose card says nothing of this machine: exports carry the card in them."""
    card = shareable(ModelCard.read(model))
    if not (model / WEIGHTS).is_file():
        raise UserError(f"There is no model in '{model.name}': '{WEIGHTS}' is missing.")
    clean = place / "models" / model.name
    clean.mkdir(parents=True)
    (clean / WEIGHTS).symlink_to(model.resolve() / WEIGHTS)
    values = scrub.value(json.loads(json.dumps(asdict(card))))
    (clean / CARD).write_bytes(as_json(values))
    return clean, ModelCard.from_json(values, clean / CARD)


def _run(run: Run, repo: str, license: str, checkpoints: bool) -> Contents:
    if run.status.live:
        raise RunError(f"The run '{run.id}' is still {run.status.state}. Stop it first, or wait for its end.")
    scrub = Scrubber(run)
    files: dict[str, bytes | Path] = {}
    for path in files_of(run, checkpoints):
        name = path.relative_to(run.path).as_posix()
        if name == NOTES:  # written for oneself
            continue
        as_it_is = path.suffix == ".safetensors" or path.name == "metrics.jsonl" or name.startswith("checkpoints/")
        files[name] = path if as_it_is else scrub.file(path)
    report = files.get("report.md", b"")
    assert isinstance(report, bytes)
    files[README] = run_readme(repo, run.id, report.decode(), license).encode()
    left_out = any((run.path / CHECKPOINTS).glob("*")) and not checkpoints
    return Contents("run", files, ["Without its checkpoints; --checkpoints adds them."] if left_out else [])


def _config(card: ModelCard) -> dict[str, Any]:
    """config.json in the words that readers of the Hub know; everything that loading needs is in model.json."""
    return {
        "library_name": "iekd", "architectures": [card.model], "num_labels": len(card.class_names),
        "id2label": {str(i): name for i, name in enumerate(card.class_names)},
        "label2id": {name: i for i, name in enumerate(card.class_names)},
        "num_channels": card.channels, "image_size": card.resolution, "image_mean": card.mean, "image_std": card.std,
    }  # fmt: skip


def _exported(model: Path, out: Path, license: str) -> Path:
    """The model as ONNX at `out`.

    Raises:
        UserError: the network cannot be exported.
    """
    from iekd.export import export_model

    export_model(model, "onnx", out, license=license, without="It was exported for a push.")
    return out
