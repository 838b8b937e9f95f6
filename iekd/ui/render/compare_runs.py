"""Two to eight runs side by side as HTML: their curves in one chart, their gains, and the settings that differ."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from iekd.config.methods import BASELINE, method_name, method_spec
from iekd.config.run import RunConfig, label, learner_name
from iekd.language import _
from iekd.runs.compare import ComparedRuns
from iekd.runs.index import Entry
from iekd.ui.render.curves import read_curves
from iekd.ui.render.figures import Figure, Point, Series, draw, mean_over_seeds
from iekd.ui.render.run import badge
from iekd.ui.render.runs import results, title
from iekd.ui.render.template import render
from iekd.ui.rights.access import May
from iekd.ui.rights.hidden_paths import Tell, teller


def comparison_html(compared: ComparedRuns, may: May) -> str:
    """The runs side by side.

    Args:
        compared: of `iekd.runs.compare.compare_runs`.
        may: what whoever looks may do; strangers see no paths.
    """
    names = _titles(compared)
    runs = [
        {
            "id": entry.run.id, "title": name, "colour": f"compared-{i + 1}",
            "state": Markup(badge(entry.status.state)), **results(entry),
        }
        for i, (entry, name) in enumerate(zip(compared.entries, names, strict=True))
    ]  # fmt: skip
    tells = [teller(entry.run, may) for entry in compared.entries]
    settings = [
        (_(label(field)), [_text(value, tell) for value, tell in zip(values, tells, strict=True)])
        for field, values in compared.settings.items()
    ]
    return render("compare_runs", runs=runs, settings=settings, chart=Markup(_chart(compared, names))).strip()


def _titles(compared: ComparedRuns) -> list[str]:
    """A title for each run; where two are the same, with the run's id."""
    titles = [entry.name or title(entry) for entry in compared.entries]
    return [
        f"{text} ({entry.run.id})" if titles.count(text) > 1 else text
        for text, entry in zip(titles, compared.entries, strict=True)
    ]


def _chart(compared: ComparedRuns, names: list[str]) -> str:
    series: list[Series] = []
    for i, (entry, config, name) in enumerate(zip(compared.entries, compared.configs, names, strict=True)):
        for method in _shown_methods(entry, config):
            points = _mean_curve(entry, config, method)
            style = f"compared-{i + 1}" + (" dashed" if method == BASELINE else "")
            series.append(Series(f"{name}: {method_name(method)}", style, tuple(points)))
    figure = Figure(
        _("Test accuracy"), _("percent right"), tuple(series), (0, max(config.epochs for config in compared.configs)),
        unit=" %", hint=_("plain students dashed, the best taught student of each run solid; means over seeds"),
    )  # fmt: skip
    return draw(figure) if any(s.points for s in series) else ""


def _shown_methods(entry: Entry, config: RunConfig) -> list[str]:
    """The plain student and the best taught one; while there is no report, an IE student or else the last method."""
    taught = [method for method in config.methods if method != BASELINE]
    if entry.brief and entry.brief.taught:
        best = entry.brief.taught.method
    else:
        best = next((m for m in taught if method_spec(m).explores), taught[-1] if taught else "")
    return [*([BASELINE] if BASELINE in config.methods else []), *([best] if best else [])]


def _mean_curve(entry: Entry, config: RunConfig, method: str) -> list[Point]:
    curves = read_curves(entry.run)
    lines = [curves.line(learner_name(method, seed), "test", "accuracy") for seed in config.seeds]
    return mean_over_seeds([line for line in lines if line])


def _text(value: Any, tell: Tell) -> str:
    """A setting's value in a table."""
    if value is None or value == ():
        return "–"
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, (tuple, list)):
        return ", ".join(_text(item, tell) for item in value)
    return tell(f"{value:g}" if isinstance(value, float) else str(value))
