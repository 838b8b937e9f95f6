"""A stand-in for the Hugging Face Hub on 127.0.0.1 that has datasets: what the library `datasets` asks to read them.

Written after what datasets 5.2 and huggingface_hub 2.4 request: repository info, tree, and files with ranges.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40


class DatasetsHub:
    """repos: "ORG/NAME" -> path -> content; one commit each. gated: those that nobody may read."""

    def __init__(self, repos: dict[str, dict[str, bytes]], gated: tuple[str, ...] = ()) -> None:
        hub = self

        class Handler(_Handler):
            state = hub

        self.repos, self.gated = repos, gated
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: DatasetsHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        for repo, files in self.state.repos.items():
            api, files_at = f"/api/datasets/{repo}", f"/datasets/{repo}/resolve/"
            if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
                return self.answer(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": []}).encode())
            if path.startswith((f"{api}/revision/", f"{api}/paths-info")):
                return self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
            if path.startswith(f"{api}/tree/{COMMIT}"):
                return self.tree(files, path.removeprefix(f"{api}/tree/{COMMIT}").strip("/"))
            if path.startswith(files_at):
                if repo in self.state.gated:
                    return self.answer(403, b"{}", X_Error_Code="GatedRepo")
                return self.file(files.get(path.removeprefix(files_at).partition("/")[2]))
        return self.answer(401, b"{}", X_Error_Code="RepoNotFound")

    do_HEAD = do_POST = do_GET  # noqa: N815

    def tree(self, files: dict[str, bytes], folder: str) -> None:
        start = f"{folder}/" if folder else ""
        inside = [path for path in files if path.startswith(start)]
        listed: list[dict[str, object]] = [
            {"type": "file", "path": path, "size": len(files[path]), "oid": hashlib.sha1(files[path]).hexdigest()}
            for path in inside
            if "/" not in path[len(start) :]
        ]
        folders = {start + path[len(start) :].partition("/")[0] for path in inside if "/" in path[len(start) :]}
        listed += [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)]
        if listed:
            self.answer(200, json.dumps(listed).encode())
        else:
            self.answer(404, b"{}", X_Error_Code="EntryNotFound")

    def file(self, content: bytes | None) -> None:
        if content is None:
            return self.answer(404, b"", X_Error_Code="EntryNotFound")
        about = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        if not wanted or self.command == "HEAD":
            return self.answer(200, content, **about)
        first, _, last = wanted.partition("-")
        end = min(int(last) + 1, len(content)) if last else len(content)
        about["Content_Range"] = f"bytes {first}-{end - 1}/{len(content)}"
        return self.answer(206, content[int(first) : end], **about)
