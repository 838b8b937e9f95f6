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
        # tabs/compare_scripts.py
        "looking": _("The networks look at the images…"),
        # tabs/present.py
        "copied": _("Copied"),
        # tabs/runs.py
        "chosen": _("{count} chosen"),
        "chooseRuns": _("Choose two to eight runs"),
        "stop": _("Stop"),
        "stopRun": _("Stop this run? Its students are saved, and you can resume it later."),
        "delete": _("Delete"),
        "deleteRun": _("Delete this run with its models, curves and log? You can undo this for an hour."),
        "deleteRuns": _("Delete {count} runs with their models, curves and log? You can undo this for an hour."),
    }


def script() -> str:
    """JavaScript that sets them. "<" is written so that no text can end the script."""
    words = json.dumps(script_words(), ensure_ascii=False).replace("<", "\\u003c")
    return f"window.iekdWords = {words};"
