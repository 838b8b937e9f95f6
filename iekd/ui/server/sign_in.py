"""The pages that turn the administrator's token into a session, and end the session."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from iekd.language import language
from iekd.ui.render.template import render
from iekd.ui.rights.access import COOKIE, SIGN_IN, SIGN_OUT, Access, address_of
from iekd.ui.rights.sessions import SESSION, same
from iekd.ui.server.front import path_of, too_many


def sign_in_routes(access: Access, root: str = "") -> list[Route]:
    """Signing in and out; back to the page where there is no token to give.

    root: the root path of the page, a path or a whole address; cookies are for that path only.
    """

    def set_cookie(request: Request, answer: Response, value: str, seconds: int) -> None:
        https = root.startswith("https:") or "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
        answer.set_cookie(
            COOKIE, value, max_age=seconds, path=path_of(root) or "/", httponly=True, secure=https or access.in_space,
            samesite="none" if access.in_space else "lax",
        )  # fmt: skip
        if access.in_space:  # the frame of another site: browsers keep cookies there if they belong to that frame alone
            name, cookie = answer.raw_headers[-1]
            answer.raw_headers[-1] = name, cookie + b"; Partitioned"

    async def sign_in(request: Request) -> Response:
        if not access.token:
            return RedirectResponse("./", status_code=303)
        wrong = False
        if request.method == "POST":
            given = (await request.form()).get("token", "")
            if isinstance(given, str) and same(given.strip(), access.token):
                answer = RedirectResponse("./?tab=train", status_code=303)
                set_cookie(request, answer, access.sessions.begin(), SESSION)
                return answer
            if again := await access.attempts.wait(address_of(request)):
                return too_many(again)
            wrong = True
        page = render("sign_in", wrong=wrong, language=language())
        return HTMLResponse(page, status_code=403 if wrong else 200, headers={"cache-control": "no-store"})

    async def sign_out(request: Request) -> Response:
        access.sessions.end(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("./", status_code=303)
        set_cookie(request, answer, "", 0)
        return answer

    return [Route(SIGN_IN, sign_in, methods=["GET", "POST"]), Route(SIGN_OUT, sign_out)]
