"""Which network of ours a file of weights fits, and what of the file is not part of it.

Other people's files hold a network inside of something: a checkpoint with an optimiser, a wrapper of another library, a
loss with weights of its own, counters of a profiler, an average of the weights. `fit_weights` looks for the part that
fits; its notes say which part that is, and what was ignored. Leaves out: reading files (weight_files.py), and how other
people name their layers (foreign.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iekd.errors import UserError
from iekd.models import hub_configs
from iekd.models.aliases import ALIASES
from iekd.models.catalog import check_model, known_models
from iekd.models.foreign import rename, shortcut_variant
from iekd.models.libraries import names_one
from iekd.models.pretrained import for_channels
from iekd.models.registry import build
from iekd.models.weight_files import SELECT, Candidate, StateDict, WeightFile, joined
from iekd.models.weight_forms import unusable_form
from iekd.models.weight_values import COUNTER, check_values, size_text
from iekd.plural import counted

COUNTS = (COUNTER, "total_ops", "total_params")  # the last two are thop's
AVERAGE = re.compile(r"(^|[._])(ema|swa|averaged)([._]|$)", re.I)  # in the name of averaged weights
# what other people call the layer that gives the logits, also inside of an nn.Sequential or a head of its own
HEADS = re.compile(
    r"^((cls_)?head\.|classifier\.|fc\.)?(fc\d*|(cls_)?head|classifier|linear|last_linear|last|logits|output|out)(\.\d+)?$"
)
MEAN, STD = re.compile(r"(^|[._])(mean|mu)$"), re.compile(r"(^|[._])(std|sigma)$")
PART = re.compile(r"-\d+-of-0*(?!1\b)\d+")  # of weights that were saved in several files
LISTED = 3  # names in a message
Layers = Callable[[str], Sequence[str]]  # name of a network -> names of its parameters


class FittedModel(NamedTuple):
    """A network of ours with somebody's weights.

    model: in evaluation mode, on the CPU. name: the architecture, which may be a variant of the one that was asked for.
    mean, std: per channel, of pixels scaled to 0..1, where the file says how it normalises; else None.
    notes: sentences on what was taken from the file and what was not.
    """

    model: nn.Module
    name: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass
class Match:
    """A part of a file compared with a network: its weights under our names, and what does not correspond."""

    candidate: Candidate
    prefix: str
    name: str
    given: StateDict
    missing: list[str]
    unknown: list[str]  # layers that the network does not have; as the file names them
    ignored: list[str]  # other tensors beside the network's; as the file names them
    head: str  # what the file calls the last layer, where that is not our name for it
    dropped: str  # what stands before all names, the prefix and DataParallel's "module."

    @property
    def fits(self) -> bool:
        return not self.missing and not self.unknown

    @property
    def right_shapes(self) -> bool:
        """Whether the shapes are the network's, but for the layers that channels and classes decide."""
        own = shapes(self.name)
        kernels = all(v.shape[2:] == own[k].shape[2:] for k, v in self.given.items())
        return kernels and sum(v.shape != own[k].shape for k, v in self.given.items()) <= 3

    @property
    def location(self) -> str:
        return ".".join(filter(None, [self.candidate.where, self.prefix.rstrip(".")]))

    @property
    def averaged(self) -> bool:
        return bool(AVERAGE.search(self.location))


def fit_weights(file: WeightFile, name: str, num_classes: int, channels: int) -> FittedModel:
    """A network of ours with the weights of a file.

    Args:
        file: as `read_weights` gave it.
        name: the architecture, such as "resnet56"; the answer may be its variant with other shortcuts.
        num_classes, channels: of the dataset that it is to be used with.
    Raises:
        UserError: the weights do not fit; says which and what to check.
    """
    path = file.path
    match = best_match(file, check_model(name))
    model = build(match.name, num_classes, channels)
    own, given = model.state_dict(), match.given
    if empty := [k for k in own if k in given and own[k].numel() and not given[k].numel()]:
        raise UserError(
            f"'{path}' holds {empty[0]} without values, as DeepSpeed's ZeRO 3 leaves it. Gather the weights with its "
            "zero_to_fp32.py, and give that file."
        )
    _check_channels(given, own, path)
    _check_classes(given, own, path)
    check_shapes(file, match.name, given, own)
    check_values(given, own, f"'{path}'")
    model.load_state_dict({k: given.get(k, v) for k, v in own.items()})
    mean, std = normalisation_of(file, match, channels)
    return FittedModel(model.eval(), match.name, mean, std, tuple(notes_on(match, file, mean, std)))


def check_shapes(file: WeightFile, name: str, given: StateDict, own: StateDict) -> None:
    """Check that weights have the shapes of a network's own. Raises UserError where one has not; it names the first."""
    if wrong := [k for k in own if k in given and given[k].shape != own[k].shape]:
        sizes = f"{wrong[0]} is {size_text(given[wrong[0]])} and should be {size_text(own[wrong[0]])}"
        raise UserError(f"'{file.path}' does not fit {name}: {sizes}. {_hint(file, name)}")


def best_match(file: WeightFile, name: str, optional: Layers = lambda name: ()) -> Match:
    """The part of the file that fits the network; where several do, averaged weights, else the user is asked.

    optional: the parameters of a network, by its name, that the file need not have.

    Raises:
        UserError: none does, or several do.
    """
    file = _of_folder(file, name)
    needed = len(shapes(name)) // 3  # batch norm's counters may be missing
    tried = [
        _compared(candidate, prefix, name, optional)
        for candidate in file.candidates
        for prefix in _prefixes(candidate, needed)
    ]
    fitting = _those_that_fit(tried)
    if not fitting:
        parts = joined(file.candidates)
        fitting = _those_that_fit([_compared(parts, prefix, name) for prefix in _prefixes(parts, needed)])
        _check_parts(file, fitting)
    if not fitting:
        raise _does_not_fit(file, name, tried)
    _check_no_second_head(file, fitting)
    # a whole network beside others, such as "conv1" beside "teacher.conv1"
    inside = tuple(match.prefix for match in fitting)
    fitting += [
        match for match in tried
        if match.unknown and not match.missing and all(k.startswith(inside) for k in match.unknown)
    ]  # fmt: skip
    averaged = [match for match in fitting if match.averaged]
    if len(fitting) > 1 and len(averaged) != 1:
        locations = ", ".join(f"'{m.location}'" if m.location else "one at the top" for m in fitting)
        raise UserError(
            f"'{file.path}' holds several networks that fit {name}: {locations}. "
            f"Say which one, as in {file.path.name}{SELECT}{max(fitting, key=lambda m: bool(m.location)).location}."
        )
    return averaged[0] if averaged else fitting[0]


def _of_folder(file: WeightFile, name: str) -> WeightFile:
    """The file with the names that the library of its folder's network gives the weights today."""
    if file.config is None or file.config.model != name or not hub_configs.is_of_folder(name):
        return file
    from iekd.models.hub_networks import of_folder

    try:
        candidates = [replace(candidate, state=of_folder(name, candidate.state)) for candidate in file.candidates]
    except UserError as error:
        raise UserError(f"'{file.path}' cannot be used. {error}") from None
    return replace(file, candidates=tuple(candidates))


def _those_that_fit(matches: Sequence[Match]) -> list[Match]:
    fitting = [match for match in matches if match.fits]
    return _without_repetitions([match for match in fitting if match.right_shapes] or fitting)


def _check_parts(file: WeightFile, fitting: Sequence[Match]) -> None:
    """Of a network whose parts lie in several dicts: which body, and which last layer?

    Raises:
        UserError: more than one could be meant.
    """
    if not fitting:
        return
    head = fitting[0].given[last_layer(fitting[0].given)]
    heads = [c.where for c in file.candidates for k, v in c.state.items()
             if v.shape == head.shape and k.endswith("weight")]  # fmt: skip
    for what, found in (("bodies", [match.location for match in fitting]), ("last layers", heads)):
        if len(found) > 1:
            raise UserError(
                f"'{file.path}' holds several {what} that fit {fitting[0].name}: {', '.join(map(repr, found))}. Save "
                "the body and the last layer that belong together in one file."
            )


def _check_no_second_head(file: WeightFile, fitting: Sequence[Match]) -> None:
    """A whole network in one dict and another last layer in the next: which of the two last layers counts?"""
    for match in fitting:
        where, own = match.candidate.where, shapes(match.name)
        around = where[: where.rfind(".") + 1]
        size = own[last_layer(own)].shape[1]
        for other in file.candidates:
            inside = other.where.startswith(around) and other.where.removeprefix(around)
            matrices = {k: v for k, v in other.state.items() if v.ndim == 2}
            if not where or not inside or other.where == where or len(matrices) != 1:
                continue
            ((layer, matrix),) = matrices.items()
            if matrix.shape[1] == size and HEADS.match(f"{inside}.{layer}".removesuffix(".weight")):
                raise UserError(
                    f"'{file.path}' holds a whole network in '{where}' and another last layer in '{other.where}'. To "
                    f"use the network as it is, give {file.path.name}{SELECT}{where}; else save it with that layer."
                )


def _prefixes(candidate: Candidate, needed: int) -> list[str]:
    """What may stand before the names of a network of at least so many tensors, as in "module.student."; "" first."""
    found: Counter[str] = Counter()
    for key in candidate.state:
        words = key.split(".")
        found.update(".".join(words[:n]) + "." for n in range(1, len(words)))
    return ["", *sorted(prefix for prefix, count in found.items() if count >= needed)]


def _compared(candidate: Candidate, prefix: str, name: str, optional: Layers = lambda name: ()) -> Match:
    state = candidate.state
    inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    name = shortcut_variant(inner, name)
    own = shapes(name)
    names = {ours: prefix + theirs for ours, theirs in zip(rename(inner, name), inner, strict=True)}
    names, head = _with_our_head(names, candidate, prefix, own)
    extra = [k for k in names if k not in own and not k.endswith(COUNTS)]
    unknown = [names[k] for k in extra if _is_layer(k, state[names[k]], own)]
    missing = [k for k in own if k not in names and not k.endswith(COUNTER) and k not in optional(name)]
    used = {names[k] for k in own if k in names}.union(unknown)
    ignored = [k for k in state if k not in used and not k.endswith(COUNTER)]
    dropped = prefix + "module." * all(k.startswith(f"{prefix}module.") for k in used)
    given = {k: state[names[k]] for k in own if k in names}
    return Match(candidate, prefix, name, given, missing, unknown, ignored, head, dropped)


@lru_cache(maxsize=256)
def shapes(name: str, num_classes: int = 2, channels: int = 3) -> StateDict:
    """The tensors of a network of ours, without values."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return dict(build(name, num_classes, channels).state_dict())


def last_layer(own: StateDict) -> str:
    """The weight of the layer that gives the logits: the last matrix, or where there is none, as in SqueezeNet, the
    last convolution."""
    return next(key for rank in (2, 4) for key in reversed(own) if own[key].ndim == rank)


def _is_layer(key: str, value: Tensor, own: StateDict) -> bool:
    """Whether a tensor that the network does not have is a layer of another network, rather than a loss or a constant:
    a convolution, or anything within a part that the network has."""
    return value.ndim == 4 or _part(key) in set(map(_part, own))


def _part(key: str) -> str:
    """The outermost part of a network that a tensor belongs to; a library's network is one within ours."""
    return key.removeprefix("network.").partition(".")[0]


def _with_our_head(
    names: dict[str, str], candidate: Candidate, prefix: str, own: StateDict
) -> tuple[dict[str, str], str]:  # fmt: skip
    """The last layer under our name, where it is the only matrix under a usual name, in the network or beside it (as in
    "backbone.conv1", "head.fc"); and what it was called.

    names: our name -> the file's.
    """
    state, head = candidate.state, last_layer(own).removesuffix(".weight")
    if f"{head}.weight" in names:
        return names, ""
    around = prefix[: prefix.rstrip(".").rfind(".") + 1]
    beside = [k for k in state if prefix and k.startswith(around) and not k.startswith(prefix)]
    for found in (names, {k.removeprefix(around): k for k in beside}):
        layers = [
            k.removesuffix(".weight")
            for k, theirs in found.items()
            if k.endswith(".weight")
            and state[theirs].ndim == own[f"{head}.weight"].ndim
            and (found is not names or k not in own)
            and HEADS.match(k.removesuffix(".weight"))
        ]
        if len(layers) == 1 and state[found[f"{layers[0]}.weight"]].shape[1] == own[f"{head}.weight"].shape[1]:
            old = layers[0] + "."
            moved = {f"{head}.{k.removeprefix(old)}": theirs for k, theirs in found.items() if k.startswith(old)}
            others = {k: theirs for k, theirs in names.items() if theirs not in moved.values()}
            return others | moved, moved[f"{head}.weight"].removesuffix(".weight")
    return names, ""


def _without_repetitions(matches: Sequence[Match]) -> list[Match]:
    """Each network once: the same tensors may be found under a longer and a shorter prefix, or be stored twice."""
    found: list[Match] = []
    for match in matches:
        if not any(_equal(match.given, other.given) for other in found):
            found.append(match)
    return found


def _equal(a: StateDict, b: StateDict) -> bool:
    return a.keys() == b.keys() and all(a[k] is b[k] or torch.equal(a[k], b[k]) for k in a)


def normalisation_of(
    file: WeightFile, match: Match, channels: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation that the card of the file says, its weights or its folder; None where none does."""
    if file.card:
        return file.card.mean, file.card.std
    mean, std = _normalisation_in(match, channels)
    if mean is None and file.config and file.config.mean and file.config.std:
        return for_channels(file.config.mean, channels), for_channels(file.config.std, channels)
    return mean, std


def _normalisation_in(match: Match, channels: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and standard deviation of the images, where the file has a layer that normalises; else None."""
    state = match.candidate.state
    mean = [v for k, v in state.items() if k in match.ignored and MEAN.search(k) and v.numel() in (1, channels)]
    std = [v for k, v in state.items() if k in match.ignored and STD.search(k) and v.numel() in (1, channels)]
    if len(mean) != 1 or len(std) != 1 or not bool((std[0] > 0).all()):
        return None, None
    scale = 255.0 if float(std[0].max()) > 1 else 1.0  # of pixels from 0 to 255
    listed = [tuple((v.flatten().double() / scale).tolist()) for v in (mean[0], std[0])]
    values = [row if len(row) == channels else row * channels for row in listed]
    return values[0], values[1]


def notes_on(
    match: Match, file: WeightFile, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> Iterator[str]:
    """What was taken from a file and what was not, in sentences. mean, std: what its images are normalised with."""
    if match.candidate.where:
        yield f"The weights are those in '{match.candidate.where}'."
    if match.averaged and (len(file.candidates) > 1 or match.ignored):
        yield "They are averaged over training (EMA), and preferred to the others in the file."
    if match.dropped:
        yield f"The prefix '{match.dropped}' was dropped from their names."
    if match.head:
        yield f"The last layer is '{match.head}'."
    norms = [k for k in match.ignored if mean and not file.card and (MEAN.search(k) or STD.search(k))]
    if mean and std:
        shown = [", ".join(f"{v:.4g}" for v in values) for values in (mean, std)]
        where = "of the model's card" if file.card else "in the file" if norms or not file.config else "of config.json"
        yield f"Images are normalised with the mean {shown[0]} and the standard deviation {shown[1]} {where}."
    if ignored := [k for k in match.ignored if k not in norms]:
        yield f"Ignored, not part of {match.name}: {_some(ignored)}."


def _does_not_fit(file: WeightFile, name: str, tried: Sequence[Match]) -> UserError:
    nearest = min(tried, key=lambda match: (len(match.missing) + len(match.unknown), len(match.prefix)))
    trouble = {"missing": nearest.missing, "not known": nearest.unknown or nearest.ignored}
    listed = [f"{_some(names)} {'is' if len(names) == 1 else 'are'} {what}" for what, names in trouble.items() if names]
    return UserError(f"'{file.path}' does not fit {nearest.name}: {'; '.join(listed)}. {_hint(file, nearest.name)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{', '.join(names[:LISTED])}{more}"


def _check_channels(given: StateDict, own: StateDict, path: Path) -> None:
    """The first convolution sees the images."""
    first = next(k for k, v in own.items() if v.ndim == 4)
    found, needed = given[first].shape, own[first].shape
    if len(found) == 4 and found[0] == needed[0] and found[1] != needed[1]:
        kinds = {1: "grey", 3: "colour"}
        was = kinds.get(found[1], f"{found[1]}-channel")
        remedy = "save the images in colour (RGB)" if found[1] == 3 else "another file"
        raise UserError(
            f"'{path}' was trained on {was} images ({counted(found[1], 'channel')}), but those of the dataset are "
            f"{kinds.get(needed[1])} ({needed[1]}). Choose a dataset of {was} images, or {remedy}."
        )


def _check_classes(given: StateDict, own: StateDict, path: Path) -> None:
    """The last layer has a row for each class."""
    last = last_layer(own)
    found, needed = given[last].shape, own[last].shape
    if found[1:] == needed[1:] and found[0] != needed[0]:
        raise UserError(
            f"'{path}' knows {counted(found[0], 'class')}, but the dataset has {needed[0]}. "
            "Choose the dataset that it was trained on, or another file."
        )


def _hint(file: WeightFile, name: str) -> str:
    """What to check; names the network of ours whose shapes the file's weights are, or are closest to."""
    if PART.search(file.path.name):
        return "The file is one of several parts: join them into one file."
    if said := unusable_form(name for candidate in file.candidates for name in candidate.state):
        return said
    best, similarity = "", 0.0
    for other in (*known_models(), *(name for name in ALIASES.values() if names_one(name))):
        tried = (_compared(c, p, other) for c in file.candidates for p in _prefixes(c, len(shapes(other)) // 3))
        found = next((match.name for match in tried if match.fits and match.right_shapes), name)
        if found != name:
            return f"Its weights are those of {found}; is the model right?"
        own = _shapes(shapes(other).values())
        for candidate in file.candidates:
            given = _shapes(candidate.state.values())
            same = (own & given).total() / (own | given).total()
            if same > similarity:
                best, similarity = other, same
    if best and best != name and similarity > 0.9:  # all but the layers of channels and classes
        return f"Its weights are those of {best}; is the model right?"
    if best and best != name and similarity > 0.4:
        return f"Of our networks {best} is the closest by the shapes of the layers ({similarity:.0%} are the same)."
    return "Is the model the one that the file was made with?"


def _shapes(tensors: Iterable[Tensor]) -> Counter[tuple[int, ...]]:
    """How often each shape occurs among weights, apart from single numbers."""
    return Counter(tuple(t.shape) for t in tensors if t.ndim)
