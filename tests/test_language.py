"""Looking up the page's texts: catalogues, plurals, values, and what happens where a catalogue is of no use."""

from __future__ import annotations

import ast
import io
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import iekd
from iekd.language import N_, _, english, language, ngettext, use
from iekd.ui.render.template import html_plural, html_text

PACKAGE = Path(iekd.__file__).parent
POLISH = {
    "All images": "Wszystkie obrazy",
    "Run {run} of {dataset}": "{dataset}: przebieg {run}",
    "<b>{name}</b> is ready": "Gotowe: <b>{name}</b>",
    "The image": 'Tak zwany "obraz"',
    "{count} more": "jeszcze {ile}",  # a slip: there is no such value
    ("{number} image", "{number} images"): ("{number} obraz", "{number} obrazy", "{number} obrazów"),
}


@pytest.fixture
def polish(tmp_path: Path) -> Iterator[Path]:
    """The folder of a catalogue, which is in use."""
    catalog, mofile = pytest.importorskip("babel.messages.catalog"), pytest.importorskip("babel.messages.mofile")
    made, file = catalog.Catalog(locale="pl"), io.BytesIO()
    for text, translation in POLISH.items():
        made.add(text, translation)
    mofile.write_mo(file, made)
    folder = tmp_path / "pl" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "iekd.mo").write_bytes(file.getvalue())
    use("pl", tmp_path)
    yield tmp_path
    use("")


def test_english_needs_no_catalogue():
    assert _("Run {run} of {dataset}", run=3, dataset="pets") == "Run 3 of pets"
    assert _("{as it is}") == N_("{as it is}") == "{as it is}"
    assert [ngettext("{number} image", "{number} images", n) for n in (0, 1, 1234)] == [
        "0 images", "1 image", "1,234 images",
    ]  # fmt: skip
    assert language() == "en"


def test_a_slip_in_the_english_is_not_hidden():
    with pytest.raises(KeyError):
        _("{count} more", number=1)


def test_a_translation_may_order_its_values_and_has_its_own_plurals(polish):
    assert language() == "pl"
    assert _("All images") == "Wszystkie obrazy"
    assert _("Run {run} of {dataset}", run=3, dataset="pets") == "pets: przebieg 3"
    assert [ngettext("{number} image", "{number} images", n) for n in (1, 2, 5, 22)] == [
        "1 obraz", "2 obrazy", "5 obrazów", "22 obrazy",
    ]  # fmt: skip


def test_what_is_not_translated_is_in_english(polish):
    assert _("No such text") == "No such text"
    assert ngettext("{number} run", "{number} runs", 2) == "2 runs"
    assert _("") == "", "the catalogue's own header"


def test_a_translation_that_does_not_fit_is_replaced_by_the_english(polish, caplog):
    assert _("{count} more", count=2) == "2 more"
    assert "jeszcze {ile}" in caplog.text


def test_values_are_escaped_and_no_text_ends_an_attribute(polish):
    assert html_text("<b>{name}</b> is ready", name="<i>") == "Gotowe: <b>&lt;i&gt;</b>"
    assert '"' not in html_text("The image")
    assert html_plural("{number} image", "{number} images", 5) == "5 obrazów"


def test_files_that_leave_the_machine_are_in_english_whoever_looks_meanwhile(polish):
    said = []
    with english():
        other = threading.Thread(target=lambda: said.append(_("All images")))
        other.start()
        other.join()
        said.append(_("All images"))
    assert said == ["Wszystkie obrazy", "All images"]
    assert _("All images") == "Wszystkie obrazy"


@pytest.mark.parametrize("content", [None, b"", b"no catalogue at all", b"\xde\x12\x04\x95 cut off"])
def test_without_a_catalogue_of_use_the_page_is_in_english_and_the_log_says_so(tmp_path, caplog, content):
    if content is not None:
        (tmp_path / "xx" / "LC_MESSAGES").mkdir(parents=True)
        (tmp_path / "xx" / "LC_MESSAGES" / "iekd.mo").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        use("xx", tmp_path)
    assert (_("All images"), language()) == ("All images", "en")
    assert len(caplog.records) == 1
    assert "'xx'" in caplog.text


@pytest.mark.parametrize(
    "path", [p for p in PACKAGE.rglob("*.py") if b"iekd.language import" in p.read_bytes()], ids=lambda p: p.stem
)
def test_no_text_is_looked_up_before_the_language_is_chosen(path):
    """Constants are marked with N_ and looked up where they are shown."""

    def at_import(node: ast.AST) -> Iterator[ast.AST]:
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in [*node.args.defaults, *node.args.kw_defaults] if inside else ast.iter_child_nodes(node):
            if child is not None:
                yield child
                yield from at_import(child)

    names = {
        getattr(node.func, "id", "") for node in at_import(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    }
    assert not names & {"_", "ngettext", "html_text", "html_plural", "render"}
