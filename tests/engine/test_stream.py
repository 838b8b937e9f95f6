"""Wherever images live, training sees the same bits; and the processes that read them leave nothing behind."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from iekd import data
from iekd.data import Split
from iekd.data.file_images import FileImages
from iekd.engine.accelerate import side_by_side
from iekd.engine.augment import make_augment
from iekd.engine.batches import Batches, images_on_device, room_for_images
from iekd.engine.experiment import Experiment
from iekd.engine.parallel import Processes
from iekd.engine.stream import Stream, processes, split_into_batches
from iekd.errors import DataError

CPU = torch.device("cpu")
CHECKOUT = Path(__file__).parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads with processes on Linux only")
workers = pytest.mark.parametrize("workers", [0, pytest.param(2, marks=linux)])


@pytest.fixture(scope="module")
def in_memory(picture_folder) -> data.Dataset:
    return data.load(f"folder:{picture_folder}", resolution=16).held_out(0.25)


@pytest.fixture(scope="module")
def in_files(picture_folder) -> data.Dataset:
    return data.load(f"folder:{picture_folder}", resolution=16, image_memory=0).held_out(0.25)


@pytest.fixture(params=["array", "files"])
def streamed(request, in_memory, in_files) -> data.Dataset:
    return in_memory if request.param == "array" else in_files


def splits(dataset: data.Dataset) -> list[Split]:
    return [dataset.train, dataset.validation, dataset.test]


@pytest.fixture(autouse=True)
def others(monkeypatch) -> None:
    """Servers that other tests of this process have started, and that go on."""
    gc.collect()
    monkeypatch.setattr(f"{__name__}.OTHERS", {p.pid for p in psutil.Process().children()})


OTHERS: set[int] = set()


def children() -> list[psutil.Process]:
    """Those that run; a test before may have left some to the garbage collector."""
    gc.collect()
    own = [p for p in psutil.Process().children() if p.pid not in OTHERS]
    found = [p for process in own for p in (process, *process.children(recursive=True))]
    return [p for p in found if p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def small_chunks(monkeypatch):
    """Ten images of 16 x 16 x 3: a batch is put together from several."""
    monkeypatch.setattr("iekd.engine.stream.CHUNK", 10 * 768)


def all_of(batches: Batches, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(batches.epoch(epoch))


def equal(ones, others) -> bool:
    return len(ones) == len(others) > 0 and all(
        torch.equal(a, b) and a.dtype == b.dtype
        for x, y in zip(ones, others, strict=True)
        for a, b in zip(x, y, strict=True)
    )


@workers
@pytest.mark.parametrize("kind", ["crop", "resized-crop", "none"])
def test_batches_are_the_same_bits(in_memory, streamed, workers, kind, small_chunks):
    augment = make_augment(kind, 5, 16, in_memory.statistics[0], CPU)
    with images_on_device(splits(in_memory), CPU) as [(images, labels), *_]:
        assert isinstance(images, torch.Tensor)
        resident = Batches(images, labels, 32, 7, augment)
        expected = [all_of(resident, epoch) for epoch in range(3)]
    with images_on_device(splits(streamed), CPU, 0, workers) as [(images, labels), *_]:
        assert isinstance(images, Stream)
        assert len(children()) == workers
        batches = Batches(images, labels, 32, 7, augment)
        assert (len(batches), batches.padding) == (len(resident), resident.padding)
        for epoch in (2, 0, 1):
            assert equal(all_of(batches, epoch), expected[epoch])


@workers
@pytest.mark.parametrize("size", [7, 10, 1000])
def test_held_out_images_come_in_order(in_memory, streamed, workers, size, small_chunks):
    with (
        images_on_device(splits(in_memory), CPU) as resident,
        images_on_device(splits(streamed), CPU, 0, workers) as there,
    ):
        for (images, labels), (found, their_labels) in zip(resident, there, strict=True):
            assert tuple(found.shape) == tuple(images.shape)
            assert equal([list(split_into_batches(found, size))], [list(split_into_batches(images, size))])
            assert torch.equal(labels, their_labels)


@workers
def test_a_grey_image_has_the_same_memory_layout(in_memory, workers):
    """A convolution may choose another way, with other roundings, for another layout."""
    grey = Split(np.ascontiguousarray(in_memory.train.images[..., :1]), in_memory.train.labels)
    with images_on_device([grey], CPU) as [(images, labels)], images_on_device([grey], CPU, 0, workers) as [(found, _)]:
        for a, b in zip(split_into_batches(images, 9), split_into_batches(found, 9), strict=True):
            assert a.stride() == b.stride()
        for kind in ("crop", "none"):
            augment = make_augment(kind, 0, 16, (0.5,), CPU)
            ones, others = (all_of(Batches(source, labels, 8, 0, augment), 0) for source in (images, found))
            assert [a.stride() for a, _ in ones] == [b.stride() for b, _ in others]


@pytest.mark.parametrize(
    ("memory", "kind"), [(None, torch.Tensor), (1.0, torch.Tensor), (0.0001, Stream), (0, Stream)], ids=str
)
def test_what_is_in_memory_is_streamed_only_where_it_may_not_stay(in_memory, memory, kind, caplog):
    with caplog.at_level(logging.INFO, "iekd"), images_on_device(splits(in_memory), CPU, memory, 0) as there:
        assert all(isinstance(images, kind) for images, _ in there)
    assert len(caplog.records) == 1
    assert ("streamed" in caplog.text) == (kind is Stream)


@pytest.mark.parametrize("memory", [None, 0, 5])
def test_files_are_always_streamed(in_files, memory):
    with images_on_device(splits(in_files), CPU, memory, 0) as there:
        assert all(isinstance(images, Stream) for images, _ in there)


def test_half_of_a_devices_free_memory_is_the_limit(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (600, 1000))
    monkeypatch.setattr("iekd.data.memory.free_memory", lambda: 80)
    assert room_for_images(torch.device("cuda"), None) == 300
    assert room_for_images(torch.device("mps"), None) == 40, "it shares the machine's memory"
    assert room_for_images(CPU, None) == float("inf"), "they are there already"
    assert {room_for_images(torch.device(d), 0.5) for d in ("cpu", "cuda", "mps")} == {0.5e9}


@workers
def test_global_random_numbers_play_no_part(streamed, workers):
    torch.manual_seed(3)
    with images_on_device(splits(streamed), CPU, 0, workers) as [(images, labels), *_]:
        all_of(Batches(images, labels, 32, 0), 0)
    after = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(3))


@workers
def test_an_epoch_that_was_given_up_leaves_nothing_in_the_next(in_memory, in_files, workers, small_chunks):
    with images_on_device(splits(in_memory), CPU) as [there, *_]:
        expected = all_of(Batches(*there, 8, 7), 1)
    with images_on_device(splits(in_files), CPU, 0, workers) as [there, *_]:
        batches = Batches(*there, 8, 7)
        with contextlib.closing(batches.epoch(0)) as epoch:
            next(epoch)
        assert equal(all_of(batches, 1), expected)


@linux
def test_streams_are_read_while_threads_compute(in_memory, in_files, small_chunks):
    """As in a run: the processes are forked before, because a thread that computes may hold a lock that nobody opens
    in the fork."""
    for _ in range(3):
        with images_on_device(splits(in_files), CPU, 0, 2) as [learned, validation, test], computing():
            batches = Batches(*learned, 16, 0)

            def source(batches=batches, held_out=(validation, test)):
                yield from (images for images, _ in batches.epoch(0))
                for images, _ in held_out:
                    yield torch.cat(list(split_into_batches(images, 7)))

            def work(images):
                images.float().mean()
                yield images

            found = list(side_by_side(source(), [work, work, work]))
            assert len(found) == (len(batches) + 2) * 3
        for i in (1, 2, 3):
            np.testing.assert_array_equal(found[-i].permute(0, 2, 3, 1), in_memory.test.images)
            np.testing.assert_array_equal(found[-i - 3].permute(0, 2, 3, 1), in_memory.validation.images)


@workers
def test_two_readings_at_once_are_an_error_and_no_waiting_for_ever(streamed, workers):
    with images_on_device(splits(streamed), CPU, 0, workers) as [(images, _), (others, _), _]:
        with contextlib.closing(split_into_batches(images, 8)) as reading:
            next(reading)
            with pytest.raises(RuntimeError, match="still being read by an earlier call"):
                next(split_into_batches(others, 8))
        assert len(next(split_into_batches(others, 8))) == 8, "the first was closed"


@contextlib.contextmanager
def computing():
    """Two threads that are busy meanwhile."""
    stopped = threading.Event()

    def compute():
        while not stopped.is_set():
            torch.rand(200, 200) @ torch.rand(200, 200)

    busy = [threading.Thread(target=compute) for _ in range(2)]
    for thread in busy:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in busy:
            thread.join()


@linux
def test_processes_end_with_the_context(streamed):
    with (
        contextlib.suppress(KeyboardInterrupt),
        images_on_device(splits(streamed), CPU, 0, 2) as [(images, labels), *_],
    ):
        assert len(children()) == 2
        next(iter(Batches(images, labels, 8, 0).epoch(0)))
        raise KeyboardInterrupt
    del images
    gc.collect()
    assert children() == []


@workers
def test_a_file_that_has_gone_is_named_in_one_sentence(in_files, workers, tmp_path, refuses):
    images = in_files.train.images
    gone = FileImages(replace(images.files, folders=(str(tmp_path),) * 3), images.sums, 16, 3)
    with images_on_device([Split(gone, in_files.train.labels)], CPU, 0, workers) as [(images, labels)]:
        refuses(lambda: all_of(Batches(images, labels, 8, 0), 0), tmp_path, "start again", kind=DataError)


PARENT = """
import sys, time, torch
from iekd import data
from iekd.engine.batches import Batches, images_on_device
if __name__ == "__main__":
    d = data.load("folder:" + sys.argv[1], resolution=16, image_memory=0)
    with images_on_device([d.train, d.test], torch.device("cpu"), 0, 2) as [(images, labels), _]:
        batches = Batches(images, labels, 8, 0)
        next(iter(batches.epoch(0)))
        print("reading", flush=True)
        sys.stdin.readline()
        print(len(list(batches.epoch(1))), flush=True)
"""


@pytest.fixture
def parent(picture_folder):
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, picture_folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment, start_new_session=True,
    ) as started:  # fmt: skip
        assert started.stdout.readline() == "reading\n"
        yield started
        started.kill()


@linux
def test_a_killed_parent_takes_them_along(parent, wait_until):
    readers = psutil.Process(parent.pid).children(recursive=True)
    assert len(readers) == 2
    parent.kill()
    wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in readers), limit=60)


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_being_asked_to_stop_is_the_parents_business(parent, number):
    """Ctrl-C reaches all processes of a terminal, and what ends a service or a cluster's job all of those; the parent
    may finish what it does."""
    readers = psutil.Process(parent.pid).children(recursive=True)
    for reader in readers:
        reader.send_signal(number)
    time.sleep(0.5)
    answer, _ = parent.communicate("go on\n")
    assert answer == "12\n"
    assert not any(reader.is_running() for reader in readers)


def test_one_process_reads_at_least_on_linux():
    assert processes(CPU) >= (sys.platform == "linux")
    assert processes(torch.device("cuda")) >= processes(CPU)


@linux
@pytest.mark.parametrize(
    ("here", "local_count", "gpu", "cpu"), [(128, 1, 8, 8), (128, 8, 8, 8), (32, 8, 4, 2), (4, 8, 1, 1)]
)
def test_each_of_several_processes_reads_with_its_share_of_the_cores(
    in_memory, tiny_config, monkeypatch, here, local_count, gpu, cpu
):
    """The limit of eight is that of each, not of all of them."""
    monkeypatch.setattr("iekd.engine.stream.cores", lambda: here)
    assert processes(torch.device("cuda"), local_count) == gpu
    config = tiny_config(methods=("baseline",), teacher="none", batch_size=32)
    team = Processes(0, 2 * local_count, CPU, local_count=local_count)
    assert Experiment(config, in_memory, processes=team)._readers() == cpu


@linux
@pytest.mark.parametrize("methods", [("baseline",), ("baseline", "ie-ft", "dml")])
def test_a_run_is_the_same_wherever_its_images_are(in_memory, in_files, tiny_config, methods):
    """Rows, results and weights; streamed from memory, and from files."""

    def run(dataset: data.Dataset, memory: float | None) -> tuple[list, dict]:
        config = tiny_config(
            methods=methods, epochs=2, validation_fraction=0.25, image_memory=memory, augmentation="resized-crop",
            cutout=4, limit_train=70,
        )  # fmt: skip
        whole = replace(dataset, validation=None)
        experiment = Experiment(config, whole)
        rows = [event for event in experiment.events() if event.__class__.__name__ == "Metrics"]
        assert children() == []
        return rows, {name: learner.model.state_dict() for name, learner in experiment.students.items()}

    expected, weights = run(in_memory, None)
    assert {row.kind for row in expected} == {"train", "validation", "test"}
    for dataset, memory in ((in_memory, 0), (in_files, None)):
        rows, found = run(dataset, memory)
        assert rows == expected
        for name, state in weights.items():
            assert all(torch.equal(value, found[name][key]) for key, value in state.items())


@pytest.mark.parametrize("eager", [False, True])
def test_held_out_images_are_read_once_for_all_learners(in_files, tiny_config, eager, monkeypatch):
    """To decode an image costs more than a small network's answer to it."""
    monkeypatch.setattr("iekd.engine.experiment.processes", lambda device, local_count: 0)
    read: dict[int, int] = {}
    plain = FileImages.__getitem__

    def counted(self, rows):
        read[len(self)] = read.get(len(self), 0) + len(rows)
        return plain(self, rows)

    monkeypatch.setattr(FileImages, "__getitem__", counted)
    config = tiny_config(
        methods=("baseline", "ie-ft", "dml"), epochs=3, teacher_epochs=1, validation_fraction=0.25, eager=eager
    )
    experiment = Experiment(config, replace(in_files, validation=None))
    for _ in experiment.events():
        pass
    validation, test = len(experiment.dataset.validation.labels), len(in_files.test.labels)
    assert read[validation] == 4 * validation, "by the teacher's epoch and the students' three"
    assert read[test] == 5 * test, "and once at the end"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@workers
def test_a_device_gets_the_same_batches(in_memory, streamed, workers):
    there = torch.device("cuda")
    with images_on_device(splits(in_memory), CPU) as [here, *_]:
        expected = all_of(Batches(*here, 8, 3), 1)
    for dataset, memory in ((in_memory, None), (streamed, 0)):
        with images_on_device(splits(dataset), there, memory, workers) as [(images, labels), *_]:
            assert isinstance(images, torch.Tensor) == (memory is None and dataset is in_memory)
            found = [(a.cpu(), b.cpu()) for a, b in Batches(images, labels, 8, 3).epoch(1)]
        assert equal(found, expected)


def test_a_run_augments_as_it_is_told(in_memory, tiny_config):
    """Another augmentation is another training; the default is the crop."""

    def losses(**values) -> list[float]:
        config = tiny_config(methods=("baseline",), teacher="none", **values)
        events = Experiment(config, replace(in_memory, validation=None)).events()
        return [event.values["loss"] for event in events if getattr(event, "kind", "") == "train"]

    settings = [{}, {"augmentation": "resized-crop"}, {"augmentation": "none"}, {"cutout": 4}]
    assert len({tuple(losses(**values)) for values in settings}) == len(settings)
    assert losses() == losses(augmentation="crop", cutout=0)
