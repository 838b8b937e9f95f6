"""Recorded steps, stacked seeds and compiled students give what the plain step gives."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from iekd.config.methods import METHODS
from iekd.config.run import learner_name
from iekd.distill.method import Method
from iekd.engine import accelerate, learner, loop, optimizer, stacked
from iekd.engine.accelerate import Recorded, Shortcuts, branches, compile_or_not
from iekd.engine.events import TrainedModel
from iekd.engine.experiment import Experiment
from iekd.engine.learner import Learner
from iekd.engine.metrics import Diverged, Metrics
from iekd.engine.stacked import Stack, stack_seeds
from iekd.models.features import Features
from iekd.models.registry import build

CPU = torch.device("cpu")
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::unique_dim"}
cuda = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


class Tape(TorchDispatchMode):
    """Records operations as a CUDA graph does: tensors by their place in memory, numbers as they were."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, result in self.calls:
            for old, new in zip(pytree.tree_leaves(result), pytree.tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    @property
    def waiting(self) -> set[str]:
        """Operations that would make the host wait: they hand out a value, or count what a mask chooses."""
        names = set()
        for function, args, _, _ in self.calls:
            name = function.name().split(".")[0]
            masked = any(getattr(leaf, "dtype", None) == torch.bool for leaf in pytree.tree_leaves(args[1:2]))
            if name in WAITING or (name.startswith("aten::index") and masked):
                names.add(name)
        return names


@pytest.fixture
def tapes(monkeypatch):
    """Every Recorded of a run, on the CPU: as on CUDA, but for the device. The fixture is the list of tapes."""
    made: list[Tape] = []

    def capture(work):
        tape = Tape()
        made.append(tape)
        with tape:
            work()  # unlike CUDA, this computes: the first replay has been done
        first = iter([True])
        return lambda: next(first, False) or tape.replay()

    monkeypatch.setattr(accelerate, "_cuda_capture", capture)
    monkeypatch.setattr(optimizer, "values_on_device", lambda config, device: True)
    monkeypatch.setattr(learner, "values_on_device", lambda config, device: True)
    return made


@pytest.fixture
def teacher(tiny) -> TrainedModel:
    torch.manual_seed(5)
    return TrainedModel(build("resnet8", 3), *tiny.statistics)


@pytest.fixture
def config(tiny_config):
    return lambda **values: tiny_config(**{"epochs": 2, "auto_encoder_epochs": 2, "lr": 0.02, **values})


def execute(config, dataset, teacher=None, **shortcuts):
    experiment = Experiment(config, dataset, copy.deepcopy(teacher))
    experiment.shortcuts = Shortcuts(**shortcuts)
    return experiment, list(experiment.events())


def rows(events, name):
    return [(e.kind, e.step, e.values) for e in events if isinstance(e, Metrics) and e.learner == name]


def assert_alike(a, b, tolerance):
    """Two runs: the same rows, the same weights, up to rounding."""
    names = a[0].students.keys()
    assert names == b[0].students.keys()
    for name in names:
        for (*one, values), (*other, others) in zip(rows(a[1], name), rows(b[1], name), strict=True):
            assert one == other
            assert values.keys() == others.keys()
            if one[0] == "train":
                assert values == pytest.approx(others, rel=max(tolerance, 1e-5 * bool(tolerance)))  # sums are float32
        for p, q in zip(a[0].students[name].model.parameters(), b[0].students[name].model.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_replayed_step_is_the_step(tiny, teacher, config, tapes, method):
    """Rate and strength change from step to step; a step that had kept them as numbers would replay the first ones."""
    chosen = config(methods=(method,), weight_schedule="decay", schedule="cosine", momentum=0.5)
    plain = execute(chosen, tiny, teacher)
    replayed = execute(chosen, tiny, teacher, graph=True)
    assert len(tapes) == 1 + chosen.needs_auto_encoder
    assert_alike(plain, replayed, 1e-6)


@pytest.mark.parametrize("method", [*sorted(METHODS), "ie-ft+kd"])
def test_no_step_waits_for_the_device(tiny, teacher, config, tapes, method):
    execute(config(methods=(method,)), tiny, teacher, graph=True)
    assert tapes
    for tape in tapes:
        assert not tape.waiting


def test_a_lock_step_is_recorded_as_one(tiny, teacher, config, tapes):
    chosen = config(methods=("baseline", "ft", "kd"), seeds=(0, 1))
    plain = execute(chosen, tiny, teacher)
    together = execute(chosen, tiny, teacher, graph=True)
    assert len(tapes) == 2, "one for the auto-encoder and one for all students"
    assert_alike(plain, together, 1e-6)


def test_a_trained_teacher_is_recorded_too(tiny, config, tapes):
    chosen = config(methods=("kd",), teacher_epochs=2)
    assert_alike(execute(chosen, tiny), execute(chosen, tiny, graph=True), 1e-6)
    assert len(tapes) == 2


@pytest.mark.parametrize("look", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: x.nonzero()])
def test_the_recording_notices_a_step_that_waits(tapes, look):
    """The test above can fail."""
    step = Recorded(lambda images, labels: look(images) is None)
    for _ in range(4):
        step(torch.ones(2, 1, 2, 2), torch.ones(2))
    assert tapes[0].waiting


def test_a_step_that_cannot_be_recorded_runs_unrecorded(caplog):
    seen = []

    def refuse(work):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    step = Recorded(lambda images, labels: seen.append(labels.item()), refuse)
    with caplog.at_level(logging.WARNING):
        for i in range(8):
            step(torch.zeros(1), torch.tensor(i))
    assert seen == list(range(8)), "each batch once"
    assert len(caplog.records) == 1
    assert "operation not permitted" in caplog.text
    assert "more" not in caplog.text


def test_a_mistake_in_a_step_is_not_hidden():
    def work(images, labels):
        raise KeyError("term")

    with pytest.raises(KeyError, match="term"):
        Recorded(work)(torch.zeros(1), torch.zeros(1))


def test_branches_are_all_done_in_order_where_nothing_is_recorded():
    done = []
    branches([lambda i=i: done.append(i) for i in range(7)])
    assert done == list(range(7))


# Stacked seeds


@pytest.fixture
def double(teacher, monkeypatch):
    """Training in float64, where rounding cannot hide a mistake."""
    teacher.model.double()
    forward = learner.Normalise.forward
    monkeypatch.setattr(learner.Normalise, "forward", lambda self, images: forward(self, images).double())
    monkeypatch.setattr(accelerate, "choose_precision", lambda name, device: torch.float32)
    make = Experiment._build
    monkeypatch.setattr(Experiment, "_build", lambda self, model: make(self, model).double())
    init = Learner.__init__

    def in_double(self, name, stage, model, method, *args, **options):
        init(self, name, stage, model, method.double(), *args, **options)

    monkeypatch.setattr(Learner, "__init__", in_double)
    monkeypatch.setattr("iekd.engine.frozen_teacher.freeze", lambda network, _: copy.deepcopy(network).eval().double())
    monkeypatch.setattr("iekd.engine.auto_encoder.freeze", lambda network, _: copy.deepcopy(network).eval().double())
    monkeypatch.setattr("iekd.engine.auto_encoder.channels_last", lambda network, device: network.double())


FEW_SMALL_STEPS = {"limit_train": 12, "batch_size": 4, "auto_encoder_epochs": 1}
TWO_STEPS = {"limit_train": 8, "batch_size": 4}  # of networks that take longer
TOGETHER = [m for m in [*sorted(METHODS), "ie-ft+kd"] if m not in ("dml", "ie-dml")]


def few_tests(dataset):
    """Accuracy is no concern here, and float64 takes its time."""
    return replace(dataset, test=dataset.test.take(np.arange(6)))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("method", TOGETHER)
def test_a_stack_gives_what_its_members_give_alone(tiny, teacher, config, method):
    few, chosen = few_tests(tiny), config(methods=(method,), seeds=(0, 7), **FEW_SMALL_STEPS)
    assert_alike(execute(chosen, few, teacher), execute(chosen, few, teacher, stack=True), 1e-6)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "options",
    [
        {"channel_split": "random"},
        {"inheritance_share": 0},
        {"ie_stages": "all", "distance": "cosine"},
        {"auto_encoder": False, "weight_schedule": "warm-up"},
        {"student": "mobilenet-v2", "limit_train": 16, "batch_size": 8},  # norms of four images multiply rounding
        {"student": "shufflenet-v2", **TWO_STEPS},
        {"student": "vgg8", **TWO_STEPS},
    ],
)
def test_every_option_and_family_can_be_stacked(tiny, teacher, config, options):
    few, chosen = few_tests(tiny), config(methods=("ie-ft",), seeds=(0, 1), epochs=1, **{**FEW_SMALL_STEPS, **options})
    assert_alike(execute(chosen, few, teacher), execute(chosen, few, teacher, stack=True), 1e-6)


@pytest.mark.parametrize(
    ("student", "stacks"),
    [("timm:mobilenetv3_small_050", True), ("timm:test_vit", True), ("torchvision:mobilenet_v3_small", False)],
)
def test_networks_of_libraries_are_stacked_or_train_one_by_one(tiny, config, caplog, student, stacks):
    """mobilenet_v3_small draws random numbers in training (dropout), which torch.func refuses to map."""
    few = few_tests(tiny)
    chosen = config(
        methods=("baseline",), teacher="none", seeds=(0, 1), epochs=1, student=student, limit_train=8, batch_size=8
    )
    with caplog.at_level(logging.WARNING):
        _, events = execute(chosen, few, stack=True)
    assert stacks != any("train one by one" in message for message in caplog.messages)
    for name in ("baseline-seed0", "baseline-seed1"):
        trained = [values["loss"] for kind, _, values in rows(events, name) if kind == "train"]
        assert trained
        assert all(map(math.isfinite, trained))
        if stacks:
            alone = rows(execute(chosen, few)[1], name)
            assert trained == pytest.approx([v["loss"] for kind, _, v in alone if kind == "train"], rel=1e-3)


def test_each_member_keeps_statistics_of_its_own(tiny, teacher, config):
    alone = execute(config(seeds=(3,), methods=("baseline",)), tiny, teacher)
    stacked = execute(config(seeds=(0, 3), methods=("baseline",)), tiny, teacher, stack=True)
    for a, b in zip(
        alone[0].students["baseline-seed3"].model.buffers(), stacked[0].students["baseline-seed3"].model.buffers(),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    other = stacked[0].students["baseline-seed0"].model.state_dict()
    mine = stacked[0].students["baseline-seed3"].model.state_dict()
    assert not torch.equal(other["bn.running_mean"], mine["bn.running_mean"])
    assert int(mine["bn.num_batches_tracked"]) == int(other["bn.num_batches_tracked"]) == 2 * 3


def test_a_stack_is_recorded_as_one_too(tiny, teacher, config, tapes):
    few, chosen = few_tests(tiny), config(methods=("ie-ft", "baseline", "ie-dml"), seeds=(0, 1), **FEW_SMALL_STEPS)
    plain = execute(chosen, few, teacher, stack=True)
    assert_alike(plain, execute(chosen, few, teacher, stack=True, graph=True), 1e-6)
    assert len(tapes) == 2


def test_seeds_of_a_method_are_stacked_and_mutual_learners_are_not(tiny, config):
    experiment = Experiment(config(methods=("baseline", "dml"), seeds=(0, 1)), tiny)
    experiment.students = {s.name: s for s in experiment._make_students(3)}
    found = stacked.stack_seeds(list(experiment.students.values()))
    assert sorted(t.names for t in found) == [("baseline-seed0", "baseline-seed1"), ("dml-seed0",), ("dml-seed1",)]


def test_one_seed_is_not_stacked(tiny, teacher, config, monkeypatch):
    monkeypatch.setattr(Stack, "compute", None)
    chosen = config(methods=("baseline", "ie-ft"))
    assert_alike(execute(chosen, tiny, teacher), execute(chosen, tiny, teacher, stack=True), 0)


def test_what_a_stack_has_learned_can_be_saved(tiny, teacher, config, tmp_path):
    """Views into the stack are written as whole tensors, each member its own."""
    from safetensors.torch import load_file, save_file

    experiment, _ = execute(config(methods=("baseline",), seeds=(0, 1)), tiny, teacher, stack=True)
    for seed in (0, 1):
        model = experiment.students[learner_name("baseline", seed)].model
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / f"{seed}.safetensors")
        loaded = load_file(tmp_path / f"{seed}.safetensors")
        assert all(torch.equal(loaded[k], v) for k, v in model.state_dict().items())
        size = sum(v.numel() * v.element_size() for v in loaded.values())
        assert (tmp_path / f"{seed}.safetensors").stat().st_size < 1.2 * size + 10_000


def test_seeds_that_cannot_be_stacked_train_one_by_one(tiny, teacher, config, monkeypatch, caplog):
    class OnlyAlone(torch.autograd.Function):
        """Without a rule for torch.func, as an extension's operation may be."""

        @staticmethod
        def forward(context, logits):
            return logits.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient

    chosen = config(methods=("ie-ft",), seeds=(0, 1))
    plain = execute(chosen, tiny, teacher)

    def hooked(model, *given, **kept):
        network = build(model, *given, **kept)
        network.register_forward_hook(lambda _, __, out: out._replace(logits=OnlyAlone.apply(out.logits)))
        return network

    monkeypatch.setattr("iekd.engine.experiment.build", hooked)
    with caplog.at_level(logging.WARNING):
        stacked_ = execute(chosen, tiny, teacher, stack=True)
    assert caplog.text.count("Seeds cannot be stacked") == 1
    assert_alike(plain, stacked_, 1e-6)
    for name, one in plain[0].students.items():
        for a, b in zip(one.model.buffers(), stacked_[0].students[name].model.buffers(), strict=True):
            torch.testing.assert_close(a, b, msg=lambda text: f"{text}: the step that failed left its traces")


def test_a_member_that_diverges_is_named(tiny, config):
    experiment = Experiment(config(methods=("baseline",), seeds=(0, 4)), tiny)
    experiment.students = {s.name: s for s in experiment._make_students(3)}
    (stack,) = stacked.stack_seeds(list(experiment.students.values()))
    with torch.no_grad():
        experiment.students["baseline-seed4"].model.classifier.bias.fill_(torch.nan)
    images, labels = torch.from_numpy(tiny.train.images[:32]).permute(0, 3, 1, 2), torch.from_numpy(tiny.train.labels)
    rows = [row for _ in range(3) for row in stack.step(images, labels[:32], None)]
    (gone,) = [row for row in rows if isinstance(row, Diverged)]
    assert gone.learner == "baseline-seed4"
    assert [row.learner for row in rows if row is not gone] == ["baseline-seed0"] * (len(rows) - 1)
    assert all(map(math.isfinite, rows[0].values.values())), "the other member does not feel it"
    kept = stack.states()
    (other,) = stacked.stack_seeds(experiment._make_students(3))
    other.restore(kept)
    assert list(other.diverged) == ["baseline-seed4"]
    assert other.diverged == stack.diverged


# Compiling


def test_training_continues_if_nothing_can_be_compiled(tiny, teacher, config, monkeypatch, caplog):
    def broken(function):
        def call(*args):
            raise RuntimeError("no C++ compiler\nmany lines")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    chosen = config(methods=("baseline", "ie-ft"))
    with caplog.at_level(logging.WARNING):
        compiled = execute(chosen, tiny, teacher, compiled=True)
    assert caplog.text.count("no C++ compiler") == 2, "once for each learner"
    assert_alike(execute(chosen, tiny, teacher), compiled, 0)


def test_training_continues_if_the_backward_pass_cannot_be_compiled(tiny, teacher, config, monkeypatch, caplog):
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(_, loss):
            return loss.clone()

        @staticmethod
        def backward(_, gradient):
            raise RuntimeError("no kernel for this\nmany lines")

    def broken(function):
        def call(*args):
            output = function(*args)
            return output._replace(loss=Broken.apply(output.loss))

        return call

    chosen = config(methods=("ie-ft",), seeds=(0, 1))
    plain = execute(chosen, tiny, teacher)
    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(learner, "compile_or_not", broken)
    with caplog.at_level(logging.WARNING):
        compiled = execute(chosen, tiny, teacher, compiled=True)
    assert caplog.text.count("no kernel for this") == 2, "once for each learner"
    # the batch that was given up has been seen by the running means, which training does not read
    assert_alike(plain, compiled, 1e-6)


def test_mutual_learners_say_that_they_are_not_compiled(tiny, config, caplog):
    experiment = Experiment(config(methods=("dml",)), tiny)
    experiment.shortcuts = Shortcuts(compiled=True)
    with caplog.at_level(logging.WARNING):
        experiment._make_students(3)
    assert "not compiled" in caplog.text


def test_compiled_is_called_once_it_works(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda f: compiled.append(f) or (lambda x: f(x) + 0))
    call = compile_or_not(lambda x: 2 * x)
    assert [call(1), call(2), call(3)] == [2, 4, 6]
    assert len(compiled) == 1


def test_students_go_through_the_compiler(tiny, teacher, config, monkeypatch):
    """What torch.compile is given can be traced; its code generator, which takes a minute, is left out."""
    compile_ = torch.compile
    graphs = []

    def traced(function):
        return compile_(function, backend=lambda graph, _: graphs.append(graph) or graph.forward)

    monkeypatch.setattr(torch, "compile", traced)
    chosen = config(methods=("baseline", "ie-ft"), epochs=1)
    assert_alike(execute(chosen, tiny, teacher), execute(chosen, tiny, teacher, compiled=True), 1e-5)
    assert len(graphs) == 2, "the forward pass of each learner in one piece"
    graphs.clear()
    chosen = config(methods=("baseline",), seeds=(0, 1), epochs=1)
    stack = execute(chosen, tiny, teacher, stack=True)
    assert_alike(stack, execute(chosen, tiny, teacher, stack=True, compiled=True), 1e-4)
    assert len(graphs) == 1, "that of the stack"


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: install g++")
def test_the_compiled_loss_of_a_plain_student_has_a_gradient(monkeypatch):
    """The code generator drops factors of one, and took the loss for its detached copy among the terms."""
    chosen = Method("baseline", [])

    def step(pixels, labels):
        logits = pixels @ weights
        return chosen(Features(logits, (), None, pixels), None, labels)

    pixels, labels = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    weights = torch.randn(3, 2, requires_grad=True)
    monkeypatch.setattr(torch._inductor.config.cpp, "simdlen", 1)  # which vectors there are takes seconds to find out
    expected, found = (torch.autograd.grad(call(pixels, labels).loss, weights) for call in (step, torch.compile(step)))
    assert torch.allclose(expected[0], found[0], atol=1e-6)


# Switches


@pytest.mark.parametrize(
    ("device", "values", "expected"),
    [
        ("cuda", {}, {"graph": True, "stack": True}),
        ("cuda", {"graph": False}, {"stack": True}),
        ("cuda", {"stack": False, "compile": True}, {"graph": True, "compiled": True}),
        ("cuda", {"eager": True, "compile": True}, {}),
        ("cpu", {}, {"side_by_side": True}),
        ("cpu", {"eager": True}, {}),
        ("mps", {}, {}),
    ],
)
def test_each_shortcut_has_its_switch(config, monkeypatch, device, values, expected):
    monkeypatch.setattr(accelerate, "cores", lambda: 2)
    assert Shortcuts.of(config(**values), torch.device(device)) == Shortcuts(**expected)


@pytest.mark.parametrize(
    ("device", "values", "on_device"), [("cuda", {}, True), ("cuda", {"eager": True}, False), ("cpu", {}, False)]
)
def test_the_plain_step_has_a_plain_optimiser(config, device, values, on_device):
    assert optimizer.values_on_device(config(**values), torch.device(device)) == on_device


# On a device that is not here: shapes and devices alone


pretended = pytest.mark.skipif(
    not torch.cuda.is_available() and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11),
    reason="older versions look for a driver all the same, and end the process without one",
)


@pretended
@pytest.mark.parametrize("method", [m for m in [*sorted(METHODS), "ie-ft+kd"] if m not in ("dml", "ie-dml")])
def test_no_tensor_of_a_step_is_left_on_the_host(tiny, teacher, config, method):
    """The forward pass with tensors that only pretend to be on CUDA: a mix of devices, or a look at a value, fails."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    experiment = Experiment(config(methods=(method,)), tiny, teacher)
    (one,) = experiment._make_students(3)
    images = torch.from_numpy(tiny.train.images[:32]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(tiny.train.labels[:32])
    with torch.no_grad():
        answer = teacher.model.eval()(one.normalise(images))
    with FakeTensorMode(allow_non_fake_inputs=False):
        pretend_all(one.model, one.method, one.normalise)
        features = pytree.tree_map(pretend, answer)
        factors = (torch.empty(32, 32, *answer.stages[-1].shape[2:], device="cuda"),)
        output = one._output(pretend(images), pretend(labels), loop.TeacherOutput(features, factors))
        assert output.loss.device.type == "cuda"
        assert all(term.device.type == "cuda" for term in output.terms.values())


@pretended
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", [m for m in [*sorted(METHODS), "ie-ft+kd"] if m not in ("dml", "ie-dml")])
def test_a_stack_can_be_mapped_on_cuda(tiny, teacher, config, method, precision):
    """CUDA takes other ways than the CPU: torch.func's own rule for batch norm fails in float32 with channels_last."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    learners = Experiment(config(methods=(method,), seeds=(0, 1, 2)), tiny, teacher)._make_students(3)
    (stack,) = stack_seeds(learners)
    images = torch.from_numpy(tiny.train.images[:32]).permute(0, 3, 1, 2)
    with torch.no_grad():
        answer = teacher.model.eval()(learners[0].normalise(images))
    seen = Counter()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen[str(func).split(".")[1]] += 1
            return func(*args, **(kwargs or {}))

    with FakeTensorMode(allow_non_fake_inputs=False):
        stack.parameters = {name: torch.nn.Parameter(pretend(p)) for name, p in stack.parameters.items()}
        stack.buffers = {name: pretend(b) for name, b in stack.buffers.items()}
        pretend_all(learners[0].normalise, stack.network)
        features = pytree.tree_map(pretend, answer)
        factors = (torch.empty(32, 32, *answer.stages[-1].shape[2:], device="cuda"),)
        labels = torch.zeros(32, dtype=torch.long, device="cuda")
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        torch.set_autocast_enabled("cuda", precision == "bf16")  # torch.autocast itself is off without a GPU
        try:
            with Count():
                output = stack._output(pretend(images), labels, loop.TeacherOutput(features, factors))
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.clear_autocast_cache()
        assert output.loss.shape == (3,)
        assert output.loss.device.type == "cuda"
    norms = sum(type(m).__name__ == "_Norm" for m in stack.network.modules())
    assert norms > 0
    assert sum(count for name, count in seen.items() if "batch_norm" in name) == norms, "one for all members"


def pretend(x):
    """A tensor like x that only pretends to be on CUDA; within a FakeTensorMode."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")


def pretend_all(*modules):
    for module in itertools.chain(*(m.modules() for m in modules)):
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = torch.nn.Parameter(pretend(p))
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = pretend(b)


def test_the_log_says_why_a_recording_failed(caplog):
    """Its end fails as well, with words that tell nothing."""

    def capture(work):
        try:
            raise RuntimeError("an operation that waits")
        finally:
            raise RuntimeError("operation failed due to a previous error")

    step = Recorded(lambda images, labels: None, capture)
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            step(torch.zeros(2, 1, 4, 4), torch.zeros(2))
    assert "an operation that waits" in caplog.text
    assert "previous error" not in caplog.text


# On a GPU


@pytest.fixture
def on_gpu(config, full_float32):
    return lambda **values: config(device="cuda", precision="fp32", **values)


@pytest.mark.parametrize("method", [pytest.param(m, marks=cuda) for m in sorted(METHODS)])
def test_a_graph_gives_what_the_plain_step_gives(tiny, teacher, on_gpu, caplog, method):
    chosen = on_gpu(methods=(method,), weight_schedule="decay")
    with caplog.at_level(logging.WARNING):
        recorded = execute(chosen, tiny, teacher, graph=True)
    assert "could not be recorded" not in caplog.text
    assert_alike(execute(chosen, tiny, teacher), recorded, 5e-3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_many_branches_in_one_graph(tiny, teacher, on_gpu, caplog):
    chosen = on_gpu(methods=tuple(sorted(METHODS)), seeds=(0, 1))
    with caplog.at_level(logging.WARNING):
        recorded = execute(chosen, tiny, teacher, graph=True, stack=True)
    assert "could not be recorded" not in caplog.text
    assert "cannot be stacked" not in caplog.text
    assert_alike(execute(chosen, tiny, teacher), recorded, 5e-3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_the_step_does_not_wait_on_cuda(tiny, teacher, on_gpu, monkeypatch):
    compute = Learner.compute

    def watched(self, *args):
        torch.cuda.set_sync_debug_mode("error")
        try:
            compute(self, *args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Learner, "compute", watched)
    execute(on_gpu(methods=tuple(sorted(METHODS))), tiny, teacher)
