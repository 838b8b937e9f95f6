"""Every diagnostic of some networks at once: `explain`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from threading import Lock
from typing import Any, Union

import numpy as np
import torch

from iekd.config.methods import explores
from iekd.engine.threads import Threads
from iekd.explain import cka, faithfulness, flatness, grad_cam, halves, lrp, neurons
from iekd.explain.about import CKA, FLATNESS, GRAD_CAM, HALVES, LRP, NEURONS, NotApplicableError, chosen
from iekd.explain.cka import StageSimilarity
from iekd.explain.flatness import Flatness
from iekd.explain.halves import HalvesWorth
from iekd.explain.maps import RelevanceMaps
from iekd.explain.network import Batch, Network, NetworkOrHalf, parts_of
from iekd.explain.neurons import ActiveNeurons
from iekd.explain.sample import Sample
from iekd.models.artifact import TEACHER

FAITHFULNESS = "faithfulness"
ABOUT = {
    GRAD_CAM: grad_cam.ABOUT, LRP: lrp.ABOUT, FAITHFULNESS: faithfulness.ABOUT, CKA: cka.ABOUT, NEURONS: neurons.ABOUT,
    FLATNESS: flatness.ABOUT, HALVES: halves.ABOUT,
}  # fmt: skip
SAMPLE = 512  # test images that are enough for every diagnostic
FLATNESS_IMAGES = 128  # each is predicted once for every level and seed


@dataclass(frozen=True)
class Problem:
    """A diagnostic that was asked for and could not be computed. network: "" for all."""

    diagnostic: str
    network: str
    reason: str


@dataclass(frozen=True)
class ExplainedNetwork:
    """A network that was explained. halves: of each half the number of channels of the last stage."""

    name: str
    model: str
    method: str
    role: str
    seed: int
    accuracy: float | None
    halves: dict[str, int]


@dataclass(frozen=True)
class Explanation:
    """What was found. pictures: those of the maps, in their order. sample_size: test images behind everything else."""

    networks: tuple[ExplainedNetwork, ...]
    class_names: tuple[str, ...]
    pictures: Sample
    sample_size: int
    maps: list[RelevanceMaps] = field(default_factory=list)
    similarity: list[StageSimilarity] = field(default_factory=list)
    neurons: list[ActiveNeurons] = field(default_factory=list)
    flatness: list[Flatness] = field(default_factory=list)
    halves: list[HalvesWorth] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def label_of(self, picture: int) -> str:
        """The class that a picture shows; empty where it is not known."""
        labels = self.pictures.labels
        return "" if labels is None else self.class_names[labels[picture]]

    def to_json(self) -> dict[str, Any]:
        """Everything but the maps' pixels."""
        found: dict[str, Sequence[Any]] = {
            "maps": self.maps, CKA: self.similarity, NEURONS: self.neurons, FLATNESS: self.flatness,
            HALVES: self.halves,
        }  # fmt: skip
        return {
            "networks": [asdict(network) for network in self.networks], "class_names": list(self.class_names),
            "images": [{"name": n, "label": self.label_of(i)} for i, n in enumerate(self.pictures.names)],
            "unreadable": list(self.pictures.unreadable), "sample_size": self.sample_size,
            **{name: [item.to_json() for item in items] for name, items in found.items()},
            "problems": [asdict(problem) for problem in self.problems],
            "about": {name: asdict(about) for name, about in ABOUT.items()},
        }  # fmt: skip


def explain(
    networks: Sequence[Network], pictures: Sample, sample: Sample | None = None, what: Sequence[str] = (),
    without: str = "", say: Callable[[str], None] = lambda _: None,
) -> Explanation:  # fmt: skip
    """Compute the diagnostics that were asked for. One that does not apply becomes a problem, and the rest goes on.

    Args:
        networks: all for the same classes and images, such as `network.open_networks` gives.
        pictures: what the maps are of. sample: labelled test images for everything else; None if there are none.
        what: names of diagnostics; none for all.
        without: why there is no sample, in a sentence.
        say: told what is being computed.
    Raises:
        UserError: a name that no diagnostic has.
    """
    names, measured = chosen(what), pictures if sample is None else sample
    found = Explanation(tuple(map(_described, networks)), networks[0].card.class_names, pictures, len(measured))
    split = [network for network in networks if network.halves]
    plain = [network for network in networks if network.card.role != TEACHER and not network.halves]
    for network in networks:
        if explores(network.card.method) and not network.halves:
            found.problems.append(Problem(HALVES, network.name, network.no_halves))

    def maps(method: MakeMaps) -> Task:
        return lambda network: _with_faithfulness(network, pictures, method)

    each: dict[str, tuple[list[Any], Sequence[Network], Task]] = {
        GRAD_CAM: (found.maps, networks, maps(grad_cam.grad_cam)),
        LRP: (found.maps, networks, maps(lrp.lrp)),
        NEURONS: (found.neurons, networks, lambda n: neurons.active_neurons(n, measured.images)),
        FLATNESS: (found.flatness, networks, lambda n: [flatness.flatness(n, *_labelled(sample, FLATNESS_IMAGES))]),
        HALVES: (found.halves, split, lambda n: halves.halves_worth(n, *_labelled(sample), plain)),
    }
    wanted: dict[str, tuple[Sequence[Network], Task]] = {}
    for name in names:
        if name in (FLATNESS, HALVES) and sample is None:
            found.problems.append(Problem(name, "", f"It needs images with labels. {without}".strip()))
        elif name == HALVES and not split:
            found.problems.append(Problem(name, "", "None of these networks has inheritance and exploration halves."))
        elif name != CKA:
            wanted[name] = each[name][1:]
    threads = Threads()
    with threads.used():  # two threads on a core that others use are many times as slow as one
        if CKA in names:  # of all networks together
            say(f"Computing {ABOUT[CKA].name} ...")
            try:
                found.similarity.extend(cka.similarity(networks, measured.images))
            except NotApplicableError as error:
                found.problems.append(Problem(CKA, "", str(error)))
        results = each_in_turn(networks, wanted, threads.count, lambda name: say(f"Computing {ABOUT[name].name} ..."))
    for name, (of, _) in wanted.items():
        for network in of:
            result = results[name, network.name]
            if isinstance(result, NotApplicableError):
                found.problems.append(Problem(name, network.name, str(result)))
            else:
                each[name][0].extend(result)
    return found


Task = Callable[[Network], "list[Any]"]
Result = Union["list[Any]", NotApplicableError]


def each_in_turn(
    networks: Sequence[Network], tasks: Mapping[str, tuple[Sequence[Network], Task]], cores: int,
    begun: Callable[[str], None] = lambda _: None,
) -> dict[tuple[str, str], Result]:  # fmt: skip
    """What the tasks give for each network, or why they cannot: on a CPU several networks at a time, each on one core.

    Two threads that share the operations of small networks mostly wait for each other, above all on a busy machine. Of
    one network one task follows the other, because tasks change what a network does while they look at it.

    Args:
        tasks: name -> (networks that it is of, what to do).
        begun: told the name of a task when its first network begins.
    Returns:
        (name of the task, name of the network) -> result.
    """
    said, lock = set[str](), Lock()

    def tried(name: str, task: Task, network: Network) -> Result:
        with lock:
            if name not in said:
                said.add(name)
                begun(name)
        try:
            return task(network)
        except NotApplicableError as error:
            return error

    def all_of(network: Network) -> dict[tuple[str, str], Result]:
        return {(name, network.name): tried(name, task, network) for name, (of, task) in tasks.items() if network in of}

    if cores < 2 or len(networks) < 2 or any(network.device.type != "cpu" for network in networks):
        found = [all_of(network) for network in networks]
    else:
        with ThreadPoolExecutor(min(cores, len(networks)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = list(pool.map(all_of, networks))
    return {key: result for of_one in found for key, result in of_one.items()}


MakeMaps = Callable[["Sequence[NetworkOrHalf]", Batch], "list[RelevanceMaps]"]


def _with_faithfulness(network: Network, pictures: Sample, method: MakeMaps) -> list[RelevanceMaps]:
    parts = parts_of([network])
    return [
        replace(maps, faithfulness=faithfulness.faithfulness(part, pictures.images, maps))
        for part, maps in zip(parts, method(parts, pictures.images), strict=True)
    ]


def _labelled(sample: Sample | None, count: int = SAMPLE) -> tuple[Batch, np.ndarray]:
    assert sample is not None
    first = sample.first(count)
    assert first.labels is not None
    return first.images, first.labels


def _described(network: Network) -> ExplainedNetwork:
    card, halves_ = network.card, network.halves
    widths = {half: len(channels[-1]) for half, channels in halves_.items()}
    return ExplainedNetwork(network.name, card.model, card.method, card.role, card.seed, card.accuracy, widths)
