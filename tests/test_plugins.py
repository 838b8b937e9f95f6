"""Modules of other people: found by name, by path and by entry point, and only when they are needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iekd import plugins
from iekd.data import check_name
from iekd.plugins import environment, load_plugins

CHECKOUT = Path(__file__).parents[1]
NETS = """
import torch.nn.functional as F
from torch import nn
from iekd.models.features import Features
from iekd.models.registry import register

class Net(nn.Module):
    def __init__(self, num_classes, channels):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(channels, 8, 3, 2, 1), nn.Linear(8, num_classes)

    def forward(self, images):
        last = F.relu(self.conv(images))
        pooled = last.mean((2, 3))
        return Features(self.fc(pooled), (last,), None, pooled)

@register
def plug_net(num_classes, channels):
    return Net(num_classes, channels)
"""

METHOD = """
from torch import nn
from iekd.config.methods import MethodSpec, Term, register
from iekd.distill.distillers import OutputDistillation
from iekd.distill.method import builder

register(MethodSpec("plug-logits", "makes the logits equal", ("#111111", "#eeeeee"),
                    terms=(Term("plug_logits", "Logits", "squared difference", "falls"),)))

@builder("plug-logits")
def plug_logits(config, pair):
    return [OutputDistillation("plug_logits", 1.0, nn.MSELoss())]
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder on sys.path; what is imported from it, and what plugins remember, is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_loaded", set())
    monkeypatch.setattr(plugins, "_registering", {})
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def counting(place):
    """`counting(file)` writes a plugin; the returned function says how often it was imported."""

    def make(name: str):
        (place / name).write_text("from pathlib import Path\nwith open('count', 'a') as f: f.write('.')\n")
        return lambda: len(Path("count").read_text()) if Path("count").exists() else 0

    return make


def python(code: str, folder: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("named", ["extra_names", "extra_names.py", " extra_names , extra_names", "extra_names,"])
def test_a_plugin_is_imported_once(counting, monkeypatch, named):
    imported = counting("extra_names.py")
    monkeypatch.setenv("IEKD_PLUGINS", named)
    load_plugins()
    load_plugins()
    assert imported() == 1


def test_a_path_and_a_name_are_one_module(counting, monkeypatch):
    imported = counting("extra_twice.py")
    monkeypatch.setenv("IEKD_PLUGINS", "extra_twice,extra_twice.py")
    load_plugins()
    assert imported() == 1


@pytest.mark.parametrize(
    ("named", "content", "words"),
    [
        ("no_such_module", None, ["no_such_module", "IEKD_PLUGINS", "ModuleNotFoundError"]),
        ("missing.py", None, ["missing.py", "FileNotFoundError"]),
        ("broken.py", "1 / 0", ["broken.py", "ZeroDivisionError"]),
        ("needs.py", "import not_installed_at_all", ["needs.py", "not_installed_at_all"]),
        ("pathlib.py", "", ["pathlib.py", "rename the file"]),
    ],
)
def test_one_that_cannot_be_imported_is_named(place, monkeypatch, refuses, named, content, words):
    if content is not None:
        (place / named).write_text(content)
    monkeypatch.setenv("IEKD_PLUGINS", named)
    refuses(load_plugins, *words)
    refuses(load_plugins, *words)  # again: it was not loaded


def test_a_mended_plugin_is_imported(place, monkeypatch, refuses):
    (place / "mended.py").write_text("1 / 0")
    monkeypatch.setenv("IEKD_PLUGINS", "mended.py")
    refuses(load_plugins, "mended.py")
    (place / "mended.py").write_text("value = 7")
    load_plugins()
    assert sys.modules["mended"].value == 7


def test_a_broken_plugin_does_not_matter_until_it_is_used(place):
    code = "from iekd.config.run import make_config; print(make_config().student)"
    assert python(code, place, IEKD_PLUGINS="no_such_module").strip() == "resnet8"


def test_our_own_names_leave_plugins_and_torch_alone(place):
    (place / "nets.py").write_text(NETS)
    code = "from iekd.models.catalog import check_model, model_info\nimport sys\n"
    own = code + "check_model('resnet20'), model_info('resnet8'); print('nets' in sys.modules, 'torch' in sys.modules)"
    assert python(own, place, IEKD_PLUGINS="nets.py").split() == ["False", "False"]
    other = code + "check_model('plug-net'); print('nets' in sys.modules)"
    assert python(other, place, IEKD_PLUGINS="nets.py").split() == ["True"]


def test_an_installed_package_needs_no_variable(place):
    (place / "nets.py").write_text(NETS)
    info = place / "some_nets-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-nets\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[iekd.plugins]\nthe-nets = nets\n")
    code = "from iekd.models.catalog import known_models; print(known_models()[-1])"
    path = os.pathsep.join([str(CHECKOUT), str(place)])
    assert python(code, place / "..", PYTHONPATH=path).strip() == "plug-net"
    (place / "nets.py").write_text("1 / 0")
    code = """
from iekd.errors import UserError
from iekd.models.catalog import known_models
try:
    known_models()
except UserError as error:
    print(error)
"""
    said = python(code, place, PYTHONPATH=path)
    assert "'nets', named by the entry point 'the-nets', cannot be imported (ZeroDivisionError" in said


def test_another_process_is_told(place, monkeypatch):
    monkeypatch.delenv("IEKD_PLUGINS", raising=False)
    assert environment() == {}
    (place / "alone.py").write_text("")
    (place / "package").mkdir()
    (place / "package" / "__init__.py").write_text("")
    (place / "package" / "nets.py").write_text("")
    import alone  # noqa: F401
    import package.nets  # noqa: F401

    for module in ("alone", "package.nets", "__main__", "iekd.models.resnet", "gone"):
        plugins.remember(module)
    monkeypatch.setenv("IEKD_PLUGINS", "some.module,alone.py")
    named = environment()["IEKD_PLUGINS"].split(",")
    assert named == ["some.module", str(place / "alone.py"), "package.nets"]


@pytest.mark.parametrize("imports", ["import nets", "import os; os.environ['IEKD_PLUGINS'] = 'nets.py'"])
def test_a_run_in_the_background_builds_a_model_of_somebody_else(place, tiny_options, imports):
    """Started by a script that imports the module, from another folder than the module's; or by the variable."""
    (place / "nets.py").write_text(NETS)
    options = {**tiny_options, "student": "plug-net", "methods": ("baseline",), "teacher": "none"}
    (place / "start.py").write_text(f"""
{imports}
import time
from iekd import LocalLauncher, Store, make_config
launcher = LocalLauncher(Store("runs"))
run = launcher.submit(make_config(**{options!r}))
while launcher.status(run).live or launcher.store.get(run).alive():
    time.sleep(0.1)
print(launcher.status(run).state, launcher.status(run).error, *launcher.store.get(run).model_folders)
""")
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    folder = elsewhere if imports == "import nets" else place
    done = subprocess.run(
        [sys.executable, str(place / "start.py")], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    assert done.stdout.split() == ["finished", "None", "baseline-seed0"], done.stdout + done.stderr


@pytest.mark.parametrize("imports", ["import teaches", "import os; os.environ['IEKD_PLUGINS'] = 'teaches.py'"])
def test_a_run_in_the_background_is_taught_by_a_method_of_somebody_else(place, tiny_options, imports):
    (place / "teaches.py").write_text(METHOD)
    options = {**tiny_options, "methods": ("baseline", "plug-logits+kd"), "teacher_from": "train"}
    code = f"""
{imports}
import json, time
from iekd import LocalLauncher, Store, make_config
launcher = LocalLauncher(Store("runs"))
run = launcher.submit(make_config(**{options!r}))
while launcher.status(run).live or launcher.store.get(run).alive():
    time.sleep(0.1)
rows, _ = launcher.store.get(run).metrics()
print(launcher.status(run).state, launcher.status(run).error)
print(*sorted(set().union(*(row["values"] for row in rows if row["learner"] == "plug-logits+kd-seed0"))))
"""
    state, terms = python(code, place).splitlines()
    assert state == "finished None"
    assert {"plug_logits", "kd", "cross_entropy"} <= set(terms.split())


def test_a_run_whose_method_is_not_known_says_so_before_it_trains(place, tiny_options):
    (place / "teaches.py").write_text(METHOD)
    options = {**tiny_options, "methods": ("plug-logits",), "teacher_from": "train"}
    make = f"from iekd import Store, make_config\nprint(Store('runs').create(make_config(**{options!r}))[0].path)"
    path = python(make, place, IEKD_PLUGINS="teaches.py").strip()
    code = f"""
from pathlib import Path
from iekd.runs.store import Run
from iekd.runs.worker import execute
run = Run(Path({path!r}))
run.lock()
status = execute(run, lambda: False)
print(status.state, status.error, run.metrics()[0])
"""
    said = python(code, place)
    assert said.startswith("failed Unknown method 'plug-logits'"), said
    assert "IEKD_PLUGINS" in said
    assert said.strip().endswith("[]"), "nothing was trained before"


def test_a_dataset_that_is_not_known_names_the_variable(refuses):
    refuses(lambda: check_name("my-pictures:here"), "my-pictures:here", "IEKD_PLUGINS")


@pytest.mark.parametrize("command", ["models", "datasets"])
def test_a_list_with_a_broken_plugin_is_one_sentence(place, command):
    done = subprocess.run(
        [sys.executable, "-m", "iekd", command], cwd=place, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "IEKD_PLUGINS": "nothing.py"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Plugin 'nothing.py'")
    assert "Traceback" not in done.stderr


def test_a_run_whose_model_is_not_known_says_so(place, tiny_options):
    """Its plugin is not named when it is resumed, for example."""
    (place / "nets.py").write_text(NETS)
    options = {**tiny_options, "student": "plug-net", "methods": ("baseline",), "teacher": "none"}
    code = f"""
from iekd import Store, make_config
run, _ = Store("runs").create(make_config(**{options!r}))
print(run.path)
"""
    path = python(code, place, IEKD_PLUGINS="nets.py").strip()
    code = f"""
import os
from iekd.runs.store import Run
from iekd.runs.worker import execute
from pathlib import Path
run = Run(Path({path!r}))
run.lock()
status = execute(run, lambda: False)
print(status.state, status.error)
"""
    said = python(code, place)
    assert said.startswith("failed Unknown model 'plug-net'"), said
    assert "IEKD_PLUGINS" in said
