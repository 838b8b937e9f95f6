"""The rules of the house (docs/architecture.md), held by reading the imports of every file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import iekd

PACKAGE = Path(iekd.__file__).parent
# the rooms, lowest first: a file imports only from its own room and from those before it
ROOMS = (
    "errors", "language", "paths", "plural", "times", "plugins", "space", "hub_names", "hub_errors",
    "losses", "data", "models", "config", "distill",
    "engine", "estimate", "bench", "inference", "explain", "export", "results", "runs", "own", "hub", "launchers", "ui",
    "cli",
)  # fmt: skip
# the floors of the page, lowest first; the same holds for them
PAGE_FLOORS = ("rights", "render", "shared", "tabs", "api", "app", "server")
FILES = {
    ".".join(("iekd", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
DOORS = ("iekd", "iekd.__main__")  # they belong to no room
# `iekd.distill(...)` is a function as well as a package, and the function stands rooms above the package
UPWARDS = {"iekd.distill": {"iekd.own"}}
SAME_NAME = {
    "Comparison",  # of features, for who adds a method; and an answer of the API, whose description names it
    "Job",  # what runs inside a job of the Hub, and inside one of Ray; neither knows the other
    "Launcher",  # the base class, and the part of it that a grid, which may not import it, needs
    "Unit",  # the papers' word for the block of ShuffleNet 1 and of ShuffleNet 2
}


def imported(path: Path, module: str, known: dict[str, Path] = FILES) -> set[str]:
    """Every module that a file imports, anywhere in it; `from a import b` is a.b where that is a module, else a.

    So is `import_module("a")`.
    """
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            names |= {full if (full := f"{source}.{a.name}") in known else source for a in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "import_module":
            names |= {given.value for given in node.args[:1] if isinstance(given, ast.Constant)}
    return names


GRAPH = {module: imported(path, module) - UPWARDS.get(module, set()) for module, path in FILES.items()}


def reached(module: str) -> dict[str, str]:
    """Everything that importing a module may load, directly or not, each with the module that imports it."""
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        here = waiting.pop()
        for name in GRAPH.get(here, ()):
            if name not in found:
                found[name] = here
                waiting.append(name)
    return found


def room(module: str) -> str:
    return module.split(".")[1]


def reaches(module: str, *targets: str) -> dict[str, str]:
    return {n: by for n, by in reached(module).items() for t in targets if n == t or n.startswith(t + ".")}


def test_the_reader_of_imports_sees_every_form(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "import a.b as c\ndef f():\n    from d import e\nfrom . import g\nfrom .h import i\nfrom .. import j\n"
        "import_module('k')\nimportlib.import_module('l.m').n\nimport_module(name)\n"
    )
    known = dict.fromkeys(["iekd.ui.g", "iekd.j"], file)
    assert imported(file, "iekd.ui.x", known) == {"a.b", "d", "iekd.ui.g", "iekd.ui.h", "iekd.j", "k", "l.m"}


def test_every_file_is_in_a_room():
    assert {room(m) for m in FILES if m not in DOORS} == set(ROOMS)


@pytest.mark.parametrize("module", [m for m in FILES if m not in DOORS])
def test_a_room_imports_only_rooms_below_it(module):
    floor = ROOMS.index(room(module))
    up = {n for n in GRAPH[module] if n in FILES and n != "iekd" and ROOMS.index(room(n)) > floor}
    assert not up, f"{module} in '{room(module)}' imports from a room above it"


@pytest.mark.parametrize("module", [m for m in FILES if m.startswith("iekd.ui.")])
def test_no_file_of_the_page_imports_from_a_floor_above_it(module):
    def floor(name):
        return PAGE_FLOORS.index(name.split(".")[2])

    up = {n for n in GRAPH[module] if n.startswith("iekd.ui.") and floor(n) > floor(module)}
    assert not up, f"{module} in 'ui/{module.split('.')[2]}' imports from a folder above it"


@pytest.mark.parametrize("module", list(FILES))
def test_no_file_imports_itself_in_a_circle(module):
    chain = reached(module)
    circle = [module]
    while module in chain and circle[-1] not in circle[:-1]:
        circle.append(chain[circle[-1]])
    assert module not in chain, " <- ".join(circle)


def test_the_exceptions_are_needed():
    for module, names in UPWARDS.items():
        assert names <= imported(FILES[module], module), "take it out of the list"


def test_only_the_command_that_starts_the_page_imports_it():
    """The page's package changes how Python's `inspect` works until Gradio is imported."""
    cli = [m for m in FILES if m.startswith("iekd.cli") and any(n.startswith("iekd.ui") for n in GRAPH[m])]
    assert cli == ["iekd.cli.main"]


@pytest.mark.parametrize("module", [m for m in FILES if m not in DOORS])
def test_what_a_room_may_know(module):
    """By what is reached, not only by what a file names itself."""
    own = room(module)
    if own != "ui":
        assert "gradio" not in (GRAPH[module] if own == "cli" else reached(module)), "only the page imports gradio"
    else:
        assert not {n for n in GRAPH[module] if n.startswith(("iekd.engine", "iekd.distill"))}, (
            "the page never imports the engine"
        )
    if own == "losses":
        assert not reaches(module, "iekd.config", "iekd.data", "pathlib", "os"), "a loss is a formula"
    if own != "bench":
        assert not {n for n in GRAPH[module] if n.startswith("iekd.bench")} or own == "cli", (
            "bench is a tool of its own"
        )


def test_a_class_has_a_name_of_its_own():
    modules: dict[str, list[str]] = {}
    for module, path in FILES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules.setdefault(node.name, []).append(module)
    assert {name for name, found in modules.items() if len(found) > 1} == SAME_NAME


def test_what_the_engine_is_compared_with_shares_nothing_of_it():
    assert not {n for n in GRAPH["iekd.bench.conventional"] if n.startswith("iekd.engine")}


def test_app_never_imports_the_engine():
    app = PACKAGE.parent / "app.py"
    if not app.is_file():
        pytest.skip("no app.py beside the package (an installed wheel)")
    assert not {n for n in imported(app, "app") if n.startswith(("iekd.engine", "torch"))}


@pytest.mark.parametrize(
    "module",
    [
        "iekd",
        "iekd.config.run",
        "iekd.data",
        "iekd.runs.store",
        "iekd.launchers.local",
        "iekd.inference.compare",
        "iekd.inference.evaluate",
        "iekd.runs.teachers",
        "iekd.estimate.cost",
        "iekd.cli.main",
        "iekd.estimate.speeds",
        "iekd.hub",
    ],
)
def test_importing_leaves_torch_and_gradio_alone(module, fresh_python):
    code = f"import sys, {module}; print([m for m in ('torch', 'torchvision', 'gradio') if m in sys.modules])"
    assert fresh_python(code).strip() == "[]"


def test_describing_and_planning_leave_torch_alone(fresh_python):
    code = """
import sys, iekd.data
from iekd.config.run import make_config
from iekd.estimate.cost import make_plan
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
    assert len(iekd.__all__) <= 17


def test_run_state_is_never_a_python_global():
    """No module-level list, dict or set in runs/ that something is added to."""
    for path in (p for m, p in FILES.items() if m.startswith(("iekd.runs", "iekd.launchers"))):
        for node in ast.parse(path.read_text()).body:
            value = getattr(node, "value", None)
            assert not isinstance(value, (ast.List, ast.Dict, ast.Set)), f"{path}: {ast.unparse(node)}"
