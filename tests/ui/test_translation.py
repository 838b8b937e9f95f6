"""The page in another language: every text that people see is looked up, and iekd.pot has them all.

The other language has an accent on every letter, so that any text without accents was not looked up.
"""

from __future__ import annotations

import ast
import gettext
import importlib.util
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from test_run_page_parts import made_run
from ui_helpers import ROOT

pytest.importorskip("babel", reason="collecting the texts needs Babel: pip install -e '.[dev]'")

from iekd import data, language
from iekd.config.run import RunConfig
from iekd.config.settings import choices_of
from iekd.models.catalog import model_name, models
from iekd.runs.index import Index
from iekd.runs.store import Store
from iekd.ui.app import build_app
from iekd.ui.render.runs import Query, tools_html
from iekd.ui.render.template import TEMPLATES
from iekd.ui.rights.access import Access
from iekd.ui.server.script_words import script_words
from iekd.ui.shared.gradio_patches import PageHtml
from iekd.ui.tabs.run import look
from iekd.ui.tabs.runs import table_html

ACCENTS = str.maketrans("aeiounycszAEIOUNYCSZdlrtgbfhjkmpqvwx", "áéíóúñýçšžÁÉÍÓÚÑÝÇŠŽďĺřťğƀƒĥĵķɱþɋṽŵẋ")
# the same in every language: names, what people type, and what stands for something else in the text of a script
NAMES = re.compile(
    "|".join(
        [r"IE-KD Studio|ONNX|API|PNG|CSV|JSON|CKA|LRP|Python|Esc|Huang et al., “.*”, CVPR 2021|kd – .*"]
        + [r"[Bb]aseline|\b(ie-)?(ft|at|od|dml|dkd|dist|rkd|kd)\b|(IE-)?(FT|AT|OD|DML)|KD|DKD|DIST|RKD"]
        + [r"\{\w+\}|kind \d+|\d{8}-\d{6}-\w+|folder:PATH|csv:FILE|torchvision:\w+|hf:ORG/\S+|Hugging Face Hub"]
        + [re.escape(model_name(name)) for name in sorted(models(), reverse=True)]
        + [re.escape(name) for name in data.load("fashion-mnist-sample").class_names]
    )
)
# said by a run's own process or the operating system, or drawn into an image: docs/translating.md names them
ENGLISH_ONLY = re.compile("The training process is gone: .*|.*, trained on .* Test accuracy: .*")


@pytest.fixture(scope="module")
def tool() -> Any:
    """.ci/messages.py as a module."""
    spec = importlib.util.spec_from_file_location("messages", ROOT / ".ci" / "messages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Accented(gettext.NullTranslations):
    """A catalogue with the texts of iekd.pot, each with accents."""

    def __init__(self, known: set[Any]) -> None:
        super().__init__()
        self.known, self.missing = known, set[str]()

    def gettext(self, message: str) -> str:
        return self._found(message, message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return self._found((msgid1, msgid2), msgid2)

    def _found(self, key: Any, text: str) -> str:
        if key not in self.known:
            return text
        parts = re.split(r"(\{\w*\}|<[^>]*>|&\w+;|%\w|\b\d+\w*\b)", text)
        return "".join(part if i % 2 else part.translate(ACCENTS) for i, part in enumerate(parts))


@pytest.fixture(scope="module")
def accented(tool: Any) -> Iterator[Accented]:
    found = Accented(tool.ids(tool.read(tool.POT)))
    before = language._Current.catalogue
    language._Current.catalogue = found
    yield found
    language._Current.catalogue = before


class Texts(HTMLParser):
    """Everything of some HTML that is read or heard."""

    SHOWN = ("aria-label", "title", "alt", "placeholder", "data-label")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in self.SHOWN and value]
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "script", "code", "pre"} & set(self.inside):
            self.found.append(data)


def english(html: str) -> set[str]:
    """Texts with a word of three or more plain letters beside the names."""
    return {text.strip() for text in Texts(html).found if re.search(r"[A-Za-z]{3,}", NAMES.sub(" ", text))}


def test_iekd_pot_is_current(tool: Any) -> None:
    collected, known = tool.ids(tool.collect()), tool.ids(tool.read(tool.POT))
    hint = "Run: python .ci/messages.py"
    assert not collected - known, hint
    assert not known - collected, hint


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.html")), ids=lambda path: path.stem)
def test_a_template_has_no_text_of_its_own(path: Path) -> None:
    html = re.sub(r"\{#.*?#\}|\{\{.*?\}\}|\{%.*?%\}", "", path.read_text(), flags=re.DOTALL)
    assert not english(html)


def components(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All of a page but those of the endpoints for programs: of type "api", or in a hidden row without a name."""
    known = {component["id"]: component for component in config["components"]}

    def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        props = known[node["id"]]["props"] if node["id"] in known else {}
        if props.get("visible", True) is False and not props.get("elem_id") and node.get("children"):
            return
        if props and known[node["id"]]["type"] != "api":
            yield known[node["id"]]
        for child in node.get("children") or ():
            yield from walk(child)

    yield from walk(config["layout"])


def shown_by(demo: Any) -> Iterator[str]:
    """What the components of a page show before anything was done: labels, hints, choices, values."""
    typed = {value for info in RunConfig.model_fields.values() for value in choices_of(info)}
    for component in components(demo.config):
        props = component["props"]
        hidden = props.get("visible", True) in (False, "hidden")
        yield from filter(None, (props.get(name) for name in ("info", "placeholder")))
        if props.get("label") and props.get("show_label", True):
            yield props["label"]
        if component["type"] in ("html", "markdown", "button") and not (hidden and props.get("value") == "Run"):
            yield str(props.get("value") or "")  # "Run" is Gradio's own
        yield from (str(text) for text, value in props.get("choices") or () if value not in typed)


def test_the_whole_page_before_a_click(accented: Accented, tmp_path: Path) -> None:
    assert not set().union(*map(english, shown_by(build_app(tmp_path))))


def test_the_page_says_which_language_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    page = '<html lang="en"><head></head><base href="./" /></html>'
    app = Starlette(routes=[Route("/", lambda _: HTMLResponse(page))], middleware=[Middleware(PageHtml)])
    assert '<html lang="en">' in TestClient(app).get("/").text
    monkeypatch.setattr(language._Current, "language", "pt_BR")
    assert '<html lang="pt-BR">' in TestClient(app).get("/").text


def test_scripts_have_their_texts_from_the_page(accented: Accented) -> None:
    assert not set().union(*map(english, script_words().values()))


def test_a_run_and_the_list_of_runs(accented: Accented, tmp_path: Path) -> None:
    over, live = made_run(tmp_path, seeds=(0, 1)), made_run(tmp_path, live=True)
    store, may = Store(tmp_path), Access().of(None)
    looked = [part for run in (over, live) for part in look(store, run.id, {}, may).values()]
    shown = [part for part in looked if isinstance(part, str)]
    shown += [table_html(store, may), tools_html(Index(store), Query(), may)]
    assert not {text for text in set().union(*map(english, shown)) if not ENGLISH_ONLY.fullmatch(text)}


PACKAGE = Path(language.__file__).parent
PAGE = [path for room in ("tabs", "render") for path in sorted((PACKAGE / "ui" / room).glob("*.py"))]


def sentences(path: Path, known: set[Any]) -> Iterator[str]:
    """Texts of two words or more that are neither looked up nor marked, nor part of an error or of a script."""
    tree, passed = ast.parse(path.read_text()), set[int]()
    for node in ast.walk(tree):
        looked_up = isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in LOOK_UP
        if (
            looked_up
            or isinstance(node, ast.Raise)
            or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        ):
            passed |= {id(part) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
            text = re.sub(r"<[^>]*>?|^[^<>]*\">|^\"[^<>]*$", " ", node.value)
            is_script = re.search(r"=>|document\.|window\.|return ", text)
            if re.search(r"[A-Za-z]{2,} [a-z]{2,}", text) and not is_script and node.value not in known:
                yield node.value


LOOK_UP = {"_", "N_", "ngettext", "html_text", "html_plural", "info", "warning", "exception"}


@pytest.mark.parametrize("path", PAGE, ids=lambda path: path.stem)
def test_a_module_of_the_page_has_no_sentence_that_is_not_looked_up(path: Path, tool: Any) -> None:
    assert not set(sentences(path, tool.ids(tool.read(tool.POT))))
