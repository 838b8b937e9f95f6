"""web: a folder that is a static page, and a static Space of the Hugging Face Hub, in which the networks answer.

Everything is computed in the visitor's browser. The page's own files are in web/; this module fills in what is special
to one export and adds the networks (as ONNX, each with its certificate), some test images and, if asked, the runtime.
How the page looks and works is in web/style.css and web/app.js; web/pixels.js repeats data/decoding.py.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from iekd import __version__
from iekd.config.methods import BASELINE, METHODS, method_name, split_name
from iekd.data import own_path, title_of
from iekd.errors import UserError
from iekd.export.base import Say
from iekd.export.certificate import Certificate
from iekd.export.sharing import shareable
from iekd.export.web_runtime import Runtime, copied_runtime, find_runtime, pinned_runtime
from iekd.export.write import check_free, export_model, not_writable, sync
from iekd.inference.compare import unlike_words, who_decides
from iekd.inference.onnx_file import logits_output
from iekd.models.artifact import TEACHER, ModelCard
from iekd.models.catalog import model_name
from iekd.paths import absolute
from iekd.plural import counted

if TYPE_CHECKING:
    from iekd.data.base import Dataset

SOURCES = Path(__file__).with_name("web")
FILES = ("style.css", "pixels.js", "worker.js", "networks.js", "app.js")
TEACHER_COLOURS = ("#334155", "#e2e8f0")  # on a light and a dark page; those of students are their method's
WEB = "web"  # the format's name; it is not among FORMATS, because a page holds several models
FORMAT_TITLE = "Web page"
FORMAT_SUMMARY = (
    "A page on which the teacher and all students answer side by side, in the visitor's browser. To open it, unpack "
    "the zip, run python -m http.server in its folder and go to http://localhost:8000."
)
MODELS = "models"  # folder of the page
EXAMPLES = 10
RULE = "The first test image of {}, in the order of the dataset. None of them was used in training."
# the Hub asks for it
LARGE = "*.onnx filter=lfs diff=lfs merge=lfs -text\n*.wasm filter=lfs diff=lfs merge=lfs -text\n"


@dataclass(frozen=True)
class PageNetwork:
    """A network of the page: its ONNX file in the folder of the page, as `onnx_file` writes it, and its card."""

    file: Path
    card: ModelCard

    @property
    def title(self) -> str:
        """Teacher, Plain student, IE-FT student."""
        if self.card.role == TEACHER:
            return "Teacher"
        return METHODS[BASELINE].title if self.card.method == BASELINE else f"{method_name(self.card.method)} student"

    @property
    def words(self) -> str:
        """How it learned, after the name of its architecture."""
        spec = METHODS.get(split_name(self.card.method)[0])  # a card may name a method of a plugin that is not here
        if self.card.role == TEACHER:
            how = "the network that teaches"
        elif self.card.method == BASELINE:
            how = "learned from the labels alone"
        elif spec is None:
            how = f"trained by {self.card.method}"
        elif spec.explores and spec.needs_teacher:
            how = "half of it imitates the teacher, half explores"
        else:
            how = spec.summary
        return f"{model_name(self.card.model)}: {how}"

    @property
    def colours(self) -> tuple[str, str]:
        spec = METHODS.get(split_name(self.card.method)[0]) or METHODS[BASELINE]
        return TEACHER_COLOURS if self.card.role == TEACHER else spec.colour


@dataclass(frozen=True)
class WebExample:
    """A test image (H,W,C) uint8 and its class."""

    image: np.ndarray
    label: str


def choose_examples(dataset: Dataset, count: int = EXAMPLES) -> list[WebExample]:
    """The first test image of each class; with more classes than `count`, of classes evenly spread over their order."""
    classes = [k for k in range(len(dataset.class_names)) if (dataset.test.labels == k).any()]
    if len(classes) > count:
        classes = [classes[round(i)] for i in np.linspace(0, len(classes) - 1, count)] if count else []
    rows = [int(np.flatnonzero(dataset.test.labels == k)[0]) for k in classes]
    images = dataset.test.take(np.array(rows, np.int64)).images
    return [WebExample(np.asarray(images[i]), dataset.class_names[k]) for i, k in enumerate(classes)]


def export_page(
    folders: Sequence[Path], out: Path | str, *, dataset: Dataset | None = None, without: str = "", license: str = "",
    title: str = "", examples: int = EXAMPLES, runtime: Path | None = None, command: str = "", force: bool = False,
    say: Say = lambda _: None,
) -> list[Certificate]:  # fmt: skip
    """Export saved models as one page.

    Args:
        folders: of the models, which know the same classes; the teacher first, if there is one.
        out: the folder to make.
        dataset: whose test images the networks are checked on and the examples come from; None: no examples.
        title, runtime, license: see `write_page`. examples: how many test images to show at most.
        without, command, force, say: see `export_model`.
    Returns:
        The certificate of each network.
    Raises:
        UserError: `out` exists or cannot be written, the models do not belong together, the runtime is not there, or a
            network cannot be exported.
    """
    out = check_page_target(out)
    cards = [shareable(ModelCard.read(folder)) for folder in folders]
    beside = {TEACHER: folders[0]} if cards[0].role == TEACHER else {}
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    networks = [PageNetwork(part / MODELS / f"{i}-{_file_name(card)}.onnx", card) for i, card in enumerate(cards)]
    _check_classes(networks)
    if runtime is not None:
        find_runtime(runtime)  # before the minutes that the export may take
    certificates = []
    try:
        for folder, network in zip(folders, networks, strict=True):
            certificates.append(export_model(
                folder, "onnx", network.file, dataset=dataset, without=without, license=license, beside=beside,
                command=command, force=force, say=say,
            ))  # fmt: skip
        ordered = None if dataset is None else dataset.ordered(cards[0].class_names)
        shown = choose_examples(ordered, examples) if ordered and examples else []
        try:
            write_page(part, networks, shown, title=title, license=license, runtime=runtime)
            sync(part)
            check_free(out)
            part.rename(out)
        except OSError as error:
            raise not_writable(out, error) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return certificates


def check_page_target(out: Path | str) -> Path:
    """The path in full.

    Raises:
        UserError: `out` exists, or is the name of a file.
    """
    out = Path(absolute(str(out)))
    if out.suffix.lower() in (".html", ".htm"):
        raise UserError(f"The page is a folder and not the file '{out.name}'. Leave the ending out.")
    check_free(out)
    return out


def write_page(
    folder: Path, networks: Sequence[PageNetwork], examples: Sequence[WebExample] = (), *, title: str = "",
    license: str = "", runtime: Path | None = None,
) -> None:  # fmt: skip
    """Write everything of a page but its networks, which are there.

    Args:
        folder: of the page.
        networks: with the same classes; the teacher first, if there is one.
        examples: test images, as `choose_examples` gives them.
        title: heading of the page; "" for one from the dataset.
        license: of the weights, as the Hub names licences, such as "mit"; "" if it is not known.
        runtime: folder with onnxruntime-web, see `copied_runtime`; None: the page loads the pinned version.
    Raises:
        UserError: the networks do not know the same classes, or the runtime is not there.
    """
    _check_classes(networks)
    first = networks[0].card
    loaded = pinned_runtime() if runtime is None else copied_runtime(runtime, folder)
    title = title or f"{_dataset_words(first)}: {_who(networks)}"
    summary, deciding = _summary(networks), _deciding(networks)
    data = {
        "classes": first.class_names,
        "accuracy": _accuracy_words(networks),
        "networks": [{**_network(folder, network), "unlike": deciding.get(_name(network))} for network in networks],
        "unlike": unlike_words(list(deciding)) if deciding else "",
        "examples": [_example(folder, shown, i) for i, shown in enumerate(examples)],
        "runtime": _runtime(loaded),
    }
    whose = "each class" if len(examples) in (0, len(first.class_names)) else counted(len(examples), "class")
    values = {
        "TITLE": escape(title),
        "SUMMARY": escape(summary),
        "EXAMPLES": escape(RULE.format(whose)),
        "CONNECT": f"'self' {loaded.host}".strip(),
        "LICENSE": escape(f"Licence of the networks: {license}. ") if license else "",
        "PROGRAM": f"IE-KD Studio {__version__}",
        "DATA": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),  # no "</script>" in it
    }
    page = (SOURCES / "index.html").read_text("utf-8")
    for name, text in values.items():
        page = page.replace("{{" + name + "}}", text)
    (folder / "index.html").write_text(page, "utf-8")
    for name in FILES:
        shutil.copyfile(SOURCES / name, folder / name)
    (folder / "README.md").write_text(space_readme(title, summary, networks, license, runtime is not None), "utf-8")
    (folder / ".gitattributes").write_text(LARGE)


def space_readme(title: str, summary: str, networks: Sequence[PageNetwork], license: str, copied: bool) -> str:
    """README.md of the folder: the front matter that makes it a static Space, and how to serve it elsewhere."""
    front = {
        "title": title, "emoji": "🎓", "colorFrom": "green", "colorTo": "blue", "sdk": "static",
        "app_file": "index.html", "pinned": False, "short_description": _short(networks),
        "tags": ["image-classification", "knowledge-distillation", "onnx"], **({"license": license} if license else {}),
    }  # fmt: skip
    lines = []
    for key, value in front.items():  # JSON is YAML too; single words need no quotes
        plain = isinstance(value, str) and value.isalpha()
        lines.append(f"{key}: {value if plain else json.dumps(value, ensure_ascii=False)}")
    needs = (
        "It needs no other host."
        if copied
        else "It loads [ONNX Runtime Web](https://onnxruntime.ai) from a public network of copies; export with "
        "`--runtime FOLDER` for a page that needs no other host."
    )
    table = ["| network | parameters | test accuracy |", "|---|---|---|"]
    for network in networks:
        accuracy = "" if network.card.accuracy is None else f"{network.card.accuracy:.2f} %"
        table.append(f"| {network.title} ({model_name(network.card.model)}) | {network.card.params:,} | {accuracy} |")
    text = [
        f"# {title}", summary + " Nothing is uploaded: images stay in the visitor's browser.", "\n".join(table),
        f"The folder is a static page. {needs} To open it on your machine, run `python -m http.server` in it and open "
        "http://localhost:8000.",
        f"Made with IE-KD Studio {__version__}.",
    ]  # fmt: skip
    return "\n".join(["---", *lines, "---", "", "\n\n".join(text), ""])


def _check_classes(networks: Sequence[PageNetwork]) -> None:
    for other in networks[1:]:
        if other.card.class_names != networks[0].card.class_names:
            raise UserError(
                f"'{other.title}' and '{networks[0].title}' do not know the same classes in the same order, so they "
                "cannot be on one page. Export models of one run."
            )


def _deciding(networks: Sequence[PageNetwork]) -> dict[str, dict[str, Any]]:
    """The networks that decide whether an image is unlike the training images, by name, and what the page needs to do
    as `OpenedModel.unlike` does: the energy `below` which it is, the name of the output that has the logits, and the
    bytes that add this output to the ONNX file, in base64."""
    able = {}
    for network in networks:
        if network.card.energy_threshold is not None and (added := logits_output(network.file)):
            name, suffix = added
            able[_name(network)] = {
                "below": network.card.energy_threshold, "logits": name, "append": base64.b64encode(suffix).decode(),
            }  # fmt: skip
    return {name: able[name] for name in who_decides(able)}


def _name(network: PageNetwork) -> str:
    return TEACHER if network.card.role == TEACHER else network.file.stem


def _file_name(card: ModelCard) -> str:
    return TEACHER if card.role == TEACHER else card.method.replace("+", "-")


def _network(folder: Path, network: PageNetwork) -> dict[str, Any]:
    card = network.card
    light, dark = network.colours
    record = network.file.with_suffix(".certificate.md")  # as `export_model` names it
    return {
        "title": network.title, "words": network.words, "teacher": card.role == TEACHER, "model": card.model,
        "file": network.file.relative_to(folder).as_posix(), "bytes": network.file.stat().st_size,
        "params": card.params, "accuracy": card.accuracy,
        "size": card.resolution, "channels": card.channels, "fit": card.fit, "background": card.background,
        "certificate": record.relative_to(folder).as_posix() if record.is_file() else "",
        "command": card.command, "light": light, "dark": dark,
    }  # fmt: skip


def _example(folder: Path, shown: WebExample, index: int) -> dict[str, str]:
    file = Path("examples") / f"{index}.png"
    (folder / file).parent.mkdir(exist_ok=True)
    Image.fromarray(shown.image.squeeze()).save(folder / file)
    return {"file": file.as_posix(), "label": shown.label}


def _runtime(loaded: Runtime) -> dict[str, Any]:
    files = [{"name": name, "bytes": size, "integrity": digest} for name, size, digest in loaded.files]
    return {"base": loaded.base, "files": files}


def _dataset_words(card: ModelCard) -> str:
    """The dataset's name; of a folder its last part, because the page is shown to others."""
    name = card.datasets[0] if card.datasets else "Images"
    own = own_path(name)
    return title_of(name).split(",")[0] if own is None else own.name


def _who(networks: Sequence[PageNetwork]) -> str:
    if len(networks) == 1:
        return "a network"
    students = sum(network.card.role != TEACHER for network in networks)
    if students == len(networks):
        return f"{students} networks"
    return "a teacher and its student" if students == 1 else "a teacher and its students"


def _summary(networks: Sequence[PageNetwork]) -> str:
    teacher = next((n.card for n in networks if n.card.role == TEACHER), None)
    students = [n.card for n in networks if n.card.role != TEACHER]
    if len(networks) == 1:
        classes = len(networks[0].card.class_names)
        return f"A neural network says in your browser which of {classes} classes your image shows."
    text = "Give an image, and all networks answer side by side, in your browser."
    if teacher and students:
        times = teacher.params / max(card.params for card in students)
        if times >= 1.1:
            subject = "student is" if len(students) == 1 else "students are"
            text += f" The {subject} {times:.1f} times smaller than the teacher."
    return text


def _short(networks: Sequence[PageNetwork]) -> str:
    """At most 60 characters, as the Hub asks."""
    return "An image classifier" + (" and its teacher" if len(networks) > 1 else "") + " in your browser"


def _accuracy_words(networks: Sequence[PageNetwork]) -> str:
    if all(network.card.accuracy is None for network in networks):
        return "Their accuracy has not been measured."
    return "Test accuracy is the share of the dataset's test images that a network gets right, measured after training."
