# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Whether audit rules record the accesses to a file or directory: for checks, and for plans.

A *thing* is ``{"path", "resolved", "type"}``; rules are those of the observation's section ``audit``.
"""

from __future__ import annotations

import posixpath
import typing

Json = dict[str, typing.Any]

#: Conditions under which a rule still covers everybody who does something.
_HARMLESS = frozenset({"filetype"})
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
    missing = {(kind, arch) for kind in wanted for arch in ("b32", "b64")}
    for rule in rules:
        if not _covers(rule, thing, sessions):
            continue
        permissions = rule["perm"] if rule["perm"] is not None else "rwxa"
        fits = {(kind, arch) for kind in permissions for arch in _architectures(rule)}
        if rule["action"] == "never":
            if missing & fits:
                return False
            continue
        missing -= fits
    return not missing


def _architectures(rule: Json) -> tuple[str, ...]:
    """Return whose system calls a rule is about; a host of 64 bits runs programs of 32 too."""
    arch = rule["arch"]
    if arch is None:
        return ("b32", "b64")
    return (arch,) if arch in ("b32", "b64") else (("b64",) if "64" in arch else ("b32",))


def _covers(rule: Json, thing: Json, sessions: bool) -> bool:
    if rule["list"] != "exit" or "all" not in rule["syscalls"]:
        return False
    conditions = [item for item in rule["fields"] if item["field"] not in _HARMLESS]
    if rule["action"] == "always" and conditions and not (sessions and conditions == [SESSIONS]):
        return False  # it records some accesses only
    path, place = thing["resolved"] or thing["path"], rule["resolved"] or rule["path"]
    if rule["kind"] == "dir":
        return within(path, place)
    return bool(rule["kind"] == "path" and path == place and thing["type"] != "directory")


def within(path: str, directory: str) -> bool:
    """Tell whether a path is a directory or lies below it; by name, links are not followed."""
    one, other = posixpath.normpath(path), posixpath.normpath(directory).rstrip("/")
    return one == other or one.startswith(other + "/")
