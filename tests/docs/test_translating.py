"""The steps and the example of docs/translating.md, as somebody follows them."""

from __future__ import annotations

import importlib.util
import io
import re
from pathlib import Path

import pytest

from iekd.language import _, use

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "translating.md"

pytestmark = pytest.mark.skipif(not GUIDE.is_file(), reason="needs the checkout")


@pytest.fixture(scope="module")
def loaded():
    """.ci/messages.py as a module, which collects the texts once."""
    pytest.importorskip("babel", reason="translating needs Babel: pip install -e '.[dev]'")
    spec = importlib.util.spec_from_file_location("messages", ROOT / ".ci" / "messages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    collected = module.collect()
    module.collect = lambda: collected
    return module


@pytest.fixture
def tool(loaded, tmp_path, monkeypatch):
    """The tool on a folder of catalogues of its own."""
    monkeypatch.setattr(loaded, "LOCALE", tmp_path)
    monkeypatch.setattr(loaded, "POT", tmp_path / "iekd.pot")
    return loaded


def translate(file: Path, english: str, translation: str) -> None:
    """What an editor for such files does."""
    text = file.read_text("utf-8")
    for found in re.finditer(r'msgid ((?:"[^\n]*"\n)+)msgstr ""\n(?=\n|\Z)', text):
        if "".join(re.findall(r'"([^\n]*)"\n', found[1])) == english:
            start, end = text[: found.start()], text[found.end() :]
            file.write_text(f'{start}msgid {found[1]}msgstr "{translation}"\n{end}', "utf-8")
            return
    raise AssertionError(f"no text {english!r}")


def test_a_language_is_added_in_these_steps(tool, tmp_path, capsys):
    guide = GUIDE.read_text("utf-8")
    assert "\ntranslations:" in (ROOT / "Makefile").read_text()
    (language,) = re.findall(r'make translations ARGS="--add (\w+)"', guide)
    assert tool.main(["--add", language]) == 0
    file = tmp_path / language / "LC_MESSAGES" / "iekd.po"
    english, translation = re.search(r'msgid "(.*)"\n\s*msgstr "(.*)"', guide).groups()
    translate(file, english, translation)
    assert tool.main([]) == 0
    assert f"{language}: 1 of " in capsys.readouterr().out
    use(language, tmp_path)
    assert _(english, run=7) == translation.replace("{run}", "7") != english
    use("")


@pytest.mark.parametrize("slip", ["Wartet auf {lauf}", "Wartet", "Wartet auf {run", "<b>Wartet</b> auf {run}"])
def test_a_translation_that_does_not_fit_is_named(tool, tmp_path, capsys, slip):
    english = re.search(r'msgid "(.*)"', GUIDE.read_text("utf-8"))[1]
    tool.main(["--add", "de"])
    translate(tmp_path / "de" / "LC_MESSAGES" / "iekd.po", english, slip)
    assert tool.main([]) == 1
    assert slip in capsys.readouterr().out


def test_a_text_that_has_changed_a_little_is_shown_in_english(tool, tmp_path):
    tool.main(["--add", "de"])
    file = tmp_path / "de" / "LC_MESSAGES" / "iekd.po"
    now, then = 'msgid "All networks"\nmsgstr ""', 'msgid "All network"\nmsgstr "Alle Netze"'
    assert now in file.read_text("utf-8")
    file.write_text(file.read_text("utf-8").replace(now, then), "utf-8")
    tool.main([])
    assert '#, fuzzy\nmsgid "All networks"\nmsgstr "Alle Netze"' in file.read_text("utf-8")
    use("de", tmp_path)
    assert _("All networks") == "All networks"
    use("")


def test_the_catalogues_that_are_here_fit_and_are_compiled(loaded):
    for path in (ROOT / "iekd" / "locale").glob("*/LC_MESSAGES/iekd.po"):
        catalogue, compiled = loaded.read(path, path.parents[1].name), io.BytesIO()
        loaded.write_mo(compiled, catalogue)
        assert not loaded.problems(catalogue)
        assert path.with_suffix(".mo").read_bytes() == compiled.getvalue(), "run: make translations"


def test_the_example_for_developers_runs():
    code = re.search(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)[1]
    names = {}
    exec(code, names)
    assert names["summary"](0, "") == "No runs yet"
    assert names["summary"](1234, "IE-FT") == "1,234 runs; the best is IE-FT."
