"""Sources of other people: registered from outside of the package, they are as good as ours."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import iekd
from iekd import data
from iekd.config.run import RunConfig, make_config
from iekd.config.unused import unused_settings
from iekd.data import Dataset, DatasetInfo, Request, Source, Split, registry
from iekd.errors import DataError
from iekd.runs.prepare import prepare


def noise(count: int, side: int = 16) -> Split:
    rng = np.random.default_rng(count)
    return Split(rng.integers(0, 256, (count, side, side, 3), np.uint8), np.arange(count, dtype=np.int64) % 2)


SHIPPED_USAGES = [source.usage for source in registry.sources() if source.usage]


class Noise(Source):
    name = "noise"
    resolution = 16

    def describe(self, name, test_fraction):
        return DatasetInfo(name, "Only noise", 8, 4, 2, 3, self.resolution)

    def load(self, request: Request) -> Dataset:
        return Dataset(request.name, ("a", "b"), noise(8), noise(4)).resized(request.resolution)


class Shelf(Noise):
    """Any number of datasets, below a folder of the user's."""

    name = "shelf:"
    usage = "shelf:NAME"
    note = "from the shelf"
    uses_test_fraction = True

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self, name):
        return name.lower()

    def prepare(self, name):
        if not (self.root / name.removeprefix("shelf:")).is_dir():
            raise DataError(f"There is no '{name}' on the shelf. Choose another.")
        return self.check(name)

    def own_path(self, name):
        return self.root / name.removeprefix("shelf:")

    def at_hand(self, name):
        return False


@pytest.fixture(autouse=True)
def shelf(tmp_path, monkeypatch) -> Shelf:
    """Both are registered, and forgotten after the test."""
    monkeypatch.setattr(registry, "_SOURCES", dict(registry._SOURCES))
    data.register(Noise())
    (tmp_path / "one").mkdir()
    return data.register(Shelf(tmp_path))


def test_a_dataset_is_listed_described_and_shown():
    assert [info.title for info in data.available()][-1] == "Only noise"
    assert data.describe("noise").classes == 2
    assert data.title_of("noise") == "Only noise"
    assert [label for _, label in data.thumbnails("noise", 2)] == ["a", "a", "b", "b"]
    assert data.load("noise", resolution=8).train.images.shape == (8, 8, 8, 3)


def test_it_is_a_setting_like_any_other(refuses, tmp_path):
    assert make_config(dataset="noise", cutout=15).dataset == "noise"
    refuses(lambda: prepare(make_config(dataset="noise", cutout=16), tmp_path), "16 x 16")
    assert "test_fraction" in unused_settings(make_config(dataset="noise", test_fraction=0.4))
    assert "test_fraction" not in unused_settings(make_config(dataset="shelf:one", test_fraction=0.4))
    refuses(lambda: make_config(dataset="nois"), "Did you mean 'noise'")
    refuses(lambda: make_config(dataset="zebra"), "folder:PATH", "shelf:NAME")


def test_a_scheme_understands_what_follows_it(shelf, tmp_path, refuses):
    assert shelf in data.sources()
    assert all(info.name != "shelf:" for info in data.available()), "it is no dataset by itself"
    assert make_config(dataset="shelf:ONE").dataset == "shelf:one"
    assert data.load("shelf:one").name == "shelf:one"
    refuses(lambda: data.describe("shelf:two"), "shelf:two", kind=DataError)
    assert make_config(dataset="shelf:two").dataset == "shelf:two", "a configuration looks at no file"
    assert data.thumbnails("shelf:one") == [], "it would have to be downloaded"
    assert data.short_name("shelf:one") == "shelf:.../one"
    assert data.relative_name("shelf:one", f"{tmp_path}/one/a/b.png") == "a/b.png"
    assert data.relative_name("shelf:one", f"{tmp_path}/ones/b.png") == f"{tmp_path}/ones/b.png"


@pytest.mark.parametrize("count", ["train_images", "test_images", "classes", "channels", "resolution"])
def test_a_source_that_counts_nothing_is_refused_before_it_is_loaded(count, refuses):
    """Estimates divide by these, and a public page limits what strangers may train by them."""

    class Vague(Noise):
        def describe(self, name, test_fraction):
            return replace(super().describe(name, test_fraction), **{count: 0})

    data.register(Vague())
    refuses(lambda: data.describe("noise"), "noise", count, "'describe'", kind=DataError)


def test_names_that_nobody_knows_any_more_can_be_shown():
    assert data.title_of("gone:x") == data.short_name("gone:x") == "gone:x"
    assert data.own_path("gone:x") is None
    assert data.relative_name("gone", "/a/b") == "/a/b"


WRONG = {
    "float images": lambda s: replace(s, images=s.images.astype(np.float32)),
    "channels first": lambda s: replace(s, images=s.images.transpose(0, 3, 1, 2)),
    "no channels": lambda s: replace(s, images=s.images[..., 0]),
    "other resolution": lambda s: replace(s, images=s.images[:, :8, :8]),
    "labels from one": lambda s: replace(s, labels=s.labels + 1),
    "int32 labels": lambda s: replace(s, labels=s.labels.astype(np.int32)),
    "too few labels": lambda s: replace(s, labels=s.labels[1:]),
    "nothing": lambda s: s.take(np.zeros(0, np.int64)),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("split", ["train", "test"])
def test_what_training_could_not_use_is_refused_when_it_is_loaded(wrong, split, refuses):
    class Wrong(Noise):
        def load(self, request):
            good = super().load(request)
            return replace(good, **{split: WRONG[wrong](getattr(good, split))})

    data.register(Wrong())
    refuses(lambda: data.load("noise", resolution=16), "'noise'", "should be" if "one" not in wrong else "classes")


def names_folder(path: Path) -> bool:
    """Whether a file uses the constant FOLDER; the word in a help text is something else."""
    for node in ast.walk(ast.parse(path.read_text())):
        if "FOLDER" in (getattr(node, "id", ""), getattr(node, "attr", ""), getattr(node, "name", "")):
            return True
    return False


def test_no_other_file_looks_at_how_a_name_begins():
    package = Path(iekd.__file__).parent
    found = {p.relative_to(package).as_posix() for p in package.rglob("*.py") if names_folder(p)}
    assert found == {"data/folder.py"}
    looks = ('startswith("folder', "startswith('folder", 'removeprefix("folder', ".SOURCES")
    for path in package.rglob("*.py"):
        assert not any(look in path.read_text() for look in looks), path


@pytest.mark.parametrize("usage", SHIPPED_USAGES)
def test_the_help_of_the_dataset_shows_how_names_are_written(usage):
    assert usage in re.split(r",? (?:or )?", RunConfig.model_fields["dataset"].description or "")
