"""Fixed texts of the page: its header and the fold that explains the method."""

from __future__ import annotations

from iekd.config.methods import METHODS
from iekd.ui.render.template import render


def header_html() -> str:
    """The head of the page."""
    return render("header")


def how_it_works_html() -> str:
    """The fold that explains the method, with the papers of all."""
    others = {name: spec.paper for name, spec in METHODS.items() if spec.paper and not spec.explores}
    return render("how_it_works", papers="; ".join(f"{name} – {paper.citation}" for name, paper in others.items()))
