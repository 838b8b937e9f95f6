"""What a method is, and what of student and teacher it compares.

`iekd.distill(teacher, student, ...)` is a function as well as this package: calling the package calls
`iekd.own.distill`, whose docstring has the arguments.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """Importing any file of this package makes `iekd.distill` the package, so the package has to be the function.

    Nothing in this package uses it: the function stands rooms above.
    """

    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module("iekd.own").distill(*args, **options)


sys.modules[__name__].__class__ = _Callable
