from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from iekd.data import Split
from iekd.engine.augment import crop_and_flip
from iekd.engine.batches import Batches, to_device


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_view(image: np.ndarray, padding: int) -> dict[bytes, tuple[int, int, bool]]:
    """All crops of the padded image (C,H,W) and their mirror images, one by one: pixels -> (top, left, mirrored)."""
    _, h, w = image.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    views = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded[:, top : top + h, left : left + w]
            views[crop.tobytes()] = (top, left, False)
            views[np.ascontiguousarray(crop[:, :, ::-1]).tobytes()] = (top, left, True)
    return views


def noise(count: int, channels: int, h: int, w: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 256, (count, channels, h, w), dtype=torch.uint8, generator=generator(seed))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.integers(4, 9), st.integers(4, 9), st.integers(1, 3))
def test_the_output_is_always_a_crop_of_the_padded_original(seed, channels, h, w, padding):
    images = noise(5, channels, h, w, seed)
    seen = crop_and_flip(images, generator(seed), padding)
    assert seen.shape == images.shape
    assert seen.dtype == torch.uint8
    for before, after in zip(images.numpy(), seen.numpy(), strict=True):
        assert np.ascontiguousarray(after).tobytes() in every_view(before, padding)


def test_images_are_augmented_each_for_itself():
    image = noise(1, 1, 8, 8)
    assert len(crop_and_flip(image.expand(50, -1, -1, -1), generator(), 2).flatten(1).unique(dim=0)) > 20


def test_the_input_is_left_alone():
    images = noise(4, 3, 8, 8)
    before = images.clone()
    crop_and_flip(images, generator())
    assert torch.equal(images, before)


def test_views_are_as_frequent_as_torchvisions():
    """Pearson's chi-square over the 50 views of one image, with a fixed seed: for 49 degrees of freedom, 100 is
    exceeded by chance once in 50,000."""
    count, padding = 5000, 2
    image = noise(1, 1, 8, 8, seed=1)
    views = every_view(image[0].numpy(), padding)
    assert len(views) == 50

    def histogram(images) -> np.ndarray:
        counts = dict.fromkeys(views, 0)
        for one in images:
            counts[np.ascontiguousarray(one).tobytes()] += 1
        return np.array(list(counts.values()))

    ours = histogram(crop_and_flip(image.expand(count, -1, -1, -1), generator(2), padding).numpy())
    torch.manual_seed(0)
    theirs_transform = v2.Compose([v2.RandomCrop(8, padding=padding), v2.RandomHorizontalFlip()])
    theirs = histogram(theirs_transform(image[0]).numpy() for _ in range(count))
    expected = count / 50
    assert ((ours - expected) ** 2 / expected).sum() < 100
    assert ((theirs - expected) ** 2 / expected).sum() < 100, "the reference itself"
    assert ((ours - theirs) ** 2 / (ours + theirs)).sum() < 100


def numbered(count: int = 50, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one grey value, their number; labels are the number too. The padding is 0, so the largest value of a
    view is the number."""
    values = torch.arange(count)
    return values.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, side, side), values


def all_of(batches: Batches, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*batches.epoch(epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(1, 70), st.integers(0, 2**31 - 1), st.integers(0, 10_000))
def test_an_epoch_is_a_permutation_without_the_last_short_batch(count, size, seed, epoch):
    batches = Batches(*numbered(count, 8), size, seed)
    size = min(size, count)
    assert len(batches) == count // size
    parts = list(batches.epoch(epoch))
    assert len(parts) == len(batches)
    assert all(len(images) == len(labels) == size for images, labels in parts)
    chosen = torch.cat([labels for _, labels in parts]).tolist()
    assert len(set(chosen)) == len(chosen) == len(batches) * size


def test_images_keep_their_labels():
    images, labels = all_of(Batches(*numbered(), 8, 0), 0)
    assert torch.equal(images.flatten(1).amax(1).long(), labels)


def test_the_same_seed_and_epoch_give_the_same_batches():
    images = noise(40, 3, 16, 16), torch.arange(40)
    for epoch in (0, 7):
        first, again = (all_of(Batches(*images, 8, 5), epoch) for _ in range(2))
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])


def test_an_epoch_does_not_depend_on_those_before():
    batches = Batches(noise(40, 3, 16, 16), torch.arange(40), 8, 5)
    all_of(batches, 0), all_of(batches, 1)
    resumed = Batches(batches.images, batches.labels, 8, 5)
    assert torch.equal(all_of(batches, 2)[0], all_of(resumed, 2)[0])


def test_global_random_numbers_play_no_part():
    batches = Batches(noise(40, 3, 16, 16), torch.arange(40), 8, 5)
    torch.manual_seed(1)
    first = all_of(batches, 0)[0]
    torch.manual_seed(2)
    assert torch.equal(first, all_of(batches, 0)[0])


@pytest.mark.parametrize(("a", "b"), [((0, 0), (0, 1)), ((0, 0), (1, 0)), ((1, 3), (3, 1))])
def test_another_seed_or_epoch_gives_another_order(a, b):
    orders = [all_of(Batches(*numbered(), 8, seed), epoch)[1].tolist() for seed, epoch in (a, b)]
    assert orders[0] != orders[1]


def test_epochs_augment_differently():
    batches = Batches(noise(1, 1, 16, 16).expand(40, -1, -1, -1), torch.arange(40), 40, 0)
    assert not torch.equal(all_of(batches, 0)[0], all_of(batches, 1)[0])


@pytest.mark.parametrize(("side", "padding"), [(32, 4), (28, 3), (16, 2), (8, 1), (64, 8)])
def test_the_padding_is_an_eighth_of_the_side(side, padding):
    """4 of 32 pixels, as in the paper."""
    assert Batches(*numbered(4, side), 2, 0).padding == padding


def test_splits_become_tensors_with_channels_first():
    images = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    tensor, labels = to_device(Split(images, np.array([1, 0])), torch.device("cpu"))
    assert tensor.shape == (2, 3, 4, 5)
    assert tensor.dtype == torch.uint8
    np.testing.assert_array_equal(tensor.permute(0, 2, 3, 1).numpy(), images)
    assert labels.tolist() == [1, 0]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_every_device_sees_the_same_batches():
    images, labels = noise(40, 3, 16, 16), torch.arange(40)
    here, there = (all_of(Batches(images.to(d), labels.to(d), 8, 5), 1) for d in ("cpu", "cuda"))
    assert torch.equal(here[0], there[0].cpu())
    assert torch.equal(here[1], there[1].cpu())
