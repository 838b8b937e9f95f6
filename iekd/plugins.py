"""Modules of other people that register models or data sources under a name.

A plugin is a module that calls a `register` when it is imported. It is found in one of two ways:

- the environment variable `IEKD_PLUGINS` names modules, or paths of .py files, with commas between them;
- an installed package has an entry point in the group `iekd.plugins` that names a module.

Plugins are imported when a name is asked for that is not one of ours, or when all names are listed. So whoever uses no
plugin never waits for one, nor for the torch that it imports. A background run is a process of its own: it inherits the
variable, and `environment` adds the modules that have registered something in this process.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import threading
from pathlib import Path
from types import ModuleType

from iekd.errors import UserError

VARIABLE, GROUP = "IEKD_PLUGINS", "iekd.plugins"
_lock = threading.RLock()  # a plugin may itself ask for a name while it is imported
_loaded: set[str] = set()
_registering: dict[str, None] = {}  # modules outside of this package that have registered something, in order


def load_plugins() -> None:
    """Import every plugin that has not been imported yet.

    Raises:
        UserError: one cannot be imported; names it, where it was named, and why.
    """
    with _lock:
        for name, origin in _named().items():
            if name not in _loaded:
                _loaded.add(name)
                try:
                    _import(name)
                except BaseException as error:
                    _loaded.discard(name)
                    if not isinstance(error, Exception):
                        raise
                    reason = f"{type(error).__name__}: {error}".splitlines()[0]
                    raise UserError(
                        f"Plugin '{name}', named by {origin}, cannot be imported ({reason}). "
                        "Correct its name or the module, or install what is missing."
                    ) from error


def remember(module: str) -> None:
    """Called by every `register`: a module has registered something."""
    if not is_ours(module):
        _registering[module] = None


def is_ours(module: str) -> bool:
    """Whether a module of that name is part of this package."""
    return module == "iekd" or module.startswith("iekd.")


def environment() -> dict[str, str]:
    """The variable for a process that must know the same names; empty without plugins.

    A script or notebook (`__main__`) that registers something is left out: importing it again would run it again.
    """
    names = [_portable(name) for name in _in_variable()]
    for module in list(_registering):
        found = sys.modules.get(module)
        file = getattr(found, "__file__", None)
        if module != "__main__" and found is not None:
            # by its file where it is in no package: the other process may not have the same sys.path
            names.append(str(Path(file).absolute()) if file and "." not in module else module)
    return {VARIABLE: ",".join(dict.fromkeys(names))} if names else {}


def _named() -> dict[str, str]:
    """name -> who names it."""
    names = dict.fromkeys(_in_variable(), VARIABLE)
    return {**_entry_points(), **names}


@functools.cache
def _entry_points() -> dict[str, str]:
    """Looking through all installed packages takes a while, and they do not change."""
    points = importlib.metadata.entry_points(group=GROUP)
    return {point.module: f"the entry point '{point.name}'" for point in points}


def _in_variable() -> list[str]:
    return [name for word in os.environ.get(VARIABLE, "").split(",") if (name := word.strip())]


def _portable(name: str) -> str:
    return str(Path(name).absolute()) if name.endswith(".py") else name


def _import(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).absolute()
    for module in list(sys.modules.values()):  # it may have been imported under its own name
        if getattr(module, "__file__", None) == str(path):
            return module
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or path.stem in sys.modules:
        raise ImportError(f"a module named '{path.stem}' exists already; rename the file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # as an import does; pickling and dataclasses look for it there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module
