# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What the steps of a transaction hand to each other, and small questions that several ask."""

from __future__ import annotations

import contextlib
import os
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    hiding,
    ledger as ledger_module,
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import (
    Host,
    HostError,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import (
    CONFIG_FILE,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.runs import new_id
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_accounts import (
    SUBID_FILES,
    Accounts,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_daemon import (
    Daemon,
    Identity,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_journal import (
    Journal,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_ownership import (
    Ownership,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import (
    Operation,
    Plan,
)

Json = dict[str, typing.Any]


class Skipped(typing.NamedTuple):
    """A step that had nothing to do, and why."""

    detail: str


class Target:
    """A file that the plan gives a content, or takes away."""

    def __init__(
        self, path: str, old: tuple[bytes, files.Meta] | None, content: bytes | None
    ) -> None:
        self.path = path
        self.old = old
        self.content = content
        #: owner and group by name, and mode; None: as it is, or root's with 0644
        self.owner: str | None = None
        self.group: str | None = None
        self.mode: int | None = None
        #: metadata to restore as they were (a before-image that is put back)
        self.restored: files.Meta | None = None
        self.staged: str | None = None

    @property
    def old_content(self) -> bytes | None:
        """What is there now; None when absent."""
        return self.old[0] if self.old else None

    def meta(self, accounts: Accounts) -> files.Meta:
        """Return the metadata that the new file gets.

        :raises HostError: there is no such owner or group.
        """
        if self.restored is not None:
            return self.restored
        base = self.old[1] if self.old else files.Meta(0o644, 0, 0, 0, 0, {})
        uid = base.uid if self.owner is None else accounts.uid(self.owner)
        gid = base.gid if self.group is None else accounts.gid(self.group)
        if uid is None or gid is None:
            raise HostError(
                "%s: there is no %s on this host"
                % (
                    self.path,
                    "user " + str(self.owner) if uid is None else "group " + str(self.group),
                )
            )
        mode = base.mode if self.mode is None else self.mode
        return base._replace(mode=mode, uid=uid, gid=gid)

    def differs(self, accounts: Accounts) -> bool:
        """Tell whether there is anything to change."""
        if self.content != self.old_content:
            return True
        if self.old is None:
            return False
        try:
            meta = self.meta(accounts)
        except HostError:  # an owner that this very plan creates
            return True
        now = self.old[1]
        return (meta.mode, meta.uid, meta.gid) != (now.mode, now.uid, now.gid)


class Profile(typing.NamedTuple):
    """An AppArmor profile that the kernel is to follow the file of; see apparmor.follow.

    ``compiled``: the path of what the kernel held before it was ours; ``theirs``: somebody put another
    policy in its place, so that the kernel is left alone; ``unloaded``: its file is not to be loaded.
    """

    name: str
    compiled: str | None = None
    theirs: bool = False
    unloaded: bool = False


class SelinuxChange:
    """What a plan changes of SELinux; see transaction_selinux.

    ``modules``: texts by name, None to remove. ``relabel``: directories to label as the policy has
    them, and ``left``: those that the daemon leaves by this. ``former``: what paths were labelled
    like, and ``before``: what booleans were, until now.
    """

    def __init__(self) -> None:
        self.modules: dict[str, bytes | None] = {}
        self.booleans: dict[str, bool] = {}
        self.relabel: list[str] = []
        self.left: list[str] = []
        self.enforcing = False
        self.former: dict[str, str | None] = {}
        self.before: dict[str, bool | None] = {}

    def __bool__(self) -> bool:
        return bool(self.modules or self.booleans or self.relabel or self.left or self.enforcing)


class Transaction:
    """One run of the steps, and what they hand to each other."""

    def __init__(
        self,
        host: Host,
        plan: Plan,
        stack: contextlib.ExitStack,
        check_mode: bool,
        health_timeout: float,
        daemon_timeout: float,
    ) -> None:
        self.host = host
        self.plan = plan
        self.stack = stack
        self.check_mode = check_mode
        self.health_timeout = health_timeout
        self.daemon_timeout = daemon_timeout
        self.id = new_id(host.now())
        #: the command that undoes at boot what a loss of power leaves
        self.boot: list[str] | None = None
        #: files of the API's TLS that the new look has to see even where the daemon does not use them
        self.tls_files: dict[str, str] = {}
        self.accounts = Accounts(host)
        self.rows: list[Json] = []
        self.journal: Journal | None = None
        self.changed = False
        self.recovered = False
        self.restarted = False
        #: whether daemon.json is the one that only adds live-restore
        self.bridged = False
        #: the id of the transaction that this one undoes
        self.undoes: str | None = None
        # what the precheck finds out
        self.before: Json = {}
        self.ledger: Json = ledger_module.empty_ledger()
        self.ownership = Ownership({})
        self.config = Target(CONFIG_FILE, None, None)
        self.old_document: Json = {}
        self.new_document: Json = {}
        self.targets: list[Target] = []
        self.profiles: list[Profile] = []
        self.selinux = SelinuxChange()
        self.arguments: list[str] = []
        self.flags: dict[str, str] = {}
        self.diff: list[Json] = []
        self.daemon = Daemon(host, None, daemon_timeout)
        # what later steps leave
        self.images: dict[str, Json | None] = {}
        #: by profile, the image of what the kernel held under its name
        self.compiled: dict[str, Json | None] = {}
        self.directories: list[str] = []
        #: what the kernel does not take back before the next boot, as texts
        self.stays: list[str] = []
        self.witness: Json | None = None

    # -- small questions -----------------------------------------------------------------------
    @property
    def engine(self) -> Json:
        """The engine, as observed before."""
        return self.before.get("engine") or {}

    @property
    def running(self) -> bool:
        """Whether the daemon ran before."""
        return self.engine.get("state") == "running"

    @property
    def systemd(self) -> bool:
        """Whether systemd runs the host."""
        return bool((self.before.get("os") or {}).get("init") == "systemd")

    @property
    def live_restore(self) -> bool | None:
        """Whether the running daemon leaves containers alone when it stops; None: not running."""
        option = (self.engine.get("options") or {}).get("live-restore") or {}
        return bool(option.get("effective")) if self.running else None

    @property
    def planned_keys(self) -> frozenset[str]:
        """Keys of daemon.json that the plan sets or puts back."""
        return frozenset(op["key"] for op in self.plan.of("json_set", "json_remove"))

    @property
    def hides(self) -> str:
        """Settings that change and so hide what the daemon holds, for a message; empty when none does."""
        old, new = hiding.values(self.old_document), hiding.values(self.new_document)
        found = []
        for name in hiding.NAMES:
            stays = hiding.is_so(self.engine, name, new[name])
            if stays is None:
                stays = hiding.same(name, new[name], old[name])
            if old[name] != new[name] and not stays:
                found.append(name)
        return ", ".join(found)

    @property
    def keeps_containers(self) -> bool:
        """Whether containers survive the planned restart.

        live-restore must hold twice: in the daemon that stops, and in the one that starts. Where the
        new daemon.json lacks it, it is taken away after the restart (see the step ``daemon``).
        """
        return bool(self.live_restore) or self.plan.live_restore_first

    @property
    def hands_over(self) -> bool:
        """Whether live-restore must stay for the restart although the new daemon.json lacks it."""
        by_flag = "live-restore" in self.flags and bool(self.live_restore)
        wanted = self.new_document.get("live-restore") is True or by_flag
        return self.keeps_containers and not wanted and not self.hides

    def identity(self) -> Identity | None:
        """Return which run of the daemon is active; None when systemd does not run it."""
        return self.daemon.identity() if self.running and self.systemd else None

    def last_transaction(self, outcome: str) -> Json:
        """Return the ledger's record of this transaction."""
        return {"id": self.id, "outcome": outcome, "ended_at": self.host.now()}

    def writer(self) -> Journal:
        """The journal; only steps after ``before_images`` ask for it."""
        if self.journal is None:
            raise AssertionError("there is no journal yet")
        return self.journal


def read(tx: Transaction, path: str) -> tuple[bytes, files.Meta] | None:
    """Return content and metadata of a file, or None when it is absent."""
    try:
        return files.read(tx.host, path)
    except FileNotFoundError:
        return None


def wanted_mode(tx: Transaction, operation: Operation, st: os.stat_result) -> Json:
    """Return mode, uid and gid that an operation gives, where None keeps what is there.

    ``mode_restore`` gives those of before, which the ledger keeps; ``mode_back`` names them.
    """
    if operation["op"] == "mode_back":
        return dict(operation["before"])
    if operation["op"] == "mode_restore":
        item = tx.ownership.find("mode", path=operation["path"])
        return dict(typing.cast(Json, item)["before"])
    wanted = {"mode": stat_module.S_IMODE(st.st_mode), "uid": st.st_uid, "gid": st.st_gid}
    if operation["mode"] is not None:
        wanted["mode"] = int(operation["mode"], 8)
    for name, field, find in (
        ("owner", "uid", tx.accounts.uid),
        ("group", "gid", tx.accounts.gid),
    ):
        if operation[name] is not None:
            found = find(operation[name])
            if found is None:
                raise HostError(
                    "%s: there is no %s %s on this host"
                    % (operation["path"], name, operation[name])
                )
            wanted[field] = found
    return wanted


def mode_differs(tx: Transaction, operation: Operation) -> bool:
    """Tell whether a ``mode`` operation has anything to change."""
    st = files.status(tx.host, operation["path"])
    if st is None:
        return False
    now = {"mode": stat_module.S_IMODE(st.st_mode), "uid": st.st_uid, "gid": st.st_gid}
    return wanted_mode(tx, operation, st) != now


def account_missing(tx: Transaction, operation: Operation) -> bool:
    """Tell whether an operation on groups, users or sub-ids has anything to create."""
    if operation["op"] == "group_present":
        return tx.accounts.gid(operation["name"]) is None
    if operation["op"] == "user_present":
        return tx.accounts.uid(operation["name"]) is None
    if operation["op"] == "subid_present":
        return not all(
            tx.accounts.has_range(path, operation["user"], wanted["start"], wanted["count"])
            for path in SUBID_FILES
            for wanted in [operation[os.path.basename(path)]]
            if wanted is not None
        )
    return False


def removed_account(operation: Operation) -> tuple[str, str]:
    """Return kind (subids, user or group) and name of what an operation takes away."""
    kind = {"subid_absent": "subids", "user_absent": "user", "group_absent": "group"}
    return kind[operation["op"]], str(operation.get("user") or operation.get("name"))
