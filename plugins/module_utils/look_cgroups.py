# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The control group of a container: its limits, those of the groups above it, and its processes.

Source: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel.
"""

from __future__ import annotations

import re
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    number,
)

# The scope (systemd driver) or directory (cgroupfs driver) that Docker made for a container.
_CONTAINER_CGROUP = re.compile(r"(?:\A|-)([0-9a-f]{64})(?:\.scope)?\Z")

#: How many groups below a container's own are looked at for processes.
MAX_GROUPS = 2000


class Membership:
    """The control groups of one process, as /proc/<pid>/cgroup has them."""

    def __init__(self, content: str) -> None:
        self._paths: dict[str, str] = {}
        for line in content.splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                self._paths[controller] = path

    def place(self, controller: str) -> tuple[bool, str, str]:
        """Return whether a controller is in the unified hierarchy, its mount, and the path."""
        if controller in self._paths:
            return False, "/sys/fs/cgroup/" + controller, self._paths[controller]
        # the unified hierarchy has no controller names
        return True, "/sys/fs/cgroup", self._paths.get("", "/")

    def container(self) -> str | None:
        """Return the id of the container that the process belongs to; None for one of the host."""
        for path in self._paths.values():
            own = _own(path)[0]
            match = _CONTAINER_CGROUP.search(own.rpartition("/")[2])
            if match:
                return match.group(1)
        return None


def _own(path: str) -> list[str]:
    """Return the groups that bind a process: that of its container first, its own one last.

    A container that moved its processes into a child group (systemd or Docker inside) is still
    bound by the limits of the group that Docker made, and by the child's if they are tighter.
    """
    parts = path.split("/")
    for length in range(len(parts), 1, -1):
        if _CONTAINER_CGROUP.search(parts[length - 1]):
            return ["/".join(parts[:n]) for n in range(length, len(parts) + 1)]
    return [path]


def _above(path: str) -> list[str]:
    """Return the groups above one, without the root, which has no limits."""
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(2, len(parts))]


class _Reader:
    """Reads one controller's files in the groups of a process."""

    def __init__(self, host: Host, membership: Membership, controller: str) -> None:
        self._host = host
        self.unified, self._mount, path = membership.place(controller)
        self.own = _own(path)

    def read(self, group: str, name: str) -> str | None:
        """Return a control file's text; None where there is no such limit (as in the root)."""
        try:
            return self._host.read_text("%s%s/%s" % (self._mount, group, name)).strip()
        except FileNotFoundError:
            return None

    def tightest(
        self, read: typing.Callable[[str], float | None]
    ) -> tuple[float | None, float | None]:
        """Return the smallest limit of the container's groups, and of the groups above them."""
        found = []
        for groups in (self.own, _above(self.own[0])):
            limits = [limit for limit in map(read, groups) if limit is not None]
            found.append(min(limits) if limits else None)
        return found[0], found[1]


def limits(host: Host, membership: Membership) -> Mapping:
    """Return what the control groups allow a process.

    ``pids_max``, ``memory_max`` (bytes) and ``cpu_limit`` (processors) are those of the group that
    Docker made when the process sits in one (or below it), otherwise of its own; the ones that end
    in ``_parent`` are the tightest above it. None: nothing limits it there. ``cpu_weight`` is of
    the unified hierarchy (100 is the default), ``cpu_shares`` of the older one (1024).
    ``cpuset_cpus`` is None when it may use every processor.

    :raises OSError: a control file cannot be read.
    """
    found = _pids(host, membership)
    found.update(_memory(host, membership))
    found.update(_cpu(host, membership))
    found["cpuset_cpus"] = _cpuset(host, membership)
    return found


def _pids(host: Host, membership: Membership) -> Mapping:
    reader = _Reader(host, membership, "pids")
    own, above = reader.tightest(lambda group: number(reader.read(group, "pids.max")))
    return {
        "cgroup": reader.own[0],
        "pids_max": own,
        "pids_max_parent": above,
        "pids_current": number(reader.read(reader.own[0], "pids.current")),
    }


def _memory(host: Host, membership: Membership) -> Mapping:
    reader = _Reader(host, membership, "memory")
    limit, usage = ("memory.max", "memory.current")
    if not reader.unified:
        limit, usage = ("memory.limit_in_bytes", "memory.usage_in_bytes")

    def read(group: str) -> int | None:
        value = number(reader.read(group, limit))
        # The older hierarchy says 2^63 less a page for no limit.
        return value if value is None or value < 2**62 else None

    own, above = reader.tightest(read)
    current = number(reader.read(reader.own[0], usage))
    return {"memory_max": own, "memory_max_parent": above, "memory_current": current}


def _cpu(host: Host, membership: Membership) -> Mapping:
    reader = _Reader(host, membership, "cpu")

    def read(group: str) -> float | None:
        if reader.unified:
            quota, _, period = (reader.read(group, "cpu.max") or "").partition(" ")
        else:
            quota = reader.read(group, "cpu.cfs_quota_us") or ""
            period = reader.read(group, "cpu.cfs_period_us") or ""
        parts = number(quota), number(period)
        if parts[0] is None or not parts[1] or parts[0] < 0:
            return None
        return round(parts[0] / parts[1], 4)

    own, above = reader.tightest(read)
    weight = number(reader.read(reader.own[0], "cpu.weight" if reader.unified else "cpu.shares"))
    return {
        "cpu_limit": own,
        "cpu_limit_parent": above,
        "cpu_weight": weight if reader.unified else None,
        "cpu_shares": None if reader.unified else weight,
    }


def _cpuset(host: Host, membership: Membership) -> str | None:
    reader = _Reader(host, membership, "cpuset")
    cpus = reader.read(reader.own[0], "cpuset.cpus") or None
    if cpus is not None and not reader.unified and cpus == reader.read("", "cpuset.cpus"):
        return None  # the older hierarchy repeats there what the root has
    return cpus


def members(host: Host, membership: Membership) -> tuple[list[int], bool]:
    """Return the processes in the control group of a container, and below it.

    :returns: also whether these are all of them.
    :raises OSError: a group's list cannot be read.
    :raises ValueError: the process is in no container's group.
    """
    reader = _Reader(host, membership, "pids")
    top = reader.own[0]
    if not _CONTAINER_CGROUP.search(top.rpartition("/")[2]):
        raise ValueError("in no control group of a container")
    place = membership.place("pids")[1]
    found: list[int] = []
    waiting = [top]
    for _ in range(MAX_GROUPS):
        if not waiting:
            break
        group = waiting.pop()
        listed = reader.read(group, "cgroup.procs") or ""
        found.extend(int(line) for line in listed.split() if line.isdigit())
        waiting.extend("%s/%s" % (group, name) for name in _below(host, place + group))
    return sorted(set(found)), not waiting


def _below(host: Host, path: str) -> list[str]:
    """Return the names of the groups below one."""
    status = host.lstat(path)
    if status is None or status.st_nlink == 2:  # a directory without directories: most have none
        return []
    found = []
    for name in host.listdir(path):
        entry = host.lstat("%s/%s" % (path, name))
        if entry is not None and stat_module.S_ISDIR(entry.st_mode):
            found.append(name)
    return found
