"""Names of repositories on the Hub: ORG/NAME, with @REVISION where one version is meant."""

from __future__ import annotations

import re
from typing import NamedTuple

from iekd.errors import UserError

PREFIX = "hf:"  # of a model or a network on the Hub, wherever one may be named
ADDRESS = "https://huggingface.co/"
COMMIT = re.compile(r"[0-9a-f]{40}")  # a revision that means the same for ever
NAME = re.compile(r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?/[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
PAGE = re.compile(r"(https?://)?(www\.)?(huggingface\.co|hf\.co)/(?P<datasets>datasets/)?(?P<path>[^?#]*)")
BAD = re.compile(r"--|\.\.|\.git$|^.{97}")  # the Hub's own rules


class Repository(NamedTuple):
    """A repository, and which version of it: a branch, a tag or a commit; None for the newest."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


def parse_repository(text: str) -> Repository:
    """ORG/NAME or ORG/NAME@REVISION, with or without "hf:", or the address of its page.

    Raises:
        UserError: it is neither.
    """
    name = text.strip().removeprefix(PREFIX).removeprefix(ADDRESS)
    repo, at, revision = name.partition("@")
    if at and not revision.strip():
        raise UserError(f"'{text}' has no revision behind '@'. Write ORG/NAME@REVISION, or ORG/NAME for the newest.")
    return Repository(check_repo(repo.rstrip("/")), revision.strip() or None)


def named_in(text: str, datasets: bool = False) -> str:
    """hf:ORG/NAME for "ORG/NAME", or for the address of its page or of one below it; "" for anything else. A revision
    behind "@" is left there.

    datasets: whether a dataset is meant, and no model; their pages have other addresses.
    """
    page = PAGE.fullmatch(text.strip())
    if page and bool(page["datasets"]) != datasets:
        return ""
    name = "/".join(page["path"].split("/")[:2]) if page else text.strip()
    repo, at, revision = name.partition("@")
    if not NAME.fullmatch(repo) or BAD.search(repo) or bool(at) != bool(revision):
        return ""
    return f"{PREFIX}{name}"


def download_command(name: str, what: str) -> str:
    """The command that fetches files of a repository. name: ORG/NAME or ORG/NAME@REVISION. what: its other words."""
    repo, _, revision = name.partition("@")
    return f"hf download {repo} {what}" + (f" --revision {revision}" if revision else "")


def check_repo(repo: str) -> str:
    """Return `repo` if a repository on the Hub can have this name.

    Raises:
        UserError: it cannot, or the organisation is missing.
    """
    if NAME.fullmatch(repo) and not BAD.search(repo):
        return repo
    raise UserError(
        f"'{repo}' cannot be the name of a repository on the Hub. Write ORG/NAME, such as ann/resnet20-pets: letters, "
        "digits, '-', '_' and '.', and the user or organisation first."
    )
