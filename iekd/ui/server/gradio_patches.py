"""Keeps an open page from taking the processor that trains.

Gradio's loading indicator goes on asking for 60 frames a second after it has left the page. Without a GPU to draw them
that costs more than everything else an open page does, and learners in lock-step all wait for the one it slows. So
frames are given freely while someone points, types or scrolls, and once a second while the page is only watched: curves
and progress do not need them. The script has to run before Gradio's own; `launch(head=...)` comes too late for that.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FEW_FRAMES = b"""<script>(() => {
  const native = window.requestAnimationFrame.bind(window);
  let waiting = new Map(), last = 0, asked = false, timer = 0, awakeUntil = 5000;
  const draw = (time) => {
    const now = waiting;
    waiting = new Map();
    asked = false;
    now.forEach((callback) => callback(time));
  };
  const ask = () => {
    clearTimeout(timer);
    timer = 0;
    native(draw);
  };
  window.requestAnimationFrame = (callback) => {
    waiting.set(++last, callback);
    if (!asked) {
      asked = true;
      if (performance.now() < awakeUntil) ask(); else timer = setTimeout(ask, 1000);
    }
    return last;
  };
  window.cancelAnimationFrame = (id) => { waiting.delete(id); };
  const wake = () => {
    awakeUntil = performance.now() + 2000;
    if (timer) ask();
  };
  for (const kind of ['pointermove', 'pointerdown', 'keydown', 'wheel', 'scroll', 'touchmove', 'resize'])
    window.addEventListener(kind, wake, {capture: true, passive: true});
})()</script>"""


class FewFrames:
    """ASGI middleware that puts `FEW_FRAMES` first in the head of the page."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def add(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            body = body.replace(b"<head>", b"<head>" + FEW_FRAMES, 1)
            MutableHeaders(raw=start["headers"])["content-length"] = str(len(body))
            await send(start)
            await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, add)
