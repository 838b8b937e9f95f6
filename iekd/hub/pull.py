"""Pull: a model from the Hub, pinned to one commit. Weights as safetensors only, so nothing of it is ever executed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from iekd import __version__
from iekd.hub_errors import HubError, error_sentence, status_of
from iekd.hub_names import Repository, parse_repository
from iekd.models.artifact import CARD, WEIGHTS, ModelCard
from iekd.paths import absolute, cache_dir, make_cache_dir
from iekd.runs.files import write_json

log = logging.getLogger(__name__)
SOURCE = "source.json"  # in a model's folder: where it comes from
TAKEN = {CARD: 8 * 2**20, WEIGHTS: 4 * 2**30}  # bytes that each file may have
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


@dataclass(frozen=True)
class Pulled:
    """A model's folder on this machine. commit: which version it is; fetched: whether anything was downloaded; note:
    a sentence where it may not be the newest."""

    repo: str
    commit: str
    folder: Path
    fetched: bool
    note: str = ""


def pulled(name: str, token: str | None = None) -> Path:
    """The folder of a model on the Hub, by "hf:ORG/NAME", ORG/NAME or either with @REVISION.

    Raises:
        UserError: as `pull`.
    """
    found = pull(name, token=token)
    if found.note:
        log.warning(found.note)
    return found.folder


def pull(name: str, out: Path | None = None, token: str | None = None) -> Pulled:
    """Fetch a model into the cache, or into a folder. What is here already is not fetched again.

    Without the Hub, the copy that was fetched last for this name is used, with a note.

    Args:
        name: ORG/NAME, with @REVISION for a branch, a tag or a commit.
        out: a folder that does not exist yet, or that holds an earlier pull of the same repository.
        token: for repositories that are not public; None: the machine's, if there is one.
    Raises:
        UserError: it is no name, the Hub cannot be reached, or it has no model that can be used.
    """
    from huggingface_hub import HfApi

    source = parse_repository(name)
    cached = cache_dir() / "hub" / source.repo.replace("/", "--")
    api = HfApi(token=token, library_name="iekd", library_version=__version__)
    try:
        info = api.model_info(source.repo, revision=source.revision, files_metadata=True)
    except Exception as error:
        why = error_sentence(error, source.repo)
        return _without_hub(source, cached, out, why, error)
    commit = str(info.sha)
    folder, fetched = cached / commit, False
    if not (folder / SOURCE).is_file():
        try:
            _fetch(api, source, info, folder)
        except OSError as error:
            raise HubError(f"{error_sentence(error, source.repo)} Nothing was fetched.") from None
        fetched = True
    _remember(cached, source.revision, commit)
    return Pulled(source.repo, commit, folder if out is None else _copy(folder, out, source.repo), fetched)


def _without_hub(source: Repository, cached: Path, out: Path | None, why: str, error: Exception) -> Pulled:
    """The copy that is here, where the Hub cannot be reached; where it has answered with a no, that stands.

    Raises:
        HubError: there is none.
    """
    commit = _remembered(cached, source.revision)
    status = status_of(error)
    unreachable = status is None or status >= 500 or status == 429
    if not unreachable or commit is None:
        nothing = " There is no copy of it on this machine." if unreachable else ""
        raise HubError(f"{why}{nothing}") from None
    note = f"{why} Using the copy of '{source}' that is on this machine, commit {commit}."
    folder = cached / commit
    return Pulled(source.repo, commit, folder if out is None else _copy(folder, out, source.repo), False, note)


def _fetch(api: Any, source: Repository, info: Any, folder: Path) -> None:
    """Download the files into `folder`, which appears whole or not at all."""
    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    if missing := [name for name in TAKEN if name not in files]:
        pickled = [name for name in files if name.endswith(PICKLES)]
        also = f" Files such as '{pickled[0]}' can run code when they are loaded and are not taken." if pickled else ""
        raise HubError(f"'{source}' has no model of iekd: {' and '.join(missing)} are missing.{also}")
    for name, most in TAKEN.items():
        size = files[name].size
        if size is not None and size > most:
            raise HubError(f"'{name}' of '{source}' has {size:,} bytes. A pull takes at most {most:,} of it.")
    make_cache_dir(folder.parent)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder.parent) as place:
        part = Path(place) / "model"
        part.mkdir()
        for name in TAKEN:
            try:
                got = api.hf_hub_download(source.repo, name, revision=info.sha, cache_dir=Path(place) / "parts")
                Path(got).resolve().rename(part / name)  # it is a link into the library's own store
            except Exception as error:
                raise HubError(f"{error_sentence(error, source.repo)} '{name}' was not fetched.") from None
            _check_sum(part / name, files[name], source)
        ModelCard.read(part)
        write_json(
            part / SOURCE, {"repo": source.repo, "revision": source.revision, "commit": info.sha, "from": api.endpoint}
        )
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)


def _check_sum(path: Path, sibling: Any, source: Repository) -> None:
    """Raises HubError if a file is not the one that the Hub described."""
    data = path.read_bytes()
    if sibling.lfs is not None:
        right = hashlib.sha256(data).hexdigest() == sibling.lfs.sha256
    else:
        right = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == (sibling.blob_id or "")
    if not right:
        raise HubError(f"'{path.name}' of '{source}' arrived damaged: its sum is another than the Hub's. Pull again.")


def _copy(folder: Path, out: Path, repo: str) -> Path:
    """A pulled model in a folder of the user's.

    Raises:
        HubError: something else is there, or it cannot be written.
    """
    out = Path(absolute(str(out)))
    part = out.with_name(f".{out.name}.part")
    try:
        if out.exists() and (any(out.iterdir()) if out.is_dir() else True) and _repo_of(out) != repo:
            raise HubError(f"'{out}' is there already and is no pull of '{repo}'. Give --out another folder.")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part)
        if out.is_dir():
            shutil.rmtree(out)
        part.rename(out)
    except OSError as error:
        raise HubError(f"'{out}' cannot be written ({error.strerror}). Give --out another folder.") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _repo_of(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / SOURCE).read_text())["repo"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _ref(cached: Path, revision: str | None) -> Path:
    return cached / "refs" / quote(revision or "newest", safe="")


def _remember(cached: Path, revision: str | None, commit: str) -> None:
    ref = _ref(cached, revision)
    with contextlib.suppress(OSError):  # a cache that cannot be written: then the Hub is needed next time, too
        ref.parent.mkdir(parents=True, exist_ok=True)
        write_json(ref, commit)


def _remembered(cached: Path, revision: str | None) -> str | None:
    """The commit that a name meant when it was pulled last, if its files are here."""
    try:
        commit = str(json.loads(_ref(cached, revision).read_text()))
    except (OSError, ValueError):
        commit = revision or ""
    return commit if commit and (cached / commit / SOURCE).is_file() else None
