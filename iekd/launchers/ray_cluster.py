"""A Ray cluster as its dashboard shows it over HTTP: jobs are started, looked up and stopped, and nodes are listed.

Ray's own client of that interface waits for a head node that is gone for as long as the system does, which a page must
not; and this one needs no Ray here. Ray's documentation calls it the Ray Jobs REST API, and the State API for nodes.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from iekd.errors import RunError

PORT = 8265  # of the dashboard
TIMEOUT, SUBMITTING = 5.0, 30.0  # seconds for one answer; to a new job
FINDING = 60.0  # seconds to find the cluster of this machine
OVER = ("STOPPED", "SUCCEEDED", "FAILED")  # states of a job; in all others it lives, also in ones of later versions
DENIED = (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)
AUTO = "auto"
TOKEN = "RAY_AUTH_TOKEN"
FIND = "from ray.dashboard.utils import get_address_for_submission_client as find; print(find('auto'))"


class UnreachableError(RunError):
    """Nothing, or nothing that can be used, came back; what happens in the cluster is unknown."""


@dataclass(frozen=True)
class Cluster:
    """address: of the dashboard, as in "http://10.0.0.5:8265"."""

    address: str

    def submit(self, job: str, command: str, environment: Mapping[str, str]) -> None:
        """Have a shell command executed on the head node.

        Raises:
            RunError: the cluster refuses it.
            UnreachableError: it may have been started or not.
        """
        body = {"submission_id": job, "entrypoint": command, "runtime_env": {"env_vars": dict(environment)}}
        status, answer = self._ask("POST", "/api/jobs/", body, SUBMITTING)
        if status in DENIED:
            raise self._no_use(status, answer)
        if status != http.HTTPStatus.OK:
            raise RunError(f"The Ray cluster at {self.address} did not take the run: {_last_line(answer).rstrip('.')}.")

    def ended(self, job: str) -> float | None:
        """When a job ended, in seconds since 1970 by the clock of the head node; None for one that waits or runs, and 0
        if the cluster knows none of that name. Raises UnreachableError."""
        status, answer = self._ask("GET", f"/api/jobs/{job}")
        if status == http.HTTPStatus.OK and isinstance(answer, dict) and isinstance(answer.get("status"), str):
            return float(answer.get("end_time") or 0) / 1000 if answer["status"] in OVER else None
        if status == http.HTTPStatus.NOT_FOUND and job in str(answer):
            return 0.0
        raise self._no_use(status, answer)

    def stop(self, job: str) -> None:
        """End a job's command, by a signal first and by force soon after. Raises UnreachableError."""
        status, answer = self._ask("POST", f"/api/jobs/{job}/stop")
        if status not in (http.HTTPStatus.OK, http.HTTPStatus.NOT_FOUND):
            raise self._no_use(status, answer)

    def nodes(self) -> list[dict[str, float]]:
        """What each living node has in all, such as {"CPU": 8.0, "GPU": 1.0}. Raises UnreachableError."""
        status, answer = self._ask("GET", "/api/v0/nodes?detail=1&limit=10000")
        try:
            found = answer["data"]["result"]["result"]
            return [dict(node.get("resources_total") or {}) for node in found if node["state"] == "ALIVE"]
        except (KeyError, TypeError):
            raise self._no_use(status, answer) from None

    def _ask(self, method: str, path: str, body: object = None, timeout: float = TIMEOUT) -> tuple[int, Any]:
        """(HTTP status, the answer: JSON, or text where it is none)."""
        headers = {"Content-Type": "application/json"}
        if token := os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        try:
            try:
                with urllib.request.urlopen(request, timeout=timeout) as answer:
                    status, content = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, content = error.code, error.read()
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", error)
            raise UnreachableError(f"The Ray cluster at {self.address} does not answer ({why}).") from None
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content.decode(errors="replace")

    def _no_use(self, status: int, answer: object) -> UnreachableError:
        if status in DENIED:
            return UnreachableError(
                f"The Ray cluster at {self.address} wants a token. Set the environment variable {TOKEN}."
            )
        return UnreachableError(
            f"What answers at {self.address} is no dashboard of Ray, or one with an error (status {status}: "
            f"{_last_line(answer)})."
        )


def _last_line(answer: object) -> str:
    """The telling line of an answer that may be a traceback."""
    return (str(answer).strip().splitlines() or ["no text"])[-1][:300]


def as_url(address: str) -> str:
    """HOST, HOST:PORT or a URL -> the address of a dashboard.

    Raises:
        RunError: it is none of them.
    """
    url = address if "://" in address else f"http://{address}"
    try:
        found = urlsplit(url)
        fine = found.scheme in ("http", "https") and found.hostname and found.path in ("", "/") and not found.query
        port = found.port
    except ValueError:
        fine, port = False, None
    if not fine:
        raise RunError(
            f"The address '{address}' cannot be used. Give HOST:PORT of the cluster's dashboard, such as "
            f"10.0.0.5:{PORT}, or {AUTO}."
        )
    return f"{found.scheme}://{found.netloc}" + ("" if port else f":{PORT}")


def find_cluster() -> str:
    """The dashboard of the cluster that this machine belongs to, or that Ray's own environment variables name.

    Raises:
        RunError: there is none, or Ray is not installed.
    """
    if named := os.environ.get("RAY_API_SERVER_ADDRESS"):
        return as_url(named)
    if importlib.util.find_spec("ray") is None:
        raise RunError(
            "Ray is not installed, so its cluster cannot be found. Install it with pip install 'iekd[ray]', or give "
            "--address HOST:PORT of the cluster's dashboard."
        )
    try:  # in a process of its own: Ray would end this one if the cluster went away
        done = subprocess.run(
            [sys.executable, "-c", FIND], capture_output=True, text=True, timeout=FINDING, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        found = done.stdout.split() if done.returncode == 0 else []
    except subprocess.TimeoutExpired:
        found = []
    if not found or "://" not in found[-1]:
        raise RunError(
            "No Ray cluster was found on this machine. Start one with 'ray start --head', or give --address HOST:PORT "
            "of a cluster's dashboard."
        )
    return found[-1].rstrip("/")
