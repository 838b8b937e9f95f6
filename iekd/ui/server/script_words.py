"""The texts that the page's scripts show, in the language of the page: `window.iekdWords`, set before any script runs.

A script fills in `{count}` and `{query}` itself.
"""

from __future__ import annotations

import json

from iekd.language import _


def script_words() -> dict[str, str]:
    """Each text by the name that the scripts use."""
    return {
        # chart.js
        "epoch": _("epoch"),
        "step": _("step"),
        "time": _("time since the students began"),
        "seconds": _("s"),
        "minutes": _("min"),
        "hours": _("h"),
        "toggle": _("Show or hide this curve"),
        # train.js
        "found": _("{count} settings match"),
        "foundOne": _("1 setting matches"),
        "foundNone": _("No setting matches '{query}'"),
        "changed": _("{count} changed"),
        # class_cards.js
        "cardName": _("Class {count}"),
        "cardNameOf": _("Name of the class"),
        "cardGroup": _("Class"),
        "cardDrop": _("Drop images or a folder here, paste, or"),
        "cardChoose": _("Choose images"),
        "cardNone": _("No images yet"),
        "cardOne": _("1 image"),
        "cardMany": _("{count} images"),
        "cardRemove": _("Remove"),
        "cardRemoveImage": _("Remove image {count} of {name}"),
        "cardRemoveClass": _("Remove {name}"),
        "cardAdd": _("+ Add a class"),
        "cardAddDrop": _("or drop folders here: each becomes a class"),
        "camera": _("Camera"),
        "cameraHold": _("Hold to take pictures"),
        "cameraClose": _("Close camera"),
        "cameraFails": _("The camera cannot be used: {reason}"),
        "cameraNotAllowed": _("this page was not allowed to. Allow it in the browser’s address bar."),
        "cameraNotHere": _("browsers allow it on https pages and on this machine only."),
        "cardsUse": _("Use these images"),
        "cardsFile": _("images"),
        "cardsNote": _("Images above 1,024 pixels are made smaller before they are sent."),
        "cardsAlike": _(
            "Pictures taken in one go are much alike, and some are held out for the test: the accuracy will look "
            "better than it is. Take some from elsewhere too."
        ),
        "cardsReading": _("Reading images: {count} left"),
        "cardsRefusedOne": _("'{name}' is not an image and was left out."),
        "cardsRefused": _("'{name}' is not an image and was left out, and {count} more."),
        "cardsSplit": _(
            "This dataset has its own split. Give its folder or a zip of it below, or drop folders of classes here."
        ),
        "cardsTwo": _("Fill at least two classes with images."),
        "cardsEmpty": _("'{name}' has no images. Add some, or remove the class."),
        "cardsTwice": _("Two classes are called '{name}'. Give each a name of its own."),
        "cardsBadName": _("'{name}' cannot be the name of a class: it needs one without / and \\."),
        # tabs/compare_scripts.py
        "looking": _("The networks look at the images…"),
        # tabs/present.py
        "copied": _("Copied"),
        # tabs/runs.py
        "chosen": _("{count} chosen"),
        "chooseRuns": _("Choose two to eight runs"),
        "stop": _("Stop"),
        "stopRun": _("Stop this run? Its students are saved, and you can resume it later."),
        "resume": _("Resume"),
        "delete": _("Delete"),
        "deleteRun": _("Delete this run with its models, curves and log? You can undo this for an hour."),
        "deleteRuns": _("Delete {count} runs with their models, curves and log? You can undo this for an hour."),
    }


def script() -> str:
    """JavaScript that sets them. "<" is written so that no text can end the script."""
    words = json.dumps(script_words(), ensure_ascii=False).replace("<", "\\u003c")
    return f"window.iekdWords = {words};"
