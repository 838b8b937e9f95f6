"""Names of the methods and what each needs, without torch: for the page, the command line and the checks of a run.

A name is one of METHODS, and most may be followed by "+kd": knowledge distillation on top, as in `ie-ft+kd`.
What a method computes is in methods.py.
"""

from __future__ import annotations

from typing import NamedTuple

from iekd.errors import UserError, unknown_name

METHODS = {
    "baseline": "labels only: the yardstick",
    "kd": "copies the teacher's softened answers",
    "at": "looks where the teacher looks",
    "ft": "all channels imitate the teacher's factor",
    "od": "imitates features before the activation",
    "dml": "two students teach each other, no teacher",
    "dkd": "kd with the right class and the others apart",
    "dist": "keeps the relations among the teacher's answers",
    "ie-at": "half looks where the teacher looks, half elsewhere",
    "ie-ft": "half imitates the teacher's factor, half moves away",
    "ie-od": "half imitates its features, half moves away",
    "ie-dml": "dml in which half imitates, half moves away",
}
PAPERS = {
    "kd": "Knowledge distillation, Hinton et al. 2015",
    "at": "Attention transfer, Zagoruyko and Komodakis 2017",
    "ft": "Factor transfer, Kim et al. 2018",
    "od": "Feature overhaul, Heo et al. 2019",
    "dml": "Deep mutual learning, Zhang et al. 2018",
    "dkd": "Decoupled knowledge distillation, Zhao et al. 2022",
    "dist": "DIST, T. Huang et al. 2022",
    "ie": "Inheritance and exploration, Z. Huang et al. 2021",
}
KD_ON_TOP = "+kd"
ANSWERS = ("kd", "dkd", "dist")  # these teach by the answers already
COMBINED = tuple(name + KD_ON_TOP for name in METHODS if name not in ("baseline", *ANSWERS))


class Parts(NamedTuple):
    """A method's name taken apart: `ie-ft+kd` is explores=True, base "ft", kd=True."""

    base: str
    explores: bool
    kd: bool

    @property
    def needs_teacher(self) -> bool:
        return self.kd or self.base not in ("baseline", "dml")

    @property
    def needs_peer(self) -> bool:
        return self.base == "dml"

    @property
    def uses_factor(self) -> bool:
        """The target is a factor: of the teacher's auto-encoder, unless the run goes without one."""
        return self.base == "ft"


def parts(name: str) -> Parts:
    """Take a valid name apart."""
    base, kd = name.removesuffix(KD_ON_TOP), name.endswith(KD_ON_TOP)
    return Parts(base.removeprefix("ie-"), base.startswith("ie-"), kd)


def check_method(name: str) -> str:
    """Return `name` if it is a method.

    Raises:
        UserError: it is none; the message has the closest one, or says why the combination makes no sense.
    """
    if name in METHODS or name in COMBINED:
        return name
    base = name.removesuffix(KD_ON_TOP)
    if name.endswith(KD_ON_TOP) and base == "baseline":
        raise UserError("Method 'baseline+kd' is knowledge distillation itself. Name it kd.")
    if name.endswith(KD_ON_TOP) and base in ANSWERS:
        raise UserError(f"Method '{name}' makes no sense: {base} teaches by the answers already. Name it {base}.")
    raise unknown_name("method", name, [*METHODS, *COMBINED])


def sort_methods(names: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """In the order of the page: as in METHODS, each before its form with KD on top."""
    order = [form for name in METHODS for form in (name, name + KD_ON_TOP)]
    return tuple(sorted(names, key=order.index))
