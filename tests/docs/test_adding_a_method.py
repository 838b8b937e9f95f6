"""The guide's toy method, as it stands on the page: its example is true, it trains, and everybody knows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "adding-a-method.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
# after the blocks: what the page promises
CHECK = """
import doctest, json
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.ui.render.colours import method_colours
from iekd.ui.render.curves import term_figures
from iekd.ui.tabs.form import combined_choices, method_choices

example = doctest.DocTestParser().get_doctest(LogitMatchingLoss.__doc__, globals(), "logits", None, 0)
tried, failed = len(example.examples), doctest.DocTestRunner().run(example).failed
help_text = " ".join(CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "300"}).output.split())
print(json.dumps({
    "terms": sorted(seen), "losses": losses, "examples": [tried, failed], "help": " logits," in help_text,
    "form": ["logits" in dict((n, t) for t, n in method_choices()), "logits+kd" in dict(combined_choices())],
    "figures": [term.title for term in term_figures(("baseline", "logits"))], "colour": "#0e7490" in method_colours(),
}))
"""


@pytest.fixture(scope="module")
def result(fresh_python):
    """In a process of its own, so that no other test meets the toy method."""
    *before, training = BLOCKS
    # the loop's body prints; here it also remembers
    counting = training.replace(
        "    print(event)\n",
        '    if type(event).__name__ == "Metrics" and "logits" in event.values:\n'
        '        seen |= set(event.values); losses.append(event.values["logits"])\n',
    )
    assert counting != training
    code = "\n".join([*before, "seen, losses = set(), []", counting, CHECK])
    return json.loads(fresh_python(code).strip().splitlines()[-1])


def test_the_guide_has_a_block_for_each_piece():
    assert len(BLOCKS) == 4


def test_the_toy_method_trains_and_its_loss_falls(result):
    assert {"logits", "cross_entropy", "loss"} <= set(result["terms"])
    assert len(result["losses"]) >= 1
    assert all(loss > 0 for loss in result["losses"])


def test_the_example_in_its_docstring_is_true(result):
    tried, failed = result["examples"]
    assert tried == 2
    assert failed == 0


def test_command_line_form_and_charts_know_it(result):
    assert result["help"]
    assert result["form"] == [True, False]
    assert result["figures"] == ["Loss on the labels", "Logit matching loss"]
    assert result["colour"]


def test_the_guides_pieces_in_one_file_are_a_plugin(fresh_python, tmp_path, monkeypatch):
    (tmp_path / "my_methods.py").write_text("\n".join(BLOCKS[:3]))
    monkeypatch.setenv("IEKD_PLUGINS", str(tmp_path / "my_methods.py"))
    code = """
from iekd.config.run import make_config
from iekd.distill.method import build_method
from iekd.distill.targets import Pair
config = make_config(methods="baseline,logits")
print(config.methods, build_method("logits", config, Pair((8,), (8,))).distillers[0].term)
"""
    assert fresh_python(code).strip() == "('baseline', 'logits') logits"
