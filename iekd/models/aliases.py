"""Names that networks had in earlier versions. They work wherever a name is given; old runs and files have them."""

from __future__ import annotations

CRD = ("vgg8", "vgg11", "vgg13", "vgg16", "vgg19", "mobilenet-v2", "shufflenet-v1", "shufflenet-v2")
ALIASES = {  # old name -> name; the first ones are small versions, of the benchmark of Tian et al. 2020 (CRD)
    **{name: f"{name}-crd" for name in CRD},
    **{name: f"torchvision:{name}" for name in ("resnet18", "resnet34", "resnet50")},
}
FORMER = {name: old for old, name in ALIASES.items()}


def canonical(name: str) -> str:
    """The name that a network has now."""
    return ALIASES.get(name, name)


def renamed(name: str) -> str:
    """What to tell somebody who gives an earlier name for something new, as a sentence; "" for a name of today."""
    if name not in ALIASES:
        return ""
    small = f", a small network of the CRD benchmark, and not torchvision's {name}" if name in CRD else ""
    return f"'{name}' is now called {ALIASES[name]}{small}."


def former(name: str) -> str:
    """The name that a network had in earlier versions, by which they have stored their teachers."""
    return FORMER.get(name, name)
