# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Whether audit rules record the accesses to a file or directory: for checks, and for plans.

A *thing* is ``{"path", "resolved", "type"}``; rules are those of the observation's section ``audit``.
"""

from __future__ import annotations

import posixpath
import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_calls

Json = dict[str, typing.Any]

#: Conditions under which a rule still covers everybody who does something.
_HARMLESS = frozenset({"filetype"})
#: Types of records, in a file and in the kernel, without which nobody knows who did what to which file.
_RECORDS = frozenset({"SYSCALL", "1300", "PATH", "1302"})
#: The condition of a rule that covers those who logged in, and whatever they started.
SESSIONS: Json = {"field": "auid", "op": "!=", "value": "unset"}


def watched(
    thing: Json, rules: typing.Sequence[Json], wanted: str, *, sessions: bool = False
) -> bool:
    """Tell whether rules record everybody's accesses of some kinds to a file or directory.

    The first rule that fits decides, as in the kernel. A directory must be watched as one.

    :param wanted: of ``rwxa``.
    :param sessions: be content with the accesses of those who logged in.
    """
    missing, silencer = _judged(thing, rules, wanted, sessions)
    return not missing and silencer is None


def silencer(
    thing: Json, rules: typing.Sequence[Json], wanted: str, *, sessions: bool = False
) -> Json | None:
    """Return the rule that keeps some of those accesses from being recorded, or None."""
    return _judged(thing, rules, wanted, sessions)[1]


def written(rule: Json) -> str:
    """Return a rule as a line of a rules file: ``-a never,exit -F uid=0``."""
    fields = [f"arch={rule['arch']}"] if rule["arch"] else []
    fields += [f"{rule['kind']}={rule['path']}"] if rule["path"] else []
    fields += [f"perm={rule['perm']}"] if rule["perm"] is not None else []
    fields += [f"{item['field']}{item['op']}{item['value']}" for item in rule["fields"]]
    named = [] if rule["syscalls"] in ([], ["all"]) else [f"-S {','.join(rule['syscalls'])}"]
    return " ".join(
        [f"-a {rule['action']},{rule['list']}", *(f"-F {field}" for field in fields), *named]
    )


def _judged(
    thing: Json, rules: typing.Sequence[Json], wanted: str, sessions: bool
) -> tuple[set[tuple[str, str]], Json | None]:
    """Return the accesses that no rule records, and the rule that silences some, if one does."""
    missing = {(kind, arch) for kind in wanted for arch in ("b32", "b64")}
    for rule in rules:
        if _silences(rule):
            return missing, rule
    for rule in rules:
        if rule["list"] != "exit" or not _fits(rule, thing, sessions):
            continue
        fits = _kinds(rule)
        if rule["action"] == "never" and missing & fits:
            return missing, rule
        missing -= fits
    return missing, None


def _silences(rule: Json) -> bool:
    """Tell whether the kernel records nothing of some tasks because of a rule, whatever others say.

    A task that starts under ``never,task`` has no audit context, and none of its system calls is
    ever asked about. What the list ``exclude`` names is dropped when it would be written, whatever
    the rule's action. Source: linux kernel/auditsc.c, audit_alloc and audit_filter.
    """
    if rule["list"] == "exclude":
        return not any(
            item["field"] == "msgtype" and item["op"] == "=" and item["value"] not in _RECORDS
            for item in rule["fields"]
        )
    return bool(rule["list"] == "task" and rule["action"] == "never")


def _architectures(rule: Json) -> tuple[str, ...]:
    """Return whose system calls a rule is about; a host of 64 bits runs programs of 32 too."""
    arch = rule["arch"]
    if arch is None:
        return ("b32", "b64")
    return (arch,) if arch in ("b32", "b64") else (("b64",) if "64" in arch else ("b32",))


def _kinds(rule: Json) -> set[tuple[str, str]]:
    """Return the kinds of access that a rule may be about, each for programs of 64 or 32 bits."""
    permissions = set(rule["perm"] if rule["perm"] is not None else "rwxa")
    return {
        (kind, bits)
        for bits in _architectures(rule)
        for kind in permissions & audit_calls.accesses(rule["syscalls"], rule["arch"] or bits)
    }


def _fits(rule: Json, thing: Json, sessions: bool) -> bool:
    """Tell whether a rule of the list ``exit`` records, or silences, accesses to a thing."""
    if rule["action"] == "never":
        # Of whom matters not: what it is about is recorded of fewer than everybody.
        return rule["kind"] == "syscall" or _covers(rule, thing)
    if rule["action"] != "always" or "all" not in rule["syscalls"]:
        return False
    conditions = [item for item in rule["fields"] if item["field"] not in _HARMLESS]
    if conditions and not (sessions and conditions == [SESSIONS]):
        return False  # it records some accesses only
    return _covers(rule, thing)


def _covers(rule: Json, thing: Json) -> bool:
    path, place = thing["resolved"] or thing["path"], rule["resolved"] or rule["path"]
    if rule["kind"] == "dir":
        return within(path, place)
    return bool(rule["kind"] == "path" and path == place and thing["type"] != "directory")


def within(path: str, directory: str) -> bool:
    """Tell whether a path is a directory or lies below it; by name, links are not followed."""
    one, other = posixpath.normpath(path), posixpath.normpath(directory).rstrip("/")
    return one == other or one.startswith(other + "/")
