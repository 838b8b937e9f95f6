"""The landing page's HTML: the shipped networks on test images on which the students differ. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from iekd import data
from iekd.config.methods import BASELINE, method_name
from iekd.errors import UserError
from iekd.inference.showcase import Showcase, Shown, read_showcase
from iekd.language import _
from iekd.models.artifact import ModelCard
from iekd.models.catalog import model_name
from iekd.paths import checkpoints_dir
from iekd.results.card import student_name
from iekd.ui.render.examples import data_url
from iekd.ui.render.template import render
from iekd.ui.render.words import method_style

MARGIN = 0.12  # of the accuracies' range, left free at both ends of the line


@dataclass(frozen=True)
class Model:
    """What the page says of a network. accuracy: percent, as text; position: percent of the line's width."""

    title: str
    style: str
    name: str
    params: int
    accuracy: str
    position: float


def demo_html() -> str:
    """The landing page; "" where it has nothing to show, without the shipped networks or the file about them."""
    try:
        show = read_showcase(checkpoints_dir())
        if show is None:
            return ""
        cards = {name: ModelCard.read(checkpoints_dir() / folder) for name, folder in show.models.items()}
        images = data.load(show.dataset).test.images
    except UserError:
        return ""  # `iekd models` and Compare say what is wrong with them

    def is_gain(one: Shown) -> bool:
        return one.predictions[show.taught][0][0] == one.label

    titles = {"teacher": _("Teacher"), show.taught: _("IE student")}
    models = {name: _model(titles.get(name) or student_name(name), name, card, cards) for name, card in cards.items()}
    teacher, plain, taught = models["teacher"], models[BASELINE], models[show.taught]
    return render(
        "demo", show=show, ratio=teacher.params / taught.params,
        ladder=sorted(models.values(), key=lambda one: -float(one.accuracy)),
        models={"teacher": teacher, "plain": plain, "taught": taught},
        others=[one.title for name, one in models.items() if name not in ("teacher", BASELINE, show.taught)],
        gained=sum(map(is_gain, show.shown)),
        slides=[
            {
                "index": one.index, "label": one.label, "image": data_url(images[one.index]),
                "style": (taught if is_gain(one) else plain).style,
                "outcome": (
                    _("only the IE student is right") if is_gain(one) else _("only the plain student is right")
                ),
                "predictions": [
                    {"model": models[name], "top": top, "right": top[0][0] == one.label}
                    for name, top in one.predictions.items()
                ],
            }
            for one in show.shown
        ],
        diagram_text=_diagram_text(show, teacher, plain, taught),
    )  # fmt: skip


def _model(title: str, name: str, card: ModelCard, cards: dict[str, ModelCard]) -> Model:
    reached = [one.accuracy or 0.0 for one in cards.values()]
    low, high = min(reached), max(reached)
    span = (high - low) or 1.0
    return Model(
        title, "teacher" if name == "teacher" else method_style(name), model_name(card.model), card.params,
        f"{card.accuracy or 0.0:.1f}", 100 * (MARGIN + (1 - 2 * MARGIN) * ((card.accuracy or 0.0) - low) / span),
    )  # fmt: skip


def _diagram_text(show: Showcase, teacher: Model, plain: Model, taught: Model) -> str:
    return _(
        "The teacher, {teacher}, classifies {teacher_accuracy} % of the test images correctly. One half of the IE "
        "student ({method}, {student}) is pulled towards the teacher's features, the other half is pushed away. It "
        "reaches {student_accuracy} %, the plain student {plain_accuracy} %.",
        teacher=teacher.name, teacher_accuracy=teacher.accuracy, method=method_name(show.taught), student=taught.name,
        student_accuracy=taught.accuracy, plain_accuracy=plain.accuracy,
    )  # fmt: skip
