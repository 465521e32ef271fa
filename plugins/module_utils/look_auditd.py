# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Audit: the kernel's state, the rules it has loaded, and the rules in files.

The loaded rules are asked of the kernel itself (netlink AUDIT_LIST_RULES, which changes nothing), so
that neither auditctl nor its output is needed. Source: linux/audit.h; auditctl(8), audit.rules(7) and
augenrules(8) for the files; the audit userspace's lib/fieldtab.h for the names of fields.
"""

from __future__ import annotations

import posixpath
import re
import stat as stat_module
import struct
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import look_systemd
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

_RULES_DIRECTORY = "/etc/audit/rules.d"
_RULES_FILE = "/etc/audit/audit.rules"
_AUDITD = ("/usr/sbin/auditd", "/sbin/auditd")

_LISTS = {0: "user", 1: "task", 4: "exit", 5: "exclude", 6: "filesystem", 7: "io_uring"}
_ACTIONS = {0: "never", 1: "possible", 2: "always"}
_PREPEND = 0x10
_PERMISSIONS = ((4, "r"), (2, "w"), (1, "x"), (8, "a"))

_FIELDS = {
    0: "pid", 1: "uid", 2: "euid", 3: "suid", 4: "fsuid", 5: "gid", 6: "egid", 7: "sgid",
    8: "fsgid", 9: "auid", 10: "pers", 11: "arch", 12: "msgtype", 13: "subj_user",
    14: "subj_role", 15: "subj_type", 16: "subj_sen", 17: "subj_clr", 18: "ppid", 19: "obj_user",
    20: "obj_role", 21: "obj_type", 22: "obj_lev_low", 23: "obj_lev_high", 24: "loginuid_set",
    25: "sessionid", 26: "fstype", 100: "devmajor", 101: "devminor", 102: "inode", 103: "exit",
    104: "success", 105: "path", 106: "perm", 107: "dir", 108: "filetype", 109: "obj_uid",
    110: "obj_gid", 111: "field_compare", 112: "exe", 113: "saddr_fam", 200: "a0", 201: "a1",
    202: "a2", 203: "a3", 210: "key",
}  # fmt: skip
#: Fields whose value is a text, which stands in the buffer after the numbers.
_TEXTS = frozenset({13, 14, 15, 16, 17, 19, 20, 21, 22, 23, 105, 107, 112, 210})

_OPERATORS = {
    0x40000000: "=", 0x30000000: "!=", 0x10000000: "<", 0x20000000: ">",
    0x50000000: "<=", 0x60000000: ">=", 0x08000000: "&", 0x48000000: "&=",
}  # fmt: skip
_OPERATOR_BITS = 0x78000000

_ARCHITECTURES = {
    0xC000003E: "x86_64", 0x40000003: "i386", 0xC00000B7: "aarch64", 0x40000028: "arm",
    0xC0000015: "ppc64le", 0x80000016: "s390x", 0xC00000F3: "riscv64",
}  # fmt: skip

_HEADER = struct.Struct("=III64I64I64I64II")
_WORDS = 64

#: How many rules of one kind leave the host.
_MAX_RULES = 2000


def audit(host: Host, timeout: float, objects: typing.Sequence[Mapping]) -> Mapping:
    """Return the section ``audit``.

    :param objects: the things that rules should watch, from :func:`watched`.
    """
    status, reason = _status(host)
    loaded: list[Mapping] | None = None
    if reason is None:
        try:
            rules = host.audit(AUDIT_LIST_RULES)[:_MAX_RULES]
            loaded = [_placed(host, decode(item)) for item in rules]
        except OSError as exc:
            reason = os_reason(exc)
        except (struct.error, ValueError):
            reason = "the kernel's rules are in no known shape"
    found: Mapping = {**status, "reason": reason, "loaded": loaded}
    found["auditd"] = _auditd(host, timeout, status.pop("pid", None))
    found.pop("pid", None)
    found.update(_files(host))
    found["objects"] = list(objects)
    return found


def _status(host: Host) -> tuple[Mapping, str | None]:
    names = ("enabled", "failure", "pid", "backlog_limit", "lost")
    unknown: Mapping = dict.fromkeys(names)
    try:
        answers = host.audit(AUDIT_GET)
        # mask, enabled, failure, pid, rate_limit, backlog_limit, lost, ...
        values = struct.unpack_from("=7I", answers[0])
    except OSError as exc:
        return unknown, os_reason(exc)
    except (IndexError, struct.error):
        return unknown, "the kernel's answer is in no known shape"
    _, enabled, failure, pid, _, backlog_limit, lost = values
    return dict(zip(names, (enabled, failure, pid, backlog_limit, lost))), None


def _auditd(host: Host, timeout: float, pid: int | None) -> Mapping:
    found: Mapping = {
        "installed": any(host.lstat(path) is not None for path in _AUDITD),
        "running": None if pid is None else pid != 0,
        "pid": pid or None,
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


# -- the kernel's rules ----------------------------------------------------------------------------
def decode(data: bytes) -> Mapping:
    """Return one rule from the kernel's ``struct audit_rule_data``.

    :raises ValueError: it is in no known shape; struct.error when it is cut off.
    """
    values = _HEADER.unpack_from(data)
    flags, action, count = values[:3]
    mask, fields, numbers, operators = (
        values[3 + i * _WORDS : 3 + (i + 1) * _WORDS] for i in range(4)
    )
    if count > _WORDS:
        raise ValueError("more than %d fields" % _WORDS)
    rule = _rule(_LISTS.get(flags & ~_PREPEND, "other"), _ACTIONS.get(action, "other"))
    position = _HEADER.size
    for field, value, operator in list(zip(fields, numbers, operators))[:count]:
        name = _FIELDS.get(field, str(field))
        shown: str = str(value)
        if field in _TEXTS:
            shown = data[position : position + value].decode("utf-8", "replace")
            position += value
        sign = _OPERATORS.get(operator & _OPERATOR_BITS, "?")
        if name == "perm":
            shown = "".join(letter for bit, letter in _PERMISSIONS if value & bit)
        elif name == "arch":
            shown = _ARCHITECTURES.get(value, "%#x" % value)
        elif name in ("auid", "uid", "gid", "euid") and value == 2**32 - 1:
            shown = "unset"
        elif name in ("exit", "a0", "a1", "a2", "a3") and value >= 2**31:
            shown = str(value - 2**32)
        _add_field(rule, name, sign, shown)
    rule["syscalls"] = _syscalls(mask)
    return rule


def _syscalls(mask: typing.Sequence[int]) -> list[str]:
    # Every bit, or all but those of the last word, which auditctl does not always set.
    if all(word == 0xFFFFFFFF for word in mask[:-1]):
        return ["all"]
    found: list[str] = []
    for index, word in enumerate(mask):
        if word:
            found.extend(str(index * 32 + bit) for bit in range(32) if word >> bit & 1)
    return found


def _rule(list_: str, action: str) -> Mapping:
    rule: Mapping = {"list": list_, "action": action, "kind": "syscall", "path": None}
    rule.update(resolved=None, perm=None, syscalls=[], arch=None, fields=[], key=None, keys=[])
    return rule


def _add_field(rule: Mapping, name: str, operator: str, value: str) -> None:
    if name in ("path", "dir") and operator == "=":
        rule.update(kind=name, path=value)
    elif name == "perm" and operator == "=":
        rule["perm"] = value
    elif name == "arch" and operator == "=":
        rule["arch"] = value
    elif name == "key":
        # auditctl joins several keys with the character 1
        rule["keys"] = [item for item in value.split("\x01") if item]
        rule["key"] = rule["keys"][0] if rule["keys"] else None
    else:
        rule["fields"].append({"field": name, "op": operator, "value": value})


def _placed(host: Host, rule: Mapping) -> Mapping:
    if rule["path"] and posixpath.isabs(rule["path"]):
        rule["resolved"] = host.resolve(rule["path"])
    return rule


# -- the rules in files ----------------------------------------------------------------------------
def _files(host: Host) -> Mapping:
    found: Mapping = {"persistent": [], "unparsed": [], "rules_files": []}
    paths = [_RULES_FILE]
    try:
        names = host.listdir(_RULES_DIRECTORY)
        paths += ["%s/%s" % (_RULES_DIRECTORY, name) for name in names if name.endswith(".rules")]
    except FileNotFoundError:
        pass
    except OSError as exc:
        found["unparsed"].append(_unparsed(_RULES_DIRECTORY, None, os_reason(exc)))
        found["persistent"] = None
    for path in paths:
        try:
            status = host.lstat(path)
            if status is None:
                continue
            content = host.read_text(path)
        except OSError as exc:
            found["unparsed"].append(_unparsed(path, None, os_reason(exc)))
            found["persistent"] = None
            continue
        found["rules_files"].append(
            {
                "path": path,
                "mode": "%04o" % stat_module.S_IMODE(status.st_mode),
                "uid": status.st_uid,
                "gid": status.st_gid,
                "generated": content.startswith("## This file is automatically generated"),
            }
        )
        if found["persistent"] is not None:
            _read_rules(host, path, content, found)
    return found


def _unparsed(path: str, line: int | None, reason: str) -> Mapping:
    return {"file": path, "line": line, "reason": reason}


def _read_rules(host: Host, path: str, content: str, found: Mapping) -> None:
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
            found["persistent"].append({**_placed(host, rule), "file": path, "line": number})


def _is_directory(host: Host, path: str) -> bool:
    try:
        status = host.lstat(host.resolve(path) or path)
    except OSError:
        return False
    return status is not None and stat_module.S_ISDIR(status.st_mode)


#: Options of auditctl that are no rule, with the number of words that follow them.
_CONTROLS = {
    "-D": 0, "-b": 1, "-c": 0, "-e": 1, "-f": 1, "-i": 0, "-r": 1, "-s": 0, "-q": 1, "-t": 0,
    "--backlog_wait_time": 1, "--loginuid-immutable": 0, "--reset-lost": 0,
    "--reset_backlog_wait_time_actual": 0, "--signal": 1,
}  # fmt: skip

_FIELD = re.compile(r"([A-Za-z_0-9]+)(!=|<=|>=|&=|=|<|>|&)(.*)\Z", re.DOTALL)


def parse(words: list[str], is_directory: typing.Callable[[str], bool]) -> Mapping | None:
    """Return the rule that one line of a rules file adds; None for a line that adds none.

    :param words: the line's words. ``is_directory`` tells what a watch would be of.
    :raises ValueError: it is no such line; the message is the reason.
    """
    rule: Mapping | None = None
    waiting = list(words)
    permissions, watched = "rwxa", None
    while waiting:
        option = waiting.pop(0)
        if option in _CONTROLS:
            del waiting[: _CONTROLS[option]]
            continue
        if option not in _VALUED:
            raise ValueError("no option")
        if not waiting:
            raise ValueError("%s without a value" % option)
        value = waiting.pop(0).strip("\"'")
        if option in ("-W", "-d"):
            return None  # takes a rule away
        if option in ("-a", "-A"):
            rule = _opened(value)
        elif option == "-w":
            rule, watched = _rule("exit", "always"), value.rstrip("/") or "/"
            rule["syscalls"] = ["all"]
        elif option == "-p":
            permissions = value
        elif rule is None:
            raise ValueError("%s before -a or -w" % option)
        else:
            _added(rule, option, value)
    if rule is not None and watched is not None:
        rule.update(kind="dir" if is_directory(watched) else "path", path=watched)
        rule["perm"] = _ordered(permissions)
    elif rule is not None and not rule["syscalls"] and rule["list"] == "exit":
        rule["syscalls"] = ["all"]
    return rule


def _added(rule: Mapping, option: str, value: str) -> None:
    """Add what one option says to a rule."""
    if option == "-k":
        rule["keys"].append(value)
        rule["key"] = rule["keys"][0]
    elif option == "-S":
        rule["syscalls"].extend(value.split(","))
    elif option == "-F":
        _field(rule, value)
    else:  # -C
        rule["fields"].append({"field": "field_compare", "op": "=", "value": value})


_VALUED = frozenset({"-a", "-A", "-w", "-p", "-W", "-d", "-k", "-S", "-F", "-C"})


def _opened(value: str) -> Mapping:
    parts = value.split(",")
    actions = [part for part in parts if part in _ACTIONS.values()]
    lists = [part for part in parts if part in ("user", "task", "exit", "exclude", "filesystem",
                                                "io_uring", "entry")]  # fmt: skip
    if len(parts) != 2 or len(actions) != 1 or len(lists) != 1:
        raise ValueError("-a names no list and action")
    return _rule(lists[0], actions[0])


def _field(rule: Mapping, value: str) -> None:
    match = _FIELD.match(value)
    if not match:
        raise ValueError("-F is no field, operator and value")
    name, operator, operand = match.groups()
    if name in ("auid", "loginuid"):
        name, operand = "auid", "unset" if operand in ("-1", "4294967295", "unset") else operand
    elif name == "perm":
        operand = _ordered(operand)
    elif name in ("path", "dir"):
        operand = operand.rstrip("/") or "/"
    elif name == "key" and rule["keys"]:
        operand = "\x01".join([*rule["keys"], operand])
    _add_field(rule, name, operator, operand)


def _ordered(permissions: str) -> str:
    return "".join(letter for _, letter in _PERMISSIONS if letter in permissions)


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
