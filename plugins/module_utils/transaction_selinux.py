# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""SELinux in a transaction: modules, booleans, paths labelled like others, and enforcing.

A plan's operations become one :class:`Change`; what was there before goes into the journal, so that
the same code puts it back. The policy is compiled once, and before anything else that needs it.
Paths are lines of a file like any other (see transaction_steps.units).
"""

from __future__ import annotations

import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    ledger as ledger_module,
    selinux,
    transaction_diff as diffs,
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_context import (
    Json,
    Skipped,
    Target,
    Transaction,
    read,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_journal import (
    transaction_path,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import Operation

MODULE, BOOLEAN, ENFORCING, RELABEL = EFFECTS = selinux.EFFECTS
EQUIVALENCE = "selinux_equivalence"

OPERATIONS = (
    *(MODULE, MODULE + "_absent", BOOLEAN, BOOLEAN + "_back"),
    *(EQUIVALENCE, EQUIVALENCE + "_absent", RELABEL, ENFORCING),
)


# -- before anything changes -----------------------------------------------------------------------
def check_selinux(tx: Transaction) -> None:
    """Turn the operations into what changes, and refuse what cannot be.

    :raises HostError: SELinux does not run, a program is missing, or something is not ours.
    """
    operations = tx.plan.of(*OPERATIONS)
    if not operations:
        return
    change = tx.selinux
    lines: dict[str, str | None] = {}
    for operation in operations:
        kind = operation["op"]
        if kind == MODULE:
            change.modules[operation["name"]] = _new_module(tx, operation)
        elif kind == MODULE + "_absent":
            _check_module_ours(tx, operation["name"])
            # Before it there was none, or ours would not have been installed.
            change.modules[operation["name"]] = None
        elif kind == BOOLEAN:
            change.booleans[operation["name"]] = operation["value"]
        elif kind == BOOLEAN + "_back":
            change.booleans[operation["name"]] = _owned(tx, BOOLEAN, operation["name"])["before"]
        elif kind == EQUIVALENCE:
            lines[operation["name"]] = operation["like"]
        elif kind == EQUIVALENCE + "_absent":
            lines[operation["name"]] = _owned(tx, EQUIVALENCE, operation["name"])["before"]
        elif kind == RELABEL:
            change.relabel.append(operation["path"])
        else:
            change.enforcing = True
    if lines:
        _lines(tx, lines)
    check_change(tx)
    if change.enforcing:
        _config_enforcing(tx)


def check_change(tx: Transaction) -> None:
    """Refuse a change that this host cannot take.

    :raises HostError: with the reason and what to do.
    """
    change = tx.selinux
    if not change:
        return
    if not selinux.enabled(tx.host):
        raise HostError("this kernel runs without SELinux, so nothing of its policy is changed")
    needed = {
        "semodule": change.modules,
        "setsebool": change.booleans,
        "restorecon": change.relabel + change.left,
    }
    for name, wanted in needed.items():
        if wanted and selinux.program(tx.host, name) is None:
            raise HostError("%s is not on this host; install the package policycoreutils" % name)
    for name in change.booleans:
        if selinux.boolean(tx.host, name) is None:
            raise HostError("the policy of this host has no boolean %s" % name)


def _new_module(tx: Transaction, operation: Operation) -> bytes:
    name = operation["name"]
    priority = selinux.modules(tx.host).get(name)
    if priority is not None and tx.ownership.find(MODULE, name=name) is None:
        raise HostError("a module %s is installed already that is not Bulkhead's" % name)
    return str(operation["content"]).encode("utf-8")


def _check_module_ours(tx: Transaction, name: str) -> None:
    """Refuse to remove a module that somebody changed."""
    item = _owned(tx, MODULE, name)
    now = selinux.digest(selinux.module(tx.host, name))
    if now not in (None, item["sha256"]):
        raise HostError("the module %s was changed by somebody else since; disown it" % name)


def _owned(tx: Transaction, kind: str, name: str) -> Json:
    item = tx.ownership.find(kind, name=name)
    if item is None:
        told = kind.replace("_", " ")
        raise HostError("%s %s was not set by Bulkhead, so it is not taken back" % (told, name))
    return item


def _lines(tx: Transaction, lines: dict[str, str | None]) -> None:
    """Plan the file of paths that are labelled like others."""
    path = selinux.equivalences_file(tx.host)
    old = read(tx, path)
    text = (old[0] if old else b"").decode("utf-8", "surrogateescape")
    now = selinux.equivalences(text)
    for name in lines:
        tx.selinux.former[name] = now.get(name)
    content = selinux.with_equivalences(text, lines).encode("utf-8", "surrogateescape")
    target = Target(path, old, content or None)
    tx.targets.append(target)


def _config_enforcing(tx: Transaction) -> None:
    old = read(tx, selinux.CONFIG)
    if old is None:
        raise HostError("%s is absent" % selinux.CONFIG)
    text = old[0].decode("utf-8", "surrogateescape")
    new, count = re.subn(r"(?m)^(\s*SELINUX\s*=\s*)\w+", r"\1enforcing", text, count=1)
    if not count:
        raise HostError("%s has no line SELINUX=" % selinux.CONFIG)
    tx.targets.append(Target(selinux.CONFIG, old, new.encode("utf-8", "surrogateescape")))


# -- the steps -------------------------------------------------------------------------------------
def policy(tx: Transaction) -> str | Skipped:
    """Install modules and remove others, and set booleans."""
    host, change, told = tx.host, tx.selinux, []
    modules = {n: t for n, t in change.modules.items() if selinux.module(host, n) != t}
    if modules:
        before = {name: selinux.packed(selinux.module(host, name)) for name in modules}
        after = {name: selinux.digest(text) for name, text in modules.items()}
        directory = "%s/%s" % (transaction_path(tx.id), ledger_module.IMAGES_NAME)
        with tx.writer().effect(MODULE, before=before, after=after):
            selinux.change_modules(host, modules, directory)
        for name, text in modules.items():
            if selinux.module(host, name) != text:
                raise HostError("the policy's store does not show the module %s" % name)
        told += ["module %s" % name for name in sorted(modules)]
    values = selinux.different(host, change.booleans)
    if values:
        now = {name: selinux.boolean(host, name) for name in values}
        tx.selinux.before.update(now)
        with tx.writer().effect(BOOLEAN, before=now, after=values):
            selinux.set_booleans(host, values)
        told += ["%s=%d" % item for item in sorted(values.items())]
    tx.changed = tx.changed or bool(told)
    return ", ".join(told) if told else Skipped("no module or boolean changes")


def labels(tx: Transaction) -> str | Skipped:
    """Label what the plan names, and let the kernel deny from now on where it should."""
    change, told = tx.selinux, []
    for path in change.relabel:
        for directory in [*files.missing_directories(tx.host, path), path]:
            if files.status(tx.host, directory) is None:
                with tx.writer().effect("directory", path=directory):
                    files.make_directory(tx.host, directory, 0o711)
        told.append(_relabel(tx, path))
    if change.enforcing and not selinux.enforcing(tx.host):
        with tx.writer().effect(ENFORCING):
            selinux.enforce(tx.host, True)
        told.append("enforcing")
    tx.changed = tx.changed or bool(told)
    return ", ".join(told) if told else Skipped("no label changes")


def labels_of_left(tx: Transaction) -> list[str]:
    """Label what the daemon has left, and say so; before that it would be denied its own files."""
    return [_relabel(tx, path) for path in tx.selinux.left if files.status(tx.host, path)]


def _relabel(tx: Transaction, path: str) -> str:
    with tx.writer().effect(RELABEL, path=path):
        selinux.relabel(tx.host, path)
    return "labelled " + path


def own(tx: Transaction) -> None:
    """Note in the ledger what is ours by now."""
    for operation in tx.plan.of(*OPERATIONS):
        kind, name = operation["op"], str(operation.get("name"))
        if kind == MODULE:
            digest = selinux.digest(operation["content"].encode("utf-8"))
            item: Json = {"kind": kind, "name": name, "sha256": digest}
            tx.ownership.put(operation["role"], item)
        elif kind in (BOOLEAN, EQUIVALENCE):
            field = "value" if kind == BOOLEAN else "like"
            before = tx.selinux.before.get(name) if kind == BOOLEAN else tx.selinux.former.get(name)
            former = tx.ownership.find(kind, name=name)
            if former is not None:
                before = former["before"]
            elif kind == BOOLEAN and before is None:  # it was so already
                before = operation["value"]
            item = {"kind": kind, "name": name, field: operation[field], "before": before}
            tx.ownership.put(operation["role"], item)
        elif kind.endswith(("_absent", "_back")):
            tx.ownership.drop(kind.rpartition("_")[0], name=name)


# -- back ------------------------------------------------------------------------------------------
def of_effects(tx: Transaction, effects: typing.Iterable[Json]) -> None:
    """Fill in what takes back the effects of a committed transaction.

    Enforcing stays on: Bulkhead never switches it off. So do the labels of a data root that the daemon
    does not leave, which it then needs.

    :raises HostError: somebody changed something of it since.
    """
    moves = tx.old_document.get("data-root") != tx.new_document.get("data-root")
    for effect in effects:
        if effect["kind"] == MODULE:
            for name, packed in effect["before"].items():
                now = selinux.digest(selinux.module(tx.host, name))
                _check_after("module " + name, now, effect["after"][name])
                tx.selinux.modules[name] = selinux.unpacked(packed)
        elif effect["kind"] == BOOLEAN:
            for name, value in effect["before"].items():
                _check_after(
                    "boolean " + name, selinux.boolean(tx.host, name), effect["after"][name]
                )
                tx.selinux.booleans[name] = value
        elif effect["kind"] == RELABEL and moves:
            tx.selinux.left.append(effect["path"])
    check_change(tx)


def _check_after(what: str, now: object, after: object) -> None:
    if now != after:
        raise HostError("the %s was changed by somebody else since; take that back first" % what)


# -- for people ------------------------------------------------------------------------------------
def rows(tx: Transaction) -> list[Json]:
    """Return what changes in the policy, for --diff."""
    found = []
    for name, text in sorted(tx.selinux.modules.items()):
        sides = (selinux.module(tx.host, name), text)
        found.append(
            diffs.row(
                "SELinux module " + name, *((s or b"").decode("utf-8", "replace") for s in sides)
            )
        )
    for name, value in sorted(selinux.different(tx.host, tx.selinux.booleans).items()):
        sides_of = (selinux.boolean(tx.host, name), value)
        found.append(diffs.row("SELinux boolean " + name, *("%d\n" % bool(s) for s in sides_of)))
    if tx.selinux.enforcing and not selinux.enforcing(tx.host):
        found.append(diffs.row("SELinux", "permissive\n", "enforcing\n"))
    found += [
        diffs.row("labels below " + path, "as they are\n", "as the policy has them\n")
        for path in tx.selinux.relabel + tx.selinux.left
    ]
    return [
        row for row in found if row["before"] != row["after"] or "boolean" in row["before_header"]
    ]
