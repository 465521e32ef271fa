# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Audit: the kernel's state, the rules it has loaded, and the rules in files.

The loaded rules are asked of the kernel itself (netlink AUDIT_LIST_RULES, which changes nothing), so
that neither auditctl nor its output is needed. Source: linux/audit.h; augenrules(8) for the files.
"""

from __future__ import annotations

import hashlib
import posixpath
import stat as stat_module
import struct
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import look_systemd
from ansible_collections.bulkhead.hardening.plugins.module_utils.audit_rules import (
    LATE_SUFFIX,
    RULES_DIRECTORY,
    decode,
    parse,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import (
    AUDIT_GET,
    AUDIT_LIST_RULES,
    Host,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    UnreadableError,
    os_reason,
)

_RULES_FILE = "/etc/audit/audit.rules"
_AUDITD = ("/usr/sbin/auditd", "/sbin/auditd")
_AUDITCTL = ("/usr/sbin/auditctl", "/sbin/auditctl")

#: The kernel's word (``-e 2``) for rules that nobody changes before the next boot.
LOCKED = 2

#: How many rules of one kind leave the host.
_MAX_RULES = 2000


def audit(host: Host, timeout: float, objects: typing.Sequence[Mapping]) -> Mapping:
    """Return the section ``audit``.

    :param objects: the things that rules should watch, from :func:`watched`.
    """
    answers, reason = _status(host)
    loaded: list[Mapping] | None = None
    if reason is None:
        try:
            rules = host.audit(AUDIT_LIST_RULES)[:_MAX_RULES]
            loaded = [_placed(host, decode(item)) for item in rules]
        except OSError as exc:
            reason = os_reason(exc)
        except (struct.error, ValueError):
            reason = "the kernel's rules are in no known shape"
    found: Mapping = {**answers, "reason": reason, "loaded": loaded}
    found["auditd"] = _auditd(host, timeout, answers.pop("pid", None))
    found.pop("pid", None)
    found.update(files(host))
    for rule in found["persistent"] or []:
        del rule["generated"]
    found["objects"] = list(objects)
    return found


def status(host: Host) -> Mapping:
    """Return what the kernel says of its audit; None for each thing that it does not say."""
    return _status(host)[0]


def _status(host: Host) -> tuple[Mapping, str | None]:
    names = ("enabled", "failure", "pid", "rate_limit", "backlog_limit", "lost")
    unknown: Mapping = dict.fromkeys(names)
    try:
        answers = host.audit(AUDIT_GET)
        # mask, enabled, failure, pid, rate_limit, backlog_limit, lost, ...
        values = struct.unpack_from("=7I", answers[0])[1:]
    except OSError as exc:
        return unknown, os_reason(exc)
    except (IndexError, struct.error):
        return unknown, "the kernel's answer is in no known shape"
    return dict(zip(names, values)), None


def _auditd(host: Host, timeout: float, pid: int | None) -> Mapping:
    found: Mapping = {
        "installed": any(host.lstat(path) is not None for path in _AUDITD),
        "running": None if pid is None else pid != 0,
        "pid": pid or None,
        "auditctl": next((path for path in _AUDITCTL if host.lstat(path) is not None), None),
        "unit_state": None,
        "enabled": None,
    }
    if found["installed"] and look_systemd.is_init(host):
        try:
            unit = look_systemd.unit_states(host, "auditd.service", timeout)
        except UnreadableError:
            return found
        found.update(unit_state=unit["active_state"], enabled=unit["unit_file_state"])
        if found["running"] is None and unit["active_state"] is not None:
            found["running"] = unit["active_state"] == "active"
    return found


def _placed(host: Host, rule: Mapping) -> Mapping:
    if rule["path"] and posixpath.isabs(rule["path"]):
        rule["resolved"] = host.resolve(rule["path"])
    return rule


# -- the rules in files ----------------------------------------------------------------------------
def files(host: Host) -> Mapping:
    """Return ``persistent``, ``unparsed`` and ``rules_files``; a rule tells also whether its file is
    one that augenrules makes of the others (``generated``).
    """
    found: Mapping = {"persistent": [], "unparsed": [], "rules_files": []}
    paths = [_RULES_FILE]
    try:
        names = host.listdir(RULES_DIRECTORY)
        paths += [RULES_DIRECTORY + n for n in names if n.endswith((".rules", LATE_SUFFIX))]
    except FileNotFoundError:
        pass
    except OSError as exc:
        found["unparsed"].append(_unparsed(RULES_DIRECTORY, None, os_reason(exc)))
        found["persistent"] = None
    for path in paths:
        try:
            status = host.lstat(path)
            if status is None:
                continue
            content = host.read_text(path)
            version = host.version(path)
        except OSError as exc:
            found["unparsed"].append(_unparsed(path, None, os_reason(exc)))
            found["persistent"] = None
            continue
        generated = content.startswith("## This file is automatically generated")
        found["rules_files"].append(
            {
                "path": path,
                "mode": "%04o" % stat_module.S_IMODE(status.st_mode),
                "uid": status.st_uid,
                "gid": status.st_gid,
                "version": version,
                "sha256": hashlib.sha256(content.encode("utf-8")).hexdigest(),
                "generated": generated,
            }
        )
        if found["persistent"] is not None:
            _read_rules(host, path, content, generated, found)
    return found


def _unparsed(path: str, line: int | None, reason: str) -> Mapping:
    return {"file": path, "line": line, "reason": reason}


def _read_rules(host: Host, path: str, content: str, generated: bool, found: Mapping) -> None:
    for number, line in enumerate(content.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            rule = parse(words, lambda item: _is_directory(host, item))
        except ValueError as exc:
            found["unparsed"].append(_unparsed(path, number, str(exc)))
            continue
        if rule is not None and len(found["persistent"]) < _MAX_RULES:
            place = {"file": path, "line": number, "generated": generated}
            found["persistent"].append({**_placed(host, rule), **place})


def _is_directory(host: Host, path: str) -> bool:
    try:
        status = host.lstat(host.resolve(path) or path)
    except OSError:
        return False
    return status is not None and stat_module.S_ISDIR(status.st_mode)


# -- what should be watched ------------------------------------------------------------------------
class Watched(typing.NamedTuple):
    """One thing that a recommendation wants watched."""

    control: str
    what: str
    path: str | None


def watched(host: Host, items: typing.Sequence[Watched]) -> list[Mapping]:
    """Return the things that rules should watch, and what each is on this host."""
    found = []
    for item in items:
        row: Mapping = {"control": item.control, "what": item.what, "path": item.path}
        row.update(resolved=None, exists=False, type="absent", not_applicable=None)
        if item.path and posixpath.isabs(item.path):
            row["resolved"] = host.resolve(item.path)
            try:
                status = host.lstat(row["resolved"] or item.path)
            except OSError:
                status = None
            if status is not None:
                row.update(exists=True, type=_kind(status.st_mode))
        if not row["exists"]:
            row["not_applicable"] = "%s is not on this host" % (item.path or item.what)
        found.append(row)
    return found


def _kind(mode: int) -> str:
    for test, name in (
        (stat_module.S_ISREG, "file"),
        (stat_module.S_ISDIR, "directory"),
        (stat_module.S_ISSOCK, "socket"),
    ):
        if test(mode):
            return name
    return "other"
