# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What a look reads of the host itself: system, files, users, sub-ids, security modules, sysctls.

Each collector reads one thing, and notes or raises what it could not read.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import stat as stat_module
import sys

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    history,
    ledger,
    look_apparmor,
    look_selinux,
    look_systemd,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    Notes,
    UnreadableError,
    conf_files,
    number,
    os_reason,
)

_SYSCTLS = (
    "fs.nr_open",
    "kernel.cap_last_cap",
    "kernel.pid_max",
    "kernel.threads-max",
    "kernel.unprivileged_userns_clone",
    "net.bridge.bridge-nf-call-iptables",
    "net.ipv4.ip_forward",
    "user.max_user_namespaces",
)

_UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


# -- the system --------------------------------------------------------------------------------
def system(host: Host, notes: Notes, timeout: float) -> Mapping:
    """Return the section ``os``."""
    release = _os_release(host, notes)
    systemd = look_systemd.is_init(host)
    properties: dict[str, list[str]] = {}
    if systemd:
        try:
            properties = look_systemd.manager(host, timeout)
        except UnreadableError as exc:
            notes.add("os", "systemd", str(exc))
    version = re.match(r"\d+", (properties.get("Version") or [""])[0])
    unified = host.lstat("/sys/fs/cgroup/cgroup.controllers") is not None
    return {
        "id": release.get("ID", "linux"),
        "version_id": release.get("VERSION_ID", ""),
        "codename": release.get("VERSION_CODENAME", ""),
        "name": release.get("PRETTY_NAME", ""),
        "family": _family(release),
        "kernel": _line(host, "/proc/sys/kernel/osrelease") or os.uname().release,
        "architecture": os.uname().machine,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "init": "systemd" if systemd else "other",
        "systemd_version": int(version.group(0)) if version else None,
        "cgroup_version": 2 if unified else 1,
        "hostname": _line(host, "/proc/sys/kernel/hostname") or os.uname().nodename,
        "default_tasks_max": number((properties.get("DefaultTasksMax") or [""])[0]),
    }


def _os_release(host: Host, notes: Notes) -> dict[str, str]:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            return look_systemd.parse_environment_file(host.read_text(path))
        except OSError as exc:
            reason = "%s: %s" % (path, os_reason(exc))
    notes.add("os", "os-release", reason)
    return {}


def _family(release: dict[str, str]) -> str:
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    for family, members in (
        ("debian", {"debian", "ubuntu"}),
        ("redhat", {"rhel", "fedora", "centos", "amzn", "ol"}),
        ("suse", {"suse", "opensuse", "sles"}),
    ):
        if members.intersection(names):
            return family
    return names[0] or "other"


def _line(host: Host, path: str) -> str:
    try:
        return host.read_text(path).strip()
    except OSError:
        return ""


# -- users and sub-ids ---------------------------------------------------------------------------
def users(host: Host) -> Mapping:
    """Return the section ``users``: the names and ids of /etc/passwd and /etc/group, no more.

    :raises UnreadableError: one of them cannot be read.
    """
    return {
        "users": [
            {"name": fields[0], "uid": int(fields[2]), "gid": int(fields[3])}
            for fields in table(host, "/etc/passwd", 4, (2, 3))
        ],
        "groups": [
            {
                "name": fields[0],
                "gid": int(fields[2]),
                "members": [name.strip() for name in fields[3].split(",") if name.strip()],
            }
            for fields in table(host, "/etc/group", 4, (2,))
        ],
    }


def subids(host: Host) -> Mapping:
    """Return the section ``subids``; a file that does not exist has no rows.

    :raises UnreadableError: one of them cannot be read.
    """
    section: Mapping = {}
    for name in ("subuid", "subgid"):
        path = "/etc/" + name
        section[name + "_version"] = host.version(path)
        section[name] = [
            {"name": fields[0], "start": int(fields[1]), "count": int(fields[2])}
            for fields in table(host, path, 3, (1, 2), optional=True)
        ]
    return section


def table(
    host: Host, path: str, width: int, numbers: tuple[int, ...], optional: bool = False
) -> list[list[str]]:
    """Return the rows of a colon-separated file that have ``width`` fields and their numbers."""
    try:
        content = host.read_text(path)
    except FileNotFoundError:
        if optional:
            return []
        raise UnreadableError("%s: not found" % path) from None
    except OSError as exc:
        raise UnreadableError("%s: %s" % (path, os_reason(exc))) from exc
    rows = []
    for line in content.splitlines():
        fields = line.split(":")
        if line[:1] in ("#", "+", "-") or len(fields) < width:
            continue
        if all(re.match(r"\d{1,10}\Z", fields[position]) for position in numbers):
            rows.append(fields)
    return rows


# -- kernel ------------------------------------------------------------------------------------
def security_modules(
    host: Host, notes: Notes, daemon: int | None, data_root: str | None = None
) -> Mapping:
    """Return the section ``lsm``.

    :param daemon: process id of dockerd, None when it does not run.
    :param data_root: where it keeps its data; None when that is not known.
    """
    return {
        "active": [name for name in _line(host, "/sys/kernel/security/lsm").split(",") if name],
        "apparmor": look_apparmor.section(host, notes, daemon),
        "selinux": look_selinux.section(host, notes, data_root),
    }


def sysctls(host: Host) -> Mapping:
    """Return the section ``sysctls``; those that this kernel does not have are left out."""
    found = {}
    for name in _SYSCTLS:
        value = _line(host, "/proc/sys/" + name.replace(".", "/"))
        if value:
            found[name] = value
    return found


def modules(host: Host, notes: Notes) -> Mapping:
    """Return the section ``modules``: whether br_netfilter is loaded, available or absent."""
    name = "br_netfilter"
    if host.lstat("/sys/module/" + name) is not None or host.lstat("/proc/sys/net/bridge"):
        return {name: "loaded"}
    release = _line(host, "/proc/sys/kernel/osrelease")
    for listing in ("modules.builtin", "modules.dep"):
        path = "/lib/modules/%s/%s" % (release, listing)
        try:
            if re.search(r"/%s\.ko\b" % name, host.read_text(path)):
                return {name: "available"}
        except FileNotFoundError:
            continue
        except OSError as exc:
            notes.add("modules", path, os_reason(exc))
    return {name: "absent"}


# -- drop-ins of container scopes ------------------------------------------------------------------
def scope_dropins(host: Host, notes: Notes) -> list[Mapping]:
    """Return the section ``scope_dropins``: every drop-in for the scopes of containers."""
    found = []
    for base in _UNIT_DIRECTORIES:
        parents = (posixpath.dirname(posixpath.dirname(base)), posixpath.dirname(base))
        if any(_is_link(host, path) for path in parents):
            continue  # /lib is /usr/lib on most systems
        paths = conf_files(host, notes, "scope_dropins", base + "/docker-.scope.d")
        found += [_scope_dropin(host, notes, path) for path in paths]
    return found


def _is_link(host: Host, path: str) -> bool:
    status = host.lstat(path)
    return status is not None and stat_module.S_ISLNK(status.st_mode)


def _scope_dropin(host: Host, notes: Notes, path: str) -> Mapping:
    tasks_max: int | str | None = None
    try:
        for name, value in look_systemd.assignments(host.read_text(path), "Scope"):
            if name == "TasksMax":
                exact = number(value)
                tasks_max = exact if exact is not None else value or None
    except OSError as exc:
        notes.add("scope_dropins", path, os_reason(exc))
    return {"path": path, "tasks_max": tasks_max, "version": host.version(path)}


# -- profiles of system calls ----------------------------------------------------------------------
#: Where profiles are placed that containers or the daemon name.
SECCOMP_DIRECTORY = "/etc/docker/seccomp"

#: How many files there are looked at.
_MAX_PROFILES = 200


def seccomp_profiles(host: Host, notes: Notes) -> list[Mapping]:
    """Return the section ``seccomp_profiles``: the files in the directory of seccomp profiles."""
    try:
        names = [name for name in host.listdir(SECCOMP_DIRECTORY) if name.endswith(".json")]
    except FileNotFoundError:
        return []
    if len(names) > _MAX_PROFILES:
        notes.add("seccomp_profiles", SECCOMP_DIRECTORY, "more than %d files" % _MAX_PROFILES)
    found: list[Mapping] = []
    for name in names[:_MAX_PROFILES]:
        path = "%s/%s" % (SECCOMP_DIRECTORY, name)
        found.append({"path": path, "sha256": None, "version": host.version(path)})
        try:
            status = host.lstat(path)
            if status is not None and stat_module.S_ISREG(status.st_mode):
                found[-1]["sha256"] = ledger.value_digest(json.loads(host.read_text(path)))
        except OSError as exc:
            notes.add("seccomp_profiles", path, os_reason(exc))
        except (ValueError, RecursionError):
            continue  # not JSON: it has no digest
    return found


# -- the slice of all containers -------------------------------------------------------------------
SLICE = "bulkhead.slice"


def container_slice(host: Host) -> Mapping:
    """Return the section ``slice``: the limit that its file sets, and the one that the kernel enforces.

    A slice that nobody defined has none, and containers start in it all the same; so does one that
    systemd has not made yet.
    """
    path = "/etc/systemd/system/" + SLICE
    tasks_max: int | str | None = None
    for name, value in look_systemd.assignments(_line(host, path), "Slice"):
        if name == "TasksMax":
            exact = number(value)
            tasks_max = exact if exact is not None else value or None
    unified = host.lstat("/sys/fs/cgroup/cgroup.controllers") is not None
    group = "/sys/fs/cgroup%s/%s/pids.max" % ("" if unified else "/pids", SLICE)
    return {
        "path": path,
        "version": host.version(path),
        "tasks_max": tasks_max,
        "pids_max": number(_line(host, group)),
    }


# -- what Bulkhead left ----------------------------------------------------------------------------
def bulkhead(host: Host, notes: Notes) -> Mapping:
    """Return the section ``bulkhead``: what an earlier transaction left on the host."""
    content, state, reason = ledger.read_ledger(host)
    if reason:
        notes.add("bulkhead", ledger.LEDGER, reason)
    if state in ("ok", "absent"):
        unreadable = ledger.journal_problem(host)
        if unreadable is not None:
            state, reason = unreadable
            notes.add("bulkhead", ledger.TRANSACTIONS, reason)
    last = (content or {}).get("last_transaction")
    return {
        "state": state,
        "reason": reason,
        "profile": (content or {}).get("profile"),
        "owned": ledger.owned_items(host, content),
        "open_transaction": ledger.open_transaction(host),
        "unfetched_answers": ledger.unfetched_answers(host),
        "last_transaction": (
            {name: last.get(name) for name in ("id", "outcome", "ended_at")}
            if isinstance(last, dict)
            else None
        ),
        "transactions": history.listing(host),
    }
