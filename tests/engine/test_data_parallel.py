"""Two processes that share each batch, connected by gloo: the same run as one process with whole batches.

They are started once, for all tests; one process alone tests which part of a batch each gets.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes as shared

from iekd.config import methods
from iekd.config.methods import MethodSpec, check_divisible
from iekd.engine import stream
from iekd.engine.augment import make_augment
from iekd.engine.batches import Batches, WithUnlabelled, images_on_device
from iekd.engine.distortions import make_extras
from iekd.engine.part import BatchShare, shares_of

CPU = torch.device("cpu")
EQUAL = 1e-5  # what the issue asks for, of weights after twenty steps in float32
CHECKOUT = Path(__file__).parents[2]


def found_by(count: int, folder: Path, *cases: str) -> list[dict]:
    """What each of so many processes has found."""
    path = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    running = [
        subprocess.Popen(
            [sys.executable, shared.__file__, str(rank), str(count), str(folder), *cases], env=environment,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    try:
        for process in running:
            _, said = process.communicate(timeout=600)
            assert process.returncode == 0, said
    finally:
        for process in running:
            process.kill()
    return [torch.load(folder / f"found-{rank}.pt", weights_only=True) for rank in range(count)]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict]:
    return found_by(2, tmp_path_factory.mktemp("two"), *shared.CASES)


@pytest.fixture(scope="module")
def one() -> dict:
    with pytest.MonkeyPatch.context() as patch:  # no threads: those of one process sum in another order
        patch.setattr("iekd.engine.accelerate.cores", lambda: 1)
        return {case: shared.trained(case, None) for case in shared.CASES}


SAME = [case for case in shared.CASES if case != "own norms"]


@pytest.mark.parametrize("case", SAME)
def test_two_processes_train_what_one_does(two, one, case):
    """Weights after twenty steps within 1e-5, those of fewer too; what one step sums up, to the last digits."""
    check_same(two[0][case], one[case], {"plain": 20}.get(case, 4))


def test_three_processes_train_what_one_does(one, tmp_path):
    first, *others = found_by(3, tmp_path, "plain")
    check_same(first["plain"], one["plain"], 20)
    for other in others:
        assert all(torch.equal(t, other["plain"]["weights"][name]) for name, t in first["plain"]["weights"].items())


def check_same(found: dict, expected: dict, steps: int) -> None:
    assert found["step"] == expected["step"] >= steps
    assert found["weights"].keys() == expected["weights"].keys()
    for name, weights in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], weights, rtol=EQUAL, atol=EQUAL, msg=name)
    assert [row for row, _ in found["rows"]] == [row for row, _ in expected["rows"]]
    for (row, values), (_, wanted) in zip(found["rows"], expected["rows"], strict=True):
        assert values == pytest.approx(wanted, rel=EQUAL, abs=EQUAL), row


@pytest.mark.parametrize("case", SAME)
def test_every_test_image_is_predicted(two, one, case):
    found, expected = two[0][case], one[case]
    assert found["predictions"].keys() == expected["predictions"].keys()
    for name, predictions in expected["predictions"].items():
        assert torch.equal(found["predictions"][name], predictions), name
        assert found["results"][name] == pytest.approx(expected["results"][name], rel=1e-4)
    assert len(found["watched"]) == len(expected["watched"]) > 0
    for (*what, probabilities), (*wanted, likely) in zip(found["watched"], expected["watched"], strict=True):
        assert what == wanted
        assert probabilities == pytest.approx(likely, abs=2e-4)


@pytest.mark.parametrize("case", shared.CASES)
def test_the_processes_have_the_same_to_the_last_bit(two, case):
    first, second = (found[case] for found in two)
    assert all(torch.equal(tensor, second["weights"][name]) for name, tensor in first["weights"].items())
    assert first["rows"] == second["rows"]
    assert first["watched"] == second["watched"]


def test_norms_of_their_own_are_another_training(two, one):
    """Else the other tests would say nothing about norms."""
    found, expected = two[0]["own norms"]["rows"], one["own norms"]["rows"]
    assert found[0][1]["loss"] != pytest.approx(expected[0][1]["loss"], rel=1e-4)


def test_a_norm_over_two_processes_is_that_of_one(two):
    expected = shared.normalised(shared.features(), None)
    for values, wanted in zip(two[0]["norm"], expected, strict=True):
        torch.testing.assert_close(values, wanted, rtol=1e-4, atol=1e-4)


def test_processes_that_differ_are_told(two):
    for found in two:
        assert "no longer agree on a test ('two')" in found["disagreement"]
        assert found["totals"] == [0.2, 1.0]


def noise(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"augmentation": "resized-crop", "mixup": 0.3},
        {"augmentation": "none", "cutmix": 0.5, "mixup": 0.5, "cutout": 3},
        {"auto_augment": "randaugment", "colour_jitter": 0.4},
        {"auto_augment": "trivialaugment", "random_erasing": 0.5, "flip": False},
    ],
)
@pytest.mark.parametrize("count", [2, 3])
def test_the_parts_of_a_batch_are_the_batch(tiny_config, count, options):
    """Pixel for pixel, in the smaller last batch too, from the middle of an epoch on, with unlabelled images."""
    config = tiny_config(**options)
    mean = (0.4, 0.5, 0.6)

    def batches(part: BatchShare | None) -> WithUnlabelled:
        augment = make_augment(config.augmentation, config.cutout, 16, mean, CPU, config.flip)
        extras = make_extras(config, mean, 3, CPU)
        labelled = Batches(noise(47, 0), torch.arange(47) % 3, 10, 5, augment, False, extras, part)
        return WithUnlabelled(labelled, noise(20, 1))

    whole = batches(None)
    parts = [batches(BatchShare(index, count)) for index in range(count)]
    for epoch, skip in ((0, 0), (1, 3)):
        every = list(whole.labelled.epoch(epoch, skip))
        assert [len(labels) for _, labels in every] == [10] * (4 - skip) + [7]
        found = [list(part.labelled.epoch(epoch, skip)) for part in parts]
        for i, (images, labels) in enumerate(every):
            assert torch.equal(torch.cat([of_part[i][0] for of_part in found]), images)
            assert torch.equal(torch.cat([of_part[i][1] for of_part in found]), labels)
            step = epoch * len(whole) + skip + i
            assert whole.whole(step) == (len(labels), whole.batch_size)
        mixed = [list(part.epoch(epoch, skip)) for part in parts]
        for i, (images, _) in enumerate(whole.epoch(epoch, skip)):
            unlabelled = torch.cat([of_part[i][0][-part.here :] for part, of_part in zip(parts, mixed, strict=True)])
            assert torch.equal(unlabelled, images[-whole.batch_size :])


def test_streamed_parts_are_those_on_the_device(tiny):
    """And so are parts of held-out images, of which no others are read."""
    split = tiny.train
    with contextlib.ExitStack() as stack:
        [(stored, labels)] = stack.enter_context(images_on_device([split], CPU))
        [(streamed, _)] = stack.enter_context(images_on_device([split], CPU, image_memory=0, workers=0))
        for part in (BatchShare(0, 2), BatchShare(1, 2)):
            of_both = [list(Batches(i, labels, 20, 3, drop_last=False, part=part).epoch(1)) for i in (stored, streamed)]
            for (images, _), (others, _) in zip(*of_both, strict=True):
                assert torch.equal(images, others)
            held_out = [shares_of({"test": (i, labels)}, part)["test"] for i in (stored, streamed)]
            (images, known), (others, _) = held_out
            assert tuple(others.shape) == tuple(images.shape) == (48, 3, 16, 16)
            assert torch.equal(torch.cat(list(others.split(7))), images)
            assert torch.equal(known, labels[part.of(96)])


def test_each_process_reads_its_own_images_only(tiny, monkeypatch):
    read: list[int] = []
    reader = stream._Reader.__getitems__

    def counted(self, asked):
        read.extend(asked[1])
        return reader(self, asked)

    monkeypatch.setattr(stream._Reader, "__getitems__", counted)
    seen = []
    for part in (BatchShare(0, 3), BatchShare(1, 3), BatchShare(2, 3)):
        read.clear()
        with images_on_device([tiny.train], CPU, image_memory=0, workers=0) as [(images, labels)]:
            list(Batches(images, labels, 20, 3, drop_last=False, part=part).epoch(0))
        seen.append(list(read))
    assert sorted(row for rows in seen for row in rows) == list(range(96)), "each image once, by one of them"
    assert max(map(len, seen)) - min(map(len, seen)) <= 5, "at most one more in each of five batches"


def test_parts_that_would_be_empty_are_refused(refuses):
    def batches(count: int, size: int) -> Batches:
        return Batches(noise(count, 0), torch.arange(count), size, 0, drop_last=False, part=BatchShare(0, 4))

    batches(12, 8).check_parts()
    refuses(lambda: batches(12, 3).check_parts(), "A batch has 3 images", "4 processes")
    refuses(lambda: batches(11, 8).check_parts(), "last batch", "3 images", "--drop-last")
    refuses(lambda: batches(12, 8).check_parts(2), "last batch", "at least 8")
    mixed = WithUnlabelled(batches(12, 8), noise(3, 0))
    refuses(mixed.check_parts, "2 unlabelled images", "4 processes")
    refuses(lambda: shares_of({"test": (noise(3, 0), torch.arange(3))}, BatchShare(0, 4)), "test split", "3 images")


def test_only_methods_that_say_so_are_divided(monkeypatch, refuses):
    spec = MethodSpec("whole-batch", "a plugin's, of which nothing is known", ("#111111", "#eeeeee"))
    monkeypatch.setitem(methods.METHODS, spec.name, spec)
    refuses(lambda: check_divisible(("baseline", "whole-batch")), "'whole-batch'", "divisible", "baseline, kd")
    check_divisible([name for name in methods.METHODS if name != spec.name] + ["rkd+kd", "ie-ft+kd"])
