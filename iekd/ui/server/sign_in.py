"""The pages that turn the administrator's token into a cookie, and take the cookie away."""

from __future__ import annotations

import asyncio
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from iekd.ui.server.access import COOKIE, SIGN_IN, SIGN_OUT, Access, same

PATIENCE = 1.0  # seconds that a wrong token costs
SIGN_IN_PAGE = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Sign in: {escape("IE-KD Studio")}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ font: 16px system-ui, sans-serif; max-width: 26rem; margin: 12vh auto; padding: 0 16px; color: #1e293b }}
input, button {{ font: inherit; padding: 8px 12px; border-radius: 8px; border: 1px solid #94a3b8; width: 100%;
box-sizing: border-box; margin-top: 8px }} button {{ background: #0f766e; color: white; border: 0 }}
p[role=alert] {{ color: #b91c1c }}
@media (prefers-color-scheme: dark) {{ body {{ background: #0f172a; color: #e2e8f0 }} }}
</style>
<h1>Sign in</h1><p>Whoever has the administrator’s token may start, stop and delete runs on this page.</p>{{wrong}}
<form method="post"><label>Token <input type="password" name="token" autofocus autocomplete="current-password"></label>
<button>Sign in</button></form></html>"""


def sign_in_routes(access: Access) -> list[Route]:
    """Signing in and out; back to the page where there is no token to give."""

    async def sign_in(request: Request) -> Response:
        if not access.token:
            return RedirectResponse("./", status_code=303)
        wrong = ""
        if request.method == "POST":
            given = str((await request.form()).get("token", ""))
            if same(given.strip(), access.token):
                answer = RedirectResponse("./", status_code=303)
                secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
                answer.set_cookie(COOKIE, access.cookie, httponly=True, samesite="strict", secure=secure)
                return answer
            await asyncio.sleep(PATIENCE)
            wrong = "<p role='alert'>This is not the token. Look for IEKD_ADMIN_TOKEN where the page was started.</p>"
        return HTMLResponse(SIGN_IN_PAGE.replace("{wrong}", wrong), status_code=403 if wrong else 200)

    async def sign_out(request: Request) -> Response:
        answer = RedirectResponse("./", status_code=303)
        answer.delete_cookie(COOKIE)
        return answer

    return [Route(SIGN_IN, sign_in, methods=["GET", "POST"]), Route(SIGN_OUT, sign_out)]
