"""Push: the repository is made if need be, then everything arrives in one commit, or nothing does."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iekd import __version__
from iekd.hub.contents import MARK, README, Contents
from iekd.hub_errors import LOG_IN, HubError, error_sentence, status_of
from iekd.hub_names import check_repo

NOBODYS = {".gitattributes", ".gitignore", README}  # files that the Hub makes, or that say nothing of a repository


@dataclass(frozen=True)
class Pushed:
    """What a push has done. commit: the repository's newest; created: the repository was made for it; changed: whether
    there was anything to commit; files: paths in it; bytes: of all of them."""

    repo: str
    kind: str
    url: str
    commit: str
    created: bool
    changed: bool
    files: list[str]
    bytes: int


def machine_token() -> str:
    """The token of this machine's user: HF_TOKEN, or what `hf auth login` stored.

    Raises:
        HubError: there is none.
    """
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise HubError(f"There is no token for the Hub on this machine. {LOG_IN}")
    return token


def push(contents: Contents, repo: str, token: str, *, private: bool = False, force: bool = False) -> Pushed:
    """Send everything to a repository in one commit.

    Args:
        repo: ORG/NAME; made if it does not exist.
        token: of whoever pushes, with write permission.
        private: make it so that only its owner sees it; without: as the owner's default is, which is public for most.
        force: also where the repository holds something else. Files of the same name are replaced, others stay.
    Raises:
        HubError: it did not work; says what is on the Hub now.
    """
    from huggingface_hub import HfApi

    check_repo(repo)
    api = HfApi(token=token, library_name="iekd", library_version=__version__)
    return _Push(api, contents, repo).send(private, force)


class _Push:
    def __init__(self, api: Any, contents: Contents, repo: str) -> None:
        self.api, self.contents, self.repo = api, contents, repo
        folder = {"model": "", "dataset": "datasets/", "space": "spaces/"}[contents.kind]
        self.url = f"{api.endpoint}/{folder}{repo}"

    def send(self, private: bool, force: bool) -> Pushed:
        try:
            there = self.look()
            stale = set() if there is None else self.check(there, private, force)
        except HubError:
            raise
        except Exception as error:
            raise HubError(f"{error_sentence(error, self.repo, writes=True)} Nothing was sent.") from None
        created = there is None
        if created:
            self.create(private)
        parent = None if there is None else there.sha
        try:
            if created:
                parent = self.look().sha
            commit = self.commit(parent, stale)
        except Exception as error:
            return self.after(error, parent, created)
        return self.done(commit, created, commit != parent)

    def look(self) -> Any:
        """The repository as the Hub describes it; None if there is none that the token may see."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        try:
            return self.api.repo_info(self.repo, repo_type=self.contents.kind, files_metadata=True)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return None

    def check(self, there: Any, private: bool, force: bool) -> set[str]:
        """Files of an earlier push that this one no longer has.

        Raises:
            HubError: the repository holds something else, or is more public than asked.
        """
        if private and there.private is False:
            raise HubError(
                f"'{self.repo}' is public already, which a push does not change. Make it private in its settings "
                f"({self.url}/settings), take another name, or leave out --private. Nothing was sent."
            )
        names = {sibling.rfilename for sibling in there.siblings or []}
        mark = self.mark(there.sha) if MARK in names else {}
        if not force and names - NOBODYS and mark.get("what") != self.contents.what:
            held = f"what was pushed with --what {mark['what']}" if "what" in mark else "files that iekd has not pushed"
            raise HubError(
                f"'{self.repo}' holds {held}. Take another name, or add --force, which replaces files of the same "
                "name. Nothing was sent."
            )
        before = mark.get("files")
        return names.intersection(map(str, before if isinstance(before, list) else [])) - set(self.contents.files)

    def mark(self, commit: str) -> dict[str, Any]:
        """What an earlier push wrote of itself; empty where somebody has damaged it."""
        with tempfile.TemporaryDirectory(prefix="iekd-push-") as place:
            path = self.api.hf_hub_download(
                self.repo, MARK, repo_type=self.contents.kind, revision=commit, cache_dir=place
            )
            try:
                values = json.loads(Path(path).read_text("utf-8"))
            except ValueError:
                return {}
        return values if isinstance(values, dict) else {}

    def create(self, private: bool) -> None:
        more = {"space_sdk": "static"} if self.contents.kind == "space" else {}
        try:
            self.api.create_repo(self.repo, repo_type=self.contents.kind, private=True if private else None, **more)
        except Exception as error:
            why = error_sentence(error, self.repo, writes=True)
            if status_of(error) == 409:  # `look` has found none
                why = (
                    f"There is a repository '{self.repo}', but this token may not see it, or somebody has made it just "
                    "now. Take another name or token."
                )
            raise HubError(f"{why} The repository was not made, and nothing was sent.") from None

    def commit(self, parent: str | None, stale: set[str]) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations: list[Any] = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in sorted(self.contents.files.items())
        ]
        operations += [CommitOperationDelete(name) for name in sorted(stale)]
        info = self.api.create_commit(
            self.repo, operations, commit_message=f"{self.contents.what.capitalize()} pushed with iekd {__version__}",
            repo_type=self.contents.kind, parent_commit=parent,
        )  # fmt: skip
        return str(info.oid)

    def after(self, error: Exception, parent: str | None, created: bool) -> Pushed:
        """The commit failed, or its answer was lost: look which of the two.

        Raises:
            HubError: it was not made, or nobody can tell.
        """
        why = error_sentence(error, self.repo, writes=True)
        try:
            now = self.look()
        except Exception:
            now = None
        if now is None:
            raise HubError(f"{why} Whether the files have arrived cannot be seen now: look at {self.url}.") from None
        if holds(now, self.contents.files):
            return self.done(str(now.sha), created, True)
        if created:
            raise HubError(
                f"{why} The repository was made, but is still empty: nothing was committed. "
                f"Push again to fill it, or delete it at {self.url}/settings."
            ) from None
        state = "is as it was" if now.sha == parent else "has a newer commit of somebody else"
        raise HubError(f"{why} Nothing was committed: the repository {state}. Push again.") from None

    def done(self, commit: str, created: bool, changed: bool) -> Pushed:
        return Pushed(
            self.repo, self.contents.kind, self.url, commit, created, changed, sorted(self.contents.files),
            self.contents.bytes,
        )  # fmt: skip


def holds(there: Any, files: Mapping[str, bytes | Path]) -> bool:
    """Whether a repository has exactly these contents under these names, by the sums that the Hub gives."""
    found = {sibling.rfilename: sibling for sibling in there.siblings or []}
    return all(name in found and _same(found[name], content) for name, content in files.items())


def _same(sibling: Any, content: bytes | Path) -> bool:
    data = content if isinstance(content, bytes) else content.read_bytes()
    if sibling.lfs is not None:
        return bool(hashlib.sha256(data).hexdigest() == sibling.lfs.sha256)
    return bool(hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == sibling.blob_id)
