"""A stand-in for what Hugging Face Jobs and buckets answer, on 127.0.0.1, for the requests of huggingface_hub.

Written after huggingface_hub's own code (hf_api, _jobs_api, _buckets). A bucket is a folder. A job is a process of this
machine that executes the command it was started with, where /iekd is that folder of the bucket; the shell's `uv` does
nothing, because everything is installed already. Contents travel past the library's Xet, which is a program of its own
that speaks no HTTP of the Hub's: `Xet` takes its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

OVER = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
FLAVORS = [  # name, title, GPU, micro-dollars a minute
    ("cpu-basic", "CPU Basic", None, 167),
    ("t4-small", "Nvidia T4 - small", "T4", 6667),
    ("a10g-small", "Nvidia A10G - small", "A10G", 16667),
]


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Job:
    """process: None for one that does nothing. stage: what the Hub says of it, unless its process has ended."""

    def __init__(self, number: int, spec: dict, namespace: str) -> None:
        self.id, self.spec, self.namespace = f"job{number}", spec, namespace
        self.stage, self.message, self.created = "SCHEDULING", None, now()
        self.started = self.finished = None
        self.process: subprocess.Popen | None = None
        self.said = [f"line {i} of the job's own log" for i in range(3)]

    def end(self, stage: str, message: str | None = None) -> None:
        self.stage, self.message, self.finished = stage, message, now()

    def look(self) -> None:
        if self.process is not None and self.stage == "RUNNING" and (code := self.process.poll()) is not None:
            self.end("ERROR" if code else "COMPLETED", f"exit status {code}" if code else None)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def to_json(self) -> dict:
        self.look()
        spec = self.spec
        return {
            "id": self.id, "createdAt": self.created, "startedAt": self.started, "finishedAt": self.finished,
            "dockerImage": spec.get("dockerImage"), "spaceId": spec.get("spaceId"), "command": spec["command"],
            "arguments": [], "environment": spec["environment"], "secrets": spec.get("secrets", {}),
            "flavor": spec["flavor"], "labels": spec.get("labels"), "volumes": spec.get("volumes"),
            "status": {"stage": self.stage, "message": self.message},
            "owner": {"id": "1", "name": self.namespace, "type": "user"},
        }  # fmt: skip


class JobsHub:
    """idle: jobs execute nothing. held: they wait for a machine until `release`. down: nobody is answered."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tokens = {"hf_ann": "ann", "hf_bob": "bob"}
        self.refusals: dict[str, tuple[int, str]] = {}  # part of a path -> status and what is said
        self.public: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.jobs: list[Job] = []
        self.requests: list[tuple[str, str]] = []
        self.idle = self.held = self.down = False
        self.lock = threading.RLock()
        programs = root / "bin"
        programs.mkdir()
        for name, does in (("python", f'exec {sys.executable} "$@"'), ("uv", ":")):
            (programs / name).write_text(f"#!/bin/sh\n{does}\n")
            (programs / name).chmod(0o755)
        hub = self

        class Handler(_Handler):
            state = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        for job in self.jobs:
            job.kill()
        self.server.shutdown()
        self.server.server_close()

    def bucket(self, name: str) -> Path:
        return self.root / "buckets" / name

    def release(self) -> None:
        self.held = False
        for job in self.jobs:
            self.run(job)

    def run(self, job: Job) -> None:
        if self.held or job.stage != "SCHEDULING":
            return
        job.stage, job.started = "RUNNING", now()
        if self.idle:
            return
        (volume,) = job.spec["volumes"]
        mount = self.bucket(volume["source"]) / volume["path"]
        assert mount.is_dir(), "a folder that is not there cannot be mounted"
        program = self.root / f"program-{job.id}"
        line = (
            job.spec["command"][2]
            .replace("/tmp/iekd-program", str(program))
            .replace(" --began", " --every 0.1 --began")
        )
        line = re.sub(rf"(?<![\w-]){volume['mountPath']}(?=[/ ])", str(mount), line)
        kept = {name: text for name, text in os.environ.items() if name.startswith(("IEKD_", "OMP_", "TMP"))}
        programs = self.root / "bin"
        job.process = subprocess.Popen(
            [*job.spec["command"][:2], line],
            env={**kept, "PATH": f"{programs}:/usr/bin:/bin", "HOME": str(self.root), **job.spec["environment"]},
            stdout=subprocess.DEVNULL, stderr=(self.root / f"{job.id}.err").open("wb"), start_new_session=True,
        )  # fmt: skip


class Xet:
    """In the place of hf_xet's session: contents by their sum, in the stand-in's memory."""

    def __init__(self, hub: JobsHub) -> None:
        self.hub = hub

    def __enter__(self) -> Xet:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def new_upload_commit(self, **_: object) -> Xet:
        return self

    new_file_download_group = new_upload_commit

    def start_upload_file(self, path: str, **_: object) -> SimpleNamespace:
        return self.start_upload_bytes(Path(path).read_bytes())

    def start_upload_bytes(self, data: bytes, **_: object) -> SimpleNamespace:
        name = hashlib.sha256(data).hexdigest()
        self.hub.objects[name] = data
        found = SimpleNamespace(xet_info=SimpleNamespace(hash=name, file_size=len(data)))
        return SimpleNamespace(result=lambda: found)

    def start_download_file(self, info: object, target: str) -> None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_bytes(self.hub.objects[info.hash])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: JobsHub

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length") or 0))
        hub, path = self.state, unquote(urlsplit(self.path).path)
        if hub.down:
            self.close_connection = True
            return
        hub.requests.append((self.command, path))
        user = hub.tokens.get((self.headers.get("authorization") or "").removeprefix("Bearer "))
        refused = next((answer for part, answer in hub.refusals.items() if part in f"{self.command} {path}"), None)
        with hub.lock:
            if refused is not None:
                self._refuse(*refused)
            elif user is None:
                self._refuse(401, "Invalid username or password.")
            else:
                self._route(path, user)

    do_GET = do_POST = do_HEAD = handle_any  # noqa: N815 - http.server's names

    def _say(self, value: object = None, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        content = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        headers = {"content-length": str(len(content)), "content-type": kind, **headers}
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: int, said: str, **more: str) -> None:
        self._say({"error": said, **more}, status, x_error_message=said)

    def _route(self, path: str, user: str) -> None:
        words = path.strip("/").split("/")
        if path == "/api/whoami-v2":
            return self._say({"name": user, "type": "user", "orgs": []})
        if path == "/api/jobs/hardware":
            return self._say(list(self._hardware()))
        if words[0] == "buckets" or words[:2] == ["api", "buckets"]:
            at = 1 if words[0] == "buckets" else 2
            if words[at] != user:
                return self._refuse(403, "This bucket is not yours.")
            return self._bucket("/".join(words[at : at + 2]), words[at + 2 :])
        if words[:2] == ["api", "jobs"]:
            if words[2] != user:
                return self._refuse(403, "These jobs are not yours.")
            return self._jobs(user, words[3:])
        return self._refuse(404, f"unknown request {self.command} {path}")

    def _hardware(self) -> Iterator[dict]:
        for name, title, model, price in FLAVORS:
            gpu = {"type": "gpu", "model": model, "quantity": "1", "vram": "16 GB", "manufacturer": "Nvidia"}
            yield {
                "name": name, "prettyName": title, "cpu": "2 vCPU", "ram": "16 GB", "unitLabel": "minute",
                "accelerator": gpu if model else None, "unitCostMicroUSD": price, "unitCostUSD": price / 1e6,
            }  # fmt: skip

    def _jobs(self, user: str, rest: list[str]) -> None:
        hub = self.state
        if not rest:
            if self.command == "GET":
                return self._say([job.to_json() for job in reversed(hub.jobs) if job.namespace == user])
            job = Job(len(hub.jobs) + 1, json.loads(self.body), user)
            hub.jobs.append(job)
            hub.run(job)
            return self._say(job.to_json())
        job = next((one for one in hub.jobs if one.id == rest[0] and one.namespace == user), None)
        if job is None or job.stage == "DELETED":
            return self._refuse(404, "Job not found")
        if rest[1:] == ["cancel"]:
            job.look()
            if job.stage not in OVER:
                job.kill()
                job.end("CANCELED")
            return self._say(job.to_json())
        if rest[1:] == ["logs"]:
            events = [f"data: {json.dumps({'data': line, 'timestamp': job.created})}\n\n" for line in job.said]
            return self._say("".join(events), kind="text/event-stream")
        return self._say(job.to_json())

    def _bucket(self, name: str, rest: list[str]) -> None:
        hub, folder = self.state, self.state.bucket(name)
        if not rest and self.command == "POST":
            if folder.is_dir():
                return self._refuse(409, "You already created this bucket", url=f"{hub.address}/buckets/{name}")
            folder.mkdir(parents=True)
            if json.loads(self.body).get("visibility") != "private" and not json.loads(self.body).get("private"):
                hub.public.add(name)
            return self._say({"url": f"{hub.address}/buckets/{name}"})
        if not folder.is_dir():
            return self._refuse(404, "Bucket not found")
        if not rest:
            about = {"id": name, "private": name not in hub.public, "createdAt": now(), "size": 0, "totalFiles": 0}
            return self._say(about)
        if rest[0] == "tree" and not (folder / "/".join(rest[1:])).exists():
            return self._refuse(404, "Path not found")
        if rest[0] == "tree":
            return self._say([self._about(folder, path) for path in sorted((folder / "/".join(rest[1:])).rglob("*"))
                              if path.is_file()])  # fmt: skip
        if rest[0] == "batch":
            for line in self.body.splitlines():
                self._change(folder, json.loads(line))
            return self._say({"success": True})
        if rest[0] == "resolve":
            about = self._about(folder, folder / "/".join(rest[1:]))
            return self._say(
                "", x_xet_hash=about["xetHash"], x_xet_refresh_route=f"{hub.address}/refresh",
                x_linked_size=str(about["size"]),
            )  # fmt: skip
        return self._refuse(404, f"unknown request {self.command} of a bucket")

    def _about(self, folder: Path, path: Path) -> dict:
        data = path.read_bytes()
        name = hashlib.sha256(data).hexdigest()
        self.state.objects[name] = data
        return {"type": "file", "path": path.relative_to(folder).as_posix(), "size": len(data), "xetHash": name}

    def _change(self, folder: Path, asked: dict) -> None:
        target = folder / asked["path"]
        if asked["type"] == "deleteFile":
            target.unlink()
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.uploading")
        part.write_bytes(self.state.objects[asked["xetHash"]])
        shutil.move(part, target)
