# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Services beside Docker's in a transaction, and the rules of Falco, which the service itself reads first.

Files come first (see transaction_steps.units); the service is started with them, must stay up, and
follows them back when the transaction is undone.
"""

from __future__ import annotations

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    falco,
    services,
    transaction_diff as diffs,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_context import (
    Json,
    Skipped,
    Transaction,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import Operation

#: What an operation is called in a plan.
KINDS = ("service_running", "service_back")


def check_services(tx: Transaction) -> None:
    """Refuse rules that Falco refuses, services that are not there, and to put back what is not ours.

    :raises HostError: with the file and Falco's last line, or the service.
    """
    for target in tx.targets:
        if target.path.startswith(falco.RULES_DIRECTORY) and target.content is not None:
            reason = falco.problem(tx.host, target.content)
            if reason:
                raise HostError("Falco does not take %s: %s" % (target.path, reason))
    for operation in tx.plan.of(*KINDS):
        name = operation["name"]
        if operation["op"] == "service_running" and not services.state(tx.host, name)["loaded"]:
            raise HostError("%s is not there or masked; install its package" % name)
        if operation["op"] == "service_back" and _former(tx, operation) is None:
            raise HostError("%s was not started by Bulkhead, so it does not put it back" % name)


def _former(tx: Transaction, operation: Operation) -> Json | None:
    """Return what a service was before: as an undo says, or as the ledger keeps it."""
    found: Json | None = operation.get("before")
    item = tx.ownership.find("service", name=operation["name"]) or {}
    return found or item.get("before")


def run_services(tx: Transaction) -> str | Skipped:
    """Start services with the files of now, or let them be as they were."""
    told = []
    for operation in tx.plan.of(*KINDS):
        name, role = operation["name"], operation.get("role")
        before, former = services.state(tx.host, name), _former(tx, operation)
        note = None
        with tx.writer().effect("service", name=name, before=before):
            if operation["op"] == "service_running":
                services.start(tx.host, name)
            elif former is not None:
                note = services.put_back(tx.host, name, former)
        if operation["op"] == "service_running":
            tx.ownership.put(
                str(role), {"kind": "service", "name": name, "before": former or before}
            )
        elif role is not None:
            tx.ownership.drop("service", name=name)
        told.append(note or name)
    tx.changed = tx.changed or bool(told)
    return ", ".join(told) if told else Skipped("no service changes")


def rows(tx: Transaction) -> list[Json]:
    """Return what changes of services, for --diff."""
    found = []
    for operation in tx.plan.of(*KINDS):
        name = operation["name"]
        now = services.state(tx.host, name)
        after = {"enabled": True, "active": True}
        if operation["op"] == "service_back":
            after = _former(tx, operation) or now
        found.append(diffs.row("the service " + name, _text(now), _text(after) + _ANEW))
    return found


_ANEW = "with the files of now\n"


def _text(state: Json) -> str:
    return "%s\n%s\n" % (
        "enabled" if state["enabled"] else "not enabled",
        "active" if state["active"] else "not active",
    )
