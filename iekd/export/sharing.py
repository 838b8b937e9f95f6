"""What leaves this machine: without the folders that its files lie in. One rule for exports and the Hub.

Of a path only the last part stays, and of a home directory nothing but "~".
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import PurePath

from iekd.data import own_path
from iekd.models.artifact import ModelCard
from iekd.paths import home_dir

PART = r"[^\s'\"`,;:()<>|/\\]+"  # of a path
HOMES = re.compile(rf"/(?:home|Users)/{PART}")
PATH_BEGINS = ("/", "~/", "./", "../")
# the folders of a path: up to the last slash within quotes, else as far as there is no space. Not those of an address
FOLDERS = re.compile(
    r"(?<=['\"`])(?:~|\.{1,2})?/(?:[^'\"`\n]*/)?(?=[^'\"`\n/])"
    rf"|(?:(?<![\w/.~-])/(?=[^/\s'\"`])|(?<![\w/.~-])(?:~|\.{{1,2}})/)(?:{PART}/)*"
)


def shareable(card: ModelCard) -> ModelCard:
    """The card without folders."""
    return replace(
        card, datasets=tuple(map(name_without_folders, card.datasets)), command=command_without_folders(card.command)
    )


def without_folders(text: str) -> str:
    """Any text. The end of a path with spaces is only known if it stands in quotes."""
    return FOLDERS.sub("", _without_home(text))


def command_without_folders(command: str) -> str:
    """A command line; empty if it is not one of ours."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    return shlex.join(map(name_without_folders, words))


def name_without_folders(name: str) -> str:
    """A name that may be a path as a whole, alone or behind a scheme such as `folder:`."""
    scheme, colon, rest = name.partition(":")
    path = _without_home(rest if colon else name)
    is_path = path == "~" or (path.startswith(PATH_BEGINS) and not path.startswith("//"))
    if not is_path and not (colon and own_path(name)):
        return name
    return (f"{scheme}:" if colon else "") + (PurePath(path).name or path)


def _without_home(text: str) -> str:
    home = str(home_dir())
    if len(home) > 1:
        for form in {home, json.dumps(home)[1:-1]}:
            text = re.sub(rf"{re.escape(form)}(?![\w.-])", "~", text)
    return HOMES.sub("~", text)
