"""Who may do what on a page that others can open: an administrator's token, and the limits of a public page.

Without either, as on one's own machine, everybody may do everything. With `IEKD_ADMIN_TOKEN` set, whoever starts,
stops, resumes, moves or deletes a run has to give it. A public page (`--public`, or a Hugging Face Space) lets nobody
start runs, unless `IEKD_PUBLIC_TRAINING=1` allows small ones. Looking at runs and comparing are always open.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Protocol

from iekd import data
from iekd.config.run import RunConfig, check_maps
from iekd.config.values import words_of
from iekd.data.archives import Room
from iekd.errors import UserError
from iekd.estimate.cost import plan_of, seconds
from iekd.models import hub_configs
from iekd.models.source import PRETRAINED, is_path
from iekd.plural import counted
from iekd.runs.prepare import ROLES
from iekd.runs.slots import device_name
from iekd.runs.status import LIVE, QUEUED
from iekd.runs.store import Run, Store
from iekd.runs.teachers import find_teacher
from iekd.runs.uploads import is_added
from iekd.space import in_space
from iekd.ui.rights.attempts import Attempts
from iekd.ui.rights.sessions import Sessions, same

log = logging.getLogger(__name__)
COOKIE, HEADER = "iekd_admin", "x-iekd-token"
DAY = 24 * 3600.0
SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
PUBLISH = "publish"
LOOPBACK = ("127.0.0.1", "::1", "[::1]", "localhost")
PROXIED = ("x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded", "via")
MOST_UPLOAD, MOST_OWN_UPLOAD = 64 * 2**20, 2**30  # bytes of one request that uploads files: a stranger's, one's own
UPLOADS = 2 * 2**30  # bytes of all images that visitors have uploaded to learn from


class Asker(Protocol):
    """What is needed of a request, Gradio's or Starlette's."""

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def cookies(self) -> Mapping[str, str]: ...
    @property
    def client(self) -> Any: ...


May = Callable[[Run, str], bool]  # whether somebody may do that with a run


def _words(given: Mapping[str, object], field: str) -> list[str]:
    """What the raw value of a setting names: a list, or a text, parted as a run does; without what is empty."""
    value = given.get(field)
    words = value if isinstance(value, (list, tuple)) else words_of(field, str(value or ""))
    return [word for word in (str(word or "").strip() for word in words) if word]


class AccessError(UserError):
    """Somebody asked for what they may not do; the message says what would let them."""


@dataclass(frozen=True)
class Limits:
    """Of what a visitor of a public page may start. epochs: of teacher, auto-encoder and students each; images: that
    are learned from; students: methods x seeds; minutes: by a guess from the arithmetic; megabytes: of memory, for
    networks and batches; queue: runs that wait; runs: per visitor and day."""

    epochs: int = 10
    images: int = 10_000
    students: int = 4
    minutes: int = 30
    megabytes: int = 4000
    queue: int = 5
    runs: int = 5

    @classmethod
    def parse(cls, text: str) -> Limits:
        """ "epochs=20,runs=2" -> Limits; the rest as it is.

        Raises:
            UserError: an unknown name, or no whole number.
        """
        names = [field.name for field in fields(cls)]
        given = {}
        for word in filter(None, text.replace(" ", "").split(",")):
            name, _, value = word.partition("=")
            if name not in names or not value.isdigit():
                raise UserError(
                    f"'{word}' in IEKD_PUBLIC_LIMITS cannot be used. Write {', '.join(f'{n}=10' for n in names)}."
                )
            given[name] = int(value)
        return cls(**given)


@dataclass(frozen=True)
class Access:
    """The rules of one page.

    in_space: it is a Hugging Face Space, which shows it in a frame of another site.
    """

    token: str = ""
    public: bool = False
    training: bool = False
    limits: Limits = Limits()
    in_space: bool = field(default=False, compare=False)
    sessions: Sessions = field(default_factory=Sessions, compare=False, repr=False)
    attempts: Attempts = field(default_factory=Attempts, compare=False, repr=False)

    @classmethod
    def from_environment(cls, public: bool = False) -> Access:
        """Raises UserError for limits that cannot be read."""
        return cls(
            token=os.environ.get("IEKD_ADMIN_TOKEN", "").strip(),
            public=public or in_space(),
            training=os.environ.get("IEKD_PUBLIC_TRAINING") == "1",
            limits=Limits.parse(os.environ.get("IEKD_PUBLIC_LIMITS", "")),
            in_space=in_space(),
        )

    @property
    def visitors_start(self) -> bool:
        """Whether strangers may start small runs."""
        return self.public and self.training

    @property
    def everybody_starts(self) -> bool:
        """Whether the page need not speak of access at its Start button."""
        return self.visitors_start or not (self.token or self.public)

    @property
    def anybody_starts(self) -> bool:
        """Whether there is anybody who may start a run from the page."""
        return bool(self.token) or self.everybody_starts

    def is_admin(self, asker: Asker | None) -> bool:
        """Whether a request carries the token, as a program's header, or the cookie of somebody who is signed in."""
        if not self.token or asker is None:
            return False
        given = asker.headers.get(HEADER) or ""
        return same(given, self.token) or self.sessions.is_valid(asker.cookies.get(COOKIE) or "")

    def trusts(self, asker: Asker | None) -> bool:
        """Whether somebody may do everything here: name files of the machine, or keep it busy for an estimate."""
        return self.is_admin(asker) or (not self.public and not self.token)

    def is_own_user(self, asker: Asker | None) -> bool:
        """Whether somebody may use what belongs to this machine's user, such as the token for the Hub: whoever is
        signed in, or sits at the machine. A request that came through a proxy, or by another name than the machine's
        own, may be anybody's."""
        if self.is_admin(asker):
            return True
        if asker is None or not self.trusts(asker) or any(name in asker.headers for name in PROXIED):
            return False
        host = asker.headers.get("host", "").rpartition(":")[0] or asker.headers.get("host", "")
        return host in LOOPBACK and str(getattr(asker.client, "host", "")) in LOOPBACK

    def may_start(self, asker: Asker | None) -> bool:
        """Whether somebody may start runs at all."""
        return self.trusts(asker) or self.visitors_start

    def most_upload(self, asker: Asker) -> int:
        """Bytes of one request that uploads files."""
        return MOST_OWN_UPLOAD if self.trusts(asker) else MOST_UPLOAD

    def check_start(self, asker: Asker | None, config: RunConfig, store: Store) -> str:
        """Whether a run may be started; what the run is to remember of who did.

        Raises:
            AccessError: it may not.
        """
        with _logged("start", "", asker):
            return self._check_start(asker, config, store)

    def _check_start(self, asker: Asker | None, config: RunConfig, store: Store) -> str:
        self.check_paths(asker, config.model_dump(), store)
        if self.trusts(asker):
            return ""
        if not self.visitors_start:
            raise AccessError(self._no("Starting runs is switched off on this page"))
        self.check_size(asker, config, store)
        visitor = _visitor(asker, store)
        runs = store.list()
        waiting = sum(run.status.state == QUEUED for run in runs)
        if waiting >= self.limits.queue:
            raise AccessError(
                f"{counted(waiting, 'run is', 'runs are')} waiting already. Try again when some have finished."
            )
        today = [run for run in runs if time.time() - run.created < DAY and started_by(run) == visitor]
        if len(today) >= self.limits.runs:
            raise AccessError(
                f"You have started {counted(len(today), 'run')} today, which is as many as a visitor may. "
                "Install the program to train as much as you like."
            )
        return visitor

    def check_paths(self, asker: Asker | None, given: Mapping[str, object], store: Store) -> None:
        """Whether these raw values of settings may be looked at; to be asked before anything of them touches the disk
        or the network.

        Raises:
            AccessError: they name a folder or a file of this machine, or a network on the Hub, which is read with this
                machine's token, and whoever asks is a stranger to it.
        """
        if self.trusts(asker):
            return
        name = str(given.get("dataset") or "").strip()
        if data.own_path(name) is not None and not is_added(store, name):
            raise AccessError(self._no("Folders of this machine cannot be used"))
        if not data.for_guests(name):
            raise AccessError(self._no("Datasets that this machine would have to download cannot be used"))
        networks = [word for role in (*ROLES, "more_teachers") for word in _words(given, role)]
        from_where = ("teacher_from", "more_teachers_from", "student_from")
        sources = [word for field in from_where for word in _words(given, field)]
        names = _words(given, "class_order")
        if str(given.get("unlabelled") or "").strip():
            raise AccessError(self._no("Folders of this machine cannot be used"))
        if any(map(is_path, sources)) or (len(names) == 1 and names[0] != data.AS_TEXT):
            raise AccessError(self._no("Files of this machine cannot be used"))
        if PRETRAINED in sources:
            raise AccessError(self._no("Pretrained weights, which this machine would have to download, cannot be used"))
        if any(map(hub_configs.is_one, [*networks, *sources])):
            raise AccessError(self._no("Networks of the Hub cannot be used"))

    def room_for(self, asker: Asker | None) -> tuple[Room, int | None]:
        """What somebody may upload to learn from: an archive, and all archives together in bytes; None for no limit.

        Raises:
            AccessError: they may not upload.
        """
        with _logged("upload", "", asker):
            if self.trusts(asker):
                return Room(), None
            if not self.may_start(asker):
                raise AccessError(self._no("Uploading images to learn from is switched off on this page"))
            return Room(2 * self.limits.images, 1000, 4 * MOST_UPLOAD), UPLOADS

    def may(self, asker: Asker | None, run: Run, what: str) -> bool:
        """Whether a button that would do `what` is worth showing: start, stop, resume, move, delete, download or
        publish.

        Or, for "paths", whether somebody may read the paths of the machine's files.
        """
        if what == PUBLISH:  # in a Space everybody brings a token of their own
            return self.may(asker, run, "download") and (self.in_space or self.is_own_user(asker))
        if self.trusts(asker) or (what == "start" and self.may_start(asker)):
            return True
        if not (self.visitors_start and what in ("stop", "download")):
            return False
        return started_by(run) == _visitor(asker, Store(run.path.parent))

    def of(self, asker: Asker | None) -> May:
        """`may` for one who asks."""
        return partial(self.may, asker)

    def check_change(self, asker: Asker | None, run: Run, what: str) -> None:
        """Whether a run may be stopped, resumed, moved or deleted, or its networks downloaded; `what` is said in the
        message.

        Raises:
            AccessError: it may not. On a public page a visitor may stop and download what they started.
        """
        with _logged(what, run.id, asker):
            if not self.may(asker, run, what):
                if what == PUBLISH and self.trusts(asker):
                    raise AccessError(
                        "Only whoever sits at this machine may publish with its token. Open the page there, at "
                        "http://127.0.0.1, or run 'iekd push' there."
                    )
                raise AccessError(self._no(f"You may not {what} this run"))

    def _no(self, what: str) -> str:
        if self.token:
            return f"{what} without the administrator's token. Give it at the address {SIGN_IN} of this page."
        return f"{what}, which is public. Install the program to run it on your own machine."

    def check_size(self, asker: Asker | None, config: RunConfig, store: Store) -> None:
        """Whether a run is small enough for whoever asks, where strangers may train.

        Raises:
            AccessError: it is not; the message names the setting.
            UserError: its networks cannot be used with its methods.
        """
        if self.trusts(asker) or not self.visitors_start:
            return
        limits = self.limits
        trains_teacher = config.needs_teacher and find_teacher(config, store.root) is None
        info = data.describe(config.dataset, config.test_fraction)
        images = config.limit_train or info.train_images
        students = len(config.methods) * len(config.seeds)
        check_maps(config)  # without the maps that its methods compare, a network has no plan
        plan = plan_of(config, info, not trains_teacher)
        minutes = math.ceil(seconds(plan, device_name(config.device)) / 60)
        for name, value, most in (
            ("epochs", config.epochs, limits.epochs),
            ("teacher epochs", config.teacher_epochs * trains_teacher, limits.epochs),
            ("auto-encoder epochs", config.auto_encoder_epochs * config.needs_auto_encoder, limits.epochs),
            ("training images", images, limits.images),
            ("students", students, limits.students), ("minutes", minutes, limits.minutes),
            ("megabytes of memory", math.ceil(plan.memory / 1e6), limits.megabytes),
        ):  # fmt: skip
            if value > most:
                raise AccessError(
                    f"{value:,} {name} are more than the {most:,} that this public page allows. "
                    "Make it less, or install the program."
                )


@contextlib.contextmanager
def _logged(action: str, run_id: str, asker: Asker | None) -> Iterator[None]:
    """A line about what somebody asked for, and whether it was refused."""
    where = f"action={action} run={run_id or '-'} from={address_of(asker)}"
    try:
        yield
    except AccessError as error:
        log.warning("%s allowed=no reason=%r", where, str(error))
        raise
    log.info("%s allowed=yes", where)


def started_by(run: Run) -> str:
    """The visitor who started a run; empty if it was not one."""
    try:
        return (run.path / "visitor").read_text()
    except OSError:
        return ""


def counts(store: Store) -> dict[str, int]:
    """How many runs are going and waiting."""
    states = [run.status.state for run in store.list()]
    return {"queued": states.count(QUEUED), "running": sum(state in LIVE for state in states) - states.count(QUEUED)}


def address_of(asker: Asker | None) -> str:
    """Whose request it is. In a Space it is the last address that the Space's proxy has seen; elsewhere the server has
    already followed the proxies named in IEKD_TRUSTED_PROXIES, and believes nobody else's X-Forwarded-For."""
    if asker is None:
        return "-"
    forwarded = asker.headers.get("x-forwarded-for", "") if in_space() else ""
    return forwarded.rsplit(",", 1)[-1].strip() or str(getattr(asker.client, "host", "-"))


def _visitor(asker: Asker | None, store: Store) -> str:
    """A visitor's address, made unreadable."""
    if asker is None:
        return "unknown"
    return hashlib.sha256(f"{store.root} {address_of(asker)}".encode()).hexdigest()[:16]
