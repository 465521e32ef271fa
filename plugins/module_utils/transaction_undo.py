# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Undoing a committed transaction on request, as a transaction of its own.

It has its own journal, before-images and health gate: an undo that fails, or that a crash cuts off,
leaves the host as it was before the undo. What is put back is what that one transaction changed, key
by key in daemon.json, on the files as they are now; what others changed since stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    daemon_options,
    health,
    hiding,
    history,
    ledger as ledger_module,
    selinux,
    sysctls,
    transaction_apparmor,
    transaction_files as files,
    transaction_selinux,
    validate,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.flags_dropin import FLAGS_DROPIN
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.ledger import value_digest
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import CONFIG_FILE
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import (
    STEPS,
    Step,
    run,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_context import (
    Json,
    Profile,
    Target,
    Transaction,
    read,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_daemon import Identity
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_journal import (
    digest,
    read_image,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_json import JsonFile
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_ownership import (
    Ownership,
    lookup,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import (
    NO_PLAN,
    Operation,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_precheck import (
    check_containers,
    check_daemon,
    check_removals,
    check_space,
    check_unread,
    look_first,
    read_ledger,
    take_flags,
)

#: The word for the newest transaction that still holds.
LAST = "last"

_BY_WHOM = "%s was changed by somebody else since; take that back, or change it by hand"


def undo(
    host: Host,
    wanted: str = LAST,
    *,
    check_mode: bool = False,
    allow_container_restart: bool = False,
    accept_hidden_data: bool = False,
    health_timeout: float = 120.0,
    daemon_timeout: float = 180.0,
    identifier: str | None = None,
    boot: list[str] | None = None,
) -> Json:
    """Undo a committed transaction; never raises for what a host does wrong.

    :param wanted: its id, or ``last`` for the newest one that still holds.
    :param check_mode: say what would be done, and write nothing.
    :param allow_container_restart: allow a restart of the daemon that ends running containers.
    :param accept_hidden_data: allow that a change of userns-remap or data-root hides containers.
    :param identifier: the id of this undo itself; None for one of now.
    :param boot: the command that undoes at boot what a loss of power leaves; None for none.
    :returns: as ``transaction.apply``; ``transaction`` also has ``undid``, the id of the one that
        was, or would be, undone; ``changes``, what it had changed, as texts; ``daemon_effect``, none,
        reload or restart; and ``affected``, the names of the containers that run while it restarts.
    """
    plan = NO_PLAN._replace(allow_container_restart=allow_container_restart)
    with contextlib.ExitStack() as stack:
        tx = Transaction(host, plan, stack, check_mode, health_timeout, daemon_timeout)
        tx.id = identifier or tx.id
        tx.boot = boot
        told: list[str] = []

        def precheck(tx: Transaction) -> str:
            if os.geteuid() != 0:
                raise HostError("only root can do this; set become: true")
            known = history.entries(host)
            entry = find(known, wanted)
            tx.undoes = entry.identifier
            told.extend(entry.told())
            read_ledger(tx)
            look_first(tx)
            _Reversal(tx, known, entry).plan(accept_hidden_data)
            return "%s can be undone" % entry.identifier

        def first(tx: Transaction) -> str:
            find_early(host, wanted)
            return "there is such a transaction"

        own = {"precheck": Step("precheck", precheck, reads_only=True)}
        steps = [own.get(step.name, step) for step in STEPS]
        answer = run(tx, (Step("find", first, reads_only=True), *steps))
    restarts = tx.running and tx.plan.effect == "restart"
    answer["transaction"].update(
        undid=tx.undoes,
        changes=told,
        daemon_effect=tx.plan.effect if tx.running else "none",
        affected=sorted(str(c["name"]) for c in health.running(tx.before)) if restarts else [],
    )
    if answer.get("failed") and answer["transaction"]["outcome"] == "refused":
        answer["msg"] = "%s was not undone, and nothing was changed: %s" % (
            tx.undoes or wanted,
            answer["transaction"]["reason"],
        )
    return answer


def find_early(host: Host, wanted: str) -> None:
    """Refuse what needs neither the lock nor a directory of ours on a host without one.

    :raises HostError: there is nothing that can be undone under that name.
    """
    problem = ledger_module.problem(host)
    if problem is not None:
        raise HostError(problem)
    if ledger_module.open_transaction(host) is None:
        find(history.entries(host), wanted)


def find(known: typing.Sequence[history.Entry], wanted: str) -> history.Entry:
    """Return the transaction that is meant.

    :param wanted: an id, or ``last``.
    :raises HostError: there is none, or it is none that can be undone; with those that can.
    """
    holding = history.holding(known)
    if wanted == LAST:
        if not holding:
            raise HostError("there is no committed transaction on this host that still holds")
        return holding[-1]
    if not ledger_module.TRANSACTION_ID.match(wanted):
        raise HostError(
            "%r is no id of a transaction; such an id looks like 20260131T120000Z-000000, and %r is "
            "the newest one" % (wanted[:80], LAST)
        )
    entry = next((e for e in known if e.identifier == wanted), None)
    kept = ", ".join(e.identifier for e in holding) or "none"
    if entry is not None and entry in holding:
        return entry
    if entry is None:
        raise HostError("no transaction of that name is kept; those that can be undone: " + kept)
    by = history.undone(known).get(wanted)
    if by is not None:
        reason = "it was undone already, by %s" % by
    elif entry.undoes is not None:
        reason = "it is itself the undo of %s; apply the policy again instead" % entry.undoes
    else:
        reason = "it was never committed"
    raise HostError("%s; those that can be undone: %s" % (reason, kept))


class _Reversal:
    """Fills a transaction with what takes another one back."""

    def __init__(
        self, tx: Transaction, known: typing.Sequence[history.Entry], entry: history.Entry
    ) -> None:
        self._tx = tx
        self._known = known
        self._entry = entry
        self._operations: list[Operation] = []
        #: the ledger as it was before that transaction
        image = self._before_image(ledger_module.LEDGER)
        old = json.loads(image[0]) if image else ledger_module.empty_ledger()
        self._old_ledger: Json = dict(ledger_module.empty_ledger(), **old)

    def plan(self, accept_hidden_data: bool) -> None:
        """Check that it can be taken back, and set what the steps then do."""
        self._check_later()
        self._config()
        self._files()
        self._profiles()
        transaction_selinux.of_effects(self._tx, self._entry.effects(*transaction_selinux.EFFECTS))
        self._modes()
        self._accounts()
        self._audit_rules()
        self._sysctls()
        self._services()
        self._ledger()
        tx = self._tx
        tx.plan = tx.plan._replace(operations=self._operations)
        effect, why = self._effect()
        tx.plan = tx.plan._replace(effect=effect, why=why)
        check_daemon(tx)
        transaction_apparmor.check_profiles(tx)
        check_removals(tx)
        check_unread(tx)
        check_containers(tx)
        self._check_hidden(accept_hidden_data)
        check_space(tx)
        tx.changed = True  # who owns what, if nothing else

    # -- what others did since -----------------------------------------------------------------
    def _check_later(self) -> None:
        subjects = self._entry.subjects()
        later = [e for e in history.holding(self._known) if e.identifier > self._entry.identifier]
        for entry in later:
            both = history.shared(subjects, entry.subjects())
            if both:
                raise HostError(
                    "the later transaction %s changed the same: %s; undo that one first"
                    % (entry.identifier, ", ".join(history.subject_text(s) for s in both[:10]))
                )

    def _before_image(self, path: str) -> tuple[bytes, files.Meta] | None:
        """Return a file as it was before that transaction, or None when it was absent.

        :raises HostError: the before-image was changed by somebody since.
        """
        effects = [e for e in self._entry.effects("file") if e["path"] == path]
        before = effects[0]["before"] if effects else None
        return read_image(self._tx.host, before) if before else None

    def _after(self, path: str) -> str | None:
        """Return the digest of what that transaction left at a path; None for no file."""
        after = [e["after"] for e in self._entry.effects("file") if e["path"] == path][-1]
        return None if after is None else str(after)

    # -- daemon.json ---------------------------------------------------------------------------
    def _config(self) -> None:
        tx, entry = self._tx, self._entry
        path = tx.engine.get("config_file") or CONFIG_FILE
        tx.config = Target(path, None, None)
        touched = any(e["path"] == entry.begin["config"] for e in entry.effects("file"))
        if touched and entry.begin["config"] != path:
            raise HostError(
                "it changed %s, and the daemon reads %s by now" % (entry.begin["config"], path)
            )
        reason = validate.files_problem(tx.host, path)
        if reason:
            raise HostError(reason)
        tx.config.old = read(tx, path)
        tx.config.content = tx.config.old_content
        document = self._parse(path, tx.config.old_content)
        tx.old_document = tx.new_document = document.value
        if touched:
            self._config_back(path, document)

    @staticmethod
    def _parse(path: str, content: bytes | None) -> JsonFile:
        try:
            return JsonFile(content or b"")
        except ValueError as exc:
            raise HostError("%s: %s; repair it first" % (path, exc)) from exc

    def _config_back(self, path: str, document: JsonFile) -> None:
        tx = self._tx
        image = self._before_image(path)
        before = self._parse(path, image[0] if image else None).value
        for item in self._entry.keys:
            key, member = item["key"], item.get("member")
            there, value = lookup(document.value, key, member)
            if (value_digest(value) if there else None) != item["after"]:
                raise HostError(_BY_WHOM % ("%s: %s" % (path, history.shown_key(item))))
            self._key_back(path, document, before, item)
        if image is not None and tx.config.old is None:
            tx.config.restored = image[1]
        tx.config.content = self._content(document, image)
        tx.new_document = self._parse(path, tx.config.content).value

    def _content(self, document: JsonFile, image: tuple[bytes, files.Meta] | None) -> bytes | None:
        config = self._tx.config
        if digest(config.old_content) == self._after(config.path):
            return image[0] if image else None  # nobody else wrote into it: byte for byte
        created = image is None or any(
            item.get("created_file") for item in self._touched() if item["kind"] == "json_key"
        )
        return None if created and document.value == {} else document.render()

    def _key_back(self, path: str, document: JsonFile, before: Json, item: Json) -> None:
        key, member = item["key"], item.get("member")
        names = {"path": path, "key": key, **({} if member is None else {"member": member})}
        self._operations.append(dict(names, op="json_remove"))
        there, value = lookup(before, key, member)
        try:
            if there and member is None:
                document.set(key, value)
            elif member is None:
                document.remove(key)
            elif there:
                document.set_member(key, member, value)
            else:
                document.remove_member(key, member)
                now = self._tx.ownership.find("json_key", **names) or {}
                made = key not in before or now.get("created_map")
                if made and document.value.get(key) == {}:
                    document.remove(key)
        except ValueError as exc:
            raise HostError("%s: %s: %s" % (path, history.shown_key(item), exc)) from exc

    # -- other files, modes and accounts -------------------------------------------------------
    def _files(self) -> None:
        tx = self._tx
        for path in self._entry.files:
            if path == selinux.CONFIG:
                continue  # enforcing stays
            reason = validate.files_problem(tx.host, path)
            if reason:
                raise HostError(reason)
            old = read(tx, path)
            if digest(old[0] if old else None) != self._after(path):
                raise HostError(_BY_WHOM % path)
            image = self._before_image(path)
            target = Target(path, old, image[0] if image else None)
            target.restored = image[1] if image else None
            tx.targets.append(target)
            if path == FLAGS_DROPIN:
                former = Ownership(self._old_ledger["owned"]).find("file", path=path) or {}
                take_flags(tx, former.get("flags") or ())

    def _profiles(self) -> None:
        for effect in self._entry.effects("apparmor"):
            image = effect["before"]
            if image is not None:
                read_image(self._tx.host, image)
            self._tx.profiles.append(
                Profile(
                    effect["profile"],
                    compiled=image["image"] if image else None,
                    unloaded=not effect["loaded"],
                )
            )

    def _modes(self) -> None:
        tx = self._tx
        removed = {t.path for t in [*tx.targets, tx.config] if t.content is None}
        effects = self._entry.effects("mode")
        for path in sorted({str(effect["path"]) for effect in effects} - removed):
            mine = [effect for effect in effects if effect["path"] == path]
            st = files.status(tx.host, path)
            if st is None:
                continue  # a socket or certificate that is gone needs no mode
            now = {"mode": stat_module.S_IMODE(st.st_mode), "uid": st.st_uid, "gid": st.st_gid}
            if now == mine[0]["before"]:
                continue
            if now != mine[-1]["after"] and path.startswith("/run/"):
                continue  # a socket that was made anew since, as its unit says
            if now != mine[-1]["after"]:
                raise HostError(_BY_WHOM % ("the mode of " + path))
            self._operations.append({"op": "mode_back", "path": path, "before": mine[0]["before"]})

    def _accounts(self) -> None:
        entry = self._entry
        for kind, op, name in (
            ("subids", "subid", "user"),
            ("user", "user", "name"),
            ("group", "group", "name"),
        ):
            for effect in entry.effects(kind):
                if self._tx.ownership.find(kind, **{name: effect[name]}) is not None:
                    self._operations.append({"op": op + "_absent", name: effect[name]})
        for effect in entry.effects("group_removed"):
            self._present("group", name=effect["name"])
        for effect in entry.effects("user_removed"):
            self._present("user", name=effect["name"], group=effect["group"])
        for effect in entry.effects("subids_removed"):
            spans = {name: effect[name] for name in ("subuid", "subgid")}
            self._present("subids", user=effect["user"], **spans)

    def _present(self, kind: str, **fields: typing.Any) -> None:
        op = "subid_present" if kind == "subids" else kind + "_present"
        for role, items in self._old_ledger["owned"].items():
            if Ownership({role: items}).find(kind, **fields) is not None:
                self._operations.append({"op": op, "role": role, **fields})

    def _audit_rules(self) -> None:
        for effect in self._entry.effects("audit_rules"):
            names = {name: effect[name] for name in ("added", "removed")}
            self._operations.append({"op": "audit_back", **names})

    def _sysctls(self) -> None:
        for effect in self._entry.effects("sysctl"):
            name, before = effect["name"], effect["before"]
            now = sysctls.running(self._tx.host, name)
            if now in (None, before):
                continue
            if now != effect["after"]:
                raise HostError(_BY_WHOM % name)
            self._operations.append({"op": "sysctl_back", "name": name, "value": before})

    def _services(self) -> None:
        for effect in self._entry.effects("service"):
            fields = {"name": effect["name"], "before": effect["before"]}
            self._operations.append({"op": "service_back", **fields})

    # -- who owns what -------------------------------------------------------------------------
    def _touched(self) -> list[Json]:
        """Return the items of now that that transaction made or changed."""
        found = (self._tx.ownership.find(**i) for i in self._entry.end.get("touched") or [])
        return [item for item in found if item is not None]

    def _ledger(self) -> None:
        """Give the items that that transaction touched back as they were; see the step commit."""
        tx, old = self._tx, self._old_ledger
        # The step tidy drops those of accounts, once they are gone.
        made = {(op["op"], op.get("user") or op.get("name")) for op in self._operations}
        words = {"subids": "subid_absent", "user": "user_absent", "group": "group_absent"}
        for identity in self._entry.end.get("touched") or []:
            name = identity.get("user") or identity.get("name")
            if (words.get(identity["kind"]), name) in made:
                continue
            tx.ownership.drop(**identity)
            for role, items in old["owned"].items():
                former = Ownership({role: items}).find(**identity)
                if former is not None:
                    tx.ownership.put(role, former)
        newest = history.holding(self._known)[-1]
        if newest.identifier == self._entry.identifier:
            tx.ledger = dict(tx.ledger, profile=old["profile"])

    # -- the daemon ----------------------------------------------------------------------------
    def _effect(self) -> tuple[str, list[str]]:
        """Return what makes the daemon take it back (none, reload or restart), and for which keys."""
        tx, entry = self._tx, self._entry
        keys = sorted({str(item["key"]) for item in entry.keys})
        if FLAGS_DROPIN in entry.files:
            return "restart", keys
        actions = {str(effect["action"]) for effect in entry.effects("daemon")}
        was = entry.begin["daemon"]
        now = tx.identity()
        if now is not None and now != Identity(was["pid"], was["start_ticks"]):
            # It was started since then, so it has read everything that the file held.
            options = [daemon_options.OPTIONS.get(key) for key in keys]
            actions |= {"reload" if o is not None and o.reload else "restart" for o in options}
            if any(hiding.name_of(item["key"], item.get("member")) for item in entry.keys):
                actions.add("restart")
        for effect in ("restart", "reload"):
            if effect in actions:
                return effect, keys
        return "none", []

    def _check_hidden(self, accepted: bool) -> None:
        tx = self._tx
        names = sorted(str(item["name"]) for item in tx.before.get("containers") or [])
        if tx.running and tx.plan.effect == "restart" and tx.hides and names and not accepted:
            raise HostError(
                "%s changes, which hides these containers (they are not deleted): %s; "
                "remove them first, or accept it" % (tx.hides, ", ".join(names))
            )
