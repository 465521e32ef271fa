# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Audit rules in the kernel, kept in step with the rules files that a transaction places.

A delta: the rules that a file no longer holds are taken out, those that it is to have loaded and that
the kernel lacks are loaded. ``augenrules --load`` begins with ``-D`` and so drops what others loaded.
"""

from __future__ import annotations

import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    audit_rules as rules,
    look_auditd,
    transaction_diff as diffs,
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.audit_kernel import (
    Identity,
    change_rule,
    known,
    loaded,
    shown,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_context import (
    Json,
    Skipped,
    Transaction,
)


class Delta(typing.NamedTuple):
    """What to load and what to take out, in the kernel's form."""

    load: list[bytes]
    unload: list[bytes]


def check_rules(tx: Transaction) -> None:
    """Refuse rules that cannot be parsed or loaded, before anything is changed.

    auditd does not start when one line of its files is wrong, so none may get there.
    """
    for target in tx.targets:
        if rules.is_file(target.path):
            _rules(tx.host, target.path, target.content)
    wanted = _wanted(tx)
    if wanted and look_auditd.status(tx.host).get("enabled") == look_auditd.LOCKED:
        raise HostError("the kernel's audit rules are locked (-e 2) until the next boot; run again")
    try:
        delta(tx)
    except OSError as exc:
        raise HostError("the kernel's audit: %s" % exc.strerror) from exc


def delta(tx: Transaction) -> Delta:
    """Return what is left to load and to take out. Raises OSError when the kernel does not answer."""
    wanted, gone, back = _wanted(tx), _gone(tx), tx.plan.of("audit_back")
    if not (wanted or gone or back):
        return Delta([], [])
    try:
        now = loaded(tx.host)
    except OSError:
        if wanted:
            raise
        return Delta([], [])  # a kernel without audit has nothing to give back
    load = {i: rules.encode(rule) for i, rule in wanted.items() if i not in now}
    for operation in back:
        load.update((i, raw) for i, raw in known(operation["removed"]).items() if i not in now)
        gone.update(known(operation["added"]))
    unload = [raw for i in gone if i not in wanted for raw in now.get(i, [])]
    return Delta(list(load.values()), unload)


def _rules(host: Host, path: str, content: bytes | None) -> list[Json]:
    try:
        text = (content or b"").decode("utf-8")
        return [rule for _, rule in rules.read(text, lambda item: is_directory(host, item))]
    except ValueError as exc:
        raise HostError("%s: %s" % (path, exc)) from exc


def is_directory(host: Host, path: str) -> bool:
    """Tell what auditctl looks at when it makes a watch (``-w``) of a path."""
    resolved = host.resolve(path)
    status = host.lstat(resolved) if resolved else None
    return status is not None and stat_module.S_ISDIR(status.st_mode)


def _wanted(tx: Transaction) -> dict[Identity, Json]:
    """Return the rules that are to be in the kernel afterwards."""
    targets = {target.path: target for target in tx.targets}
    found: dict[Identity, Json] = {}
    for operation in tx.plan.of("audit_load"):
        path = operation["path"]
        try:
            content = targets[path].content if path in targets else files.read(tx.host, path)[0]
        except FileNotFoundError:
            content = None
        if content is None:
            raise HostError("%s is not there to be loaded" % path)
        found.update((rules.identity(rule), rule) for rule in _rules(tx.host, path, content))
    return found


def _gone(tx: Transaction) -> dict[Identity, Json]:
    """Return the rules that files of ours lose, apart from those that somebody else's file has too."""
    found: dict[Identity, Json] = {}
    kept: set[Identity] = set()
    for target in [target for target in tx.targets if rules.is_file(target.path)]:
        kept.update(rules.identity(rule) for rule in _former(tx.host, target.content))
        for rule in _former(tx.host, target.old_content):
            # A directory may have come or gone since the watch was made.
            found.update({rules.identity(rule): rule, rules.twin(rule): rule})
    if not found:
        return {}
    mine = {target.path for target in tx.targets}
    for rule in look_auditd.files(tx.host)["persistent"] or []:
        if rule["file"] not in mine and not rule["generated"]:
            kept.add(rules.identity(rule))
    return {identity: rule for identity, rule in found.items() if identity not in kept}


def _former(host: Host, content: bytes | None) -> list[Json]:
    """Return the rules of a file that goes; what somebody wrote into it by hand may be anything."""
    found = []
    for line in (content or b"").decode("utf-8", "replace").splitlines():
        try:
            found += [rule for _, rule in rules.read(line, lambda item: is_directory(host, item))]
        except ValueError:
            continue
    return found


# -- the step --------------------------------------------------------------------------------------
def audit_rules(tx: Transaction) -> str | Skipped:
    """Load rules into the kernel and take out others; see in its list that it did."""
    change = delta(tx)
    if not (change.load or change.unload):
        return Skipped("the kernel's audit rules stay as they are")
    if not change.load and look_auditd.status(tx.host).get("enabled") == look_auditd.LOCKED:
        return "%d rules stay in the kernel until the next boot: they are locked" % len(
            change.unload
        )
    added, removed = ([raw.hex() for raw in part] for part in change)
    with tx.writer().effect("audit_rules", added=added, removed=removed):
        for raw in change.unload:
            change_rule(tx.host, raw, add=False)
        for raw in change.load:
            change_rule(tx.host, raw, add=True)
    left = delta(tx)
    if left.load or left.unload:
        raise HostError("the kernel's list does not show the audit rules: " + told(left))
    tx.changed = True
    return told(change)


# -- for people ------------------------------------------------------------------------------------
def told(change: Delta) -> str:
    """Return how many rules a delta loads and takes out."""
    parts = [(len(change.load), "loaded"), (len(change.unload), "taken out")]
    return ", ".join("%d %s" % part for part in parts if part[0])


def rows(tx: Transaction) -> list[Json]:
    """Return what the kernel's list gains and loses, for --diff."""
    change = delta(tx)
    if not (change.load or change.unload):
        return []
    before, after = ("".join(sorted(shown(raw) + "\n" for raw in part)) for part in change[::-1])
    return [diffs.row("audit rules in the kernel", before, after)]
