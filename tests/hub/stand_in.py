"""A stand-in for the Hugging Face Hub on 127.0.0.1: repositories in memory, for the requests of huggingface_hub.

Written after huggingface_hub's own code (hf_api, _commit_api, lfs, file_download): create, repo info, validate-yaml,
preupload, LFS batch, upload and verify, commit, resolve with HEAD and GET. `fail` makes it answer otherwise.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LFS = (".safetensors", ".png", ".onnx", ".bin")  # what the real one stores apart from git


def git_sum(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """commits: (sha, title, files), oldest first; the first is the Hub's own."""

    kind: str
    private: bool
    sdk: str | None = None
    commits: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)
    gated: bool = False

    def add(self, title: str, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(f"{title}{len(self.commits)}{self.kind}".encode()).hexdigest()
        self.commits.append((sha, title, files))
        return sha

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][2]

    @property
    def head(self) -> str:
        return self.commits[-1][0]


class Hub:
    """The state of the stand-in. tokens: token -> organisations that it may write to; None: a read token."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.tokens: dict[str, tuple[str, ...]] = {"hf_writer": ("ann",), "hf_reader": ()}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str]] = []  # (method, path, token)
        self.agents: list[str] = []
        self.failures: list[dict] = []
        self.swapped: dict[str, bytes] = {}  # sent instead of what a file holds
        self.lock, self.closed = threading.Lock(), False
        hub = self

        class Handler(_Handler):
            state = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.closed = True  # connections that are open get no answer any more
        self.server.shutdown()
        self.server.server_close()

    def fail(self, part: str, status: int = 0, *, method: str = "", headers=None, text="", times=99, how="") -> None:
        """Requests whose path has `part` get `status`; how: "cut" ends the connection in the middle of the answer,
        "after" does what was asked first and then ends it; "gone" answers nothing more after that; "change" commits
        something else before."""
        self.failures.append(
            {"part": part, "status": status, "method": method, "headers": headers or {}, "text": text, "times": times,
             "how": how}
        )  # fmt: skip

    def asked(self, part: str, method: str = "") -> int:
        return sum(part in path and method in ("", m) for m, path, _ in self.requests)

    def repo(self, name: str, kind: str = "model") -> Repo:
        return self.repos[kind, name]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def log_message(self, *_) -> None:
        pass

    def handle_any(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if self.headers.get("transfer-encoding") == "chunked":
            self.body = self._chunks()
        else:
            self.body = self.rfile.read(length)
        self.path_only = unquote(urlsplit(self.path).path)
        self.token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        hub, after = self.state, False
        self.close_connection = self.close_connection or hub.closed
        if hub.closed:
            return
        with hub.lock:
            hub.requests.append((self.command, self.path_only, self.token))
            hub.agents.append(self.headers.get("user-agent", ""))
            for failure in list(hub.failures):
                if failure["part"] in self.path_only and failure["method"] in ("", self.command) and failure["times"]:
                    failure["times"] -= 1
                    if failure["how"] == "cut":
                        return self._cut()
                    if failure["how"] == "change":
                        next(iter(hub.repos.values())).add("somebody else's", {"other.txt": b"1"})
                        continue
                    if failure["how"] in ("after", "gone"):
                        after = True
                        if failure["how"] == "gone":
                            hub.fail("/api/", 500)
                        continue
                    return self._refuse(failure["status"], failure["text"], **failure["headers"])
            self.silent = after
            self._route()
            if after:
                self._cut()

    do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815 - http.server's names

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    silent = False

    def _cut(self) -> None:
        """An answer that ends before it is complete."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
        self.wfile.flush()
        self.close_connection = True

    def _say(self, status: int, value=None, headers=None, data: bytes | None = None) -> None:
        if self.silent:
            return
        content = json.dumps(value).encode() if data is None else data
        self.send_response(status)
        headers = {"content-length": str(len(content)), "content-type": "application/json", **(headers or {})}
        for name, text in headers.items():
            if text:
                self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: int, said: str, **headers: str) -> None:
        headers = {name.replace("_", "-"): text for name, text in headers.items()}
        self._say(status, {"error": said}, {"x-error-message": said, **headers})

    def _missing(self, code: str = "RepoNotFound") -> None:
        # the real Hub says 401 to whoever has no token, lest names of private repositories are known
        status = 401 if code == "RepoNotFound" and not self.token else 404
        self._say(
            status, {"error": "Repository not found"}, {"x-error-code": code, "x-error-message": "Repository not found"}
        )

    def _may_write(self, name: str) -> bool:
        if self.token not in self.state.tokens:
            self._say(
                401, {"error": "Invalid username or password."}, {"x-error-message": "Invalid username or password."}
            )
            return False
        if name.split("/", maxsplit=1)[0] not in self.state.tokens[self.token]:
            self._refuse(403, "You don't have the rights to create a model under this namespace")
            return False
        return True

    def _route(self) -> None:
        path, hub = self.path_only, self.state
        if path == "/api/repos/create":
            return self._create(json.loads(self.body))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(self.body))
        if path.endswith("/objects/batch"):
            return self._batch(json.loads(self.body))
        if path.startswith("/lfs/"):
            hub.objects[path.removeprefix("/lfs/")] = self.body
            return self._say(200, {})
        if path == "/verify":
            asked = json.loads(self.body)
            return self._say(200 if len(hub.objects.get(asked["oid"], b"")) == asked["size"] else 404, {})
        if path.startswith("/api/"):
            kind, org, name, *rest = path.removeprefix("/api/").split("/")
            return self._api(kind.removesuffix("s"), f"{org}/{name}", rest)
        if "/resolve/" in path:
            return self._resolve(path)
        return self._say(404, {"error": f"unknown request {self.command} {path}"})

    def _create(self, asked: dict) -> None:
        name, kind = f"{asked['organization']}/{asked['name']}", asked.get("type", "model")
        if not self._may_write(name):
            return None
        if (kind, name) in self.state.repos:
            return self._say(
                409, {"error": "You already created this repo"}, {"x-error-message": "You already created this repo"}
            )
        private = asked.get("private") or asked.get("visibility") == "private"
        made = Repo(kind, bool(private), asked.get("sdk"))
        made.add("initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.state.repos[kind, name] = made
        return self._say(200, {"url": f"{self.state.address}/{name}", "name": name})

    def _validate(self, asked: dict) -> None:
        import yaml

        head = asked["content"].split("---\n")[1]
        values = yaml.safe_load(head)
        if values.get("license") not in (None, "mit", "apache-2.0", "cc-by-4.0", "other"):
            return self._say(
                400, {"errors": [{"message": '"license" must be one of [apache-2.0, mit, ...]'}], "warnings": []}
            )
        return self._say(200, {"errors": [], "warnings": []})

    def _found(self, kind: str, name: str) -> Repo | None:
        if self.token and self.token not in self.state.tokens:
            self._refuse(401, "Invalid credentials in Authorization header")
            return None
        found = self.state.repos.get((kind, name))
        if found is None or (
            found.private and name.split("/", maxsplit=1)[0] not in self.state.tokens.get(self.token, ())
        ):
            self._missing()
            return None
        if found.gated:
            self._refuse(403, "gated", x_error_code="GatedRepo")
            return None
        return found

    def _api(self, kind: str, name: str, rest: list[str]) -> None:
        repo = self._found(kind, name)
        if repo is None:
            return None
        if not rest or rest[0] == "revision":
            return self._info(kind, name, repo, rest[1] if rest else "main")
        if not self._may_write(name):
            return None
        if rest[0] == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LFS) else "regular",
                 "shouldIgnore": False, "oid": self._oid(repo, f["path"])}
                for f in json.loads(self.body)["files"]
            ]  # fmt: skip
            return self._say(200, {"files": files})
        if rest[0] == "commit":
            return self._commit(repo, name)
        return self._say(404, {"error": f"unknown request {self.path_only}"})

    @staticmethod
    def _oid(repo: Repo, path: str) -> str | None:
        if path not in repo.files:
            return None
        data = repo.files[path]
        return hashlib.sha256(data).hexdigest() if path.endswith(LFS) else git_sum(data)

    def _at(self, repo: Repo, revision: str) -> tuple[str, str, dict[str, bytes]] | None:
        if revision == "main":
            return repo.commits[-1]
        return next((commit for commit in repo.commits if commit[0] == revision or commit[1] == revision), None)

    def _info(self, kind: str, name: str, repo: Repo, revision: str) -> None:
        commit = self._at(repo, revision)
        if commit is None:
            return self._refuse(404, "no", x_error_code="RevisionNotFound")
        siblings = []
        for path, data in commit[2].items():
            one = {"rfilename": path, "size": len(data), "blobId": git_sum(data)}
            if path.endswith(LFS):
                one["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(one)
        return self._say(
            200,
            {"id": name, "sha": commit[0], "private": repo.private, "siblings": siblings, "tags": [], "downloads": 0,
             "likes": 0, "createdAt": "2026-01-01T00:00:00.000Z", "lastModified": "2026-01-01T00:00:00.000Z"},
        )  # fmt: skip

    def _batch(self, asked: dict) -> None:
        objects = []
        for one in asked["objects"]:
            if one["oid"] not in self.state.objects:
                one["actions"] = {
                    "upload": {"href": f"{self.state.address}/lfs/{one['oid']}"},
                    "verify": {"href": f"{self.state.address}/verify"},
                }
            objects.append(one)
        return self._say(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repo: Repo, name: str) -> None:
        rows = [json.loads(line) for line in self.body.splitlines()]
        files = dict(repo.files)
        head = next(row["value"] for row in rows if row["key"] == "header")
        if head.get("parentCommit") not in (None, repo.head):
            return self._refuse(412, "A commit has happened since. Please refresh and try again.")
        counted = Counter(row["key"] for row in rows)
        assert counted["header"] == 1
        for row in rows:
            value = row["value"]
            if row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                if value["oid"] not in self.state.objects:
                    return self._say(400, {"error": "LFS pointer pointed to a file that does not exist"})
                files[value["path"]] = self.state.objects[value["oid"]]
            elif row["key"] == "deletedFile":
                del files[value["path"]]
        sha = repo.add(head["summary"], files)
        return self._say(200, {"commitUrl": f"{self.state.address}/{name}/commit/{sha}", "commitOid": sha})

    def _resolve(self, path: str) -> None:
        before, _, after = path.partition("/resolve/")
        words = before.strip("/").split("/")
        kind = words[0].removesuffix("s") if len(words) == 3 else "model"
        repo = self._found(kind, "/".join(words[-2:]))
        if repo is None:
            return None
        revision, _, name = after.partition("/")
        commit = self._at(repo, revision)
        if commit is None:
            return self._refuse(404, "no", x_error_code="RevisionNotFound")
        if name not in commit[2]:
            return self._refuse(404, "no", x_error_code="EntryNotFound", x_repo_commit=commit[0])
        data = commit[2][name]
        sent = self.state.swapped.get(name, data)
        sums = hashlib.sha256(data).hexdigest() if name.endswith(LFS) else git_sum(data)
        return self._say(200, None, {"etag": f'"{sums}"', "x-repo-commit": commit[0]}, sent)
