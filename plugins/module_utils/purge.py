# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Taking away what Bulkhead keeps on a host for itself, once it owns nothing there any more."""

from __future__ import annotations

import contextlib
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    boot,
    history,
    ledger as ledger_module,
    look,
    retention,
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import lock, reason_of
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_context import (
    Json,
    Transaction,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import NO_PLAN


def purge(host: Host, *, check_mode: bool = False) -> Json:
    """Remove ledger, journals and before-images; never raises for what a host does wrong.

    Refuses while the ledger owns something or a transaction is open. A purge that was cut off is
    finished by the next one.

    :returns: ``{"changed", "transaction": {"id": None, "outcome", "reason", ...},
        "running_containers": [], "observation", "failed"?, "msg"?}`` with the outcomes ``purged``,
        ``nothing``, ``checked`` and ``refused``.
    """
    with contextlib.ExitStack() as stack:
        tx = Transaction(host, NO_PLAN, stack, check_mode, 0.0, 0.0)
        try:
            if files.status(host, ledger_module.STATE_DIRECTORY) is None:
                return _answer(host, "nothing", False)
            if not check_mode:
                lock(tx)
            directories = _check(host)
            if check_mode:
                return _answer(host, "checked", True)
            _remove(host, directories)
        except Exception as exc:
            return _answer(host, "refused", False, reason_of(exc))
        return _answer(host, "purged", True)


def _check(host: Host) -> list[str]:
    """Return the directories of ours; refuse what would leave something behind unknown."""
    problem = ledger_module.problem(host)
    if problem is not None:
        raise HostError(problem)
    left = ledger_module.open_transaction(host)
    if left is not None:
        raise HostError("the transaction %s is open; recover first" % left["id"])
    ledger = ledger_module.read_ledger(host)[0] or ledger_module.empty_ledger()
    owned = [item for items in ledger["owned"].values() for item in items]
    if owned:
        shown = sorted(_told(item) for item in owned)
        raise HostError(
            "Bulkhead still owns %d things on this host: %s; take them back first"
            % (len(owned), ", ".join(shown[:10]))
        )
    return [str(path) for path in ledger["directories"]]


def _told(item: Json) -> str:
    if item["kind"] == "json_key":
        return "%s: %s" % (item.get("path"), history.shown_key(item))
    if item["kind"] in ("file", "mode"):
        return "%s %s" % (item["kind"], item.get("path"))
    return history.subject_text((item["kind"], item.get("user") or item.get("name")))


def _remove(host: Host, directories: typing.Sequence[str]) -> None:
    for path in sorted(directories, reverse=True):
        with contextlib.suppress(OSError, HostError):  # by now it is something else: left alone
            files.remove_directory(host, path)
    boot.disarm(host)
    # The ledger, which names those directories, goes after the before-images.
    with contextlib.suppress(FileNotFoundError):
        retention.remove_tree(host, ledger_module.TRANSACTIONS)
    retention.remove_tree(host, ledger_module.STATE_DIRECTORY)
    if files.status(host, ledger_module.STATE_DIRECTORY) is not None:
        raise HostError(
            "%s is not empty: something was put there meanwhile; run again"
            % ledger_module.STATE_DIRECTORY
        )


def _answer(host: Host, outcome: str, changed: bool, reason: str | None = None) -> Json:
    after: Json | None = None
    with contextlib.suppress(Exception):
        after = look.observe(host, ["hardening"])
    answer: Json = {
        "changed": changed,
        "diff": [],
        "transaction": {
            "id": None,
            "outcome": outcome,
            "failed_step": "purge" if reason else None,
            "reason": reason,
            "steps": [],
            "daemon_restarts": 0,
            "daemon_reloads": 0,
            "stays": [],
        },
        "running_containers": [],
        "observation": after,
    }
    if reason is not None:
        answer.update(failed=True, msg="Nothing was purged: %s" % reason)
    return answer
