"""`iekd models`: the networks by name, and a search among those of other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Optional

import typer

from iekd.cli.common import AsJson, err, out, print_json, table_of
from iekd.errors import UserError, did_you_mean
from iekd.models.aliases import ALIASES
from iekd.models.info import ModelInfo

MEASURED = 8  # networks that a search measures at most: each takes up to some seconds
COUNTED = 100  # networks whose parameters it counts at most, a tenth of a second each


def models(
    search: Annotated[
        Optional[str],
        typer.Option(metavar="WORDS", show_default=False,
                     help="Of the networks of timm and torchvision, those whose names have all these words."),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """The networks that can teach or learn, with their sizes, and the shipped checkpoints."""
    if search is not None:
        _search(search, as_json)
        return
    from iekd.models.catalog import models as catalog
    from iekd.models.shipped import shipped_models

    rows = list(map(_row, catalog().values()))
    shipped: list[dict[str, Any]] = [
        {"name": name, **{k: getattr(card, k) for k in ("model", "method", "accuracy", "params", "datasets")}}
        for name, card in shipped_models().items()
    ]
    if as_json:
        print_json({"models": rows, "aliases": ALIASES, "checkpoints": shipped})
        return
    _print(rows)
    earlier = ", ".join(f"{old} is {name}" for old, name in ALIASES.items())
    out.print(f"Other names, of earlier versions: {earlier}.", highlight=False)
    if shipped:
        table = table_of("checkpoint", "model", "trained by", "accuracy", "for", title="Shipped checkpoints")
        for s in shipped:
            accuracy = "" if s["accuracy"] is None else f"{s['accuracy']:.2f} %"
            table.add_row(s["name"], s["model"], s["method"], accuracy, ", ".join(s["datasets"]))
        out.print(table)
    out.print("`iekd models --search WORDS` looks among the networks of timm and torchvision.")


def _search(words: str, as_json: bool) -> None:
    from rich.progress import track

    from iekd.models import libraries
    from iekd.models.unknown import meant

    found = libraries.search(words)
    if not found:
        names = meant(words)
        advice = did_you_mean(names) if names else "Try a part of it: resnet, vit."
        raise UserError(f"No network of timm or torchvision has '{words}' in its name. {advice}")
    few = len(found) <= MEASURED
    rows, unusable = list[dict[str, Any]](), dict[str, str]()
    for name in track(found[:COUNTED], "Measuring", console=err, transient=True):
        try:
            count = None if few else {"name": name, "params": libraries.parameters(name)}
            rows.append(count or _row(libraries.measured(name)))
        except UserError as error:
            unusable[name] = str(error)
    if as_json:
        print_json({"models": rows, "unusable": unusable, "not_measured": found[COUNTED:]})
        return
    _print(rows)
    if unusable:
        _say(f"Without features or classes, so of no use here: {', '.join(unusable)}.")
    if len(found) > COUNTED:
        _say(f"{len(found) - COUNTED:,} more have these words in their names. Add a word, or use --json to list them.")
    if not few:
        _say(f"Of {MEASURED} networks or fewer the multiply-adds are measured too: add a word.")


def _row(info: ModelInfo) -> dict[str, Any]:
    return {"name": info.name, "params": info.params(3, 10), "macs": info.macs}


def _print(rows: Sequence[dict[str, Any]]) -> None:
    measured = all("macs" in row for row in rows)
    columns = ["parameters", *["million multiply-adds (32 x 32)"] * measured]
    table = table_of("model", *columns, title="Networks (10 classes, colour)")
    for row in rows:
        table.add_row(row["name"], f"{row['params']:,}", *([_millions(row["macs"])] if measured else []))
    out.print(table)


def _say(text: str) -> None:
    out.print(text, highlight=False, soft_wrap=True)


def _millions(count: int) -> str:
    """41,291,008 -> '41'; of small ones a digit more."""
    return f"{count / 1e6:.0f}" if count >= 1e7 else f"{count / 1e6:.2g}"
