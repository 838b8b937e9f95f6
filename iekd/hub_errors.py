"""What went wrong between us and the Hub, in one or two sentences."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from json import JSONDecodeError

from iekd.errors import UserError

TO_LOG_IN = "Run 'hf auth login', or set HF_TOKEN to a token {that} (https://huggingface.co/settings/tokens)."
LOG_IN = TO_LOG_IN.format(that="with write permission")
LOG_IN_TO_READ = TO_LOG_IN.format(that="that may read it")
TRANSPORTS = ("httpx", "httpx2", "httpcore", "requests", "urllib3")  # what versions of huggingface_hub speak through
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


class HubError(UserError):
    """The Hub refused, or could not be reached; the message says what was and was not done."""


def error_sentence(error: BaseException, repo: str, writes: bool = False) -> str:
    """Why a request about a repository failed, and what to do about it, as whole sentences.

    writes: whether it is to be changed, which needs another token than reading it.

    Raises:
        BaseException: `error` itself, where it has nothing to do with the Hub.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    for cause in _causes(error):
        if isinstance(cause, OfflineModeIsEnabled):
            return "The Hub is switched off by HF_HUB_OFFLINE=1. Unset it and try again."
        if isinstance(cause, HfHubHTTPError) and getattr(cause, "response", None) is not None:
            return _of_status(cause, repo, writes)
        if type(cause).__module__.partition(".")[0] in TRANSPORTS or isinstance(cause, (ConnectionError, TimeoutError)):
            return f"The Hub cannot be reached, or the connection was cut ({_line(cause)}). Check the network."
    if isinstance(error, (LocalEntryNotFoundError, JSONDecodeError)):
        return f"The Hub's answer cannot be understood ({_line(error)}). Try again later, or check HF_ENDPOINT."
    if isinstance(error, OSError) and error.errno in DISK:
        return f"A file cannot be written on this machine ({error.strerror}). Free some space, or check its rights."
    if isinstance(error, (ValueError, RuntimeError, OSError)):  # what huggingface_hub raises for everything else
        return f"The Hub refused: {_line(error)}."
    raise error


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error stands for; None if there was no answer."""
    for cause in _causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _of_status(error: BaseException, repo: str, writes: bool) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status, response = status_of(error), error.response  # type: ignore[attr-defined]
    log_in = LOG_IN if writes else LOG_IN_TO_READ
    if isinstance(error, GatedRepoError):
        return f"Access to '{repo}' has to be requested on its page on the Hub, and needs a token. {log_in}"
    if isinstance(error, RevisionNotFoundError):
        return f"'{repo}' has no such revision. Its page lists branches, tags and commits."
    if isinstance(error, RepositoryNotFoundError):  # also the status 401: what whoever has no token gets for any name
        return (
            f"There is no '{repo}' on the Hub that may be read from here. Check the name; if it is private, log in "
            "('hf auth login', or HF_TOKEN)."
        )
    said = getattr(error, "server_message", None) or response.headers.get("x-error-message") or ""
    said = f" ({' '.join(said.split()).rstrip('.')})" if said else ""
    if status == 401:
        return f"The Hub does not accept the token, or '{repo}' cannot be read without one{said}. {log_in}"
    if status == 403:
        that = "with write permission there" if writes else "that may read it"
        return f"The token may not do this with '{repo}'{said}. Use one {that}, or another name."
    if status in (409, 412):
        return f"'{repo}' was changed by somebody else in the meantime{said}. Look at it, then try again."
    if status == 413:
        return f"The Hub refuses this because it is too large{said}."
    if status == 429:
        wait = response.headers.get("retry-after", "")
        when = f"in {wait} seconds" if wait.isdigit() else "later"
        return f"The Hub got too many requests from here. Try again {when}."
    if status is not None and status >= 500:
        return f"The Hub has an error of its own (status {status}). Try again later; see https://status.huggingface.co."
    return f"The Hub refused with status {status}{said}."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from, innermost last."""
    while error is not None:
        yield error
        error = error.__cause__


def _line(error: BaseException) -> str:
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return (text or type(error).__name__).rstrip(".:")[:300]
