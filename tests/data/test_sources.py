"""The bundled samples, and torchvision's sources against small stand-ins in torchvision's own layout."""

from __future__ import annotations

import contextlib
import gzip
import pickle
import struct
import tarfile
import threading
from collections import Counter
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from iekd import data
from iekd.data import bundled, torchvision_sets
from iekd.errors import DataError, UserError

CLASSES = bundled.FASHION_CLASSES
CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg.tar.xz"


def test_the_sample_is_balanced_and_whole():
    d = data.load("fashion-mnist-sample")
    assert d.train.images.shape == d.test.images.shape == (10_000, 28, 28, 1)
    assert d.train.images.dtype == np.uint8
    assert np.bincount(d.train.labels).tolist() == [1000] * 10
    assert np.bincount(d.test.labels).tolist() == [1000] * 10
    assert d.class_names == CLASSES


def test_the_sample_shares_no_image_with_its_test_set():
    d = data.load("fashion-mnist-sample")
    train, test = ({image.tobytes() for image in split.images} for split in (d.train, d.test))
    assert len(train) > 9_900
    assert not train & test


def test_the_samples_are_at_most_ten_megabytes():
    assert sum(file.stat().st_size for file in bundled.BUNDLED.iterdir()) <= 10e6


def test_the_sample_in_colour_is_balanced_and_its_classes_take_turns():
    d = data.load("cifar10-sample")
    assert (d.train.images.shape, d.test.images.shape) == ((2000, 32, 32, 3), (1000, 32, 32, 3))
    assert d.train.labels.tolist() == [*range(10)] * 200
    assert d.test.labels.tolist() == [*range(10)] * 100
    train, test = ({image.tobytes() for image in split.images} for split in (d.train, d.test))
    assert (len(train), len(test)) == (2000, 1000)
    assert not train & test


@pytest.mark.skipif(not CIFAR.is_file(), reason="CIFAR-10 in JPEG files is not beside the repository")
def test_the_sample_in_colour_is_made_of_the_files():
    d = data.load("cifar10-sample")
    with tarfile.open(CIFAR) as archive:
        for member in filter(tarfile.TarInfo.isfile, archive):
            part, label, file = member.name.split("/")
            split, row = getattr(d, part), 10 * int(file.removesuffix(".jpg")) + d.class_names.index(label)
            if row < len(split):
                with Image.open(archive.extractfile(member)) as image:
                    np.testing.assert_array_equal(split.images[row], np.asarray(image))


@pytest.mark.skipif(not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="Debian's Fashion-MNIST is not here")
def test_the_sample_is_made_of_the_originals():
    def original(part):
        folder = Path("/usr/share/datasets/fashion-mnist")
        images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
        return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)

    d = data.load("fashion-mnist-sample")
    images, labels = original("t10k")
    np.testing.assert_array_equal(d.test.images[..., 0], images)
    np.testing.assert_array_equal(d.test.labels, labels)
    images, labels = original("train")
    known = Counter((image.tobytes(), int(k)) for image, k in zip(images, labels, strict=True))
    assert (
        not Counter((image.tobytes(), int(k)) for image, k in zip(d.train.images, d.train.labels, strict=True)) - known
    )


def test_another_resolution_resizes_both_parts():
    d = data.load("fashion-mnist-sample", resolution=8)
    assert d.train.images.shape == d.test.images.shape == (10_000, 8, 8, 1)
    whole = data.load("fashion-mnist-sample")
    assert d.train.images.mean() == pytest.approx(whole.train.images.mean(), rel=0.03)
    np.testing.assert_array_equal(d.test.labels, whole.test.labels)


def test_unknown_names_get_the_closest(refuses):
    for load in (data.load, data.describe, data.thumbnails, data.check_name):
        refuses(
            lambda load=load: load("fashion-minst"), "fashion-minst", "Did you mean 'fashion-mnist'", kind=UserError
        )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("food101", ["torchvision:Food101"]),
        ("oxford-iiit-pet", ["torchvision:OxfordIIITPet"]),
        ("CIFAR-10", ["cifar10"]),
        ("ylecun/mnist", ["folder:ylecun/mnist", "hf:ylecun/mnist"]),
        ("https://huggingface.co/datasets/ylecun/mnist", ["hf:ylecun/mnist"]),
        ("./photos", ["folder:./photos"]),
        ("photos.zip", ["folder:photos.zip"]),
        ("data/labels.csv", ["csv:data/labels.csv"]),
    ],
)
def test_a_name_without_its_scheme_gets_the_whole_name(name, meant, refuses):
    refuses(lambda: data.check_name(name), "Did you mean '" + "' or '".join(meant) + "'?", kind=UserError)


@pytest.mark.parametrize("name", ["hub:ylecun/mnist", "HF:ylecun/mnist"])
def test_a_scheme_that_nobody_knows_is_no_part_of_a_path(name, refuses):
    refuses(lambda: data.check_name(name), name, "hf:ORG/NAME", kind=UserError)
    assert data.check_name("folder:C:/pictures")


def test_of_any_other_name_the_folder_is_offered(refuses):
    """Whether there is one is not looked up: strangers may ask."""
    refuses(lambda: data.check_name("photos"), "Unknown dataset 'photos'", "'folder:photos'", kind=UserError)


def test_every_named_data_set_is_described():
    infos = {info.name: info for info in data.available()}
    assert list(infos) == ["fashion-mnist-sample", "cifar10-sample", "fashion-mnist", "cifar10", "cifar100"]
    assert all(data.describe(name) == info for name, info in infos.items())
    sample = data.load("fashion-mnist-sample")
    info = infos["fashion-mnist-sample"]
    assert (info.train_images, info.test_images, info.classes) == (len(sample.train), len(sample.test), 10)
    assert (info.channels, info.resolution) == (sample.channels, sample.resolution)


def test_thumbnails_of_the_sample_show_every_class():
    shown = data.thumbnails("fashion-mnist-sample")
    assert [name for _, name in shown] == list(CLASSES)
    assert all(image.shape == (28, 28, 1) for image, _ in shown)


# ---- stand-ins -------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nothing_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(torchvision_sets, "DEBIAN_FASHION", tmp_path / "no-debian")


@pytest.fixture
def offline(monkeypatch):
    """Whoever tries the network is told what a machine without one says."""

    def refuse(*_, **__):
        raise URLError("[Errno -3] Temporary failure in name resolution")

    for module in (torchvision.datasets.mnist, torchvision.datasets.cifar):
        monkeypatch.setattr(module, "download_and_extract_archive", refuse)


def idx(array: np.ndarray) -> bytes:
    """The MNIST file format: magic number with type and rank, sizes, bytes."""
    return struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def fashion(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": (np.arange(30) % 10).astype(np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": (np.arange(20) % 10).astype(np.uint8),
    }


def put_fashion(folder: Path, seed: int = 0, packed: bool = False) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    for name, array in fashion(seed).items():
        content = idx(array)
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    return fashion(seed)


def is_fashion(d: data.Dataset, files: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(d.train.images[..., 0], files["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(d.train.labels, files["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(d.test.images[..., 0], files["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(d.test.labels, files["t10k-labels-idx1-ubyte"])
    assert d.class_names == CLASSES
    assert d.train.images.shape[3] == 1
    assert d.train.labels.dtype == np.int64


def put_cifar(folder: Path, monkeypatch, classes: int) -> dict[str, tuple[np.ndarray, list[int]]]:
    """CIFAR's pickles with 4 images each, and torchvision told not to ask for the real ones' checksums."""
    rng = np.random.default_rng(classes)
    cls = torchvision.datasets.CIFAR10 if classes == 10 else torchvision.datasets.CIFAR100
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(cls, name, [[file, None] for file, _ in getattr(cls, name)])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": None})
    folder.mkdir(parents=True)
    written = {}
    for i, (file, _) in enumerate(cls.train_list + cls.test_list):
        pixels = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        labels = [(4 * i + j) % classes for j in range(4)]
        key = "labels" if classes == 10 else "fine_labels"
        (folder / file).write_bytes(pickle.dumps({"data": pixels, key: labels, "coarse_labels": [0] * 4}))
        written[file] = pixels.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1), labels
    names = [f"thing {k}" for k in range(classes)]
    (folder / cls.meta["filename"]).write_bytes(pickle.dumps({cls.meta["key"]: names}))
    return written


@pytest.mark.usefixtures("offline")
def test_fashion_mnist_is_found_in_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("IEKD_DATA_DIR", str(tmp_path / "mine"))
    files = put_fashion(tmp_path / "mine" / "FashionMNIST" / "raw")
    assert data.source_of("fashion-mnist").at_hand("fashion-mnist")
    is_fashion(data.load("fashion-mnist"), files)


@pytest.mark.usefixtures("offline")
def test_fashion_mnist_is_found_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    files = put_fashion(tmp_path / "cache" / "data" / "FashionMNIST" / "raw")
    is_fashion(data.load("fashion-mnist"), files)


@pytest.mark.usefixtures("offline")
def test_fashion_mnist_is_found_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = put_fashion(tmp_path / "data" / "FashionMNIST" / "raw")
    is_fashion(data.load("fashion-mnist"), files)


@pytest.mark.usefixtures("offline")
def test_the_users_folder_comes_before_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IEKD_DATA_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    put_fashion(tmp_path / "cache" / "data" / "FashionMNIST" / "raw", seed=1)
    files = put_fashion(tmp_path / "mine" / "FashionMNIST" / "raw", seed=2)
    is_fashion(data.load("fashion-mnist"), files)


@pytest.mark.usefixtures("offline")
def test_debians_copy_is_unpacked_once(tmp_path, monkeypatch):
    debian = tmp_path / "debian"
    files = put_fashion(debian, packed=True)
    monkeypatch.setattr(torchvision_sets, "DEBIAN_FASHION", debian)
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    before = {p: p.read_bytes() for p in debian.iterdir()}
    assert data.source_of("fashion-mnist").at_hand("fashion-mnist")
    is_fashion(data.load("fashion-mnist"), files)
    unpacked = sorted(p.name for p in (tmp_path / "cache/data/FashionMNIST/raw").iterdir())
    assert unpacked == sorted(files)
    assert {p: p.read_bytes() for p in debian.iterdir()} == before
    is_fashion(data.load("fashion-mnist"), files)


@pytest.mark.usefixtures("offline")
def test_debians_copy_is_left_alone_where_the_user_has_one(tmp_path, monkeypatch):
    put_fashion(tmp_path / "debian", seed=1, packed=True)
    monkeypatch.setattr(torchvision_sets, "DEBIAN_FASHION", tmp_path / "debian")
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("IEKD_DATA_DIR", str(tmp_path / "mine"))
    files = put_fashion(tmp_path / "mine" / "FashionMNIST" / "raw", seed=2)
    is_fashion(data.load("fashion-mnist"), files)
    assert not (tmp_path / "cache").exists()


def test_debians_copy_may_be_unpacked_by_two_at_once(tmp_path, monkeypatch):
    files = put_fashion(tmp_path / "debian", packed=True)
    monkeypatch.setattr(torchvision_sets, "DEBIAN_FASHION", tmp_path / "debian")
    folder, both_done = tmp_path / "cache" / "raw", threading.Barrier(2, timeout=30)
    copy = torchvision_sets.shutil.copyfileobj
    copied = threading.local()

    def until_the_other_has_all(source, target):
        copy(source, target)
        copied.files = getattr(copied, "files", 0) + 1
        if copied.files == 4:
            both_done.wait()

    monkeypatch.setattr(torchvision_sets.shutil, "copyfileobj", until_the_other_has_all)

    def unpack():
        with contextlib.suppress(OSError):  # as its caller does
            torchvision_sets._unpack_debian(folder)

    threads = [threading.Thread(target=unpack) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {name: idx(array) for name, array in files.items()}
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.usefixtures("offline")
def test_an_unwritable_cache_is_a_sentence(tmp_path, monkeypatch, refuses):
    """Below a regular file, because the super-user may write anywhere else."""
    (tmp_path / "file").write_text("")
    put_fashion(tmp_path / "debian", packed=True)
    monkeypatch.setattr(torchvision_sets, "DEBIAN_FASHION", tmp_path / "debian")
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "file" / "cache"))
    for name in ("fashion-mnist", "cifar10"):
        refuses(lambda name=name: data.load(name), tmp_path / "file" / "cache", "IEKD_CACHE_DIR", kind=UserError)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08\x03", idx(np.zeros((30, 28, 28), np.uint8))[:5000], b"<html></html>"]
)
def test_a_damaged_local_copy_is_a_sentence(tmp_path, monkeypatch, content, refuses):
    monkeypatch.setenv("IEKD_DATA_DIR", str(tmp_path / "mine"))
    put_fashion(tmp_path / "mine" / "FashionMNIST" / "raw")
    (tmp_path / "mine" / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(content)
    refuses(lambda: data.load("fashion-mnist"), "fashion-mnist", kind=DataError)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "folder", "classes"), [("cifar10", "cifar-10-batches-py", 10), ("cifar100", "cifar-100-python", 100)]
)
def test_cifar_is_read_as_it_is_stored(tmp_path, monkeypatch, name, folder, classes):
    monkeypatch.setenv("IEKD_DATA_DIR", str(tmp_path))
    written = put_cifar(tmp_path / folder, monkeypatch, classes)
    d = data.load(name)
    *train, test = written.values()
    np.testing.assert_array_equal(d.train.images, np.concatenate([images for images, _ in train]))
    np.testing.assert_array_equal(d.train.labels, np.concatenate([labels for _, labels in train]))
    np.testing.assert_array_equal(d.test.images, test[0])
    np.testing.assert_array_equal(d.test.labels, test[1])
    assert d.class_names == data.describe(name).class_names
    assert len(d.class_names) == classes
    assert (d.channels, d.resolution) == (3, 32)
    assert data.load(name, resolution=16).train.images.shape[1:] == (16, 16, 3)


@pytest.mark.usefixtures("offline")
def test_a_changed_cifar_file_is_not_believed(tmp_path, monkeypatch, refuses):
    """With torchvision's own checksums in place, four random images are not CIFAR-10."""
    with monkeypatch.context() as patched:
        put_cifar(tmp_path / "cifar-10-batches-py", patched, 10)
    monkeypatch.setenv("IEKD_DATA_DIR", str(tmp_path))
    refuses(lambda: data.load("cifar10"), "cifar10", kind=DataError)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "cifar100"])
def test_offline_says_so_and_what_to_do(name, refuses, tmp_path, monkeypatch):
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    assert not data.source_of(name).at_hand(name)
    assert data.thumbnails(name) == []
    refuses(
        lambda: data.load(name), name, "could not be downloaded", "internet", tmp_path / "cache",
        "fashion-mnist-sample", kind=DataError,
    )  # fmt: skip


def test_what_is_missing_is_downloaded_into_the_cache(tmp_path, monkeypatch):
    asked = []

    def download(url, download_root, **_):
        asked.append(url)
        if not Path(download_root).joinpath("train-images-idx3-ubyte").exists():
            for name, array in fashion().items():
                Path(download_root, name).write_bytes(idx(array))

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", download)
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    is_fashion(data.load("fashion-mnist"), fashion())
    assert asked
    assert (tmp_path / "cache" / "data" / "FashionMNIST" / "raw").is_dir()
    asked.clear()
    is_fashion(data.load("fashion-mnist"), fashion())
    assert not asked, "downloaded twice"
