"""The pages that turn the administrator's token into a session, and end the session."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from iekd.ui.server.access import COOKIE, SIGN_IN, SIGN_OUT, Access, address_of
from iekd.ui.server.front import path_of, too_many
from iekd.ui.server.sessions import SESSION, same

SIGN_IN_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Sign in: IE-KD Studio</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body { font: 16px system-ui, sans-serif; max-width: 26rem; margin: 12vh auto; padding: 0 16px; color: #1e293b }
input, button { font: inherit; padding: 8px 12px; border-radius: 8px; border: 1px solid #94a3b8; width: 100%;
box-sizing: border-box; margin-top: 8px } button { background: #0f766e; color: white; border: 0 }
p[role=alert] { color: #b91c1c }
@media (prefers-color-scheme: dark) { body { background: #0f172a; color: #e2e8f0 } }
</style>
<h1>Sign in</h1><p>Whoever has the administrator’s token may start, stop and delete runs on this page.</p>{wrong}
<form method="post"><label>Token <input type="password" name="token" autofocus autocomplete="current-password"></label>
<button>Sign in</button></form></html>"""
WRONG = "<p role='alert'>This is not the token. Look for IEKD_ADMIN_TOKEN where the page was started.</p>"


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
        wrong = ""
        if request.method == "POST":
            given = (await request.form()).get("token", "")
            if isinstance(given, str) and same(given.strip(), access.token):
                answer = RedirectResponse("./?tab=train", status_code=303)
                set_cookie(request, answer, access.sessions.begin(), SESSION)
                return answer
            if again := await access.attempts.wait(address_of(request)):
                return too_many(again)
            wrong = WRONG
        page = SIGN_IN_PAGE.replace("{wrong}", wrong)
        return HTMLResponse(page, status_code=403 if wrong else 200, headers={"cache-control": "no-store"})

    async def sign_out(request: Request) -> Response:
        access.sessions.end(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("./", status_code=303)
        set_cookie(request, answer, "", 0)
        return answer

    return [Route(SIGN_IN, sign_in, methods=["GET", "POST"]), Route(SIGN_OUT, sign_out)]
