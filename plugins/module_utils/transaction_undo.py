# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Undoing a committed transaction on request, by its id.

The same code as after a failure does it, so it is as complete: contents, modes, accounts and the
running daemon. A crash in the middle leaves the transaction open, and the next one goes on with it.
"""

from __future__ import annotations

import contextlib

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    health,
    ledger as ledger_module,
    look,
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import (
    health_after_undo,
    lock,
    reason_of,
    recover,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_context import (
    Json,
    Transaction,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_daemon import Daemon
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_journal import (
    Journal,
    Undo,
    digest,
    read_image,
    write_ledger,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_json import JsonFile
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import Plan

_NO_PLAN = Plan(None, [], "none", [], False, False)


def undo(
    host: Host,
    identifier: str | None = None,
    *,
    allow_container_restart: bool = False,
    health_timeout: float = 120.0,
    daemon_timeout: float = 180.0,
) -> Json:
    """Undo a committed transaction; never raises for what a host does wrong.

    :param identifier: its id, or None for the last committed one.
    :param allow_container_restart: allow a restart of the daemon that ends running containers.
    :returns: ``{"changed", "transaction": {"id", "outcome", "reason", "notes", "daemon_restarts",
        "daemon_reloads"}, "running_containers", "observation", "failed"?, "msg"?}`` with the
        outcomes ``undone``, ``refused`` and ``rollback_failed``.
    """
    with contextlib.ExitStack() as stack:
        tx = Transaction(host, _NO_PLAN, stack, False, health_timeout, daemon_timeout)
        wanted = identifier
        try:
            lock(tx)
            recover(tx)
            wanted = identifier or _last_committed(host)
            tx.before = look.observe(host, ["engine", "containers"])
            records = _check(tx, wanted, allow_container_restart)
        except Exception as exc:
            return _answer(tx, wanted, "refused", reason_of(exc), [])
        return _undo(tx, wanted, records)


def _undo(tx: Transaction, identifier: str, records: list[Json]) -> Json:
    expected = _expected(tx, records)
    journal = Journal(tx.host, identifier)
    journal.write({"record": "reopened", "running": tx.running})
    journal.close()
    action: Undo | None = None
    try:
        action = Undo(tx.host, identifier, tx.daemon_timeout)
        action.run()
        notes = [*action.notes, *health_after_undo(tx.host, action, tx.health_timeout, expected)]
        action.close("undone on request")
    except Exception as exc:
        _count(tx.daemon, action)
        return _answer(tx, identifier, "rollback_failed", reason_of(exc), [])
    _count(tx.daemon, action)
    ledger = ledger_module.read_ledger(tx.host)[0] or ledger_module.empty_ledger()
    ledger["last_transaction"] = dict(tx.last_transaction("undone"), id=identifier)
    write_ledger(tx.host, ledger)
    return _answer(tx, identifier, "undone", None, notes)


def _count(daemon: Daemon, action: Undo | None) -> None:
    if action is not None:
        daemon.restarts += action.daemon.restarts
        daemon.reloads += action.daemon.reloads


def _answer(
    tx: Transaction, identifier: str | None, outcome: str, reason: str | None, notes: list[str]
) -> Json:
    after: Json | None = None
    with contextlib.suppress(Exception):
        after = look.observe(tx.host)
    answer: Json = {
        "changed": outcome != "refused" or tx.recovered,
        "transaction": {
            "id": identifier,
            "outcome": outcome,
            "reason": reason,
            "notes": notes,
            "daemon_restarts": tx.daemon.restarts,
            "daemon_reloads": tx.daemon.reloads,
        },
        "running_containers": health.compare_containers(tx.before, after or {}),
        "observation": after,
    }
    if outcome != "undone":
        answer.update(failed=True, msg="%s was not undone: %s" % (identifier, reason))
    return answer


# -- checks ----------------------------------------------------------------------------------------
def _is_committed(records: list[Json]) -> bool:
    ends = [r["record"] for r in records if r.get("record") in ledger_module.END_RECORDS]
    return bool(ends) and ends[-1] == "committed"


def _last_committed(host: Host) -> str:
    for identifier in reversed(ledger_module.transaction_ids(host)):
        if _is_committed(ledger_module.read_journal(host, identifier)):
            return identifier
    raise HostError("there is no committed transaction on this host")


def _effects(records: list[Json], *kinds: str) -> list[Json]:
    return [r for r in records if r.get("record") == "effect" and r.get("kind") in kinds]


def _subjects(records: list[Json]) -> set[str]:
    """Return what a transaction changed, as words for messages."""
    found = {
        str(effect["path"])
        for effect in _effects(records, "file", "mode")
        if effect["path"] != ledger_module.LEDGER
    }
    found |= {"user " + str(e["name"]) for e in _effects(records, "user")}
    found |= {"group " + str(e["name"]) for e in _effects(records, "group")}
    return found | {"subordinate ids of " + str(e["user"]) for e in _effects(records, "subids")}


def _check(tx: Transaction, identifier: str, allow_container_restart: bool) -> list[Json]:
    """Refuse what cannot be undone safely; return the journal."""
    known = ledger_module.transaction_ids(tx.host)
    if identifier not in known:
        raise HostError("no transaction of that name is kept on this host")
    records = ledger_module.read_journal(tx.host, identifier)
    if not _is_committed(records):
        raise HostError("it was never committed, or is undone already")
    subjects = _subjects(records)
    for later in known[known.index(identifier) + 1 :]:
        journal = ledger_module.read_journal(tx.host, later)
        shared = subjects & _subjects(journal) if _is_committed(journal) else set()
        if shared:
            raise HostError(
                "the later transaction %s changed %s too; undo that one first"
                % (later, ", ".join(sorted(shared)))
            )
    _check_contents(tx.host, records)
    _check_containers(tx, records, allow_container_restart)
    return records


def _check_contents(host: Host, records: list[Json]) -> None:
    last = {effect["path"]: effect for effect in _effects(records, "file")}
    last.pop(ledger_module.LEDGER, None)
    for path, effect in sorted(last.items()):
        try:
            content: bytes | None = files.read(host, path)[0]
        except FileNotFoundError:
            content = None
        if digest(content) != effect["after"]:
            raise HostError("%s was changed by somebody else since" % path)
        if effect["before"]:
            read_image(host, effect["before"])


def _documents(host: Host, records: list[Json]) -> tuple[Json, Json]:
    """Return daemon.json as it would be after the undo, and as it is."""
    path = records[0]["config"]
    effects = [effect for effect in _effects(records, "file") if effect["path"] == path]
    if not effects:
        return {}, {}
    before = effects[0]["before"]
    now = files.read(host, path)[0] if effects[-1]["after"] else b""
    old = read_image(host, before)[0] if before else b""
    return JsonFile(old).value, JsonFile(now).value


def _remaps(host: Host, records: list[Json]) -> bool:
    old, now = _documents(host, records)
    return bool(old.get("userns-remap") != now.get("userns-remap"))


def _check_containers(tx: Transaction, records: list[Json], allowed: bool) -> None:
    restarts = any(effect["action"] == "restart" for effect in _effects(records, "daemon"))
    names = ", ".join(sorted(str(item["name"]) for item in health.running(tx.before)))
    if not (restarts and tx.running and names):
        return
    remaps = _remaps(tx.host, records)
    if remaps and tx.live_restore:
        raise HostError(
            "userns-remap changes while live-restore keeps these containers running out of the "
            "daemon's sight; stop them first: " + names
        )
    old, _ = _documents(tx.host, records)
    bridged = any(effect.get("live_restore") for effect in _effects(records, "file"))
    kept = tx.live_restore and (bridged or old.get("live-restore") is True)
    if not allowed and (remaps or not kept):
        raise HostError(
            "the restart that this needs ends these containers: %s; stop them first, or allow it"
            % names
        )


def _expected(tx: Transaction, records: list[Json]) -> list[Json]:
    """Return the containers that must run again afterwards; none where they get out of sight."""
    if not tx.running or _remaps(tx.host, records):
        return []
    return [
        {"id": item["id"], "name": item["name"], "pid": item["pid"]}
        for item in health.stable(tx.before)
    ]
