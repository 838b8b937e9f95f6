"""Resized crop, cutout and their choice; crop and flip are in test_batches.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as reference

from iekd.engine.augment import crop_and_flip, crop_boxes, cut_out, make_augment, resized_crop, resized_crop_and_flip

CPU = torch.device("cpu")
MEAN = (0.2, 0.5, 0.8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, channels: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator(seed))


def chi_square(a: np.ndarray, b: np.ndarray) -> float:
    """Of two samples of the same size, by bin."""
    return float(((a - b) ** 2 / np.maximum(a + b, 1)).sum())


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("side", "channels"), [(8, 1), (33, 3), (64, 3)])
def test_a_resized_crop_is_torchvisions(side, channels, antialias):
    """Antialiasing or not: nothing is made smaller."""
    images = noise(60, channels, side)
    boxes = crop_boxes(60, side, generator(1))
    boxes[:, 0] = torch.tensor([0, 0, side, side])
    boxes[:, 1] = torch.tensor([side - 1, side - 1, 1, 1])
    mirrored = torch.arange(60) % 2 == 0
    found = resized_crop(images, *boxes, mirrored)
    for image, box, mirror, ours in zip(images, boxes.T.tolist(), mirrored, found, strict=True):
        theirs = reference.resized_crop(image, *box, [side, side], antialias=antialias)
        theirs = reference.horizontal_flip(theirs) if mirror else theirs
        assert (ours.int() - theirs.int()).abs().max() <= 1
        exact = reference.resized_crop(image.double(), *box, [side, side], antialias=False)
        exact = exact.flip(-1) if mirror else exact
        assert (ours - exact).abs().max() < 0.65, "half a level, and what the weights' eleven bits lose"


def test_the_whole_image_stays_as_it_is():
    images, whole, none = noise(3, 3, 16), torch.full((3,), 16), torch.zeros(3, dtype=torch.long)
    assert torch.equal(resized_crop(images, none, none, whole, whole, none.bool()), images)
    assert torch.equal(resized_crop(images, none, none, whole, whole, ~none.bool()), images.flip(-1))


def test_boxes_lie_within_the_image():
    for side in (8, 9, 224):
        top, left, height, width = crop_boxes(3000, side, generator())
        assert min(top.min(), left.min()) == 0
        assert min(height.min(), width.min()) > 0
        assert max((top + height).max(), (left + width).max()) == side


def test_boxes_are_drawn_as_torchvisions():
    """Chi-square of 20 bins of each parameter over two samples of 20,000, with fixed seeds: for 19 degrees of freedom
    60 is exceeded by chance once in 250,000."""
    count, side = 20_000, 64
    image = torch.empty(1, side, side)
    torch.manual_seed(0)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]).T
    ours = crop_boxes(count, side, generator(3)).numpy()

    def measures(boxes: np.ndarray) -> list[np.ndarray]:
        top, left, height, width = boxes.astype(float)
        slack = np.array([side - height, side - width])
        where = np.divide([top, left], slack, out=np.full_like(slack, -1), where=slack > 0)
        return [height * width, np.log(height / width), height, width, top, left, *where]

    for a, b in zip(measures(ours), measures(theirs), strict=True):
        edges = np.unique(np.quantile(b, np.linspace(0, 1, 21)))
        edges[0], edges[-1] = -np.inf, np.inf
        assert len(edges) > 8
        assert chi_square(*(np.histogram(x, edges)[0] for x in (a, b))) < 60


def test_every_second_image_is_mirrored():
    """Of 2,000 between 900 and 1,100: one in 130,000 chances is outside."""
    ramp = torch.arange(0, 256, 8, dtype=torch.uint8).expand(2000, 1, 32, 32)
    seen = resized_crop_and_flip(ramp, generator()).int()
    falling = (seen[..., 0] > seen[..., -1]).any(-1).sum()
    assert 900 < falling < 1100


def test_holes_are_as_large_and_where_those_of_a_plain_loop_are():
    """Chi-square of the areas and of the places over two samples of 20,000; the bounds as above."""
    count, side, hole = 20_000, 12, 6
    rng = np.random.default_rng(0)
    expected = np.zeros((count, side, side), bool)
    for mask in expected:  # DeVries & Taylor's own code
        y, x = rng.integers(side, size=2)
        y1, y2, x1, x2 = (np.clip(v, 0, side) for v in (y - hole // 2, y + hole // 2, x - hole // 2, x + hole // 2))
        mask[y1:y2, x1:x2] = True
    images = torch.full((count, 1, side, side), 9, dtype=torch.uint8)
    found = (cut_out(images, generator(1), hole, torch.tensor([7], dtype=torch.uint8)) == 7)[:, 0].numpy()
    areas = [mask.sum((1, 2)) for mask in (found, expected)]
    assert set(areas[0]) == set(areas[1])
    assert chi_square(*(np.bincount(a, minlength=37) for a in areas)) < 50, "9 degrees of freedom: once in 10 million"
    firsts = [mask.reshape(count, -1).argmax(1) for mask in (found, expected)]
    corners = [np.bincount(f, minlength=side * side) for f in firsts]
    assert chi_square(*corners) < 150, "81 places: exceeded once in 270,000"


@pytest.mark.parametrize("hole", [1, 2, 5, 7])
def test_a_hole_is_one_square_of_the_colour_and_the_rest_is_as_it_was(hole):
    images, fill = noise(200, 3, 16).clamp(max=200), torch.tensor([201, 202, 203], dtype=torch.uint8)
    before = images.clone()
    seen = cut_out(images, generator(), hole, fill)
    assert torch.equal(images, before)
    filled = (seen == fill[:, None, None]).all(1)
    assert torch.equal(torch.where(filled[:, None], images, seen), images)
    rows, columns = filled.any(2), filled.any(1)
    assert torch.equal(filled, rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):
        assert line.sum(1).max() == hole
        assert line.sum(1).min() == min(hole - hole // 2, hole), "at the border half of it remains"
        assert (line.int().diff(dim=1).abs().sum(1) <= 2).all(), "in one piece"


def test_holes_are_about_zero_once_normalised():
    seen = make_augment("none", 4, 8, MEAN, CPU)(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), generator())
    assert seen.flatten(2).amax(2).tolist() == [[51, 128, 204]]


def test_the_choice_is_by_name():
    images = noise(30, 3, 16)
    assert torch.equal(
        make_augment("crop", 0, 16, MEAN, CPU)(images, generator()), crop_and_flip(images, generator(), 2)
    )
    assert torch.equal(
        make_augment("resized-crop", 0, 16, MEAN, CPU)(images, generator()), resized_crop_and_flip(images, generator())
    )
    assert torch.equal(make_augment("none", 0, 16, MEAN, CPU)(images, generator()), images)


@pytest.mark.parametrize("kind", ["crop", "resized-crop", "none"])
def test_holes_leave_the_other_draws_alone(kind):
    images = noise(30, 3, 16)
    plain = make_augment(kind, 0, 16, MEAN, CPU)(images, generator())
    holed = make_augment(kind, 5, 16, MEAN, CPU)(images, generator())
    fill = torch.tensor([51, 128, 204], dtype=torch.uint8)[:, None, None]
    assert ((holed == plain) | (holed == fill)).all()
    assert not torch.equal(holed, plain)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("kind", ["crop", "resized-crop", "none"])
def test_every_device_sees_the_same(kind):
    images = noise(40, 3, 33)
    here, there = (make_augment(kind, 7, 33, MEAN, torch.device(d))(images.to(d), generator()) for d in ("cpu", "cuda"))
    assert torch.equal(here, there.cpu())


@pytest.mark.parametrize("kind", ["crop", "resized-crop"])
def test_flips_can_be_switched_off_alone(kind):
    """The crops stay as they are: each image is the same, or the mirror image of the one without flips."""
    images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8, generator=generator(3))
    flipped = make_augment(kind, 0, 16, MEAN, CPU)(images, generator())
    plain = make_augment(kind, 0, 16, MEAN, CPU, flip=False)(images, generator())
    same = (plain == flipped).flatten(1).all(1)
    mirrored = (plain == flipped.flip(3)).flatten(1).all(1)
    assert bool((same | mirrored).all())
    assert 10 < int(same.sum()) < 54
    rising = torch.arange(16, dtype=torch.uint8).mul(16).expand(64, 3, 16, 16)  # brighter to the right
    seen = make_augment(kind, 0, 16, MEAN, CPU, flip=False)(rising, generator()).int()
    assert bool((seen[:, :, 8, 12] > seen[:, :, 8, 4]).all())
