"""Links to what can be downloaded of a run; ui/server/downloads.py answers them."""

from __future__ import annotations

import base64
import contextlib
from html import escape
from pathlib import Path

from iekd.errors import UserError
from iekd.explain.about import JSON
from iekd.export import FORMATS
from iekd.export.web import FORMAT_TITLE, WEB
from iekd.language import N_, _
from iekd.models.artifact import WEIGHTS, ModelCard
from iekd.results.predictions import ANSWERS
from iekd.runs.explained import explainer_of
from iekd.runs.exported import export_folder, files_of
from iekd.runs.store import Run, Store
from iekd.ui.render.template import html_text
from iekd.ui.render.words import file_size, model_titles
from iekd.ui.rights.hidden_paths import Tell

ADDRESS = "/download"
EXPLAINED = "/explained"
REPORTS = (
    ("report.md", "text/markdown", N_("Report to read")),
    ("report.json", "application/json", N_("Report as data")),
)


def downloads_html(run: Run, with_networks: bool, tell: Tell = str) -> str:
    """Links to all of it. Reports are carried by the page itself: the runs folder is never served."""
    links = []
    for name, kind, label in REPORTS:
        try:
            content = tell((run.path / name).read_text("utf-8", "replace"))
        except OSError:
            continue
        links.append(download_link(f"{run.id}-{name}", kind, content, html_text(label)))
    if with_networks:
        with contextlib.suppress(OSError):  # runs of version 0.1 and those that did not finish have none
            size = (run.path / ANSWERS).stat().st_size
            links.append(
                _link(
                    f".{ADDRESS}/{run.id}/{ANSWERS}",
                    html_text("All answers <small>{size}</small>", size=file_size(size)),
                )
            )
    networks, titles = run.model_folders if with_networks else {}, model_titles(run)
    for name, folder in networks.items():
        with contextlib.suppress(UserError, OSError):  # a damaged one has nothing to offer
            ModelCard.read(folder)
            size = (folder / WEIGHTS).stat().st_size
            links.append(
                _link(f".{ADDRESS}/{run.id}/{name}", f"{escape(titles[name])} <small>{file_size(size)}</small>")
            )
    return f'<p class="downloads">{"".join(links)}</p>' if links else ""


def download_link(name: str, kind: str, content: str, label: str) -> str:
    """A link that carries what it downloads, so that no file has to be stored for it.

    Args:
        name: what the file will be called. kind: its media type. label: HTML.
    """
    address = f"data:{kind};base64,{base64.b64encode(content.encode(errors='backslashreplace')).decode()}"
    return _link(address, label, name)


def export_link(run: Run, learner: str, format_name: str) -> str:
    """A link to an export that has been made."""
    size = sum(path.stat().st_size for path in files_of(export_folder(run, learner, format_name)))
    title = _(FORMAT_TITLE) if format_name == WEB else f"{model_titles(run)[learner]}, {_(FORMATS[format_name].title)}"
    label = f"{escape(title)} <small>{file_size(size)}</small>"
    return _link(f".{ADDRESS}/{run.id}/{learner}/{format_name}", label)


def explained_links(store: Store, folder: Path, tell: Tell) -> str:
    """Links to an explanation: as data, and all of it with the maps as PNG files. tell: see `teller`."""
    links = [_link(f".{EXPLAINED}/{explainer_of(store).link(folder)}", html_text("Maps and numbers as a zip"))]
    with contextlib.suppress(OSError):
        links.append(
            download_link(JSON, "application/json", tell((folder / JSON).read_text()), html_text("Numbers as JSON"))
        )
    return "".join(links)


def downloads_of(run: Run) -> dict[str, int]:
    """What the page offers of a run: the last part of its address -> bytes of the weights or of the file."""
    files = {ANSWERS: run.path / ANSWERS, **{name: folder / WEIGHTS for name, folder in run.model_folders.items()}}
    return {name: path.stat().st_size for name, path in files.items() if path.is_file()}


def _link(address: str, label: str, name: str = "") -> str:
    return f'<a class="download" download="{escape(name)}" href="{escape(address)}">⬇ {label}</a>'
