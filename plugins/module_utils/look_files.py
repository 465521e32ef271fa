# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The files, directories and sockets that Docker's security rests on: mode, owner, access list.

Source: section 3 of the CIS Docker Benchmark 1.8.0 for which; the kernel's
include/uapi/linux/posix_acl_xattr.h for the access lists.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat as stat_module
import struct
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import look_tls
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import ABSENT, Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    Notes,
    UnreadableError,
    os_reason,
    run_path,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_daemon import Daemon
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_host import table

#: How many files below certs.d are looked at; a host has a handful.
_MAX_CERTIFICATES = 1000

_ACL = "system.posix_acl_access"
_ACL_VERSION = 2
_ACL_USER, _ACL_GROUP, _ACL_MASK = 0x02, 0x08, 0x10


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
        entry.update(changed_at=None, target=None, acl=None, acl_write=[])
        if status is None:
            return entry
        entry.update(self._access(status), size=status.st_size, changed_at=status.st_mtime)
        entry["attributes"] = host.attributes(path)
        if stat_module.S_ISLNK(status.st_mode):
            entry["link_target"] = host.readlink(path)
            entry["target"] = self._target(path)
            path = host.resolve(path) or path
        entry["acl"] = self._acl(path)
        entry["acl_write"] = [
            {name: item[name] for name in ("tag", "id", "name")}
            for item in entry["acl"] or ()
            if "w" in item["permissions"]
        ]
        return entry

    def _access(self, status: os.stat_result) -> Mapping:
        return {
            "type": _file_type(status.st_mode),
            "mode": "%04o" % stat_module.S_IMODE(status.st_mode),
            "uid": status.st_uid,
            "gid": status.st_gid,
            "owner": self._owners.get(status.st_uid),
            "group": self._groups.get(status.st_gid),
        }

    def _target(self, path: str) -> Mapping | None:
        """Return what a link points at in the end; None when it is not there."""
        real = self._host.resolve(path)
        status = self._host.lstat(real) if real else None
        return {"path": real, **self._access(status)} if status is not None else None

    def _acl(self, path: str) -> list[Mapping] | None:
        """Return the named entries of an access list; None when it cannot be read."""
        try:
            raw = self._host.xattr(path, _ACL)
        except OSError as exc:
            # None set, and file systems that keep none.
            return [] if exc.errno in (errno.ENODATA, errno.EOPNOTSUPP) else None
        try:
            rows = decode_acl(raw)
        except (ValueError, struct.error):
            return None
        for row in rows:
            names = self._owners if row["tag"] == "user" else self._groups
            row["name"] = names.get(row["id"])
        return rows

    def rows(self) -> list[Mapping]:
        """Return the entries, by path."""
        return [self._found[path] for path in sorted(self._found)]


def decode_acl(raw: bytes) -> list[Mapping]:
    """Return the named users and groups of a POSIX access list, with what the mask leaves them.

    :raises ValueError: it is in no known shape; struct.error when it is cut off.
    """
    if struct.unpack_from("<I", raw)[0] != _ACL_VERSION:
        raise ValueError("another version")
    entries = list(struct.iter_unpack("<HHI", raw[4:]))
    mask = next((bits for tag, bits, _ in entries if tag == _ACL_MASK), 7)
    return [
        {
            "tag": "user" if tag == _ACL_USER else "group",
            "id": number,
            "name": None,
            "permissions": "".join(
                letter if bits & mask & bit else "-"
                for bit, letter in ((4, "r"), (2, "w"), (1, "x"))
            ),
        }
        for tag, bits, number in entries
        if tag in (_ACL_USER, _ACL_GROUP)
    ]


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
        rows = table(host, path, 3, (2,))
    except UnreadableError:
        return {}
    found: dict[int, str] = {}
    for fields in rows:
        found.setdefault(int(fields[2]), fields[0])
    return found


def files(
    host: Host,
    notes: Notes,
    daemon: Daemon,
    units: dict[str, Mapping],
    root: str | None,
    tls: typing.Mapping[str, str],
) -> list[Mapping]:
    """Return the section ``files``: what section 3 of the CIS Docker Benchmark is about, and more.

    ``control`` names the recommendations of release 1.8.0 that judge the path.

    :param root: the data root that the running daemon uses, when it is known.
    :param tls: the files that a policy names for the API's TLS, by their keys.
    """
    found = _Files(host, notes)
    for unit, controls in (("docker.service", ("3.1", "3.2")), ("docker.socket", ("3.3", "3.4"))):
        entry = units.get(unit, {})
        for path in [entry.get("fragment"), *entry.get("dropins", [])]:
            found.add(path, "unit", *controls)
        for path in entry.get("dropins", []):
            found.add(posixpath.dirname(path), "directory")
    found.add(posixpath.dirname(daemon.config.path), "directory", "3.5", "3.6")
    _registry_certificates(host, notes, found, daemon.places.certificates)
    _tls(daemon, found, tls)
    for path in api_sockets(daemon, units):
        found.add(path, "socket", "3.15", "3.16")
    found.add(daemon.config.path, "config", "3.17", "3.18")
    for path, controls in zip(daemon.places.environment, (("3.19", "3.20"), ("3.21", "3.22"))):
        found.add(path, "config", *controls)
    found.add(containerd_socket(host, daemon), "socket", "3.23", "3.24")
    for path in (daemon.data_root, root):
        while path and posixpath.isabs(path):
            found.add(path, "directory")
            path = posixpath.dirname(path) if path != "/" else None
    return found.rows()


def _registry_certificates(host: Host, notes: Notes, found: _Files, directory: str) -> None:
    """Add every directory and file below certs.d, without following links."""
    waiting = [directory]
    count = 0
    while waiting:
        path = waiting.pop()
        try:
            status = host.lstat(path)
            if status is None:
                continue
            count += 1
            if count > _MAX_CERTIFICATES:
                notes.add("files", directory, "more than %d entries" % _MAX_CERTIFICATES)
                return
            kind = "key" if path.endswith(".key") else "certificate"
            if stat_module.S_ISDIR(status.st_mode):
                found.add(path, "directory", "3.7", "3.8")
                waiting.extend("%s/%s" % (path, name) for name in host.listdir(path))
            else:
                found.add(path, kind, "3.7", "3.8")
        except OSError as exc:
            notes.add("files", path, os_reason(exc))


def _tls(daemon: Daemon, found: _Files, wanted: typing.Mapping[str, str]) -> None:
    """Add CA, certificate and key: the daemon's, and those that a policy names."""
    controls = {
        "tlscacert": ("3.9", "3.10"),
        "tlscert": ("3.11", "3.12"),
        "tlskey": ("3.13", "3.14"),
    }
    for named in (look_tls.paths(daemon), wanted):
        for key, path in named.items():
            found.add(path, "key" if key == "tlskey" else "certificate", *controls[key])


def api_sockets(daemon: Daemon, units: dict[str, Mapping]) -> list[str]:
    """Return the paths of all unix sockets of the API: of docker.socket and of unix:// hosts."""
    listening = units.get("docker.socket", {}).get("listen", [])
    paths = [path for path in listening if path.startswith("/")]
    hosts = daemon.option("hosts")
    for address in hosts if isinstance(hosts, list) else []:
        if str(address).startswith("unix:///"):
            paths.append(str(address)[len("unix://") :])
    if daemon.socket:
        paths.append(daemon.socket)
    return sorted(set(map(run_path, paths)))


def containerd_socket(host: Host, daemon: Daemon) -> str:
    """Return containerd's socket: the one dockerd is told of, the system's, or dockerd's own."""
    address = daemon.option("containerd")
    if isinstance(address, str) and address:
        return re.sub(r"\Aunix://", "", address)
    system_socket = "/run/containerd/containerd.sock"
    own = daemon.places.containerd
    if daemon.places.user is not None:
        return own
    try:
        if host.lstat(system_socket) is None and host.lstat(own) is not None:
            return own
    except OSError:
        pass
    return system_socket
