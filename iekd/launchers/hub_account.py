"""The Hugging Face Hub as one token sees it: its bucket for runs, and its jobs. Every error is a sentence.

Only calls of huggingface_hub. The token is kept in memory, and is in no file, log or message of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from iekd import __version__
from iekd.hub_errors import LOG_IN, HubError, error_sentence, status_of
from iekd.launchers.flavors import Flavor, flavors_of

BUCKET = "iekd-runs"  # of a user or an organisation
SETTINGS = "https://huggingface.co/settings"
OVER = ("COMPLETED", "CANCELED", "ERROR", "DELETED")  # stages of a job that has ended
Answer = TypeVar("Answer")


class Account:
    """namespace: the user or organisation that pays and owns the bucket; "" for the token's user."""

    def __init__(self, token: str, namespace: str = "") -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()  # they would be drawn across ours
        self.api = HfApi(token=token, library_name="iekd", library_version=__version__)
        self._namespace = namespace

    @property
    def namespace(self) -> str:
        if not self._namespace:
            self._namespace = str(self._ask(lambda: self.api.whoami()["name"]))
        return self._namespace

    @property
    def bucket(self) -> str:
        return f"{self.namespace}/{BUCKET}"

    def flavors(self) -> list[Flavor]:
        return flavors_of(self._ask(self.api.list_jobs_hardware))

    def make_bucket(self) -> str:
        """The bucket for runs; made private if there is none.

        Raises:
            HubError: it cannot be made, or everybody can read it.
        """
        bucket = self.bucket

        def make() -> bool:
            self.api.create_bucket(bucket, private=True, exist_ok=True)
            return bool(self.api.bucket_info(bucket).private)

        if not self._ask(make, bucket):
            raise HubError(
                f"The bucket '{bucket}' is public. Make it private on its page on the Hub; runs and pictures are not "
                "sent to a public one."
            )
        return bucket

    def send(self, bucket: str, files: Iterable[tuple[Path | bytes, str]]) -> None:
        listed: list[tuple[str | Path | bytes, str]] = list(files)
        self._ask(lambda: self.api.batch_bucket_files(bucket, add=listed), bucket)

    def forget(self, bucket: str, names: Sequence[str]) -> None:
        """Delete files."""
        if names:
            self._ask(lambda: self.api.batch_bucket_files(bucket, delete=list(names)), bucket)

    def files(self, bucket: str, folder: str) -> list[Any]:
        """A BucketFile for each file below a folder; none if there is no such folder."""
        try:
            found = self._ask(lambda: list(self.api.list_bucket_tree(bucket, prefix=folder, recursive=True)), bucket)
        except HubError as error:
            if status_of(error) == 404:
                return []
            raise
        return [one for one in found if one.type == "file" and one.path.startswith(f"{folder}/")]

    def fetch(self, bucket: str, files: Sequence[tuple[Any, Path]]) -> None:
        """Download BucketFiles."""
        if files:
            self._ask(lambda: self.api.download_bucket_files(bucket, list(files)), bucket)

    def start(
        self, image: str, command: str, flavor: str, seconds: float, labels: dict[str, str], bucket: str, folder: str,
        mount: str,
    ) -> Any:  # fmt: skip
        """A JobInfo. command: for a shell; folder: of the bucket, to be mounted at `mount`."""
        from huggingface_hub import Volume

        volume = Volume(type="bucket", source=bucket, mount_path=mount, path=folder, read_only=False)
        return self._ask(
            lambda: self.api.run_job(
                image=image, command=["sh", "-c", command], env={"PYTHONUNBUFFERED": "1"}, flavor=flavor,
                timeout=int(seconds), labels=labels, volumes=[volume], namespace=self.namespace,
            ),
            doing="start jobs",
        )  # fmt: skip

    def job(self, job_id: str) -> Any | None:
        """The JobInfo, or None if the Hub knows no such job."""
        try:
            return self._ask(lambda: self.api.inspect_job(job_id=job_id, namespace=self.namespace), doing="see jobs")
        except HubError as error:
            if status_of(error) == 404:
                return None
            raise

    def job_labelled(self, run_id: str) -> Any | None:
        """The newest job that was started for a run."""
        found = self._ask(lambda: list(self.api.list_jobs(namespace=self.namespace)), doing="see jobs")
        return next((one for one in found if (getattr(one, "labels", None) or {}).get("iekd-run") == run_id), None)

    def cancel(self, job_id: str) -> None:
        self._ask(lambda: self.api.cancel_job(job_id=job_id, namespace=self.namespace), doing="cancel jobs")

    def log_of(self, job_id: str, lines: int) -> str:
        """The end of what the job itself wrote, such as why nothing could be installed; "" if it cannot be had."""
        try:
            found = list(self.api.fetch_job_logs(job_id=job_id, namespace=self.namespace))
        except Exception:  # only for information
            return ""
        return "\n".join(found[-lines:])

    def _ask(self, question: Callable[[], Answer], repo: str = "", doing: str = "") -> Answer:
        try:
            return question()
        except ImportError as error:  # Xet's package is left out on some systems
            raise HubError(f"Buckets of the Hub need the package hf-xet ({error}). Run 'pip install hf-xet'.") from None
        except Exception as error:
            raise HubError(self._why(error, repo, doing)) from error  # whose status can be asked for

    def _why(self, error: Exception, repo: str, doing: str) -> str:
        status = status_of(error)
        said = " ".join(str(getattr(error, "server_message", None) or "").split()).rstrip(".")
        said = f" ({said})" if said else ""
        who = self._namespace or "this user"
        if status == 402:
            return f"The Hub wants to be paid for this{said}. Add credit for {who} at {SETTINGS}/billing."
        if status == 401:
            return f"The Hub does not accept the token{said}. {LOG_IN}"
        if status == 403 and doing:
            return f"The token may not {doing} for {who}{said}. Make one that may, at {SETTINGS}/tokens."
        if status == 404 and doing:
            return f"The Hub knows no such job, or no jobs of {who}{said}."
        return error_sentence(error, repo or who, writes=True)
