# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The plan as the door to act accepts it: a closed vocabulary, checked field by field.

The same rules as docs/schemas/plan.schema.json, without a library for it on the host, and with the
path of what is wrong in every message.
"""

from __future__ import annotations

import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    apparmor,
    audit_rules,
    falco,
    look_trust,
    selinux,
    sysctls,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import OPTIONS
from ansible_collections.bulkhead.hardening.plugins.module_utils.flags_dropin import FLAGS_DROPIN
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import HostError

PLAN_SCHEMA = "bulkhead.plan/1"

Operation = dict[str, typing.Any]

#: A plan that changes nothing. Applying it still undoes what an earlier transaction left open.
EMPTY_PLAN: typing.Final[dict[str, typing.Any]] = {
    "schema": PLAN_SCHEMA,
    "profile": None,
    "operations": [],
    "daemon": {"effect": "none", "why": [], "live_restore_first": False},
}

#: Directories below which a plan may place and remove files, and change modes.
ALLOWED_DIRECTORIES = (
    "/etc/docker/",
    "/etc/systemd/system/docker.service.d/",
    "/etc/systemd/system/docker.socket.d/",
    "/etc/systemd/system/docker-.scope.d/",
    "/etc/systemd/system/containerd.service.d/",
    "/etc/apparmor.d/",
    "/etc/audit/rules.d/",
    "/etc/sysctl.d/",
    "/etc/modprobe.d/",
    "/etc/default/grub.d/",
    falco.CONFIG_DIRECTORY,
    falco.RULES_DIRECTORY,
    falco.DROPIN_DIRECTORY,
    look_trust.DIRECTORY + "/",
)

#: The slice in which containers are bounded together; see docs/decisions/0009.
SLICE = "/etc/systemd/system/bulkhead.slice"
#: The same as cgroup-parent names it.
SLICE_GROUP = "/bulkhead.slice"

#: Single files beside them.
ALLOWED_FILES = (
    SLICE,
    look_trust.PROGRAM,
    look_trust.SHELLS,
    look_trust.SUDO,
    look_trust.SYSTEMD,
)

#: Where systemd must read its files again after a change.
UNIT_DIRECTORIES = ("/etc/systemd/system/", "/etc/systemd/system.conf.d/")

_MAX_CONTENT = 1024 * 1024
_ROLE = re.compile(r"\A[a-z][a-z0-9_]{0,63}\Z")
# What useradd and groupadd accept without --badname.
_NAME = re.compile(r"\A[a-z_][a-z0-9_-]{0,31}\Z")
_NUMBER = re.compile(r"\A-?[0-9]{1,10}\Z")
_MODE = re.compile(r"\A0[0-7]{3}\Z")


class Plan(typing.NamedTuple):
    """A checked plan; see docs/schemas/plan.schema.json.

    ``profile`` is strict, compatible or None (no opinion: the host keeps the one it has);
    ``effect`` is none, reload or restart.
    """

    profile: str | None
    operations: list[Operation]
    effect: str
    why: list[str]
    live_restore_first: bool
    allow_container_restart: bool

    def of(self, *kinds: str) -> list[Operation]:
        """Return the operations of some kinds, in the order of the plan."""
        return [operation for operation in self.operations if operation["op"] in kinds]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do at all."""
        return not self.operations and self.effect == "none"


#: The plan of what is no plan's work: an undo fills it in, a purge has none.
NO_PLAN: typing.Final = Plan(None, [], "none", [], False, False)

_Check = typing.Callable[[typing.Any], "str | None"]


def parse_plan(raw: typing.Any) -> Plan:
    """Check a plan as it came in.

    :raises HostError: it is not one; the message names field and value.
    """
    _object(raw, "plan")
    _fields(raw, "plan", {"schema": None, "profile": None, "operations": None, "daemon": None})
    if raw["schema"] != PLAN_SCHEMA:
        raise HostError("plan.schema is %r; this release applies %r" % (raw["schema"], PLAN_SCHEMA))
    if raw["profile"] is not None:
        _one_of(raw["profile"], ("strict", "compatible"), "plan.profile")
    if not isinstance(raw["operations"], list):
        raise HostError("plan.operations is not a list")
    seen: set[tuple[str, ...]] = set()
    for number, operation in enumerate(raw["operations"]):
        where = "plan.operations[%d]" % number
        _operation(operation, where)
        subject = _subject(operation)
        if subject in seen:
            raise HostError("%s: there is already an operation on %s" % (where, " ".join(subject)))
        seen.add(subject)
    daemon = _daemon(raw["daemon"])
    return Plan(
        profile=raw["profile"],
        operations=list(raw["operations"]),
        effect=daemon["effect"],
        why=list(daemon["why"]),
        live_restore_first=daemon["live_restore_first"],
        allow_container_restart=daemon.get("allow_container_restart", False),
    )


def path_allowed(path: str) -> bool:
    """Tell whether a plan may place a file there."""
    below = any(path.startswith(prefix) and path != prefix for prefix in ALLOWED_DIRECTORIES)
    return below or path in ALLOWED_FILES


# -- fields --------------------------------------------------------------------------------------
def _role(value: typing.Any) -> str | None:
    return None if isinstance(value, str) and _ROLE.match(value) else "is not the name of a role"


def _name(value: typing.Any) -> str | None:
    return None if isinstance(value, str) and _NAME.match(value) else "is not a user or group name"


def _text(value: typing.Any) -> str | None:
    return None if isinstance(value, str) and value else "is not a text"


def _path(value: typing.Any) -> str | None:
    if not isinstance(value, str) or not value.startswith("/") or len(value) > 1024:
        return "is not an absolute path"
    parts = value[1:].split("/")
    if "" in parts or "." in parts or ".." in parts or "\0" in value or "\n" in value:
        return "is not a plain path (no '..', no '//', no trailing '/')"
    return None


def _allowed_path(value: typing.Any) -> str | None:
    reason = _path(value)
    if reason is None and not path_allowed(value):
        reason = "is not below one of " + ", ".join(ALLOWED_DIRECTORIES)
    return reason


def _content(value: typing.Any) -> str | None:
    if not isinstance(value, str):
        return "is not a text"
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return None if size <= _MAX_CONTENT else "is longer than %d bytes" % _MAX_CONTENT


def _mode(value: typing.Any) -> str | None:
    if not isinstance(value, str) or not _MODE.match(value):
        return "is not a mode such as '0644' (a text of four octal digits, no special bits)"
    return "lets everybody write" if int(value, 8) & 0o002 else None


def _undo(value: typing.Any) -> str | None:
    return None if value in ("live", "reboot", "never") else "is not live, reboot or never"


def _value(value: typing.Any) -> str | None:
    return "is null; use json_remove" if value is None else None


def _range(value: typing.Any) -> str | None:
    if not isinstance(value, dict) or set(value) != {"start", "count"}:
        return "is not {start, count}"
    start, count = value["start"], value["count"]
    if not _is_integer(start) or not _is_integer(count):
        return "is not {start, count} with whole numbers"
    # (uid_t) -1 is no id; below 1000 live the system's own users.
    if start < 1000 or count < 1 or start + count > 2**32 - 1:
        return "does not lie between 1000 and 4294967294"
    return None


def _versions(value: typing.Any) -> str | None:
    if not isinstance(value, dict) or set(value) != {"subuid", "subgid"}:
        return "is not {subuid, subgid}"
    return _text(value["subuid"]) or _text(value["subgid"])


def _flags_path(value: typing.Any) -> str | None:
    return None if value == FLAGS_DROPIN else "is not " + FLAGS_DROPIN


def _rules_path(value: typing.Any) -> str | None:
    reason = _path(value)
    if reason is None and not audit_rules.is_file(value):
        reason = "is no file of rules below " + audit_rules.RULES_DIRECTORY
    return reason


def _profile(value: typing.Any) -> str | None:
    valid = isinstance(value, str) and apparmor.NAME.match(value)
    return None if valid else "is not the name of a profile that is also a file's"


def _sysctl(value: typing.Any) -> str | None:
    return None if value in sysctls.NAMES else "is no kernel parameter that may be set"


def _number(value: typing.Any) -> str | None:
    valid = isinstance(value, str) and _NUMBER.match(value)
    return None if valid else "is not a number, as a text"


def _module(value: typing.Any) -> str | None:
    valid = isinstance(value, str) and selinux.MODULE.match(value)
    return None if valid else "is not the name of a module"


def _boolean(value: typing.Any) -> str | None:
    valid = isinstance(value, str) and selinux.BOOLEAN.match(value)
    return None if valid else "is not the name of a boolean"


def _label_path(value: typing.Any) -> str | None:
    reason = _path(value)
    if reason is None and not re.fullmatch(r"[\w./-]+", value):
        reason = "has characters that the policy's files do not take"
    return reason


def _service(value: typing.Any) -> str | None:
    return None if value == falco.UNIT else "is no service that may be started"


def _truth(value: typing.Any) -> str | None:
    return None if isinstance(value, bool) else "is not true or false"


def _keys(value: typing.Any) -> str | None:
    if not isinstance(value, list) or not value or len(set(map(str, value))) != len(value):
        return "is not a list of different keys"
    unknown = [str(key) for key in value if key not in OPTIONS]
    return "names no option of dockerd: %s" % ", ".join(unknown) if unknown else None


def _or_null(check: _Check) -> _Check:
    return lambda value: None if value is None else check(value)


def _is_integer(value: typing.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_COMMON: dict[str, _Check] = {"role": _role, "undo": _undo, "why": _text}

# Every operation needs all of its fields except the optional ones; others are refused.
_OPTIONAL = frozenset({"member"})
_OPERATIONS: dict[str, dict[str, _Check]] = {
    "group_present": {"name": _name},
    "user_present": {"name": _name, "group": _name},
    "subid_present": {"user": _name, "subuid": _range, "subgid": _range, "observed": _versions},
    "subid_absent": {"user": _name},
    "user_absent": {"name": _name},
    "group_absent": {"name": _name},
    "file_present": {
        "path": _allowed_path,
        "content": _content,
        "mode": _mode,
        "owner": _name,
        "group": _name,
        "observed": _text,
    },
    "file_absent": {"path": _allowed_path, "observed": _text},
    "apparmor_profile": {
        "path": _allowed_path,
        "profile": _profile,
        "content": _content,
        "observed": _text,
    },
    "selinux_module": {"name": _module, "content": _content},
    "selinux_module_absent": {"name": _module},
    "selinux_boolean": {"name": _boolean, "value": _truth},
    "selinux_boolean_back": {"name": _boolean},
    "selinux_equivalence": {"name": _label_path, "like": _label_path},
    "selinux_equivalence_absent": {"name": _label_path},
    "selinux_relabel": {"path": _label_path},
    "selinux_enforcing": {},
    "flags_taken": {"path": _flags_path, "keys": _keys, "observed": _text},
    "audit_load": {"path": _rules_path, "observed": _text},
    "sysctl_set": {"name": _sysctl, "value": _number, "observed": _number},
    "sysctl_restore": {"name": _sysctl},
    "service_running": {"name": _service},
    "service_back": {"name": _service},
    "json_set": {
        "path": _path,
        "key": _text,
        "member": _text,
        "value": _value,
        "observed": _text,
    },
    "json_remove": {"path": _path, "key": _text, "member": _text, "observed": _text},
    "mode_restore": {"path": _path, "observed": _text},
    "mode": {
        "path": _path,
        "mode": _or_null(_mode),
        "owner": _or_null(_name),
        "group": _or_null(_name),
        "observed": _text,
    },
}

_DISOWN: dict[str, dict[str, _Check]] = {
    "json_key": {"path": _path, "key": _text, "member": _text},
    "file": {"path": _path},
    "mode": {"path": _path},
    "subids": {"user": _name},
    "user": {"name": _name},
    "group": {"name": _name},
    "sysctl": {"name": _sysctl},
    "service": {"name": _service},
    "selinux_module": {"name": _module},
    "selinux_boolean": {"name": _boolean},
    "selinux_equivalence": {"name": _label_path},
}


def _operation(raw: typing.Any, where: str) -> None:
    _object(raw, where)
    kind = raw.get("op")
    if kind == "disown":
        item = raw.get("kind")
        _one_of(item, tuple(_DISOWN), where + ".kind")
        fields = dict(_COMMON, **_DISOWN[typing.cast(str, item)])
        fields["kind"] = _text
    else:
        _one_of(kind, (*_OPERATIONS, "disown"), where + ".op")
        fields = dict(_COMMON, **_OPERATIONS[typing.cast(str, kind)])
    where = "%s (%s)" % (where, kind)
    _fields(raw, where, dict(fields, op=_text))
    if kind == "apparmor_profile" and raw["path"] != apparmor.path_of(raw["profile"]):
        raise HostError("%s: path is not that of the profile %s" % (where, raw["profile"]))


def _subject(operation: Operation) -> tuple[str, ...]:
    """Return what an operation is about; two on the same would contradict each other."""
    kind = str(operation["op"])
    group = {"file_absent": "file", "file_present": "file", "json_set": "key", "json_remove": "key"}
    group.update(mode_restore="mode", flags_taken="file", apparmor_profile="file")
    group.update(subid_absent="subid_present", user_absent="user_present")
    group.update(group_absent="group_present", sysctl_restore="sysctl_set")
    group.update(selinux_boolean_back="selinux_boolean", service_back="service_running")
    for name in ("selinux_module", "selinux_equivalence"):
        group[name + "_absent"] = name
    names = ("kind", "path", "key", "member", "user", "name")
    return (group.get(kind, kind), *(str(operation[n]) for n in names if n in operation))


def _daemon(raw: typing.Any) -> dict[str, typing.Any]:
    _object(raw, "plan.daemon")
    optional = {"allow_container_restart": raw.get("allow_container_restart", False)}
    required = {"effect": None, "why": None, "live_restore_first": None}
    _fields(dict(raw, **optional), "plan.daemon", dict(required, allow_container_restart=None))
    _one_of(raw["effect"], ("none", "reload", "restart"), "plan.daemon.effect")
    if not isinstance(raw["why"], list) or not all(isinstance(item, str) for item in raw["why"]):
        raise HostError("plan.daemon.why is not a list of texts")
    for name in ("live_restore_first", "allow_container_restart"):
        if not isinstance(raw.get(name, False), bool):
            raise HostError("plan.daemon.%s is %r, not true or false" % (name, raw[name]))
    return dict(raw)


def _object(raw: typing.Any, where: str) -> None:
    if not isinstance(raw, dict):
        raise HostError("%s is not an object" % where)


def _one_of(value: typing.Any, allowed: tuple[str, ...], where: str) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise HostError("%s is %r; it must be one of %s" % (where, value, ", ".join(allowed)))


def _fields(
    raw: dict[str, typing.Any], where: str, checks: typing.Mapping[str, _Check | None]
) -> None:
    missing = sorted(set(checks) - set(raw) - _OPTIONAL)
    if missing:
        raise HostError("%s lacks %s" % (where, ", ".join(missing)))
    unknown = sorted(str(name) for name in set(raw) - set(checks))
    if unknown:
        raise HostError("%s has an unknown field: %s" % (where, ", ".join(unknown)))
    for name, check in sorted(checks.items()):
        reason = check(raw[name]) if check and name in raw else None
        if reason:
            shown = "" if name in ("content", "value") else " %r" % (raw[name],)
            raise HostError("%s: %s%s %s" % (where, name, shown, reason))
