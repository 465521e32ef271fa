# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The language of audit rules: as a line of a rules file, and as the kernel keeps them.

A RULE is ``{"list", "action", "kind": "path" | "dir" | "syscall", "path", "resolved", "perm",
"syscalls": [text, ...], "arch", "fields": [{"field", "op", "value"}, ...], "key", "keys"}``.

Source: linux/audit.h; auditctl(8) and audit.rules(7); the audit userspace's lib/fieldtab.h for the
names of fields, and its lib/libaudit.c for how auditctl makes the kernel's form of a line.
"""

from __future__ import annotations

import re
import struct
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import Mapping

#: Where augenrules finds rules for the next boot: those whose names end in ``.rules``.
RULES_DIRECTORY = "/etc/audit/rules.d/"
#: Rules that Docker's unit loads, because what they watch is not there yet when auditd starts.
LATE_SUFFIX = ".late"

_FILE = re.compile(re.escape(RULES_DIRECTORY) + r"[^/\n]+\.(rules|late)\Z")


def is_file(path: str) -> bool:
    """Tell whether a path is that of a file of rules."""
    return bool(_FILE.match(path))


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

_NUMBERS = {name: number for number, name in _FIELDS.items()}
_SIGNS = {sign: number for number, sign in _OPERATORS.items()}
_EXIT = 4
#: Conditions that are about a user.
_USERS = ("auid", "uid", "euid", "gid")
_MAX_PATH = 4096

_HEADER = struct.Struct("=III64I64I64I64II")
_WORDS = 64


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


def encode(rule: Mapping) -> bytes:
    """Return a rule in the kernel's form, as auditctl makes it of the same line.

    :raises ValueError: it is none that Bulkhead loads (see :func:`check`); the message says why.
    """
    check(rule)
    fields = [(rule["kind"], "=", str(rule["path"]))]
    if rule["perm"] is not None:
        fields.append(("perm", "=", rule["perm"]))
    fields += [(item["field"], item["op"], item["value"]) for item in rule["fields"]]
    if rule["keys"]:
        fields.append(("key", "=", "\x01".join(rule["keys"])))
    numbers, values, operators, texts = [], [], [], b""
    for name, sign, operand in fields:
        number = _NUMBERS[name]
        numbers.append(number)
        operators.append(_SIGNS[sign])
        if number in _TEXTS:
            texts += operand.encode("utf-8")
            values.append(len(operand.encode("utf-8")))
        elif name == "perm":
            values.append(sum(bit for bit, letter in _PERMISSIONS if letter in operand))
        else:
            values.append(2**32 - 1 if operand == "unset" else int(operand))
    blank = [0] * (_WORDS - len(fields))
    # An exception must come before the rules that it is one from.
    flags = _EXIT | (_PREPEND if rule["action"] == "never" else 0)
    action = next(number for number, name in _ACTIONS.items() if name == rule["action"])
    # The kernel tells two rules apart by the mask too: with another one, auditctl would load a second.
    mask = [0xFFFFFFFF] * _WORDS
    parts = [flags, action, len(fields), *mask]
    for part in (numbers, values, operators):
        parts += part + blank
    return _HEADER.pack(*parts, len(texts)) + texts


def identity(rule: Mapping) -> tuple[typing.Any, ...]:
    """Return what makes two rules the same to the kernel, whatever their form and place."""
    fields = sorted((item["field"], item["op"], item["value"]) for item in rule["fields"])
    names = ("list", "action", "kind", "path", "perm", "arch")
    return (*(rule[name] for name in names), *rule["syscalls"], *fields, *rule["keys"])


def twin(rule: Mapping) -> tuple[typing.Any, ...]:
    """Return the identity of the same watch, made when its path was no directory, or was one."""
    other = {"path": "dir", "dir": "path"}
    return identity(dict(rule, kind=other.get(rule["kind"], rule["kind"])))


def check(rule: Mapping) -> None:
    """Refuse a rule that Bulkhead does not load.

    It must watch one file or directory, for all system calls: anything else is not about what
    Docker runs from, and could not be told apart from what the kernel shows.

    :raises ValueError: with the reason.
    """
    path = str(rule["path"])
    if rule["list"] != "exit" or rule["action"] not in ("always", "never"):
        raise ValueError("only rules of the exit list are taken, with always or never")
    if rule["kind"] not in ("path", "dir"):
        raise ValueError("it names no file (-w, -F path=) and no directory (-F dir=)")
    if not path.startswith("/") or path == "/" or {"", ".", ".."} & set(path[1:].split("/")):
        raise ValueError("%s is no plain absolute path below /" % path)
    if len(path.encode("utf-8")) >= _MAX_PATH:
        raise ValueError("its path is longer than %d bytes" % (_MAX_PATH - 1))
    if rule["syscalls"] != ["all"] or rule["arch"] is not None:
        raise ValueError("-S and arch are not taken: a watch is for all system calls")
    if rule["perm"] is not None and not rule["perm"]:
        raise ValueError("its permissions are none of r, w, x and a")
    for item in rule["fields"]:
        if item["field"] == "exe":
            fits = item["op"] in ("=", "!=") and item["value"].startswith("/")
        else:
            number = re.match(r"\d{1,10}\Z", item["value"])
            known = item["value"] == "unset" or (number and int(item["value"]) < 2**32)
            fits = item["field"] in _USERS and item["op"] in _SIGNS and bool(known)
        if not fits:
            raise ValueError(
                "%(field)s%(op)s%(value)s is not taken; conditions are exe= with a path, and %%s with a "
                "number or unset" % item % ", ".join(_USERS)
            )
    for key in rule["keys"]:
        if not re.match(r"[\x21-\x7e]{1,31}\Z", key):
            raise ValueError("a key has 1 to 31 visible characters")


def read(content: str, is_directory: typing.Callable[[str], bool]) -> list[tuple[int, Mapping]]:
    """Return the rules that a rules file of ours adds, each with its line.

    :raises ValueError: a line is none, or none that Bulkhead loads; the message names it.
    """
    found = []
    for number, line in enumerate(content.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            rule = parse(words, is_directory)
            if rule is not None:
                check(rule)
                found.append((number, rule))
        except ValueError as exc:
            raise ValueError("line %d: %s" % (number, exc)) from exc
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


# -- a line of a rules file -------------------------------------------------------------------------
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
        if option in ("-a", "-A", "-w"):
            if rule is not None:
                raise ValueError("%s in a line that has a rule already" % option)
            watched = (value.rstrip("/") or "/") if option == "-w" else None
            rule = _opened("always,exit" if watched else value)
            rule["syscalls"] = ["all"] if watched else []
        elif option == "-p":
            permissions = value
        elif rule is None:
            raise ValueError("%s before -a or -w" % option)
        else:
            _added(rule, option, value)
    if rule is not None and watched is not None:
        _watch(rule, watched, is_directory(watched), permissions)
    elif rule is not None and not rule["syscalls"] and rule["list"] == "exit":
        rule["syscalls"] = ["all"]
    return rule


def _watch(rule: Mapping, path: str, directory: bool, permissions: str) -> None:
    """Make a rule that of a watch (``-w``)."""
    if rule["path"] is not None or rule["perm"] is not None:
        raise ValueError("-w with another path or perm")
    rule.update(kind="dir" if directory else "path", path=path, perm=_ordered(permissions))


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
        if rule["path"] is not None:
            raise ValueError("more than one path")
        operand = operand.rstrip("/") or "/"
    elif name == "key" and rule["keys"]:
        operand = "\x01".join([*rule["keys"], operand])
    _add_field(rule, name, operator, operand)


def _ordered(permissions: str) -> str:
    if set(permissions) - set("rwxa"):
        raise ValueError("permissions are of r, w, x and a")
    return "".join(letter for _, letter in _PERMISSIONS if letter in permissions)
