"""What a Ray cluster's dashboard answers, on a loopback address."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Dashboard:
    """jobs: name -> what was submitted, with its "status". nodes: what each has."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict] = {}
        self.nodes, self.asked, outer = [{"CPU": 4.0}], [], self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(None)

            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.answer(json.loads(text) if text else {})

            def answer(self, body) -> None:
                outer.asked.append((self.path, self.headers.get("Authorization")))
                status, found = outer.found(self.path, body)
                if not status:  # the connection breaks
                    return
                content = json.dumps(found).encode() if status == 200 else str(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def found(self, path, body):
        words = path.partition("?")[0].strip("/").split("/")
        if words[:3] == ["api", "v0", "nodes"]:
            listed = [{"state": "ALIVE", "resources_total": node} for node in self.nodes]
            return 200, {"data": {"result": {"result": [*listed, {"state": "DEAD", "resources_total": {"CPU": 99}}]}}}
        if len(words) == 2:
            self.jobs[body["submission_id"]] = {**body, "status": "PENDING"}
            return 200, {"submission_id": body["submission_id"]}
        if words[2] not in self.jobs:
            return 404, f"Job {words[2]} does not exist"
        if words[-1] == "stop":
            self.jobs[words[2]]["status"] = "STOPPED"
        return 200, self.jobs[words[2]]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
