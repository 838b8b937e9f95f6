"""Operations and bytes are counted as the formulas say; a bound is the longer of computing and moving."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from iekd.bench.measure import step_bound
from iekd.bench.roofline import Operation, Operations, Peaks, bound, measure_peaks
from iekd.estimate.subjects import Subject

CPU = torch.device("cpu")
FLOAT = 4  # bytes


def seen(work) -> list[Operation]:
    with Operations(CPU) as operations:
        work()
    return operations.seen


def test_a_matrix_product():
    a, b = torch.randn(30, 40), torch.randn(40, 50)
    (product,) = seen(lambda: a @ b)
    assert product.flops == 2 * 30 * 40 * 50
    assert product.bytes == FLOAT * (30 * 40 + 40 * 50 + 30 * 50)


def test_a_convolution_and_its_backward():
    x, w = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(5, 3, 3, 3, requires_grad=True)
    found = seen(lambda: F.conv2d(x, w, padding=1).sum().backward())
    flops = 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)
    forward, backward = [op for op in found if "convolution" in op.name]
    assert forward.flops == flops
    assert forward.bytes == FLOAT * (x.numel() + w.numel() + 2 * 5 * 8 * 8)
    assert backward.flops == 2 * flops  # for the input, and for the weight
    assert backward.bytes == FLOAT * (2 * (x.numel() + w.numel()) + 1)  # the sum's gradient is one number, expanded
    assert sum(op.flops for op in found) == 3 * flops


def test_views_move_nothing():
    x = torch.randn(4, 6)
    assert seen(lambda: (x.view(24), x.t(), x[1:], x.unsqueeze(0), x.expand(3, 4, 6), x.detach(), torch.empty(9))) == []
    assert [op.bytes for op in seen(lambda: x.t().contiguous())] == [FLOAT * 48]


def test_in_place_operations_read_and_write_what_they_change():
    x, y = torch.randn(10), torch.randn(10)
    assert [op.bytes for op in seen(lambda: x.add_(y))] == [FLOAT * 30]
    assert [op.bytes for op in seen(lambda: x.copy_(y))] == [FLOAT * 20]
    assert [op.bytes for op in seen(x.zero_)] == [FLOAT * 10]
    assert [op.bytes for op in seen(lambda: torch._foreach_add_([x, x], [y, y]))] == [FLOAT * 60]


def test_batch_norm_writes_its_output_and_its_statistics():
    x, state = torch.randn(16, 4, 5, 5), torch.ones(4)
    norm = torch.ops.aten._native_batch_norm_legit
    (found,) = seen(lambda: norm(x, state, state, state.clone(), state.clone(), True, 0.1, 1e-5))[2:]
    assert found.bytes >= FLOAT * 2 * x.numel()


def test_expanded_tensors_count_as_their_storage():
    x, y = torch.randn(1).expand(1000), torch.randn(1000)
    assert [op.bytes for op in seen(lambda: x + y)] == [FLOAT * 2001]


def test_a_gather_reads_what_it_returns():
    x, chosen = torch.randn(1000, 8), torch.arange(10)
    assert [op.bytes for op in seen(lambda: x[chosen])] == [2 * FLOAT * 80 + 8 * 10]


def test_other_devices_do_not_count():
    x, meta = torch.randn(10), torch.randn(10, device="meta")
    assert [op.bytes for op in seen(lambda: (meta + meta, x + x))] == [FLOAT * 30]


def test_a_bound_takes_the_longer_of_computing_and_moving():
    peaks = Peaks(flops_per_second=100.0, bytes_per_second=10.0)
    found = bound([Operation("busy", 1000, 10), Operation("moving", 0, 50), Operation("both", 10, 20)], peaks)
    assert (found.flops, found.bytes) == (1010, 80)
    assert found.arithmetic == pytest.approx(10)
    assert found.traffic == pytest.approx(5 + 2)
    assert found.seconds == pytest.approx(17)


def test_a_large_matrix_product_is_bound_by_arithmetic():
    a = torch.randn(512, 512)
    found = bound(seen(lambda: a @ a), Peaks(1e11, 1e10))
    assert found.traffic == 0
    assert found.seconds == pytest.approx(2 * 512**3 / 1e11)


def test_the_probes_find_something():
    found = measure_peaks(CPU, torch.float32, side=64, numbers=1000)
    assert found.flops_per_second > 0
    assert found.bytes_per_second > 0


def test_a_step_counts_teacher_learners_and_every_seed(small):
    peaks = Peaks(1.0, 1e30)  # every operation is arithmetic: the seconds are operations
    flops = {
        which: step_bound(Subject(small(methods=methods, seeds=seeds), 16), peaks).flops
        for which, methods, seeds in (
            ("one", ("baseline",), (0,)),
            ("two", ("baseline",), (0, 1)),
            ("kd", ("kd",), (0,)),
            ("dml", ("dml",), (0,)),
        )
    }
    step = 8 * 2 * macs(small())  # of a batch of 8, forward
    assert flops["two"] == 2 * flops["one"]
    # the first convolution needs no gradient of its images
    assert 2.9 * step < flops["one"] < 3 * step
    assert flops["kd"] == pytest.approx(flops["one"] + step, rel=1e-3)
    assert flops["dml"] == 2 * flops["one"] + step  # two networks learn, the student answers once more


def macs(config) -> int:
    """Of the student's convolutions and classifier, for one image."""
    from iekd.models.registry import build

    model, total = build(config.student, 10, 1), 0

    def count(module, _, output):
        nonlocal total
        total += module.weight[0].numel() * output.numel()

    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(count)
    model(torch.zeros(1, 1, config.resolution, config.resolution))
    return total
