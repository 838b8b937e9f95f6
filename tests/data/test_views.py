"""Random views of pictures: the law of torchvision's boxes, and the pixels of the original file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from iekd import data
from iekd.config.run import make_config
from iekd.data.decoding import open_image
from iekd.data.file_images import Files
from iekd.data.views import Box, Draws, PictureViews, usual_side, view
from iekd.engine.batches import Batches, images_on_device
from iekd.engine.events import Result
from iekd.engine.experiment import Experiment
from iekd.errors import DataError

CPU = torch.device("cpu")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth, so that JPEG and scaling hardly change it."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """12 photographs of 160 x 120 of two classes, and two of each to test on."""
    root = tmp_path_factory.mktemp("photos")
    for k, name in enumerate(("ants", "bees")):
        for part, count in (("train", 6), ("test", 2)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture(160, 120, 100 * k + i + 50 * (part == "test")).save(folder / f"{i}.jpg", quality=95)
    return root


def files_of(folder, *names: str) -> Files:
    return Files.of([str(folder)], [list(names)])


def test_boxes_are_drawn_as_torchvision_draws_them():
    size = (640, 480)
    ours = np.array([Draws.of(seed).box(*size) for seed in range(4000)], float)
    torch.manual_seed(0)
    image = torch.zeros(3, size[1], size[0])
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)], float)[
        :, [1, 0, 3, 2]
    ]  # top, left, height, width
    for column in range(4):
        one, other = ours[:, column], theirs[:, column]
        assert one.mean() == pytest.approx(other.mean(), rel=0.05, abs=3)
        assert np.quantile(one, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(other, [0.1, 0.5, 0.9]), rel=0.1, abs=8)
    assert (ours[:, 0] + ours[:, 2]).max() <= size[0]
    assert (ours[:, 1] + ours[:, 3]).max() <= size[1]
    assert ours[:, :2].min() == 0


@pytest.mark.parametrize(
    ("size", "box"), [((1000, 10), Box(493, 0, 13, 10)), ((9, 900), Box(0, 444, 9, 12)), ((1, 1), Box(0, 0, 1, 1))]
)
def test_of_a_picture_that_no_box_fits_it_is_the_centre(size, box):
    draws = Draws(np.ones(10), np.full(10, 0.5), 0.0, 0.0, 0.0)
    assert draws.box(*size) == box


@pytest.mark.parametrize(("kind", "most"), [("png", 0), ("jpg", 4)])
def test_a_view_has_the_pixels_of_the_file(tmp_path, kind, most):
    """Of a JPEG up to what decoding at a half or quarter changes."""
    path = str(tmp_path / f"a.{kind}")
    picture(800, 600).save(path, quality=95)
    whole, smaller = Image.open(path).convert("RGB"), 0
    for seed in range(12):
        draws = Draws.of(seed)
        box = draws.box(800, 600)
        part = whole.resize(
            (32, 32), Image.Resampling.BILINEAR, (box.left, box.top, box.left + box.width, box.top + box.height)
        )
        found = view(path, 32, 3, draws, mirrored=False)
        assert np.abs(np.asarray(part, int) - found).mean() <= most
        mirrored = view(path, 32, 3, draws)
        assert np.array_equal(mirrored, found[:, ::-1] if draws.mirror < 0.5 else found)
        smaller += not np.array_equal(np.asarray(part), found)
    assert bool(smaller) == (kind == "jpg"), "a large JPEG is not decoded in full"


def test_a_large_part_is_decoded_at_a_fraction_of_its_size(tmp_path, monkeypatch):
    path, sizes = str(tmp_path / "a.jpg"), []
    picture(1600, 1200).save(path)
    monkeypatch.setattr("iekd.data.views.open_image", lambda *args: sizes.append((i := open_image(*args)).size) or i)
    view(path, 64, 3, Draws(np.ones(10), np.full(10, 0.5), 0, 0, 1))  # all of it that has an allowed ratio
    view(path, 64, 3, Draws(np.zeros(10), np.full(10, 0.5), 0, 0, 1))  # 8 %: 392 pixels
    assert sizes == [(200, 150), (400, 300)]


def test_a_telephones_picture_is_turned_first(tmp_path):
    path, exif = str(tmp_path / "a.jpg"), Image.Exif()
    exif[0x0112] = 6
    upright = picture(60, 80)
    upright.rotate(90, expand=True).save(path, exif=exif, quality=98)
    whole = Draws(np.ones(10), np.full(10, 0.0), 0.0, 0.0, 1.0)  # three quarters of the ratio: all of it
    found = view(path, 40, 3, whole)
    assert np.abs(found.astype(int) - np.asarray(upright.resize((40, 40), Image.Resampling.BILINEAR))).mean() < 4


def test_the_usual_side_is_the_median_of_the_shorter_ones(tmp_path):
    for name, size in (("a.png", (30, 90)), ("b.png", (80, 50)), ("c.png", (70, 70)), ("d.png", (0, 0))):
        picture(*size).save(tmp_path / name) if size[0] else (tmp_path / name).write_bytes(b"no image")
    assert usual_side(files_of(tmp_path, "a.png", "b.png", "c.png", "d.png")) == 50
    assert usual_side(files_of(tmp_path, "d.png")) == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_views_depend_on_seed_and_epoch_alone(photos, workers):
    dataset = data.load(f"folder:{photos}", resolution=32)
    views = PictureViews(dataset.train.image_files, 32, 3)
    split = type(dataset.train)(views, dataset.train.labels)

    def batches(seed=0):
        return Batches(streamed, labels, 5, seed, lambda images, _: images, drop_last=False)

    with images_on_device([split, dataset.test], CPU, workers=workers) as ((streamed, labels), (tested, _)):
        whole = [list(batches().epoch(epoch)) for epoch in (0, 0, 1)]
        rest = list(batches().epoch(1, skip=1))
        other = list(batches(1).epoch(0))
        assert torch.equal(next(iter(tested.split(4))).permute(0, 2, 3, 1), torch.from_numpy(dataset.test.images[:]))
    pixels = [torch.cat([images for images, _ in epoch]) for epoch in (*whole, rest, other)]
    assert pixels[0].shape == (12, 3, 32, 32)
    assert torch.equal(pixels[0], pixels[1])
    assert not torch.equal(pixels[0], pixels[2])
    assert torch.equal(pixels[2][5:], pixels[3])
    assert not torch.equal(pixels[0], pixels[4])
    alone = views.views(np.array([3]), np.array([7]))
    assert np.array_equal(alone[0], view(dataset.train.image_files[3], 32, 3, Draws.of(7)))


def test_a_run_crops_large_pictures_from_their_files_and_small_ones_as_ever(photos):
    name = f"folder:{photos}"
    values = {
        "methods": ("baseline",),
        "teacher": "none",
        "epochs": 1,
        "batch_size": 6,
        "precision": "fp32",
        "threads": 1,
    }
    values |= {"dataset": name, "validation_fraction": 0.2, "augmentation": "resized-crop"}
    loaded = data.load(name, resolution=32)
    experiment = Experiment(make_config(**values, cutout=4), loaded)
    assert isinstance(experiment.training.images, PictureViews)
    assert len(experiment.training) == len(experiment.dataset.train) == 10
    results = [
        next(e for e in Experiment(make_config(**values), loaded).events() if isinstance(e, Result)) for _ in range(2)
    ]
    first, second = (r.learners[0].network.model.state_dict().values() for r in results)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for other, dataset in (
        ({"augmentation": "crop"}, loaded),
        ({}, data.load(name, resolution=120)),
        ({"fit": "pad"}, data.load(name, resolution=32, fit="pad")),
    ):
        plain = Experiment(make_config(**{**values, **other}), dataset)
        assert plain.training is plain.dataset.train


def test_a_picture_that_has_gone_is_named(tmp_path):
    picture(40, 40).save(tmp_path / "a.png")
    views = PictureViews(files_of(tmp_path, "a.png"), 16, 3)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a.png' could be read when it was looked at first"):
        views.views(np.array([0]), np.array([0]))
