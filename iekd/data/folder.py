"""`folder:PATH`: the user's images, one sub-folder per class, or an archive of them; and `csv:FILE`, a table of labels.

layout.py decides which folders are the classes. Broken files are skipped, counted and named; what else is not used is
said in notes. Nothing in the folder is moved or changed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np

from iekd.data.archives import ABOUT, ARCHIVES, UNPACKED_NAME, is_archive, layout_of, notes_of, unpack
from iekd.data.base import Dataset, DatasetInfo, Request, Source
from iekd.data.file_images import Files
from iekd.data.found import Found, drawn_of, load_found, thumbnails_of
from iekd.data.labels import labels_of
from iekd.data.layout import Layout, from_labels, understand
from iekd.data.listings import Finder, TableError, listing_of
from iekd.data.refusals import INNER, OUTER
from iekd.data.tree import LARGEST_TABLE, TABLES, other_archive, read_tree
from iekd.errors import DataError, as_text
from iekd.paths import absolute, as_typed, typed, unpacked_dir

FOLDER, TABLE = "folder:", "csv:"
UPLOADED = ".pictures"  # a folder of this name, beside the runs, holds what was uploaded to the page
OPTION = re.compile(r"(?P<path>.*?)(?:\?(?P<key>classes|label)=(?P<value>.*))?", re.DOTALL)
REMEMBERED = 8  # folders that were looked at last


def folder_name(path: Path | str) -> str:
    """The dataset name of a folder, or of an archive of one."""
    return f"{FOLDER}{path}"


def folder_path(name: str) -> str:
    """The path in such a name; the name itself if it is another dataset's."""
    return name.removeprefix(FOLDER)


class Folder(Source):
    """The user's own files. Their images stay in their files if they do not fit into memory."""

    name = FOLDER
    usage = "folder:PATH"
    note = "your own: <class>/*, or train/ and test/ of those; or a zip"
    uses_test_fraction = True
    may_stream = True

    def check(self, name: str) -> str:
        """The absolute path, without following links. Whether there is such a folder is found out by `prepare`."""
        path, key, value = self._parsed(name)
        if not path:
            raise self._missing(path)
        if key == "classes" and value not in (OUTER, INNER):
            raise DataError(f"'?classes={value}' cannot be used: give '?classes={OUTER}' or '?classes={INNER}'.")
        return self._name(absolute(path), key, value)

    def meant(self, name: str) -> str:
        """Of what looks like a path: whether there is such a folder is nobody's business who may not look for it."""
        if re.match(r"\w{2,}:", name):  # a scheme that nobody knows; one letter is a drive of Windows
            return ""
        looks = "/" in name and not name.lower().endswith(TABLES)
        return folder_name(name) if looks or name.lower().endswith(ARCHIVES) else ""

    def prepare(self, name: str) -> str:
        """An archive is unpacked into the cache folder, unless it has been before."""
        name = self.check(name)
        _, key, value = self._parsed(name)
        path = self._path(name)
        try:
            if path.is_dir():
                return self._name(path.resolve(), key, value)
            is_file = path.is_file()
        except (OSError, RuntimeError, ValueError):  # a name that no folder can have
            is_file = False
        if not is_file:
            raise self._missing(as_typed(str(path)))
        if not is_archive(path):
            if what := other_archive(path):
                raise DataError(f"'{path}' {what}")
            hint = f" To read it as a table of labels, give {TABLE}{path}." if path.suffix.lower() == ".csv" else ""
            raise DataError(
                f"'{path}' is a file. Give a folder with one sub-folder per class, or {', '.join(ARCHIVES)}.{hint}"
            )
        nested = value if key == "classes" else ""
        return self._name(unpack(path, unpacked_dir(), tar=True, nested=nested).resolve(), "", "")

    def own_path(self, name: str) -> Path | None:
        return None if name == self.name else self._path(name)

    def own_files(self, name: str) -> list[Path]:
        """The images that it trains and tests on, and the tables that list them. An archive is one file."""
        path = self._path(self.check(name))
        return [path] if path.is_file() else self._needed(self.check(name), path)

    def _needed(self, name: str, root: Path) -> list[Path]:
        found = self._found(name)
        needed = {Path(files[i]) for files in (found.train, found.test) if files is not None for i in range(len(files))}
        if tables := [Path(path) for path, _ in found.looked_at if not os.path.isdir(path)]:
            finder, read = Finder(read_tree(root)[0]), _Reader(root)
            for inside in (table.relative_to(root).as_posix() for table in tables):
                with contextlib.suppress(TableError):  # it is not used, or there would be no dataset
                    listing = listing_of(inside, read(inside), finder)
                    listed = {root / path for path in (listing.paths if listing else ()) if path is not None}
                    if listed & needed:  # those without a class too: a table most of whose files are missing is ignored
                        needed |= {root / inside, *listed}
        if (root / ABOUT).is_file():
            needed.add(root / ABOUT)
        return sorted(needed)

    def title(self, name: str) -> str:
        """The folder's own name; of an unpacked archive, the archive's."""
        *_, around, own = ["", *self._parsed(name)[0].rstrip("/").split("/")]
        if around in (UPLOADED, unpacked_dir().name) and (archive := UNPACKED_NAME.fullmatch(own)):
            return f"images '{archive['stem']}'"
        return f"folder '{own}'"

    def describe(self, name: str, test_fraction: float) -> DatasetInfo:
        """Counts from the file names alone; channels and readability are known only after loading.

        A page asks after every change of its form: a large folder is read again only when files have come or gone.
        """
        found = self._found(name)
        count = len(found.class_names)
        sizes = np.bincount(found.train.which, minlength=count)
        if found.test is not None:
            tested = np.bincount(found.test.which, minlength=count)
        else:
            tested = np.array([drawn_of(int(n), test_fraction) for n in sizes])
            sizes = sizes - tested
        drawn = found.test is None
        tested_on = "drawn by chance" if drawn else f"from its folder '{found.tested_on}'" if found.tested_on else ""
        return DatasetInfo(
            name, self._path(name).name, int(sizes.sum()), int(tested.sum()), count, 3, self.resolution, "your folder",
            class_sizes=tuple(sizes.tolist()), tested_on=tested_on, test_is_drawn=drawn, fingerprint=found.fingerprint,
            class_names=tuple(map(as_text, found.class_names)), test_sizes=tuple(tested.tolist()),
            notes=(*found.notes, *found.headers, *found.copies), side=found.side,
        )  # fmt: skip

    def load(self, request: Request) -> Dataset:
        """Grey if all images are grey, else colour. Uploaded images are never cached: they go with their runs."""
        root = self._path(request.name)
        request = replace(request, resolution=request.resolution or self.resolution)
        return load_found(self._found(request.name), request, root, cache=UPLOADED not in root.parts)

    def thumbnails(self, name: str, per_class: int) -> list[tuple[np.ndarray, str]]:
        return thumbnails_of(self._found(name), per_class)

    def test_files(self, name: str) -> list[str] | None:
        test = self._found(name).test
        return None if test is None else [test[i] for i in range(len(test))]

    def test_only(self, name: str) -> str | None:
        """A folder may have nothing but test/, which cannot be trained on."""
        root = self._path(name)
        return folder_name(root / "test") if (root / "test").is_dir() and not (root / "train").is_dir() else None

    def _found(self, name: str) -> Found:
        """What lies there, as it is now; remembered until a folder or a table changes."""
        found = _REMEMBERED.get(name)
        if found is None or any(_changed(path) != when for path, when in found.looked_at):
            found = self._look(name)
            _REMEMBERED[name] = found
            while len(_REMEMBERED) > REMEMBERED:
                _REMEMBERED.popitem(last=False)
        return found

    def _look(self, name: str) -> Found:
        root, (_, key, value) = self._path(name), self._parsed(name)
        tree, folders = read_tree(root)
        reader = _Reader(root)
        if (layout := layout_of(root, tree)) is None:
            earlier = notes_of(root)
            nested = OUTER if earlier is not None else value if key == "classes" else ""
            layout = understand(tree, str(root), reader, nested)
            layout = replace(layout, notes=tuple(dict.fromkeys((*(earlier or ()), *layout.notes))))
        return _files(root, layout, (*folders, *reader.read))

    def _parsed(self, name: str) -> tuple[str, str, str]:
        """(path, key and value of an option) of a dataset's name."""
        found = OPTION.fullmatch(typed(name.removeprefix(self.name)))
        assert found is not None  # anything fits
        return found["path"], found["key"] or "", found["value"] or ""

    def _name(self, path: Path | str, key: str, value: str) -> str:
        return f"{self.name}{path}" + (f"?{key}={value}" if key else "")

    def _path(self, name: str) -> Path:
        return Path(self._parsed(name)[0])

    def _missing(self, given: str) -> DataError:
        return DataError(f"There is no folder '{given}'. Give the path of a folder with one sub-folder per class.")


class CsvTable(Folder):
    """Images anywhere below the folder of a table that lists them with their classes."""

    name = TABLE
    usage = "csv:FILE"
    note = "your own, labelled by a table with a column of files and one of classes"

    def meant(self, name: str) -> str:
        return f"{TABLE}{name}" if name.lower().endswith(TABLES) and "//" not in name else ""

    def prepare(self, name: str) -> str:
        name = self.check(name)
        _, key, value = self._parsed(name)
        path = self._path(name)
        if not path.is_file():
            raise self._missing(as_typed(str(path)))
        return self._name(path.resolve(), key, value)

    def own_files(self, name: str) -> list[Path]:
        name = self.check(name)
        return self._needed(name, self._path(name).parent)

    def title(self, name: str) -> str:
        return f"table '{self._path(name).name}'"

    def _look(self, name: str) -> Found:
        table, (_, _, column) = self._path(name), self._parsed(name)
        root = table.parent
        tree, folders = read_tree(root)
        reader = _Reader(root)
        try:
            labels = labels_of(table.name, reader(table.name), tree, column)
        except TableError as error:
            raise DataError(f"{error}") from None
        if labels is None:
            raise DataError(
                f"'{table}' does not list images below '{root}'. It needs a column with their paths or names, and one "
                "with their classes."
            )
        return _files(root, from_labels(labels), (*folders, *reader.read))

    def test_only(self, name: str) -> str | None:
        return None

    def _missing(self, given: str) -> DataError:
        return DataError(f"There is no file '{given}'. Give the path of a table of images and their classes.")


_REMEMBERED: OrderedDict[str, Found] = OrderedDict()


class _Reader:
    """Reads files below a folder, and remembers when those were last changed."""

    def __init__(self, root: Path) -> None:
        self.root, self.read = root, list[tuple[str, int]]()

    def __call__(self, path: str) -> bytes:
        whole = self.root / path
        try:
            self.read.append((str(whole), whole.stat().st_mtime_ns))
            with open(whole, "rb") as file:
                return file.read(LARGEST_TABLE + 1)
        except OSError as error:
            raise DataError(f"'{whole}' cannot be read: {error.strerror}.") from None


def _files(root: Path, layout: Layout, looked_at: tuple[tuple[str, int], ...]) -> Found:
    names = layout.class_names
    by_text = sorted(range(len(names)), key=names.__getitem__)

    def listed(paths: tuple[list[str], ...]) -> Files:
        folders = [_folder_of(of_class) for of_class in paths]
        inside = ([path[len(f) :] for path in of_class] for f, of_class in zip(folders, paths, strict=True))
        files = Files.of([str(root / folder) if folder else str(root) for folder in folders], inside)
        # in the order of the names as text, so that numeric names do not change the order of what is trained on
        return files.take(np.concatenate([np.flatnonzero(files.which == k) for k in by_text]))

    test = None if layout.test is None else listed(layout.test)
    return Found(
        names, listed(layout.train), test, as_text(layout.tested_on), tuple(map(as_text, layout.notes)), looked_at
    )


def _folder_of(paths: list[str]) -> str:
    """The folder that all lie in, with a slash at its end; "" for the root."""
    first = paths[0].rpartition("/")[0] if paths else ""
    first = f"{first}/" if first else ""
    return first if all(path.startswith(first) for path in paths) else ""


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1
