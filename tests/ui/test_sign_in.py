"""Sessions and wrong tokens: what expires, what waits, and who is never kept out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from iekd.ui.rights import attempts
from iekd.ui.rights.access import COOKIE, HEADER, Access
from iekd.ui.rights.attempts import ALTOGETHER, LONGEST, PER_ADDRESS, Attempts, network_of
from iekd.ui.rights.sessions import SESSION, Sessions
from iekd.ui.server.front import Front
from iekd.ui.server.sign_in import sign_in_routes

TOKEN = "correct horse battery staple"
HOME, AWAY = "10.0.0.1", "203.0.113.7"


class Clock:
    """Time that passes when somebody waits, or when a test says so."""

    def __init__(self) -> None:
        self.now, self.waits = 1000.0, list[float]()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(clock: Clock) -> Access:
    return Access(token=TOKEN, sessions=Sessions(clock), attempts=Attempts(clock, clock.sleep))


def browser(access: Access, address: str = HOME, root: str = "", **headers: str) -> TestClient:
    """A browser at an address, before a page whose /who says whether it is the administrator's."""

    def who(request: Request) -> Response:
        return PlainTextResponse("admin" if access.is_admin(request) else "visitor")

    routes = [*sign_in_routes(access, root), Route("/who", who, methods=["GET", "POST"])]
    app = Front(Starlette(routes=routes), access, root if root.startswith("/") else "")
    return TestClient(app, client=(address, 5000), headers=headers, follow_redirects=False)


def sign_in(client: TestClient, token: str = TOKEN) -> Any:
    return client.post("/sign-in", data={"token": token})


# Sessions


def test_a_session_is_signed_and_says_nothing_about_the_token(access: Access) -> None:
    client = browser(access)
    assert client.get("/who").text == "visitor"
    answer = sign_in(client)
    assert (answer.status_code, answer.headers["location"]) == (303, "./?tab=train"), "where what was signed in for is"
    assert client.get("/who").text == "admin"
    cookie = client.cookies[COOKIE]
    session, expires, signature = cookie.split(".")
    forged = f"{session}.{int(expires) + SESSION}.{signature}"
    for wrong in (
        forged,
        f"{session}.{expires}.{'0' * 64}",
        f"{session}x.{expires}.{signature}",
        "",
        ".",
        "..",
        "é.ü.x",
    ):
        assert not access.sessions.is_valid(wrong), wrong
    assert access.sessions.is_valid(cookie)
    assert not Sessions().is_valid(cookie), "another server, or this one after a restart"
    sign_in(other := browser(access))
    assert other.cookies[COOKIE] != cookie


def test_a_session_expires(access: Access, clock: Clock) -> None:
    client = browser(access)
    answer = sign_in(client)
    assert f"Max-Age={SESSION}" in answer.headers["set-cookie"]
    cookie = {"cookie": f"{COOKIE}={client.cookies[COOKIE]}"}
    clock.now += SESSION - 1
    assert browser(access, **cookie).get("/who").text == "admin"
    clock.now += 2
    assert browser(access, **cookie).get("/who").text == "visitor"


def test_a_copy_of_the_cookie_is_worth_nothing_after_signing_out(access: Access) -> None:
    client, other = browser(access), browser(access)
    sign_in(client)
    sign_in(other)
    thief = browser(access, AWAY, cookie=f"{COOKIE}={client.cookies[COOKIE]}")
    assert thief.get("/who").text == "admin"
    assert client.get("/sign-out").status_code == 303
    assert not client.cookies
    assert thief.get("/who").text == "visitor"
    assert other.get("/who").text == "admin", "another session goes on"


def test_ended_sessions_are_forgotten_once_they_have_expired(clock: Clock, monkeypatch: Any) -> None:
    from iekd.ui.rights import sessions

    monkeypatch.setattr(sessions, "NEWEST", 5)
    made = Sessions(clock)
    for _ in range(20):
        cookie = made.begin()
        made.end(cookie)
        assert not made.is_valid(cookie)
        clock.now += SESSION / 3
    assert len(made._ended) <= 6


@pytest.mark.parametrize(
    ("headers", "root", "in_space", "has", "lacks"),
    [
        ({}, "", False, ["httponly", "samesite=lax", "path=/;"], ["secure", "partitioned"]),
        ({"x-forwarded-proto": "https"}, "", False, ["httponly", "samesite=lax", "secure"], ["partitioned"]),
        ({}, "https://example.com/studio", False, ["secure", "path=/studio;"], []),
        ({}, "/studio", False, ["path=/studio;"], ["secure"]),
        ({}, "", True, ["httponly", "samesite=none", "secure", "partitioned"], []),
    ],
)
def test_a_cookie_suits_where_the_page_is(
    headers: dict[str, str], root: str, in_space: bool, has: list[str], lacks: list[str]
) -> None:
    access = Access(token=TOKEN, in_space=in_space)
    client = browser(access, root=root, **headers)
    for answer in (sign_in(client), client.get("/sign-out")):  # a browser forgets a cookie by the same attributes only
        cookie = answer.headers["set-cookie"].lower() + ";"
        assert all(word in cookie for word in has), cookie
        assert not any(word in cookie for word in lacks), cookie


def test_a_page_of_another_site_cannot_use_the_cookie(access: Access) -> None:
    client = browser(access)
    sign_in(client)
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert client.post("/who", headers={"sec-fetch-site": site}).status_code == status, site
    assert client.get("/who", headers={"sec-fetch-site": "cross-site"}).text == "admin", "a link to the page"


def test_nor_that_of_who_is_logged_in_with_the_hub(access: Access) -> None:
    client = browser(access)
    client.cookies.set("session", "of Gradio's login")
    for site, status in (("cross-site", 403), ("same-origin", 200)):
        assert client.post("/who", headers={"sec-fetch-site": site}).status_code == status, site


# Wrong tokens


@pytest.mark.parametrize("how", ["form", "header"])
def test_thirty_wrong_tokens_in_a_row_take_minutes(access: Access, clock: Clock, how: str) -> None:
    client, start = browser(access, AWAY), clock.now
    for i in range(30):
        if how == "form":
            assert sign_in(client, f"guess {i}").status_code == 403
        else:
            assert client.get("/who", headers={HEADER: f"guess {i}"}).text == "visitor"
    assert clock.waits[0] < 1, "a slip of the hand"
    assert clock.waits[:5] == sorted(set(clock.waits[:5]))
    assert max(clock.waits) <= LONGEST, "and nobody waits for ever"
    assert clock.now - start > 120


def test_the_administrator_gets_in_at_once_from_the_address_of_the_attack(access: Access, clock: Clock) -> None:
    signed_in = browser(access)
    sign_in(signed_in)
    for i in range(40):
        sign_in(browser(access), f"guess {i}")
    waited = len(clock.waits)
    assert signed_in.get("/who").text == "admin"
    assert sign_in(browser(access)).status_code == 303
    assert browser(access, **{HEADER: TOKEN}).get("/who").text == "admin"
    assert len(clock.waits) == waited


def test_an_attack_from_many_addresses_is_slowed_down_and_another_address_is_hardly(
    access: Access, clock: Clock, monkeypatch: Any
) -> None:
    for i in range(400):
        sign_in(browser(access, f"198.51.{i // 250}.{i % 250}"), f"guess {i}")
    assert clock.waits[-1] > 1.5, "the first of its address, and it waits"
    assert sign_in(browser(access, HOME)).status_code == 303
    clock.now += 3600
    sign_in(browser(access, AWAY), "guess")
    assert clock.waits[-1] < 1, "forgiven"


def test_wrong_tokens_are_forgiven_with_time(access: Access, clock: Clock) -> None:
    for i in range(10):
        sign_in(browser(access), f"guess {i}")
    clock.now += 3600
    sign_in(browser(access), "guess")
    assert clock.waits[-1] < 1


def test_a_made_up_forwarding_header_is_no_new_address(access: Access, clock: Clock) -> None:
    for i in range(6):
        sign_in(browser(access, **{"x-forwarded-for": f"1.2.3.{i}"}), f"guess {i}")
    assert clock.waits[-1] == LONGEST


def test_in_a_space_the_address_is_the_last_that_its_proxy_has_seen(
    access: Access, clock: Clock, monkeypatch: Any
) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/space")
    for i in range(6):
        sign_in(browser(access, **{"x-forwarded-for": f"1.2.3.{i}, {AWAY}"}), f"guess {i}")
    assert clock.waits[-1] == LONGEST
    sign_in(browser(access, **{"x-forwarded-for": f"1.2.3.4, {HOME}"}), "guess")
    assert clock.waits[-1] < 1, "another visitor behind the same proxy"


def test_answers_that_wait_are_few_and_the_right_token_is_taken_meanwhile() -> None:
    """Many wrong tokens at once from one address, then from many; the answers that may wait all wait."""

    async def flood() -> None:
        release = asyncio.Event()

        async def sleep(seconds: float) -> None:
            await release.wait()

        counted = Attempts(sleep=sleep)
        one = [asyncio.create_task(counted.wait(AWAY)) for _ in range(50)]
        many = [asyncio.create_task(counted.wait(f"198.51.100.{i}")) for i in range(200)]
        await asyncio.sleep(0)
        refused = [task.result() for task in one if task.done()]
        assert len(refused) == 50 - PER_ADDRESS
        assert all(0 < again <= LONGEST for again in refused)
        assert sum(not task.done() for task in (*one, *many)) == ALTOGETHER
        release.set()
        assert await one[0] == 0
        await asyncio.gather(*one, *many)
        assert counted._waiting == {}

    asyncio.run(flood())


def test_too_many_at_once_are_told_when_to_try_again(access: Access, monkeypatch: Any) -> None:
    monkeypatch.setattr(attempts, "PER_ADDRESS", 0)
    for answer in (sign_in(browser(access), "guess"), browser(access).get("/who", headers={HEADER: "guess"})):
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert "Too many wrong tokens" in answer.text
    assert sign_in(browser(access)).status_code == 303
    assert browser(access).get("/who", headers={HEADER: TOKEN}).text == "admin"


def test_the_list_of_addresses_does_not_grow_for_ever(clock: Clock, monkeypatch: Any) -> None:
    monkeypatch.setattr(attempts, "ADDRESSES", 10)
    counted = Attempts(clock, clock.sleep)
    for i in range(50):
        asyncio.run(counted.wait(f"198.51.100.{i}"))
    assert len(counted._by_address) == 10


def test_a_household_is_one_address() -> None:
    assert network_of("2001:db8:1:2:3::1") == network_of("2001:db8:1:2:ffff::9") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:1.2.3.4") == network_of("1.2.3.4")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert network_of("testclient") == "testclient"
