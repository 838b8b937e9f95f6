"""The table of methods in the documentation says what the specs say: no method is missing, none is invented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from iekd.config.methods import METHODS, logits_only_methods

ROOT = Path(__file__).parents[2]


def method_rows() -> list[str]:
    """The lines of the one table of methods, in README.md or in docs/methods.md."""
    tables = []
    for path in (ROOT / "README.md", ROOT / "docs" / "methods.md"):
        text = path.read_text() if path.is_file() else ""
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            if "| `baseline` |" in table and "Hinton" in table:
                tables.append(table.splitlines()[2:])
    assert len(tables) == 1, "there should be one table of methods, in README.md or docs/methods.md"
    return tables[0]


def test_the_table_has_every_method_and_no_other():
    named = re.findall(r"^\| *`([^`]+)`|\| *`([^`]+)` *\|$", "\n".join(method_rows()), re.MULTILINE)
    assert sorted(first or second for first, second in named) == sorted(METHODS)


@pytest.mark.parametrize("name", [name for name, spec in METHODS.items() if spec.paper and not spec.explores])
def test_a_method_stands_beside_its_paper(name):
    (row,) = (row for row in method_rows() if row.startswith(f"| `{name}` |"))
    paper = METHODS[name].paper
    assert f"({paper.authors.replace(' and ', ' & ')} {paper.year})" in row.replace(" and ", " & ")


LOGITS_ONLY = set(logits_only_methods())
FEATURES = {m for m, s in METHODS.items() if m not in LOGITS_ONLY and not s.explores}
LABELS_ONLY = {m for m, s in METHODS.items() if not s.terms or s.needs_labels}


@pytest.mark.parametrize(
    ("page", "sentence", "methods"),
    [
        ("adding-a-model.md", r"methods that look at logits alone can use it\s+\((.*?)\)", LOGITS_ONLY),
        ("python.md", r"methods that look at logits\s+only: (.*?)\.", LOGITS_ONLY),
        ("teachers.md", r"Methods that compare features alone \((.*?) and the IE forms\)", FEATURES),
        ("datasets.md", r"labelled images alone\. (.*?), whose loss needs the labels", LABELS_ONLY),
    ],
    ids=["adding-a-model.md", "python.md", "teachers.md", "datasets.md"],
)
def test_methods_that_a_sentence_lists_are_all_of_their_kind(page, sentence, methods):
    (found,) = re.findall(sentence, (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert set(re.findall(r"[a-z-]+", found)) - {"and"} == methods
