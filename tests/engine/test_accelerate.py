from __future__ import annotations

import copy
import os
import platform
import subprocess
import sys
import threading
import time

import pytest
import torch

from iekd.config.run import make_config
from iekd.engine import accelerate, experiment
from iekd.engine.accelerate import Turns, choose_device, choose_precision, freeze, side_by_side
from iekd.errors import TrainingError
from iekd.models.catalog import known_models
from iekd.models.factors import AutoEncoder
from iekd.models.registry import build


def lived_in(model: torch.nn.Module) -> torch.nn.Module:
    """Batch norms as after training: none of their numbers is the initial one."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5), (module.bias.data, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 2.0),
            ):  # fmt: skip
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return model


@torch.no_grad()
@pytest.mark.parametrize("name", known_models())
def test_a_frozen_network_answers_as_the_original(name):
    torch.manual_seed(0)
    model = lived_in(build(name, 7)).eval()
    images = torch.randn(3, 3, 16, 16)
    expected, frozen = model(images), freeze(model)(images)
    for a, b in zip(expected, frozen, strict=True):
        for x, y in zip(a if isinstance(a, tuple) else [a], b if isinstance(b, tuple) else [b], strict=True):
            assert (x - y).abs().max() <= 1e-4 * max(1, x.abs().max())


@torch.no_grad()
def test_a_frozen_encoder_answers_as_the_original():
    torch.manual_seed(0)
    encoder = lived_in(AutoEncoder(64, 32)).eval().encoder
    feature = torch.randn(2, 64, 8, 8)
    assert torch.allclose(freeze(encoder)(feature), encoder(feature), atol=1e-4)


def test_freezing_leaves_the_original_untouched():
    model = lived_in(build("resnet8", 7)).train()
    before = copy.deepcopy(model.state_dict())
    frozen = freeze(model)
    frozen(torch.randn(2, 3, 16, 16))
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_frozen_network_does_not_learn_and_has_no_batch_norm():
    frozen = freeze(build("resnet8", 7))
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not frozen.training
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in frozen.modules())


def test_the_processor_is_always_there():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=name):
        choose_device(name)
    assert choose_device("auto").type == "cpu"


def test_a_graphics_card_comes_first(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_what_was_asked(name, dtype):
    assert choose_precision(name, torch.device("cpu")) == dtype


def test_automatic_precision_is_single_where_half_is_slow(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == torch.float32


# ---- memory ----------------------------------------------------------------------------------------------------------

FAULTS = """
import resource, sys, torch
from iekd.engine.accelerate import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
def step():
    return [torch.ones(10_000_000) for _ in range(2)]  # 80 MB, 20,000 pages
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_step_finds_the_memory_of_the_one_before():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC", "GLIBC"))}

    def faults(way):
        command = [sys.executable, "-c", FAULTS, way]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)

    usual = faults("as it was")
    assert usual > 1000  # else this test says nothing
    assert faults("keep") < usual / 2  # not none: a system that is short of memory takes pages away in between


def test_another_c_library_is_left_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(accelerate.ctypes, "CDLL", lambda name: asked.append(name) or object())
    accelerate.keep_memory()
    assert asked == [None], "it looked for mallopt, found none, and went on"


@pytest.mark.parametrize(("options", "calls"), [({}, [True]), ({"eager": True}, [])])
def test_a_plain_step_takes_memory_as_it_comes(options, calls, tiny, monkeypatch):
    called = []
    monkeypatch.setattr(experiment, "keep_memory", lambda: called.append(True))
    experiment.Experiment(make_config(device="cpu", **options), tiny)
    assert called == calls


# ---- side by side ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(accelerate, "cores", lambda: 2)


@pytest.fixture
def no_thread_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


pytestmark = pytest.mark.usefixtures("no_thread_left")


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("items", [0, 1, 20])
def test_every_worker_gets_every_item_in_order(workers, items):
    named = [lambda item, w=w: [(w, item), (w, -item)] for w in range(workers)]
    results = list(side_by_side(range(items), named))
    for w in range(workers):
        assert [value for name, value in results if name == w] == [x for i in range(items) for x in (i, -i)]
    assert len(results) == 2 * items * workers


def test_results_come_in_one_order_whoever_is_first():
    def slow(item):
        time.sleep(0.002 * (item % 3))
        return [("slow", item)]

    expected = [(name, item) for item in range(30) for name in ("slow", "quick")]
    assert list(side_by_side(range(30), [slow, lambda item: [("quick", item)]])) == expected


def test_workers_may_have_nothing_to_say():
    assert list(side_by_side(range(5), [lambda item: [], lambda item: [item]])) == list(range(5))


def test_the_source_is_asked_once_for_each_item():
    asked = []
    source = (asked.append(i) or i for i in range(10))
    list(side_by_side(source, [lambda item: [item]] * 3))
    assert asked == list(range(10))


def test_no_worker_is_far_ahead_of_the_slowest():
    done = {"fast": 0, "slow": 0}
    leads = []

    def fast(item):
        done["fast"] += 1
        return []

    def slow(item):
        time.sleep(0.005)
        leads.append(done["fast"] - done["slow"])
        done["slow"] += 1
        return []

    list(side_by_side(range(60), [fast, slow], ahead=3))
    assert done == {"fast": 60, "slow": 60}
    assert max(leads) <= 3 + 2  # and one item in each hand


def test_the_source_is_not_read_far_ahead_either():
    read, done, leads = [], [], []

    def slow(item):
        time.sleep(0.005)
        leads.append(len(read) - len(done))
        done.append(item)
        return []

    list(side_by_side((read.append(i) or i for i in range(60)), [slow], ahead=3))
    assert max(leads) <= 3 + 2


def test_workers_run_in_parallel():
    """Two workers that wait for each other would never end one after the other."""
    meeting = threading.Barrier(2, timeout=60)
    results = list(side_by_side([1], [lambda item: [meeting.wait()] and [item]] * 2))
    assert results == [1, 1]


def test_who_is_furthest_behind_is_next():
    """Also when whoever has just had a turn wants another at once."""
    turns, order = Turns(1), []

    def work(place):
        with turns.at(place):
            order.append(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in (7, 5, 6)]
    with turns.at(0):
        for waiting, thread in enumerate(threads, 1):
            thread.start()
            while len(turns.waiting) < waiting:
                time.sleep(0.001)
    work(8)
    for thread in threads:
        thread.join(timeout=60)
    assert order == [5, 6, 7, 8]


def test_a_turn_ends_with_an_error():
    turns = Turns(1)
    with pytest.raises(ValueError, match="broken"), turns.at(0):
        raise ValueError("broken")
    assert turns.free == 1


def test_no_more_threads_compute_than_there_are_cores():
    busy, most, guard = 0, 0, threading.Lock()

    def work(item):
        nonlocal busy, most
        with guard:
            busy += 1
            most = max(most, busy)
        time.sleep(0.002)
        with guard:
            busy -= 1
        return []

    list(side_by_side(range(10), [work] * 5))
    assert most <= 2


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("which", [0, 1])
def test_an_error_in_a_worker_surfaces(which):
    def bad(item):
        if item == 3:
            raise BrokenError(f"item {item}")
        return [item]

    workers = [lambda item: [item], lambda item: [item]]
    workers[which] = bad
    with pytest.raises(BrokenError, match="item 3"):
        list(side_by_side(range(1000), workers))


def test_an_error_in_the_source_surfaces():
    def source():
        yield 1
        raise BrokenError("source")

    with pytest.raises(BrokenError, match="source"):
        list(side_by_side(source(), [lambda item: [item]] * 2))


def test_closing_stops_all_threads():
    handled = []
    results = side_by_side(iter(range(10**9)), [lambda item: handled.append(item) or [item]] * 2)
    for _ in range(10):
        next(results)
    results.close()
    count = len(handled)
    time.sleep(0.05)
    assert len(handled) == count


def test_the_callers_threads_are_as_before():
    torch.set_num_threads(2)
    seen = []
    list(side_by_side([1], [lambda item: seen.append(torch.get_num_threads()) or []] * 2))
    assert torch.get_num_threads() == 2
    assert seen == [1, 1]
