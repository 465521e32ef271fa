# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""A container's AppArmor profile, from a description to the text that the parser reads. Pure.

A profile begins with what Docker's own ``docker-default`` allows and denies. A description then
narrows it, area by area: an area for which it lists what is allowed allows nothing else; an area for
which it lists nothing stays as wide as Docker's. What it denies is denied whatever it allows:
AppArmor lets a denial win.

Source of the rules that every profile has: the profiles of moby (docker-default), AppArmor's
apparmor.d(5), and for the senders of signals moby issue 47720: where the distribution ships a
profile ``runc``, what stops a container is no longer ``unconfined``.
"""

from __future__ import annotations

import re
import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import scalars
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json

ENFORCE, COMPLAIN = "enforce", "complain"

#: The profile of every container that names no other.
DEFAULT_NAME = "docker-default"

#: Who may send signals into a container, apart from itself.
_SENDERS = ("unconfined", "runc", "crun")

#: docker-default denies the same, in patterns of its own.
_BASE_DENIALS = """\
  # Of /proc only the directories of processes are for writing; of /sys only control groups.
  deny @{PROC}/[^1-9]** wl,
  deny @{PROC}/{kcore,sysrq-trigger} rwklx,
  deny mount,
  deny /sys/{[^f]**,f[^s]**,fs/[^c]**} wklx,
  deny /sys/{firmware,devices/virtual/powercap,kernel/security}/** rwklx,
  # Docker's own denies it from 29.4.3 on.
  deny network alg,"""

_WORDS = re.compile(r"[a-z0-9_]+( [a-z0-9_]+)?\Z")
_CAPABILITY = re.compile(r"[a-z][a-z0-9_]*\Z")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_ABSTRACTION = re.compile(r"[a-z0-9][a-z0-9_.-]*\Z", re.IGNORECASE)
# Anything that a rule's path may hold except what would end the rule or its quotes.
_PATH = re.compile(r"(/|@\{[A-Za-z0-9_]+\})[^\s\",#\x00-\x1f\x7f]*(,[^\s\"#\x00-\x1f\x7f]+)*\Z")

_FILE_ALLOWED = {"read": "r", "write": "rwkl", "execute": "mrix"}
_FILE_DENIED = {"deny": "mrwklx", "deny_write": "wl", "deny_execute": "mx"}
_AREAS = {
    "network": ("allow", "deny"),
    "capabilities": ("allow", "deny"),
    "files": (*_FILE_ALLOWED, *_FILE_DENIED),
}
_FIELDS = (*_AREAS, "abstractions", "raw", "local", "mode")


class Wrong(ValueError):
    """A description that cannot be rendered: where in it, what it holds, and the fix."""

    def __init__(self, where: str, value: object, fix: str) -> None:
        super().__init__(f"{where} is {value!r}: {fix}")
        self.where, self.value, self.fix = where, value, fix


class Facts(typing.NamedTuple):
    """What of the host matters for the text.

    ``abi``: it has ``abi/3.0``. From ABI 4 on ``network`` says less about unix sockets than Docker
    relies on, so the older one is named where there is a choice. ``daemon``: the daemon's own
    profile, None when it is unconfined.
    """

    abi: bool
    daemon: str | None = None


def check_name(name: object) -> None:
    """Refuse a name that is not one for a file at the top of /etc/apparmor.d.

    :raises Wrong: it is not.
    """
    if not isinstance(name, str) or not _NAME.match(name):
        raise Wrong("name", name, "use small letters, digits, '-' and '_', 63 at most")


def check(spec: typing.Any) -> Json:
    """Return a description with all areas and lists filled in; None: as wide as Docker's.

    :param spec: ``{"network": {"allow", "deny"}, "capabilities": {"allow", "deny"}, "files":
        {"read", "write", "execute", "deny", "deny_write", "deny_execute"}, "abstractions", "raw",
        "local", "mode"}``, everything optional.
    :raises Wrong: it has an unknown field, a wrong value, or allows what it denies.
    """
    _fields(spec, "", _FIELDS)
    found: Json = {
        "abstractions": _list(spec, "abstractions", _ABSTRACTION, "name files of abstractions/")
        or [],
        "raw": _raw(spec.get("raw")),
        "local": scalars.as_boolean(spec.get("local", True)),
        "mode": spec.get("mode"),
    }
    if found["local"] is None:
        raise Wrong("local", spec["local"], "say true or false")
    if found["mode"] not in (None, ENFORCE, COMPLAIN):
        raise Wrong("mode", found["mode"], f"say {ENFORCE} or {COMPLAIN}")
    patterns = {
        "network": (_WORDS, "say a family, a type, or both, such as 'inet stream' or 'raw'"),
        "capabilities": (_CAPABILITY, "name capabilities as capabilities(7) does, without CAP_"),
        "files": (_PATH, "use absolute paths without blanks; AppArmor's globs and variables work"),
    }
    for area, names in _AREAS.items():
        inner = {} if spec.get(area) is None else spec[area]
        _fields(inner, area, names)
        pattern, fix = patterns[area]
        found[area] = {name: _list(inner, name, pattern, fix, area) for name in names}
    _contradictions(found)
    return found


def _fields(value: typing.Any, where: str, names: typing.Sequence[str]) -> None:
    shown = where or "the profile"
    if not isinstance(value, dict):
        raise Wrong(shown, value, "give a mapping")
    for name in value:
        if name not in names:
            raise Wrong(shown, name, f"it has no such field; there are {', '.join(names)}")


def _list(
    value: Json, name: str, pattern: re.Pattern[str], fix: str, area: str = ""
) -> list[str] | None:
    where = f"{area}.{name}" if area else name
    items = value.get(name)
    if items is None:
        return None
    if not isinstance(items, list):
        raise Wrong(where, items, "give a list")
    for item in items:
        if not isinstance(item, str) or not pattern.match(item):
            raise Wrong(where, item, fix)
    return list(items)


def _raw(lines: typing.Any) -> list[str]:
    if lines is None:
        return []
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise Wrong("raw", lines, "give a list of lines")
    for line in lines:
        if re.search(r"[\x00-\x1f\x7f]", line):
            raise Wrong("raw", line, "give each line as an item of its own")
    return list(lines)


def _contradictions(spec: Json) -> None:
    """Refuse an allowed path that a denial covers: it would be denied all the same."""
    files = spec["files"]
    covering = {
        "read": ("deny",),
        "write": ("deny", "deny_write"),
        "execute": ("deny", "deny_execute"),
    }
    for allowed, denials in covering.items():
        for path in files[allowed] or []:
            for denial in denials:
                for other in files[denial] or []:
                    if path == other or (other.endswith("/**") and path.startswith(other[:-2])):
                        raise Wrong(
                            f"files.{allowed}",
                            path,
                            f"files.{denial} has {other}, and a denial always wins; narrow it",
                        )
    for area in ("network", "capabilities"):
        both = set(spec[area]["allow"] or []) & set(spec[area]["deny"] or [])
        for word in sorted(both):
            raise Wrong(f"{area}.allow", word, "it is denied too, and a denial always wins")


def render(name: str, spec: Json, mode: str, facts: Facts) -> str:
    """Return the text of a profile, with its header.

    In complain mode AppArmor reports what a profile does not allow, but goes on to deny, without a
    word, what it denies (apparmor.d(5)). So what the description denies is allowed and audited then.

    :param spec: as :func:`check` returns it.
    :param mode: ``enforce`` or ``complain``.
    """
    flags = ["attach_disconnected", "mediate_deleted"]
    if mode == COMPLAIN:
        flags.insert(0, COMPLAIN)
    lines = [header(name, spec["local"])]
    if facts.abi:
        lines.append("abi <abi/3.0>,")
    lines += ["include <tunables/global>", "", f"profile {name} flags=({','.join(flags)}) {{"]
    lines += [f"  include <abstractions/{item}>" for item in spec["abstractions"]]
    lines += _allowances(spec)
    lines += ["", "  # What docker stop, docker kill and docker exec need."]
    senders = [*_SENDERS, *([facts.daemon] if facts.daemon not in (None, *_SENDERS) else [])]
    lines += [f'  signal (receive) peer="{sender}",' for sender in senders]
    lines += [
        f'  signal (send,receive) peer="{name}",',
        f'  ptrace (trace,read,tracedby,readby) peer="{name}",',
        "",
        _BASE_DENIALS,
    ]
    lines += _denials(spec, mode)
    if spec["raw"]:
        lines += ["", *(f"  {line}".rstrip() for line in spec["raw"])]
    if spec["local"]:
        lines += ["", f"  include if exists <local/{name}>"]
    return "\n".join([*lines, "}", ""])


def header(name: str, local: bool) -> str:
    """Return the comment at the top of a file."""
    hint = (
        f"Local changes go into /etc/apparmor.d/local/{name}."
        if local
        else "Change the policy instead of this file."
    )
    return (
        f"# Written by Bulkhead (role docker_apparmor); it is replaced by the next run.\n# {hint}"
    )


def _allowances(spec: Json) -> list[str]:
    files = spec["files"]
    network, capabilities = spec["network"]["allow"], spec["capabilities"]["allow"]
    lines = ["", "  # Allowed."]
    lines += ["  network,"] if network is None else [f"  network {item}," for item in network]
    lines += (
        ["  capability,"]
        if capabilities is None
        else [f"  capability {item}," for item in capabilities]
    )
    if all(files[name] is None for name in _FILE_ALLOWED):
        lines.append("  file,")
    for kind, access in _FILE_ALLOWED.items():
        lines += [f"  {path} {access}," for path in files[kind] or []]
    return [*lines, "  umount,"]


def _denials(spec: Json, mode: str) -> list[str]:
    files, word = spec["files"], "audit" if mode == COMPLAIN else "deny"
    lines = [f"  {word} network {item}," for item in spec["network"]["deny"] or []]
    lines += [f"  {word} capability {item}," for item in spec["capabilities"]["deny"] or []]
    for kind, access in _FILE_DENIED.items():
        # A rule that allows execution says how: within this profile.
        shown = access.replace("x", "ix") if mode == COMPLAIN else access
        lines += [f"  {word} {path} {shown}," for path in files[kind] or []]
    what = "allowed and audited" if mode == COMPLAIN else "denied, whatever is allowed"
    return ["", f"  # {what.capitalize()}.", *lines] if lines else []


# -- profiles that somebody wrote ----------------------------------------------------------------
def adopt(name: str, text: str, mode: str) -> str:
    """Return a given profile's text with our header, in a mode.

    :raises Wrong: it does not define exactly one profile, or one of another name.
    """
    pattern = re.compile(
        r"^(?P<head>[ \t]*profile[ \t]+)(?P<quote>[\"']?)(?P<name>[^\s\"'{]+)(?P=quote)(?P<rest>[^{\n]*)\{",
        re.MULTILINE,
    )
    heads = [match for match in pattern.finditer(text) if match["head"][:1] == "p"]
    names = [match["name"] for match in heads]
    if names != [name]:
        raise Wrong(
            "file",
            ", ".join(names) or "without a profile",
            f"it must define one profile, named {name}, with a line 'profile {name} ... {{'",
        )
    head = heads[0]
    found = re.search(r"flags=\(([^)]*)\)", head["rest"])
    flags = [f.strip() for f in re.split(r"[,\s]+", found[1]) if f.strip()] if found else []
    flags = [flag for flag in flags if flag not in (ENFORCE, COMPLAIN)]
    if mode == COMPLAIN:
        flags.insert(0, COMPLAIN)
    rest = re.sub(r"\s*flags=\([^)]*\)\s*", " ", head["rest"]).strip()
    parts = ["profile", name, *([rest] if rest else [])]
    parts += [f"flags=({','.join(flags)})"] if flags else []
    line = " ".join(parts) + " {"
    body = text[: head.start()] + line + text[head.end() :]
    return f"{header(name, local=False)}\n{body if body.endswith(chr(10)) else body + chr(10)}"


#: What the hardened docker-default denies beyond Docker's own.
HARDENED_DEFAULT: Json = {
    "network": {"deny": ["packet", "vsock"]},
    "capabilities": {
        "deny": [
            *("bpf", "mac_admin", "mac_override", "perfmon", "sys_boot", "sys_module"),
            *("sys_rawio", "syslog"),
        ]
    },
    "files": {
        "deny": [
            "/dev/{kmem,mem,port}",
            "@{PROC}/{kallsyms,kmsg,kpagecount,kpageflags}",
            "/sys/fs/bpf/**",
            "/sys/kernel/{debug,tracing}/**",
        ]
    },
}
