"""What a method is, and what of student and teacher it compares.

`iekd.distill(teacher, student, ...)` is a function as well as this package: calling the package calls
`iekd.own.distill`, whose docstring has the arguments.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

ABOUT = __doc__


class _Callable(ModuleType):
    """Importing any file of this package makes `iekd.distill` the package, so the package has to be the function.

    Nothing in this package uses it: the function stands rooms above.
    """

    @staticmethod
    def function() -> Any:
        return import_module("iekd.own").distill

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.function()(*args, **options)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """For help(iekd.distill): about the package, then the function's arguments."""
        function = self.function()
        return f"{ABOUT}\ndistill{inspect.signature(function)}\n\n{inspect.getdoc(function)}"


sys.modules[__name__].__class__ = _Callable
