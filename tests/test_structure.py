"""The rules of the house (design.md), held by reading the imports of every file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import iekd

PACKAGE = Path(iekd.__file__).parent
FILES = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py"))


def imported(path: Path, package: tuple[str, ...] = ("iekd",)) -> set[str]:
    """Every module that a file imports, anywhere in it; `from a import b` counts as a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, [base, node.module]))
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def uses(path: Path, *modules: str) -> set[str]:
    package = ("iekd", *path.parent.parts)
    return {n for n in imported(PACKAGE / path, package) for m in modules if n == m or n.startswith(m + ".")}


def belongs(path: Path, *parts: str) -> bool:
    return path.parts[0] in parts


def test_the_reader_of_imports_sees_every_form(tmp_path):
    (tmp_path / "x.py").write_text(
        "import a.b as c\ndef f():\n    from d import e\nfrom . import g\nfrom .h import i\nfrom .. import j\n"
    )
    found = imported(tmp_path / "x.py", ("iekd", "ui"))
    assert {"a.b", "d.e", "iekd.ui.g", "iekd.ui.h.i", "iekd.j"} <= found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_stay_within_the_rules(path):
    core = belongs(path, "engine", "losses", "models", "methods.py")
    if core:
        assert not uses(path, "iekd.runs", "iekd.bench", "iekd.ui", "gradio"), (
            "engine, losses, models and methods know no runs, no benchmark and no page"
        )
    if belongs(path, "data", "config.py", "errors.py", "plan.py"):
        assert not uses(path, "iekd.runs", "iekd.engine", "iekd.ui"), "what describes a run does not run it"
    if belongs(path, "losses"):
        assert not uses(path, "iekd.config", "iekd.data", "iekd.engine", "pathlib", "os"), "a loss is a formula"
    if not belongs(path, "ui"):
        assert not uses(path, "gradio"), "only app.py and iekd/ui import gradio"
    else:
        assert not uses(path, "iekd.engine"), "the page never imports the engine"
    if belongs(path, "runs"):
        assert not uses(path, "iekd.ui"), "runs know no page"
    if belongs(path, "bench"):
        assert not uses(path, "iekd.runs", "iekd.ui"), "what is measured is the engine, not run folders or the page"
    if path.name == "conventional.py":
        assert not uses(path, "iekd.engine"), "what the engine is compared with shares nothing of it"


def test_app_never_imports_the_engine():
    app = PACKAGE.parent / "app.py"
    if not app.is_file():
        pytest.skip("no app.py beside the package (an installed wheel)")
    assert not {n for n in imported(app) if n.startswith(("iekd.engine", "torch"))}


@pytest.mark.parametrize(
    "module",
    [
        "iekd",
        "iekd.config",
        "iekd.data",
        "iekd.runs.store",
        "iekd.runs.launcher",
        "iekd.compare",
        "iekd.evaluate",
        "iekd.teachers",
        "iekd.plan",
        "iekd.cli",
        "iekd.bench.speeds",
    ],
)
def test_importing_leaves_torch_and_gradio_alone(module, fresh_python):
    code = f"import sys, {module}; print([m for m in ('torch', 'torchvision', 'gradio') if m in sys.modules])"
    assert fresh_python(code).strip() == "[]"


def test_describing_and_planning_leave_torch_alone(fresh_python):
    code = """
import sys, iekd.data
from iekd.config import make_config
from iekd.plan import make_plan
iekd.data.describe("cifar10"), iekd.data.available(), iekd.data.thumbnails("fashion-mnist-sample")
make_plan(make_config(), 100, 100, 1, 10, 28, True)
iekd.data.load("fashion-mnist-sample")
print("torch" in sys.modules)
"""
    assert fresh_python(code).strip() == "False"


def test_every_public_name_is_what_it_says(fresh_python):
    code = """
import iekd
for name in iekd.__all__:
    first = getattr(iekd, name)
    assert first is getattr(iekd, name), f"iekd.{name} is something else the second time"
    assert name == "__version__" or callable(first), f"iekd.{name} is {first}"
print("all")
"""
    assert fresh_python(code).strip() == "all"


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = iekd.nonsense


def test_the_public_api_stays_small():
    assert len(iekd.__all__) <= 16


def test_run_state_is_never_a_python_global():
    """No module-level list, dict or set in runs/ that something is added to."""
    for path in (p for p in FILES if belongs(p, "runs")):
        for node in ast.parse((PACKAGE / path).read_text()).body:
            value = getattr(node, "value", None)
            assert not isinstance(value, (ast.List, ast.Dict, ast.Set)), f"{path}: {ast.unparse(node)}"
