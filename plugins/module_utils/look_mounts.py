# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Mounts of containers: what of the host they really are, and which control sockets they give away.

Source: the Engine API reference (MountPoint), moby volume/local (a volume with ``o=bind`` is a bind
mount by another name), mount(2) on MS_REC.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    mapping,
    sequence,
    text,
)

#: Sockets through which a container runtime takes orders, by kind.
_SOCKETS = (
    ("docker", "/run/docker.sock"),
    ("containerd", "/run/containerd/containerd.sock"),
    ("containerd", "/run/docker/containerd/containerd.sock"),
    ("podman", "/run/podman/podman.sock"),
    ("crio", "/run/crio/crio.sock"),
)

#: Directories whose links matter: what is sensitive on a host stands in one of them.
_HOLDERS = ("/", "/var", "/var/lib")

_KINDS = ("bind", "tmpfs", "image", "cluster")


class Socket(typing.NamedTuple):
    """A control socket of the host, where it really is."""

    kind: str
    path: str
    device: int
    inode: int


def control_sockets(host: Host, docker: typing.Sequence[str], containerd: str) -> list[Socket]:
    """Return the control sockets that exist on a host: of the daemon, of users, of others.

    :param docker: where the daemon listens.
    :param containerd: where its containerd does.
    """
    candidates = [("docker", path) for path in docker]
    candidates += [("containerd", containerd), *_SOCKETS]
    try:
        users = host.listdir("/run/user")
    except OSError:
        users = []
    for user in users:
        candidates.append(("docker", "/run/user/%s/docker.sock" % user))
        candidates.append(("podman", "/run/user/%s/podman/podman.sock" % user))
    found: dict[str, Socket] = {}
    for kind, path in candidates:
        real = host.resolve(path)
        try:
            status = host.lstat(real) if real else None
        except OSError:
            continue
        if real and status is not None and stat_module.S_ISSOCK(status.st_mode):
            found.setdefault(real, Socket(kind, real, status.st_dev, status.st_ino))
    return [found[path] for path in sorted(found)]


class Mounts:
    """Reads the mounts of containers against what is on the host.

    :param volumes: the rows of ``/volumes`` by name; None when they could not be read.
    :param data_root: where the daemon keeps its data, and its plugins' volumes below that.
    """

    def __init__(
        self,
        host: Host,
        sockets: typing.Sequence[Socket],
        volumes: dict[str, Mapping] | None,
        data_root: str,
    ) -> None:
        self._host = host
        self._sockets = sockets
        self._volumes = volumes or {}
        self._links = _links(host)
        self._plugins = (host.resolve(data_root) or data_root).rstrip("/") + "/plugins/"

    def rows(self, inspect: Mapping, host_config: Mapping) -> list[Mapping]:
        """Return the mounts of one container, from its inspection.

        ``host_path`` is what of the host is mounted, None when it is nothing of it; ``resolved``
        the same with links followed. ``aliases`` are the other ways there: by a link of the host that
        leads to it, above it, or to something in it.
        """
        shallow = {
            text(mount.get("Target"))
            for mount in map(mapping, sequence(host_config.get("Mounts")))
            if mapping(mount.get("BindOptions")).get("NonRecursive") is True
        }
        found = [
            self._row(mount, text(mount.get("Destination")) in shallow)
            for mount in map(mapping, sequence(inspect.get("Mounts")))
        ]
        seen = {mount["destination"] for mount in found}
        for destination, options in sorted(mapping(host_config.get("Tmpfs")).items()):
            if destination not in seen:  # --tmpfs is not among the mounts that Docker lists
                rw = "ro" not in text(options).split(",")
                found.append(
                    self._row({"Type": "tmpfs", "Destination": destination, "RW": rw}, False)
                )
        return found

    def _row(self, mount: Mapping, shallow: bool) -> Mapping:
        kind, path = self._origin(mount)
        row: Mapping = {
            "type": text(mount.get("Type")),
            "source": text(mount.get("Source")),
            "destination": text(mount.get("Destination")),
            "rw": mount.get("RW") is True,
            "propagation": text(mount.get("Propagation")),
            "name": text(mount.get("Name")) or None,
            "driver": text(mount.get("Driver")) or None,
            "anonymous": re.match(r"[0-9a-f]{64}\Z", text(mount.get("Name"))) is not None,
            # -v SOURCE:TARGET:z and :Z; the engine keeps the option as it was given.
            "relabel": bool({"z", "Z"}.intersection(text(mount.get("Mode")).split(","))),
            "kind": kind,
            "host_path": path,
            "resolved": None,
            "aliases": [],
            "host_type": None,
            "sockets": [],
        }
        if path is not None:
            row.update(self._on_host(path, shallow))
        return row

    def _origin(self, mount: Mapping) -> tuple[str, str | None]:
        """Return the kind of a mount, and the path of the host that it is."""
        kind, source = text(mount.get("Type")), text(mount.get("Source"))
        if kind == "bind":
            return "bind", source if posixpath.isabs(source) else None
        if kind != "volume":
            return (kind if kind in _KINDS else "other"), None
        if text(mount.get("Driver")) != "local":
            # A plugin of the engine has a directory below it; another driver mounts what it likes.
            real = self._host.resolve(source) if posixpath.isabs(source) else None
            if not posixpath.isabs(source) or (real or source).startswith(self._plugins):
                return "volume_other", None
            return "volume_path", source
        if text(mount.get("Name")) not in self._volumes:
            return "volume_unknown", None
        options = mapping(self._volumes[text(mount.get("Name"))].get("Options"))
        device = text(options.get("device"))
        if is_bind(options):
            return "volume_bind", device if posixpath.isabs(device) else None
        if device:
            # A block device of the host; what the network serves (//server/share) is none.
            local = re.match(r"/[^/]", device) and text(options.get("type")) != "nfs"
            return "volume_device", device if local else None
        return "volume", source if posixpath.isabs(source) else None

    def _on_host(self, path: str, shallow: bool) -> Mapping:
        resolved = self._host.resolve(path)
        if resolved is None:
            return {}
        try:
            status = self._host.lstat(resolved)
        except OSError:
            return {"resolved": resolved, "aliases": self._aliases(resolved)}
        return {
            "resolved": resolved,
            "aliases": self._aliases(resolved),
            "host_type": _type(status),
            "sockets": self._within(resolved, status, shallow) if status else [],
        }

    def _aliases(self, path: str) -> list[str]:
        found = set()
        for link, real in self._links:
            if (path + "/").startswith(real + "/"):
                found.add(link + path[len(real) :])
            elif real.startswith(path.rstrip("/") + "/"):
                found.add(link)
        return sorted(found)

    def _within(self, path: str, status: os.stat_result, shallow: bool) -> list[Mapping]:
        """Return the control sockets that are the path itself, or lie below it."""
        found = []
        prefix = path.rstrip("/") + "/"
        for item in self._sockets:
            # The same socket may be mounted at, or linked from, another place of the host.
            if (item.device, item.inode) == (status.st_dev, status.st_ino):
                via = "itself"
            elif item.path.startswith(prefix):
                if shallow and item.device != status.st_dev:
                    continue  # on a file system that was not mounted along
                via = "parent"
            else:
                continue
            found.append({"path": item.path, "kind": item.kind, "via": via})
        return found


def _links(host: Host) -> list[tuple[str, str]]:
    """Return the links of a host below its root and /var, and where each leads."""
    found = []
    for directory in _HOLDERS:
        try:
            names = host.listdir(host.resolve(directory) or directory)
        except OSError:
            continue
        for path in (posixpath.join(directory, name) for name in names):
            real = host.resolve(path)
            if real not in (None, path, "/"):
                found.append((path, str(real)))
    return found


def is_bind(options: Mapping) -> bool:
    """Tell whether the options of a local volume make it a bind mount."""
    flags = text(options.get("o")).split(",")
    return "bind" in flags or "rbind" in flags or options.get("type") == "bind"


def _type(status: os.stat_result | None) -> str:
    if status is None:
        return "absent"
    for test, name in (
        (stat_module.S_ISDIR, "directory"),
        (stat_module.S_ISREG, "file"),
        (stat_module.S_ISSOCK, "socket"),
        (stat_module.S_ISBLK, "device"),
        (stat_module.S_ISCHR, "device"),
    ):
        if test(status.st_mode):
            return name
    return "other"
