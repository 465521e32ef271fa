# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Kernel parameters in a transaction: the running values. Their file is a file like any other.

What only a boot takes back is set last, when nothing can fail any more that would have to be undone.
"""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    ledger as ledger_module,
    sysctls,
    transaction_diff as diffs,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_context import (
    Json,
    Skipped,
    Transaction,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import Operation

#: What an operation is called in a plan, and in an undo.
_KINDS = ("sysctl_set", "sysctl_restore", "sysctl_back")


class Change(typing.NamedTuple):
    """One parameter, what it is and what it is to be."""

    operation: Operation
    name: str
    now: str
    wanted: str

    @property
    def one_way(self) -> bool:
        """Whether it is set, and only a boot takes it back."""
        return bool(self.operation["op"] == "sysctl_set" and self.operation["undo"] != "live")


def check_sysctls(tx: Transaction) -> None:
    """Refuse what does not fit this host.

    :raises HostError: a parameter is not there, is not ours, or changed since the look.
    """
    for operation in tx.plan.of(*_KINDS):
        name = operation["name"]
        now = sysctls.running(tx.host, name)
        if now is None:
            raise HostError("this kernel has no %s" % name)
        if operation["op"] == "sysctl_set" and now != operation["observed"]:
            raise HostError("%s changed since the look; run again" % name)
        if operation["op"] == "sysctl_restore":
            _owned(tx, name)


def _owned(tx: Transaction, name: str) -> Json:
    item = tx.ownership.find("sysctl", name=name)
    if item is None:
        raise HostError("%s was not set by Bulkhead, so it does not put it back" % name)
    if not ledger_module.item_intact(tx.host, item):
        raise HostError("%s was changed by somebody else since; disown it instead" % name)
    return item


def changes(tx: Transaction) -> list[Change]:
    """Return what is left to change, in the order of the plan."""
    found = []
    for operation in tx.plan.of(*_KINDS):
        name = operation["name"]
        wanted = operation.get("value")
        if operation["op"] == "sysctl_restore":
            wanted = (tx.ownership.find("sysctl", name=name) or {}).get("before")
        now = sysctls.running(tx.host, name)
        if now is not None and wanted is not None and now != wanted:
            found.append(Change(operation, name, now, wanted))
    return found


# -- the steps -------------------------------------------------------------------------------------
def set_values(tx: Transaction) -> str | Skipped:
    """Set what can be taken back, and see that packets are passed on as before."""
    todo = [change for change in changes(tx) if not change.one_way]
    before = sysctls.forwarding(tx.host) if todo else {}
    told = [_set(tx, change) for change in todo]
    _note_owned(tx, one_way=False)
    lost = sysctls.lost(before, sysctls.forwarding(tx.host)) if todo else []
    if lost:
        raise HostError("packets of containers are not passed on as before: " + "; ".join(lost))
    return ", ".join(told) if told else Skipped("no parameter changes")


def set_one_way(tx: Transaction) -> str | Skipped:
    """Set what only a boot takes back."""
    told = [_set(tx, change) for change in changes(tx) if change.one_way]
    _note_owned(tx, one_way=True)
    return ", ".join(told) if told else Skipped("no parameter changes for good")


def _set(tx: Transaction, change: Change) -> str:
    with tx.writer().effect("sysctl", name=change.name, before=change.now, after=change.wanted):
        try:
            sysctls.change(tx.host, change.name, change.wanted)
        except OSError as exc:
            if change.operation["op"] == "sysctl_set":
                raise HostError(
                    "the kernel does not take %s=%s: %s"
                    % (change.name, change.wanted, exc.strerror)
                ) from exc
            tx.stays.append(sysctls.stays(change.name, change.now))
            return tx.stays[-1]
    tx.changed = True
    return "%s=%s" % (change.name, change.wanted)


def _note_owned(tx: Transaction, one_way: bool) -> None:
    for operation in tx.plan.of("sysctl_set", "sysctl_restore"):
        name = operation["name"]
        if operation["op"] == "sysctl_restore":
            tx.ownership.drop("sysctl", name=name)
        elif (operation["undo"] != "live") == one_way:
            former = tx.ownership.find("sysctl", name=name) or {"before": operation["observed"]}
            item = {"kind": "sysctl", "name": name, "before": former["before"]}
            tx.ownership.put(operation["role"], dict(item, value=operation["value"]))


# -- for people ------------------------------------------------------------------------------------
def rows(tx: Transaction) -> list[Json]:
    """Return what changes in the running kernel, for --diff."""
    found = sorted(changes(tx), key=lambda change: change.name)
    if not found:
        return []
    before, after = (
        "".join("%s = %s\n" % (change.name, getattr(change, side)) for change in found)
        for side in ("now", "wanted")
    )
    return [diffs.row("parameters of the running kernel", before, after)]
