# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What a look reads of the host itself: system, files, users, sub-ids, security modules, sysctls.

Each collector reads one thing, and notes or raises what it could not read.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat as stat_module
import sys

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    history,
    ledger,
    look_systemd,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import ABSENT, Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    Notes,
    UnreadableError,
    number,
    os_reason,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_daemon import Daemon

_SYSCTLS = (
    "kernel.cap_last_cap",
    "kernel.pid_max",
    "kernel.threads-max",
    "kernel.unprivileged_userns_clone",
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

_CERTIFICATES = "/etc/docker/certs.d"
#: How many files below certs.d are looked at; a host has a handful.
_MAX_CERTIFICATES = 1000


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
            for fields in _table(host, "/etc/passwd", 4, (2, 3))
        ],
        "groups": [
            {
                "name": fields[0],
                "gid": int(fields[2]),
                "members": [name.strip() for name in fields[3].split(",") if name.strip()],
            }
            for fields in _table(host, "/etc/group", 4, (2,))
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
            for fields in _table(host, path, 3, (1, 2), optional=True)
        ]
    return section


def _table(
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
def security_modules(host: Host, notes: Notes) -> Mapping:
    """Return the section ``lsm``."""
    return {
        "active": [name for name in _line(host, "/sys/kernel/security/lsm").split(",") if name],
        "apparmor": _apparmor(host, notes),
        "selinux": _selinux(host),
    }


def _apparmor(host: Host, notes: Notes) -> Mapping:
    enabled = _line(host, "/sys/module/apparmor/parameters/enabled") == "Y"
    if not enabled:
        return {"enabled": False, "profiles": None}
    path = "/sys/kernel/security/apparmor/profiles"
    profiles: dict[str, str] | None = None
    try:
        profiles = {}
        for line in host.read_text(path).splitlines():
            match = re.match(r"(.*) \((\w+)\)\Z", line)
            if match:
                profiles[match.group(1)] = match.group(2)
    except OSError as exc:
        profiles = None
        notes.add("lsm", path, os_reason(exc))
    return {"enabled": True, "profiles": profiles}


def _selinux(host: Host) -> Mapping:
    enforce = _line(host, "/sys/fs/selinux/enforce")
    policy = None
    for line in _line(host, "/etc/selinux/config").splitlines():
        match = re.match(r"\s*SELINUXTYPE\s*=\s*(\S+)", line)
        if match:
            policy = match.group(1)
    return {
        "enabled": host.lstat("/sys/fs/selinux/enforce") is not None,
        "enforcing": enforce == "1",
        "policy": policy,
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
        directory = base + "/docker-.scope.d"
        try:
            names = host.listdir(directory)
        except FileNotFoundError:
            continue
        except OSError as exc:
            notes.add("scope_dropins", directory, os_reason(exc))
            continue
        for name in names:
            if name.endswith(".conf"):
                found.append(_scope_dropin(host, notes, "%s/%s" % (directory, name)))
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


# -- files -------------------------------------------------------------------------------------
class _Files:
    """Gathers file entries: one for each path, with all its kinds of control."""

    def __init__(self, host: Host, notes: Notes) -> None:
        self._host = host
        self._notes = notes
        self._found: dict[str, Mapping] = {}
        self._owners = _names(host, "/etc/passwd")
        self._groups = _names(host, "/etc/group")

    def add(self, path: str | None, kind: str, *controls: str) -> None:
        """Add one path, which need not exist; no path, no entry."""
        if not path or not posixpath.isabs(path):
            return
        entry = self._found.get(path)
        if entry is None:
            try:
                entry = self._entry(path, kind)
            except OSError as exc:
                self._notes.add("files", path, os_reason(exc))
                return
            self._found[path] = entry
        entry["control"].extend(item for item in controls if item not in entry["control"])

    def _entry(self, path: str, kind: str) -> Mapping:
        host = self._host
        status = host.lstat(path)
        entry: Mapping = {"path": path, "kind": kind, "control": [], "type": ABSENT}
        entry.update(mode=None, uid=None, gid=None, owner=None, group=None, size=None)
        entry.update(link_target=None, version=host.version(path), attributes=[])
        if status is not None:
            entry.update(
                type=_file_type(status.st_mode),
                mode="%04o" % stat_module.S_IMODE(status.st_mode),
                uid=status.st_uid,
                gid=status.st_gid,
                owner=self._owners.get(status.st_uid),
                group=self._groups.get(status.st_gid),
                size=status.st_size,
                attributes=host.attributes(path),
            )
            if stat_module.S_ISLNK(status.st_mode):
                entry["link_target"] = os.readlink(host.path(path))
        return entry

    def rows(self) -> list[Mapping]:
        """Return the entries, by path."""
        return [self._found[path] for path in sorted(self._found)]


def _file_type(mode: int) -> str:
    for test, name in (
        (stat_module.S_ISREG, "file"),
        (stat_module.S_ISDIR, "directory"),
        (stat_module.S_ISSOCK, "socket"),
        (stat_module.S_ISLNK, "link"),
    ):
        if test(mode):
            return name
    return "other"


def _names(host: Host, path: str) -> dict[int, str]:
    try:
        rows = _table(host, path, 3, (2,))
    except UnreadableError:
        return {}
    found: dict[int, str] = {}
    for fields in rows:
        found.setdefault(int(fields[2]), fields[0])
    return found


def files(
    host: Host, notes: Notes, daemon: Daemon, units: dict[str, Mapping], root: str | None
) -> list[Mapping]:
    """Return the section ``files``: what section 3 of the CIS Docker Benchmark is about, and more.

    ``control`` names the recommendations of release 1.8.0 that judge the path.

    :param root: the data root that the running daemon uses, when it is known.
    """
    found = _Files(host, notes)
    for unit, controls in (("docker.service", ("3.1", "3.2")), ("docker.socket", ("3.3", "3.4"))):
        entry = units.get(unit, {})
        for path in [entry.get("fragment"), *entry.get("dropins", [])]:
            found.add(path, "unit", *controls)
        for path in entry.get("dropins", []):
            found.add(posixpath.dirname(path), "directory")
    found.add(posixpath.dirname(daemon.config.path), "directory", "3.5", "3.6")
    _registry_certificates(host, notes, found)
    _tls(daemon, found)
    for path in _api_sockets(daemon, units):
        found.add(path, "socket", "3.15", "3.16")
    found.add(daemon.config.path, "config", "3.17", "3.18")
    found.add("/etc/default/docker", "config", "3.19", "3.20")
    found.add("/etc/sysconfig/docker", "config", "3.21", "3.22")
    found.add(_containerd_socket(host, daemon), "socket", "3.23", "3.24")
    for path in (daemon.data_root, root):
        while path and posixpath.isabs(path):
            found.add(path, "directory")
            path = posixpath.dirname(path) if path != "/" else None
    return found.rows()


def _registry_certificates(host: Host, notes: Notes, found: _Files) -> None:
    """Add every directory and file below certs.d, without following links."""
    waiting = [_CERTIFICATES]
    count = 0
    while waiting:
        path = waiting.pop()
        try:
            status = host.lstat(path)
            if status is None:
                continue
            count += 1
            if count > _MAX_CERTIFICATES:
                notes.add("files", _CERTIFICATES, "more than %d entries" % _MAX_CERTIFICATES)
                return
            kind = "key" if path.endswith(".key") else "certificate"
            if stat_module.S_ISDIR(status.st_mode):
                found.add(path, "directory", "3.7")
                waiting.extend("%s/%s" % (path, name) for name in host.listdir(path))
            else:
                found.add(path, kind, "3.7", "3.8")
        except OSError as exc:
            notes.add("files", path, os_reason(exc))


def _tls(daemon: Daemon, found: _Files) -> None:
    """Add CA, certificate and key; at their default places only if the daemon would look there."""
    in_use = bool(daemon.option("tls")) or daemon.option("tlsverify") is not None
    for key, name, kind, controls in (
        ("tlscacert", "ca.pem", "certificate", ("3.9", "3.10")),
        ("tlscert", "cert.pem", "certificate", ("3.11", "3.12")),
        ("tlskey", "key.pem", "key", ("3.13", "3.14")),
    ):
        path = daemon.option(key)
        if isinstance(path, str) and path:
            found.add(path, kind, *controls)
        elif in_use:
            found.add("/root/.docker/" + name, kind, *controls)


def _api_sockets(daemon: Daemon, units: dict[str, Mapping]) -> list[str]:
    """Return the paths of all unix sockets of the API: of docker.socket and of unix:// hosts."""
    listening = units.get("docker.socket", {}).get("listen", [])
    paths = [path for path in listening if path.startswith("/")]
    hosts = daemon.option("hosts")
    for address in hosts if isinstance(hosts, list) else []:
        if str(address).startswith("unix:///"):
            paths.append(str(address)[len("unix://") :])
    if daemon.socket:
        paths.append(daemon.socket)
    short = [re.sub(r"\A/var/run/", "/run/", path) for path in paths]
    return sorted(set(short))


def _containerd_socket(host: Host, daemon: Daemon) -> str:
    """Return containerd's socket: the one dockerd is told of, the system's, or dockerd's own."""
    address = daemon.option("containerd")
    if isinstance(address, str) and address:
        return re.sub(r"\Aunix://", "", address)
    system_socket = "/run/containerd/containerd.sock"
    own = "/run/docker/containerd/containerd.sock"
    try:
        if host.lstat(system_socket) is None and host.lstat(own) is not None:
            return own
    except OSError:
        pass
    return system_socket


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
