"""Wrong tokens are answered more and more slowly, by address and over all.

The right token and a valid session never wait, also while somebody guesses from the same address or from thousands of
others: nobody can lock out the administrator. The price is that whoever does not wait for answers can still guess as
fast as the server refuses, so a token has to be long; launch.py warns about a short one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

FIRST, LONGEST = 0.5, 8.0  # seconds that the first wrong token of an address waits; each further one twice as long
PER_ADDRESS, ALTOGETHER = 10, 100  # answers that may wait at a time; further ones are refused at once
FORGIVE = 60.0  # seconds after which one wrong token of an address is forgotten
USUAL = 30.0  # wrong tokens of all addresses that slow down nobody else,
FORGIVE_ALL = 2.0  # one of which is forgotten after so many seconds;
PER_FURTHER, LONGEST_ALL = 0.1, 4.0  # each further one makes every wrong token wait longer
ADDRESSES = 10_000  # the newest addresses whose wrong tokens are counted


class Attempts:
    """The wrong tokens of one server."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._by_address: OrderedDict[str, tuple[float, float]] = OrderedDict()  # count and the time it was taken
        self._all = (0.0, clock())
        self._waiting: dict[str, int] = {}

    async def wait(self, address: str) -> float:
        """Count a wrong token and wait before it is answered.

        Args:
            address: of whoever sent it.
        Returns:
            0 after the wait; or, at once, the seconds after which to try again, if too many answers wait already.
        """
        address = network_of(address)
        delay = self._delay(address)
        if self._waiting.get(address, 0) >= PER_ADDRESS or sum(self._waiting.values()) >= ALTOGETHER:
            return delay
        self._waiting[address] = self._waiting.get(address, 0) + 1
        try:
            await self._sleep(delay)
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]
        return 0.0

    def _delay(self, address: str) -> float:
        now = self._clock()
        count, since = self._by_address.pop(address, (0.0, now))
        count = max(0.0, count - (now - since) / FORGIVE) + 1
        self._by_address[address] = count, now
        if len(self._by_address) > ADDRESSES:
            self._by_address.popitem(last=False)
        everybody = max(0.0, self._all[0] - (now - self._all[1]) / FORGIVE_ALL) + 1
        self._all = everybody, now
        of_address = min(LONGEST, FIRST * 2 ** min(count - 1, 16.0))
        return max(of_address, min(LONGEST_ALL, PER_FURTHER * (everybody - USUAL)))


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the first 64 bits, which a household has all of."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
