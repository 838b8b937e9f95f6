"""Who is signed in: a signed cookie that expires, and that is refused after its owner has signed out.

The secret that signs is made when the server starts and is never written anywhere. So a restart ends all sessions, and
a new token is never opened by a cookie that belongs to an old one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

SESSION = 24 * 3600  # seconds from signing in until the cookie expires
NEWEST = 1000  # the list of ended sessions is cleaned up when it gets this long


class Sessions:
    """The sessions of one server. A cookie is ID.EXPIRES.SIGNATURE."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._ended: dict[str, int] = {}  # sessions that were signed out, with the time when they would have expired

    def begin(self) -> str:
        """The cookie of a new session."""
        content = f"{secrets.token_urlsafe(16)}.{int(self._clock()) + SESSION}"
        return f"{content}.{self._signature(content)}"

    def is_valid(self, cookie: str) -> bool:
        """Whether this server gave out the cookie, it has not expired and nobody has signed out with it."""
        content, _, signature = cookie.rpartition(".")
        if not same(signature, self._signature(content)):
            return False
        session, _, expires = content.partition(".")
        return int(expires) > self._clock() and session not in self._ended

    def end(self, cookie: str) -> None:
        """Sign out: the cookie is refused from now on, copies of it too."""
        if not self.is_valid(cookie):
            return
        if len(self._ended) >= NEWEST:
            now = self._clock()
            self._ended = {session: expires for session, expires in self._ended.items() if expires > now}
        session, expires, _ = cookie.split(".")
        self._ended[session] = int(expires)

    def _signature(self, content: str) -> str:
        return hmac.new(self._secret, content.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def same(one: str, other: str) -> bool:
    """Compare secrets in a time that does not depend on how much of them is right."""
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode("utf-8", "surrogateescape"))
