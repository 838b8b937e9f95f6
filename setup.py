"""The one build step that pyproject.toml cannot describe: a wheel carries `checkpoints/` as `iekd/_checkpoints`.

A checkout and an editable install read the folder where it is (iekd/paths.py), so nothing is copied for them.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = Path("checkpoints")


class BuildWithCheckpoints(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source, target in self._checkpoints().items():
                self.mkpath(os.path.dirname(target))
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs: list[str] = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, *self._checkpoints().values()]

    def get_source_files(self) -> list[str]:
        """What an sdist must contain; the checkpoints are among it, so no MANIFEST.in is needed for them."""
        files: list[str] = super().get_source_files()
        return [*files, *self._checkpoints()]

    def _checkpoints(self) -> dict[str, str]:
        """Each shipped file -> its place in the wheel."""
        inside = Path(self.build_lib, "iekd", "_checkpoints")
        shipped = sorted([*SHIPPED.glob("*/model.*"), *SHIPPED.glob("*/*.npz"), *SHIPPED.glob("*.json")])
        return {str(file): str(inside / file.relative_to(SHIPPED)) for file in shipped}


setup(cmdclass={"build_py": BuildWithCheckpoints})
