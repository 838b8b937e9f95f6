"""torchvision's classification sets by class name, against small copies in torchvision's own layouts."""

from __future__ import annotations

import csv
import inspect
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from scipy.io import savemat

from iekd import data
from iekd.config.run import make_config
from iekd.data import torchvision_sets
from iekd.data.torchvision_facts import FACTS, OTHERS
from iekd.errors import DataError, UserError

COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """The folder in which sets are looked for; nothing is downloaded."""

    def refuse(*_, **__):
        raise URLError("[Errno -3] Temporary failure in name resolution")

    for module in ("svhn", "stl10", "flowers102", "eurosat", "gtsrb", "food101", "caltech", "oxford_iiit_pet"):
        found = getattr(torchvision.datasets, module)
        for name in ("download_and_extract_archive", "download_url"):
            if hasattr(found, name):
                monkeypatch.setattr(found, name, refuse)
    monkeypatch.setenv("IEKD_DATA_DIR", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def picture(path: Path, label: int, size=(40, 30)) -> Path:
    """In the colour of its class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS[label % 3]).save(path)
    return path


def colours_are_right(split: data.Split) -> bool:
    """Whether every image has the colour of its label."""
    return all(
        np.abs(image.mean((0, 1)) - COLOURS[label % 3]).max() < 12
        for image, label in zip(split.images[:], split.labels, strict=True)
    )


def flowers(root: Path, monkeypatch) -> None:
    """All images in one folder; labels and the parts in MATLAB's files."""
    folder = root / "flowers-102"
    labels = np.arange(306) % 102 + 1
    for i, label in enumerate(labels, 1):
        picture(folder / "jpg" / f"image_{i:05d}.jpg", int(label) - 1)
    savemat(folder / "imagelabels.mat", {"labels": labels})
    parts = np.arange(1, 307).reshape(3, 102)
    savemat(folder / "setid.mat", {"trnid": parts[0], "valid": parts[1], "tstid": parts[2]})
    monkeypatch.setattr(torchvision.datasets.flowers102, "check_integrity", lambda *_, **__: True)


def food(root: Path, monkeypatch) -> None:
    """A folder per class; the parts in JSON."""
    folder = root / "food-101"
    for part, numbers in {"train": range(3), "test": range(3, 5)}.items():
        listed = {name: [f"{name}/{i}" for i in numbers] for name in ("apple_pie", "ramen", "waffles")}
        (folder / "meta").mkdir(parents=True, exist_ok=True)
        (folder / "meta" / f"{part}.json").write_text(json.dumps(listed))
        for k, images in enumerate(listed.values()):
            for image in images:
                picture(folder / "images" / f"{image}.jpg", k)


def gtsrb(root: Path, monkeypatch) -> None:
    """PPM files; the test labels in a table with semicolons."""
    folder = root / "gtsrb"
    for k in range(43):
        picture(folder / "GTSRB" / "Training" / f"{k:05d}" / "00000_00000.ppm", k)
    with open(folder / "GT-final_test.csv", "w", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(["Filename", "ClassId"])
        for i, k in enumerate((2, 0, 41)):
            picture(folder / "GTSRB" / "Final_Test" / "Images" / f"{i:05d}.ppm", k)
            table.writerow([f"{i:05d}.ppm", k])


def pets(root: Path, monkeypatch) -> None:
    """Names of images with their labels in text files."""
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for part, numbers in {"trainval": (1, 2), "test": (3,)}.items():
        rows = [
            (f"{race}_{i}", k + 1) for k, race in enumerate(("Abyssinian", "pug", "great_pyrenees")) for i in numbers
        ]
        (folder / "annotations" / f"{part}.txt").write_text("".join(f"{name} {k} 1 1\n" for name, k in rows))
        for name, k in rows:
            picture(folder / "images" / f"{name}.jpg", k - 1)


def caltech(root: Path, monkeypatch) -> None:
    """A folder per class, one of which is none."""
    for k, name in enumerate(("Faces", "ant", "zebra", "BACKGROUND_Google")):
        for i in range(1, 6):
            picture(root / "caltech101" / "101_ObjectCategories" / name / f"image_{i:04d}.jpg", k)


def imagenette(root: Path, monkeypatch) -> None:
    """Folders by WordNet's numbers, whose names are synonyms."""
    for part, count in (("train", 2), ("val", 1)):
        for k, wnid in enumerate(("n01440764", "n02102040", "n02979186")):
            for i in range(count):
                picture(root / "imagenette2-320" / part / wnid / f"{i}.JPEG", k)


def clevr(root: Path, monkeypatch) -> None:
    """Labels count objects, from three on."""
    folder = root / "clevr" / "CLEVR_v1.0"
    for part in ("train", "val"):
        scenes = [{"image_filename": f"{part}_{k}.png", "objects": [{}] * (3 + k)} for k in range(8)]
        (folder / "scenes").mkdir(parents=True, exist_ok=True)
        (folder / "scenes" / f"CLEVR_{part}_scenes.json").write_text(json.dumps({"scenes": scenes}))
        for k, scene in enumerate(scenes):
            picture(folder / "images" / part / scene["image_filename"], k)


def inaturalist(root: Path, monkeypatch) -> None:
    """Categories of eight words, any names of files."""
    for version, count in (("2021_train_mini", 2), ("2021_valid", 1)):
        for k, name in enumerate(("Bufo_bufo", "Rana_arvalis", "Hyla_arborea")):
            category = f"{k:05d}_Animalia_Chordata_Amphibia_Anura_Family_{name}"
            for i in range(count):
                picture(root / "inaturalist" / version / category / f"{i}{k}.jpg", k)


@pytest.mark.parametrize(
    ("name", "put", "counts", "classes"),
    [
        ("Caltech101", caltech, (12, 3), ("Faces", 3)),
        ("Imagenette", imagenette, (6, 3), ("tench", 3)),
        ("CLEVRClassification", clevr, (8, 8), ("3", 8)),
        ("INaturalist", inaturalist, (6, 3), ("00000_Animalia_Chordata_Amphibia_Anura_Family_Bufo_bufo", 3)),
        ("Flowers102", flowers, (204, 102), ("pink primrose", 102)),
        ("Food101", food, (9, 6), ("apple_pie", 3)),
        ("GTSRB", gtsrb, (43, 3), ("speed limit 20", 43)),
        ("OxfordIIITPet", pets, (6, 3), ("Abyssinian", 3)),
    ],
)
def test_sets_of_files_are_read_by_their_own_lists(root, monkeypatch, name, put, counts, classes):
    name = f"torchvision:{name}"
    assert not data.source_of(name).at_hand(name)
    put(root, monkeypatch)
    assert data.source_of(name).at_hand(name)
    d = data.load(name, resolution=16)
    assert (len(d.train), len(d.test)) == counts
    assert (d.class_names[0], len(d.class_names)) == classes
    assert colours_are_right(d.train)
    assert colours_are_right(d.test)
    streamed = data.load(name, resolution=16, image_memory=0.0)
    assert not isinstance(streamed.train.images, np.ndarray), "they stay in their files"
    np.testing.assert_array_equal(streamed.test.images[:], d.test.images)
    files = d.test.image_files
    assert files is not None
    assert not data.relative_name(name, files[0]).startswith("/"), "reports do not say where the files lie"
    assert data.thumbnails(name)


def test_a_set_without_test_images_is_drawn_as_a_folder_is(root, monkeypatch):
    for k, land in enumerate(("Forest", "River", "SeaLake")):
        for i in range(10):
            picture(root / "eurosat" / "2750" / land / f"{land}_{i}.jpg", k, (64, 64))
    eurosat = torchvision_sets.SETS["EuroSAT"]
    assert eurosat.uses_test_fraction
    info = data.describe("torchvision:EuroSAT")
    assert (info.train_images, info.test_images, info.test_is_drawn) == (21_600, 5_400, True)
    # only three of the ten classes are here, so torchvision's names are taken
    three = replace(eurosat, facts=replace(eurosat.facts, class_names=()))
    monkeypatch.setitem(torchvision_sets.SETS, "EuroSAT", three)
    d = data.load("torchvision:EuroSAT", resolution=16, test_fraction=0.3, seed=1)
    other = data.load("torchvision:EuroSAT", resolution=16, test_fraction=0.3, seed=2)
    assert (len(d.train), len(d.test)) == (21, 9)
    assert d.class_names == ("Forest", "River", "SeaLake")
    assert [d.test.image_files[i] for i in range(9)] != [other.test.image_files[i] for i in range(9)]


def test_sets_in_memory_are_turned_upright(root, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 12), np.uint8)
    for part in ("train", "test"):
        savemat(root / f"{part}_32x32.mat", {"X": pixels, "y": np.arange(12) % 10 + 1})
    monkeypatch.setattr(torchvision.datasets.svhn, "check_integrity", lambda *_, **__: True)
    d = data.load("torchvision:SVHN")
    np.testing.assert_array_equal(d.train.images[3], pixels[..., 3])
    assert d.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2], "a ten is a zero"
    assert d.class_names == tuple("0123456789")


def test_names_are_found_in_any_case_and_old_names_stay(refuses):
    assert make_config(dataset="torchvision:svhn").dataset == "torchvision:SVHN"
    assert make_config(dataset="torchvision:CIFAR10").dataset == "cifar10"
    assert data.describe("torchvision:CIFAR10") == data.describe("cifar10")
    refuses(lambda: make_config(dataset="torchvision:Flowrs102"), "torchvision:Flowers102", kind=UserError)
    refuses(lambda: make_config(dataset="torchvision:CelebA"), "CelebA", "attributes", kind=UserError)
    assert data.title_of("torchvision:Gone") == "torchvision:Gone"
    assert not [info.name for info in data.available() if ":" in info.name]


def test_what_is_missing_is_a_sentence(root, refuses):
    refuses(
        lambda: data.load("torchvision:SVHN"), "could not be downloaded", "name resolution", "train_32x32.mat",
        kind=DataError,
    )  # fmt: skip
    for by_hand in ("StanfordCars", "FER2013", "ImageNet"):
        refuses(
            lambda name=by_hand: data.load(f"torchvision:{name}"), "by hand", f"torchvision:{by_hand}", kind=DataError
        )


@pytest.mark.parametrize(
    ("name", "why"),
    [("LSUN", "LMDB"), ("lsun", "LMDB"), ("VOCDetection", "boxes"), ("UCF101", "videos"), ("VOC", "boxes"),
     ("Omniglott", "other characters")],
)  # fmt: skip
def test_sets_without_one_class_per_image_are_refused_with_those_that_can_be_used(name, why, refuses):
    refuses(lambda: data.check_name(f"torchvision:{name}"), why, "Those that can be used are", "Flowers102")


def test_every_set_of_torchvision_is_usable_or_refused_with_a_reason():
    parts = {"VisionDataset", "wrap_dataset_for_transforms_v2"}
    assert set(torchvision.datasets.__all__) <= {*OTHERS, *parts, *(facts.class_name for facts in FACTS)}


@pytest.mark.parametrize("facts", FACTS, ids=lambda facts: facts.class_name)
def test_every_fact_is_whole(facts):
    """The class exists and takes the arguments; nothing is built, which would read or download."""
    known = inspect.signature(getattr(torchvision.datasets, facts.class_name).__init__).parameters
    inherited = "kwargs" in known or "args" in known
    assert inherited or all(set(part) <= set(known) for part in (*facts.train, *facts.test))
    info = data.describe(facts.called)
    assert info.train_images + info.test_images == facts.train_images + facts.test_images
    assert len(facts.class_names) in (0, facts.classes)
    assert facts.class_name not in OTHERS
    assert bool(facts.download) == (facts.class_name not in ("FER2013", "StanfordCars", "ImageNet"))


def test_names_that_are_written_down_are_those_that_torchvision_gives():
    sets = torchvision.datasets
    theirs = {
        "EMNIST": sets.EMNIST.classes_split_dict["balanced"],
        "FashionMNIST": sets.FashionMNIST.classes,
        "Flowers102": sets.Flowers102.classes,
    }
    for name, classes in theirs.items():
        known = data.describe(f"torchvision:{name}").class_names
        assert known == torchvision_sets._class_names(SimpleNamespace(classes=classes)), name
