"""Everything said about a method, once: one MethodSpec each, with the settings of the methods beside them. No torch.

Command line, form, curves, warnings of unused settings and the checks of a run derive from this. What a method computes
is built in distill/method.py, from the formulas in losses/. A method's name may be followed by "+kd": knowledge
distillation on top, as in `ie-ft+kd`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Optional

from pydantic import BaseModel

from iekd.config.settings import Positive, Weight, setting
from iekd.errors import UserError, unknown_name
from iekd.language import _
from iekd.plugins import VARIABLE, load_plugins

BASELINE = "baseline"  # the method that learns from the labels alone, which others are compared with
KD_ON_TOP = "+kd"
IE, OTHERS = "Inheritance and exploration", "The other methods"  # headings of settings


class Paper(NamedTuple):
    """Where a method comes from, for a reader and for a link: https://arxiv.org/abs/<arxiv>."""

    title: str
    authors: str
    year: int
    arxiv: str

    @property
    def citation(self) -> str:
        return f"{self.title}, {self.authors} {self.year}"


class Term(NamedTuple):
    """A part of the loss: its key in StepOutput.terms and metrics, and the words of its figure.

    Methods whose terms are equal share a figure. A term of another size has another title, and so its own figure.
    """

    name: str
    title: str
    unit: str
    hint: str


@dataclass(frozen=True)
class MethodSpec:
    """What there is to say of a method. `method_spec` gives the one of a name, also of a name with "+kd".

    name: what users type; summary: a few words for page and command line.
    colour: on the charts, of a light and of a dark page.
    title: its name on figures; empty: the name in capitals.
    terms: of its loss, beside the cross-entropy.
    settings: those of MethodSettings that it uses; those that follow from its needs are added by `uses`.
    needs_...: a teacher; a peer that learns beside it; the factor of the teacher's auto-encoder; margins from batch
        norms at the teacher's stage ends.
    logits_only: it looks at logits alone, so that networks without feature maps can use it.
    needs_labels: what it adds to the cross-entropy depends on the labels, so it cannot learn from unlabelled images.
    explores: its student's channels are split into inheritance and exploration.
    factor_encoders: how many it trains beside the student's last stage, for the estimate of its cost.
    divisible: its loss can be computed in parts, by several processes that share each batch: it is a mean over images,
        or its distillers gather what they compare (distill.distillers.Distiller.compares_images).
    without_kd: why "+kd" makes no sense, as the end of a sentence; empty where it does.
    with_kd: knowledge distillation is on top; set by `method_spec`.
    """

    name: str
    summary: str
    colour: tuple[str, str]
    title: str = ""
    paper: Paper | None = None
    terms: tuple[Term, ...] = ()
    settings: tuple[str, ...] = ()
    needs_teacher: bool = True
    needs_peer: bool = False
    needs_factor: bool = False
    needs_margins: bool = False
    logits_only: bool = False
    needs_labels: bool = False
    explores: bool = False
    factor_encoders: int = 0
    divisible: bool = False
    without_kd: str = ""
    with_kd: bool = False

    @property
    def learns_unlabelled(self) -> bool:
        """Whether images without a label teach its student something."""
        return (self.needs_teacher or self.needs_peer) and (not self.needs_labels or self.with_kd)

    @property
    def uses(self) -> frozenset[str]:
        """Every setting of MethodSettings that has an effect on it."""
        return frozenset(
            (
                *self.settings,
                *(("weight_schedule",) if self.terms else ()),
                *(("peer",) if self.needs_peer else ()),
                *(("auto_encoder", "auto_encoder_epochs") if self.needs_factor else ()),
                *(IE_SETTINGS if self.explores else ()),
            )
        )


class IeDefaults(NamedTuple):
    """What an IE method does where the settings leave it to the method.

    weights: (inheritance, exploration) for a distance of l1; chosen on held-out training images, benchmarks/RESULTS.md.
    """

    weights: tuple[float, float]
    distance: str = "l1"
    stages: str = "last"


IE_DEFAULTS = {
    "ie-ft": IeDefaults((500.0, 50.0)),
    "ie-at": IeDefaults((100.0, 1.0), distance="l2", stages="all"),
    "ie-od": IeDefaults((1.0, 5.0), stages="all"),
    "ie-dml": IeDefaults((50.0, 5.0)),
}
# mean |u - v|, mean (u - v)^2 and 1 - cos differ by about this much in size for D of 1000 to 4000 numbers
DISTANCE_SCALE = {"l1": 1.0, "l2": 10.0, "cosine": 0.01}


def _weights_in_words(which: int) -> str:
    """The default weights of inheritance (0) or exploration (1), for a help text."""
    return ", ".join(f"{n} {d.weights[which] * DISTANCE_SCALE[d.distance]:g}" for n, d in IE_DEFAULTS.items())


class MethodSettings(BaseModel):
    """The settings that only methods use; a part of RunConfig. Each is named in `settings` of the specs that use it."""

    inheritance_share: float = setting(
        0.5, "share of the channels that inherit; the rest explore", ge=0, le=1, group=IE
    )
    channel_split: Literal["natural", "random"] = setting(
        "natural", "which channels inherit: the first ones, or a random choice for each seed", group=IE,
        label="Which channels",
    )  # fmt: skip
    distance: Literal["own", "l1", "l2", "cosine"] = setting(
        "own", "how the distance to the teacher is measured; own: method default (l2 for "
        f"{' and '.join(name for name, own in IE_DEFAULTS.items() if own.distance == 'l2')}, else l1; "
        "ie-od inherits by its own loss)", group=IE,
    )  # fmt: skip
    ie_stages: Literal["own", "last", "all"] = setting(
        "own", "stages that inherit and explore; own: all for "
        f"{' and '.join(name for name, own in IE_DEFAULTS.items() if own.stages == 'all')}, else the last",
        group=IE, label="Stages",
    )  # fmt: skip
    auto_encoder: bool = setting(
        True, "ft, ie-ft: imitate the teacher's factor from an auto-encoder; without: the teacher's feature itself",
        group=IE, label="Auto-encoder",
    )  # fmt: skip
    inheritance_weight: Optional[Weight] = setting(
        None, f"weight of the inheritance loss; unset: {_weights_in_words(0)}, by distance",
        group=IE, step_time=False,
    )  # fmt: skip
    exploration_weight: Optional[Weight] = setting(
        None, f"weight of the exploration loss; unset: {_weights_in_words(1)}, by distance",
        group=IE, step_time=False,
    )  # fmt: skip
    temperature: Positive = setting(4.0, "softmax temperature of kd, dkd and dist", group=OTHERS, step_time=False)
    kd_weight: float = setting(
        0.9, "weight of the KD loss; cross-entropy gets one minus it", ge=0, le=1, group=OTHERS, label="KD weight",
        step_time=False,
    )  # fmt: skip
    attention_weight: Weight = setting(
        1000.0, "weight of the attention transfer loss (at)", group=OTHERS, step_time=False
    )
    factor_weight: Weight = setting(500.0, "weight of the factor transfer loss (ft)", group=OTHERS, step_time=False)
    overhaul_weight: Weight = setting(1.0, "weight of the feature overhaul loss (od)", group=OTHERS, step_time=False)
    mutual_weight: Weight = setting(
        1.0, "weight of the mutual learning loss (dml and ie-dml)", group=OTHERS, step_time=False
    )
    dkd_target_weight: Weight = setting(
        1.0, "weight of the target class against all others (dkd's alpha)", group=OTHERS, label="DKD: right class",
        step_time=False,
    )  # fmt: skip
    dkd_other_weight: Weight = setting(
        2.0, "weight of the predictions among the other classes (dkd's beta)", group=OTHERS, label="DKD: other classes",
        step_time=False,
    )  # fmt: skip
    dist_weight: Weight = setting(
        2.0, "weight of the relations between and within classes (dist)", group=OTHERS, label="DIST weight",
        step_time=False,
    )  # fmt: skip
    rkd_distance_weight: Weight = setting(
        25.0, "weight of the distances between images (rkd)", group=OTHERS, label="RKD: distances", step_time=False
    )
    rkd_angle_weight: Weight = setting(
        50.0, "weight of the angles among three images (rkd)", group=OTHERS, label="RKD: angles", step_time=False
    )
    weight_schedule: Literal["constant", "warm-up", "decay"] = setting(
        "constant", "all weights but the labels': warm-up rises over the first tenth, decay falls to 0 at the end",
        group=OTHERS, step_time=False,
    )  # fmt: skip
    peer: Optional[str] = setting(None, "the second student of dml and ie-dml; unset: the same network", group=OTHERS)
    auto_encoder_epochs: int = setting(
        3, "passes that train the auto-encoder", ge=1, le=10_000, group="Teacher", label="Auto-encoder epochs",
        only_for="methods with an auto-encoder", used_when=lambda config: config.needs_auto_encoder, step_time=False,
    )  # fmt: skip


IE_SETTINGS = (
    "inheritance_share", "channel_split", "distance", "ie_stages", "inheritance_weight", "exploration_weight",
)  # fmt: skip
IE_PAPER = Paper("Inheritance and exploration", "Z. Huang et al.", 2021, "2107.00181")
USES_PREDICTIONS = "makes no sense: {name} already uses the teacher's predictions. Name it {name}."

CROSS_ENTROPY = Term("cross_entropy", "Loss on the labels", "cross-entropy", "how wrong the predictions are")
INHERITANCE = Term("inheritance", "Inheritance loss", "distance", "falls as this half comes closer to the teacher")
EXPLORATION = Term(
    "exploration", "Exploration loss", "minus distance", "falls as this half moves away from the teacher"
)
MUTUAL = Term("mutual", "Mutual learning loss", "divergence", "falls as predictions come closer to the peer's")

METHODS: dict[str, MethodSpec] = {}  # in the order of the page


def register(spec: MethodSpec) -> MethodSpec:
    """Add a method, the last on the page; its builder is registered in distill/method.py.

    Raises:
        ValueError: the name is taken or ends in "+kd", or a setting is not in MethodSettings.
    """
    if spec.name in METHODS:
        raise ValueError(f"Method '{spec.name}' cannot be registered: the name is taken. Choose another.")
    if spec.name.endswith(KD_ON_TOP):
        raise ValueError(f"Method '{spec.name}' cannot be registered: '{KD_ON_TOP}' is added by itself. Leave it out.")
    if unknown := sorted(set(spec.settings) - set(MethodSettings.model_fields)):
        raise ValueError(f"Method '{spec.name}' uses settings that do not exist: {', '.join(unknown)}.")
    METHODS[spec.name] = spec
    return spec


def logits_only_methods() -> list[str]:
    """Names of the methods that networks without feature maps can use."""
    return [name for name, spec in METHODS.items() if spec.logits_only]


register(MethodSpec(
    BASELINE, "labels only: the yardstick", ("#7b8794", "#94a3b8"), title="Plain student", needs_teacher=False,
    logits_only=True, without_kd="is knowledge distillation itself. Name it kd.", divisible=True,
))  # fmt: skip
KD = register(MethodSpec(
    "kd", "copies the teacher's softened predictions", ("#7c5cd6", "#a78bfa"),
    paper=Paper("Knowledge distillation", "Hinton et al.", 2015, "1503.02531"),
    terms=(Term("kd", "Distillation loss", "divergence", "falls as predictions come closer to the teacher's"),),
    settings=("temperature", "kd_weight"), logits_only=True, without_kd=USES_PREDICTIONS, divisible=True,
))  # fmt: skip
register(MethodSpec(
    "at", "looks where the teacher looks", ("#4b8fe2", "#93c5fd"),
    paper=Paper("Attention transfer", "Zagoruyko and Komodakis", 2017, "1612.03928"),
    terms=(Term("attention", "Attention transfer loss", "distance",
                "falls as the student looks where the teacher looks"),),
    settings=("attention_weight",), divisible=True,
))  # fmt: skip
register(MethodSpec(
    "ft", "all channels imitate the teacher's factor", ("#c97a12", "#f0a63c"),
    paper=Paper("Factor transfer", "Kim et al.", 2018, "1802.04977"),
    terms=(Term("factor_transfer", "Factor transfer loss", "distance",
                "falls as the student comes closer to the teacher"),),
    settings=("factor_weight",), needs_factor=True, factor_encoders=1, divisible=True,
))  # fmt: skip
register(MethodSpec(
    "od", "imitates features before the activation", ("#d4588a", "#f9a8d4"),
    paper=Paper("Feature overhaul", "Heo et al.", 2019, "1904.01866"),
    terms=(Term("overhaul", "Feature overhaul loss", "distance", "falls as the student comes closer to the teacher"),),
    settings=("overhaul_weight",), needs_margins=True, divisible=True,
))  # fmt: skip
register(MethodSpec(
    "dml", "two students teach each other, no teacher", ("#7a9a1f", "#bef264"),
    paper=Paper("Deep mutual learning", "Zhang et al.", 2018, "1706.00384"),
    terms=(MUTUAL,), settings=("mutual_weight",), needs_teacher=False, needs_peer=True,
    logits_only=True, divisible=True,
))  # fmt: skip
register(MethodSpec(
    "dkd", "kd with the right class and the others apart", ("#a33bc2", "#e879f9"),
    paper=Paper("Decoupled knowledge distillation", "Zhao et al.", 2022, "2203.08679"),
    terms=(Term("dkd", "Decoupled distillation loss", "divergence",
                "falls as predictions come closer to the teacher's"),),
    settings=("temperature", "dkd_target_weight", "dkd_other_weight"), logits_only=True,
    needs_labels=True, without_kd=USES_PREDICTIONS, divisible=True,
))  # fmt: skip
register(MethodSpec(
    "dist", "keeps the relations among the teacher's predictions", ("#5a5f9e", "#a5b4fc"),
    paper=Paper("DIST", "T. Huang et al.", 2022, "2205.10536"),
    terms=(Term("dist", "Relation loss", "1 - correlation",
                "falls as the relations among predictions become the teacher's"),),
    settings=("temperature", "dist_weight"), logits_only=True, without_kd=USES_PREDICTIONS, divisible=True,
))  # fmt: skip
register(MethodSpec(
    "rkd", "keeps distances and angles between the teacher's features", ("#7c4a21", "#d6a77a"),
    paper=Paper("Relational knowledge distillation", "Park et al.", 2019, "1904.05068"),
    terms=(
        Term("rkd_distance", "Relational distance loss", "difference", "falls as distances become the teacher's"),
        Term("rkd_angle", "Relational angle loss", "difference", "falls as angles become the teacher's"),
    ),
    settings=("rkd_distance_weight", "rkd_angle_weight"), divisible=True,
))  # fmt: skip
register(MethodSpec(
    "ie-at", "half looks where the teacher looks, half elsewhere", ("#1d4ed8", "#3b82f6"), paper=IE_PAPER,
    terms=(INHERITANCE, EXPLORATION), explores=True, divisible=True,
))  # fmt: skip
register(MethodSpec(
    "ie-ft", "half imitates the teacher's factor, half moves away", ("#0d9488", "#2dd4bf"), paper=IE_PAPER,
    terms=(INHERITANCE, EXPLORATION), explores=True, needs_factor=True, factor_encoders=2, divisible=True,
))  # fmt: skip
register(MethodSpec(
    "ie-od", "half imitates its features, half moves away", ("#9f1239", "#fb7185"), paper=IE_PAPER,
    # its inheritance is a sum in the tens, where the others' is a mean in the thousandths
    terms=(INHERITANCE._replace(title="Inheritance loss, by overhaul"), EXPLORATION), explores=True,
    needs_margins=True, divisible=True,
))  # fmt: skip
register(MethodSpec(
    "ie-dml", "dml in which half imitates, half moves away", ("#3f6212", "#84cc16"), paper=IE_PAPER,
    terms=(INHERITANCE, EXPLORATION, MUTUAL), settings=("mutual_weight",), explores=True, needs_teacher=False,
    needs_peer=True, factor_encoders=2, divisible=True,
))  # fmt: skip


def combined() -> tuple[str, ...]:
    """The names of all methods with knowledge distillation on top."""
    return tuple(name + KD_ON_TOP for name, spec in METHODS.items() if not spec.without_kd)


def split_name(name: str) -> tuple[str, bool]:
    """`ie-ft+kd` -> ("ie-ft", True): the method, and whether knowledge distillation is on top."""
    return name.removesuffix(KD_ON_TOP), name.endswith(KD_ON_TOP)


def method_name(method: str) -> str:
    """ie-ft+kd -> IE-FT + KD."""
    base, with_kd = split_name(method)
    title = _(METHODS[base].title if base in METHODS else "") or base.upper()
    return f"{title} + KD" if with_kd else title


def method_spec(name: str) -> MethodSpec:
    """What there is to say of a method; with "+kd", needs, terms and settings are both's.

    Raises:
        UserError: there is no such method, as `check_method` says. A run folder may name one of a missing plugin.
    """
    base, with_kd = split_name(check_method(name))
    spec = METHODS[base]
    if not with_kd:
        return spec
    return replace(
        spec, name=name, needs_teacher=True, terms=(*spec.terms, *KD.terms), settings=(*spec.settings, *KD.settings),
        with_kd=True,
    )  # fmt: skip


def known_specs(names: Iterable[str]) -> list[MethodSpec]:
    """The specs of those that are known, to show a run by: its folder may name a method of a missing plugin."""
    return [method_spec(name) for name in names if split_name(name)[0] in METHODS]


def compared_networks(name: str) -> tuple[str, ...]:
    """The networks that must have features for a method to look at: of "student", "teacher" and "peer"; none for one
    that looks at logits alone, as "+kd" does."""
    spec = method_spec(split_name(name)[0])
    needed = {"student": True, "teacher": spec.needs_teacher, "peer": spec.needs_peer}
    return () if spec.logits_only else tuple(role for role, needs in needed.items() if needs)


def explores(name: str) -> bool:
    """Whether a method splits its student's channels into inheritance and exploration; not one of a missing plugin."""
    return any(spec.explores for spec in known_specs([name]))


def check_divisible(names: Iterable[str]) -> None:
    """Raises UserError if one of these methods cannot be trained by several processes that share each batch."""
    for name in names:
        if not method_spec(name).divisible:
            able = ", ".join(known for known, spec in METHODS.items() if spec.divisible)
            raise UserError(
                f"Method '{name}' cannot be trained by several processes: it does not say that its loss can be "
                f"computed in parts of a batch (MethodSpec.divisible). Use one process, or of these methods: {able}.",
                "methods",
            )


def users(field: str) -> list[str]:
    """The methods that use a setting, without "+kd"; empty for one that is not a method's."""
    return [name for name, spec in METHODS.items() if field in spec.uses]


def check_method(name: str) -> str:
    """Return `name` if it is a method.

    Raises:
        UserError: it is not; the message has the closest one, or says why the combination makes no sense.
    """
    base, with_kd = split_name(name)
    if base not in METHODS:
        load_plugins()
    if base not in METHODS:
        advice = f"A method of your own has to be in a module that {VARIABLE} names."
        raise unknown_name("method", name, [*METHODS, *combined()], advice)
    if with_kd and METHODS[base].without_kd:
        raise UserError(f"Method '{name}' {METHODS[base].without_kd.format(name=base)}")
    return name


def sort_methods(names: Iterable[str]) -> tuple[str, ...]:
    """In the order of the page: as in METHODS, each before its form with KD on top; then those of missing plugins."""
    order = {form: place for place, name in enumerate(METHODS) for form in (name, name + KD_ON_TOP)}
    return tuple(sorted(names, key=lambda name: (order.get(name, len(order)), name)))
