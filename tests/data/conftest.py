"""Trees of folders for the tests of layouts and tables."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from iekd import data


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value % 256, value // 256, 7)).save(file, "PNG")
    return file.getvalue()


class Tree:
    """Files by path; images differ from each other."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0

    def add(self, *paths: str, content: bytes | None = None) -> Tree:
        for path in paths:
            for expanded in [path.replace("#", str(i)) for i in range(3)] if "#" in path else [path]:
                target = self.root / expanded
                target.parent.mkdir(parents=True, exist_ok=True)
                self.count += 1
                target.write_bytes(png(self.count) if content is None else content)
        return self

    def zipped(self) -> Path:
        path = self.root.with_suffix(".zip")
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(self.root.rglob("*")):
                archive.write(file, file.relative_to(self.root).as_posix())
        return path


@pytest.fixture
def files(tmp_path) -> Tree:
    """A tree that is read from the disk."""
    return Tree(tmp_path)


@pytest.fixture(params=["folder", "zip"])
def tree(request, tmp_path, monkeypatch):
    """A tree, and what describes it: the folder itself, or a zip of it."""
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    tree = Tree(tmp_path / "images")

    def describe(option: str = "") -> data.DatasetInfo:
        return data.describe(f"folder:{tree.root if request.param == 'folder' else tree.zipped()}{option}")

    tree.describe = describe
    tree.load = lambda option="": data.load(describe(option).name, resolution=8)
    return tree
