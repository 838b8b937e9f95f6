"""What the documentation names is there: links, anchors, files, tests, commands, options, variables, Python code.

Each check is a function from a document to the list of what is wrong in it; the last tests feed it broken documents.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from iekd.cli.main import app
from iekd.config.methods import METHODS
from iekd.config.run import RunConfig, make_config

CHECKOUT = Path(__file__).parents[2]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
HISTORY = [CHECKOUT / "CHANGELOG.md", CHECKOUT / "benchmarks" / "RESULTS.md"]  # these also name what is gone
ROOMS = sorted(p.name for p in (CHECKOUT / "iekd").iterdir() if (p / "__init__.py").is_file())
TOP = ("iekd", "tests", "docs", "benchmarks", "checkpoints", "examples")
BUILT = "iekd/_checkpoints"  # in a wheel only
SITES = ("http://", "https://", "mailto:")

pytestmark = pytest.mark.skipif(not (CHECKOUT / "README.md").is_file(), reason="needs the checkout")


class Block(NamedTuple):
    """A block of code; info: what stands behind the three backticks."""

    info: str
    code: str


def blocks(text: str) -> list[Block]:
    """Fenced blocks, and blocks that are indented by four spaces."""
    fenced = [Block(info.strip(), code) for info, code in re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.M | re.S)]
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return [*fenced, *(Block("", part) for part in re.findall(r"(?:^ {4}\S.*\n?)+", rest, re.M))]


def prose(text: str) -> str:
    """The text without blocks of code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return re.sub(r"^ {4}\S.*$", "", text, flags=re.M)


def inline(text: str) -> list[str]:
    """Code within sentences; in tables `\\|` stands for `|`."""
    return [code.replace("\\|", "|") for code in re.findall(r"`([^`\n]+)`", prose(text))]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        number = sum(known == slug or re.fullmatch(re.escape(slug) + r"-\d+", known) is not None for known in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


def wrong_links(page: Path, text: str) -> Iterator[str]:
    """Relative links whose file is not there, and anchors without a heading."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if link.startswith(SITES):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or not target.is_relative_to(CHECKOUT):
            yield f"link to {link}: there is no such file"
        elif anchor and anchor not in anchors(text if target == page else target.read_text()):
            yield f"link to {link}: there is no such heading"


def wrong_paths(page: Path, text: str) -> Iterator[str]:
    """Files and tests that are named in code and are not there. A guide may name a file that its reader will add."""
    code = [*inline(text), *(line for block in blocks(text) for line in block.code.splitlines())]
    start = "|".join([*TOP, *ROOMS])
    for word in re.findall(rf"(?<![\w/.~:-])(?:{start})/[\w./*-]*(?:::\w+)?", "\n".join(code)):
        name, _, test = word.partition("::")
        name = name.rstrip(".")
        name = name if name.split("/")[0] in TOP else f"iekd/{name}"
        if "*" in name or name.endswith("/"):
            there = any(CHECKOUT.glob(name.rstrip("/")))
        else:
            there = (CHECKOUT / name).exists()
            there = there or (page.name.startswith("adding-") and (CHECKOUT / name).parent.is_dir())
        if not there and name != BUILT:
            yield f"{word}: there is no such file"
        elif test and not re.search(rf"^def {test}\(", (CHECKOUT / name).read_text(), re.M):
            yield f"{word}: there is no such test"


def wrong_modules(page: Path, text: str) -> Iterator[str]:
    """Dotted names below iekd that lead to no module, nor to a name within one."""
    for name in re.findall(r"(?<![\w./-])iekd(?:\.\w+)+", "\n".join(inline(text))):
        path, *rest = CHECKOUT / "iekd", *name.split(".")[1:]
        while rest and (path / rest[0]).is_dir():
            path /= rest.pop(0)
        path = path / f"{rest.pop(0)}.py" if rest and (path / f"{rest[0]}.py").is_file() else path / "__init__.py"
        if rest and not re.search(rf"\b{rest[0]}\b", path.read_text()):
            yield f"{name}: there is no such module or name"


@cache
def root() -> Any:
    """The whole command line as typer builds it; a group of commands has `commands`."""
    return typer.main.get_command(app)


def options_of(command: Any) -> set[str]:
    return {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}


@cache
def all_options() -> set[str]:
    def below(command: Any) -> set[str]:
        return options_of(command).union(*(below(c) for c in getattr(command, "commands", {}).values()))

    return below(root())


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words lead to, and the words that are left; None where one of them is no command."""
    command = root()
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        command, words = command.commands.get(words[0]), words[1:]
    return command, words


def parse(words: list[str]) -> None:
    """Parse one `iekd` command without executing it; the values of settings are checked too.

    Raises:
        Exception: what is wrong with it.
    """
    command, arguments = find_command(words[1:])
    if command is None or hasattr(command, "commands"):
        raise LookupError("there is no such command")
    if "--help" in arguments:
        arguments.remove("--help")
        if any(p.required for p in command.params):
            return
    given = command.make_context(words[0], arguments).params
    settings = {k: v for k, v in given.items() if k in (*RunConfig.model_fields, "preset")}
    if "methods" in settings:
        # these name files of the reader's machine
        make_config(**{k: v for k, v in settings.items() if k != "dataset" and not k.startswith("teacher_")})


def commands(text: str) -> Iterator[str]:
    """The lines of blocks that are commands, without their comments and without variables set before them."""
    for block in blocks(text):
        if block.info not in ("", "sh", "bash", "console", "shell"):
            continue
        for line in block.code.splitlines():
            yield re.sub(r"^(?:[A-Z_]+=\S* +)+", "", re.sub(r"(^|\s+)# .*", "", line).strip().removeprefix("$ "))


def wrong_commands(page: Path, text: str) -> Iterator[str]:
    """Commands in blocks that iekd, app.py or make would refuse, and options within sentences that no command has."""
    targets = set(re.findall(r"^([\w-]+):", (CHECKOUT / "Makefile").read_text(), re.M))
    for line in commands(text):
        try:
            words = shlex.split(line)
        except ValueError:
            continue  # a drawing
        program = words[0].rpartition("/")[2] if words else ""
        if program == "iekd":
            try:
                parse(words)
            except Exception as error:  # whatever says no
                if "IEKD_PLUGINS" in text and re.search("Unknown m(odel|ethod)", str(getattr(error, "message", error))):
                    continue  # a guide's own model or method, which its own test trains
                yield f"{line}: {getattr(error, 'message', error)}"
        elif program == "make" and len(words) > 1 and words[1] not in targets:
            yield f"{line}: there is no such target"
        elif program.startswith("python") and len(words) > 1 and words[1].endswith(".py"):
            source = (CHECKOUT / words[1]).read_text() if (CHECKOUT / words[1]).is_file() else ""
            for option in (w for w in words if w.startswith("--")):
                if f'"{option}"' not in source:
                    yield f"{line}: {words[1]} has no {option}"
    for code in inline(text):
        words = code.split()
        if words[0] == "iekd" and words[1:] and words[1].isalpha() and find_command(words[1:])[0] is None:
            yield f"{code}: there is no such command"
        if words[0] == "iekd" or words[0].startswith("--"):
            for option in re.findall(r"(?<!\S)--[a-z][\w-]*", code):
                if option not in all_options():
                    yield f"{code}: no command has {option}"


def wrong_python(page: Path, text: str) -> Iterator[str]:
    """Blocks of Python that do not compile, import what is not there, or, where they are marked `run`, fail."""
    for block in blocks(text):
        if block.info.split()[:1] != ["python"]:
            continue
        try:
            tree = ast.parse(block.code)
            imports = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
            body = tree.body if "run" in block.info.split() else [n for n in imports if _is_ours(n)]
            exec(compile(ast.Module(body, []), str(page), "exec"), {"__name__": "example"})
        except Exception as error:
            yield f"{block.code.splitlines()[0]} ...: {type(error).__name__}: {error}"


def _is_ours(node: ast.Import | ast.ImportFrom) -> bool:
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
    return all(name.split(".")[0] == "iekd" for name in names)


CHECKS = [wrong_links, wrong_paths, wrong_modules, wrong_commands, wrong_python]
CHECKED = [(page, check) for page in PAGES for check in CHECKS] + [(page, wrong_links) for page in HISTORY]


@pytest.mark.parametrize(("page", "check"), CHECKED, ids=lambda x: getattr(x, "__name__", None) or x.name)
def test_what_a_page_names_is_there(page, check):
    assert list(check(page, page.read_text())) == []


def test_every_promise_has_a_test():
    rows = [r for r in (CHECKOUT / "docs" / "reliability.md").read_text().splitlines() if r.startswith("| ")][1:]
    assert len(rows) > 15
    for row in rows:
        assert re.search(r"`tests/\S+\.py", row.split("|")[3]), row


def test_every_method_and_every_setting_is_explained():
    text = (CHECKOUT / "docs" / "methods.md").read_text()
    named = set(inline(text))
    assert set(METHODS) <= named
    options = set(re.findall(r"--[a-z][\w-]*", " ".join(named)))
    assert {f"--{field.replace('_', '-')}" for field in RunConfig.model_fields} <= options


def test_every_variable_is_in_the_table():
    used = {
        name
        for path in [CHECKOUT / "app.py", *(CHECKOUT / "iekd").rglob("*.py")]
        for name in re.findall(r"\bIEKD_[A-Z_]+", path.read_text())
    }
    listed = set(re.findall(r"`(IEKD_[A-Z_]+)`", (CHECKOUT / "docs" / "usage.md").read_text()))
    assert listed == used
    scripts = [*(CHECKOUT / "tests").rglob("*.py"), *(CHECKOUT / "benchmarks").glob("*.*")]
    known = used.union(*(re.findall(r"\bIEKD_[A-Z_]+", path.read_text()) for path in scripts))
    for page in PAGES:
        assert set(re.findall(r"\bIEKD_[A-Z_]+", page.read_text())) <= known, page.name


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (wrong_links, "see [here](docs/nothing.md)"),
        (wrong_links, "![picture](docs/nothing.png)"),
        (wrong_links, "see [here](docs/usage.md#nothing)"),
        (wrong_links, "# Title\nsee [here](#nothing)"),
        (wrong_links, "see [outside](../../etc/passwd)"),
        (wrong_paths, "see `iekd/engine/nothing.py`"),
        (wrong_paths, "see `engine/nothing.py`"),
        (wrong_paths, "```\nflow -> runs/nothing.py\n```"),
        (wrong_paths, "see `tests/runs/test_faults.py::test_nothing`"),
        (wrong_paths, "run `python benchmarks/nothing.py --rounds 3`"),
        (wrong_modules, "see `iekd.losses.nothing`"),
        (wrong_modules, "see `iekd.nothing`"),
        (wrong_commands, "    iekd nothing\n"),
        (wrong_commands, "    iekd train --nothing 3\n"),
        (wrong_commands, "    iekd train --methods baseline,nothing  # a comment\n"),
        (wrong_commands, "    iekd train --epochs -1\n"),
        (wrong_commands, "```\niekd runs resume\n```\n"),
        (wrong_commands, "    IEKD_ADMIN_TOKEN=x python app.py --nothing\n"),
        (wrong_commands, "    make nothing\n"),
        (wrong_commands, "try `iekd nothing`"),
        (wrong_commands, "try `iekd runs nothing`"),
        (wrong_commands, "try `--nothing`"),
        (wrong_python, "```python\nfrom iekd import nothing\n```\n"),
        (wrong_python, "```python\nthis is no python\n```\n"),
        (wrong_python, "```python run\nassert 1 + 1 == 3\n```\n"),
    ],
)
def test_what_is_not_there_is_found(check, text):
    assert list(check(CHECKOUT / "README.md", text))


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (wrong_links, "see [here](docs/usage.md#commands) and [there](https://example.org/nothing)"),
        (wrong_links, "```\n[no](link)\n```"),
        (wrong_paths, "see `iekd/engine/loop.py`, `engine/loop.py`, `tests/docs/` and `iekd/*/main.py`"),
        (wrong_modules, "see `iekd.losses.od.margin`, `iekd.engine` and `iekd.Predictor`"),
        (wrong_commands, "    iekd runs export ID --out run.zip   # a comment\n    make test ARGS='-x'\n"),
        (wrong_commands, "try `iekd train --help`, `--distance own|l1` and `iekd ...`"),
        (wrong_python, "```python\nfrom iekd import make_config\nundefined()\n```\n"),
    ],
)
def test_what_is_there_is_not_complained_about(check, text):
    assert list(check(CHECKOUT / "README.md", text)) == []
