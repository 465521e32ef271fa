# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What the kernel says about one process: the truth behind a container's configuration.

Source: proc(5), user_namespaces(7), and the Shared Subtrees document of the kernel.
"""

from __future__ import annotations

import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import look_cgroups
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    number,
)

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")

# What Docker 20.10 hides and write-protects below /proc and /sys (moby oci/defaults.go). Later
# releases hide more, so a container has the default when it has at least these.
MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware",
)  # fmt: skip
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class Reference:
    """What processes are compared with: the host's own namespaces and mounts, read once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._namespaces: dict[str, str] | None = None
        self._shared: frozenset[str] | None = None
        self._present: dict[str, bool] = {}

    @property
    def namespaces(self) -> dict[str, str]:
        """The namespaces of the host's first process, by kind; empty when they cannot be read."""
        if self._namespaces is None:
            self._namespaces = _namespaces(self._host, 1)
        return self._namespaces

    @property
    def shared(self) -> frozenset[str]:
        """The numbers of the host's peer groups, between which mounts propagate."""
        if self._shared is None:
            try:
                mounts = parse_mounts(self._host.read_text("/proc/1/mountinfo"))
            except OSError:
                mounts = []
            self._shared = frozenset(mount.shared for mount in mounts if mount.shared)
        return self._shared

    def present(self, paths: typing.Sequence[str]) -> list[str]:
        """Return those paths that this kernel has."""
        for path in paths:
            if path not in self._present:
                self._present[path] = self._host.lstat(path) is not None
        return [path for path in paths if self._present[path]]


def kernel_view(host: Host, pid: int, reference: Reference | None = None) -> Mapping:
    """Return what the kernel enforces on the process ``pid``.

    ``uid`` is the effective user id inside the process's user namespace and ``host_uid`` the same
    outside (None when unmapped); rows of ``uid_map`` and ``gid_map`` are inside, outside, count.
    Capability sets are 16 hexadecimal digits. Resource limits are whole numbers, None meaning
    unlimited; :func:`look_cgroups.limits` describes those of its control group.
    ``host_namespaces`` are those that it shares with the host's first process. ``shared_mounts``
    propagate to the host; ``unmasked_paths`` and ``writable_paths`` are those of Docker's default
    that this kernel has and nothing hides or protects. All three, and the namespaces, are None when
    they cannot be read.

    :param reference: the host's side of the comparison, when several processes are looked at.
    :raises OSError: the process is gone, or may not be read.
    """
    base = "/proc/%d/" % pid
    reference = reference or Reference(host)
    status = read_status(host, pid)
    uid_map = _id_map(host.read_text(base + "uid_map"))
    host_uid = int(status["Uid"].split()[1])
    resource_limits = host.read_text(base + "limits")
    label = _label(host, pid)
    view: Mapping = {
        "comm": status.get("Name", ""),
        "uid": inside(uid_map, host_uid),
        "host_uid": host_uid,
        "uid_map": uid_map,
        "gid_map": _id_map(_optional(host, base + "gid_map") or ""),
        "seccomp": int(status.get("Seccomp", "0")),
        "seccomp_filters": number(status.get("Seccomp_filters")),
        "no_new_privs": status.get("NoNewPrivs") == "1",
        "lsm_label": label,
        "oom_score_adj": number((_optional(host, base + "oom_score_adj") or "").strip()),
        "nofile": _limit(resource_limits, "Max open files"),
        "nproc": _limit(resource_limits, "Max processes"),
    }
    for name in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        view["cap_" + name.lower()] = status.get("Cap" + name, "")
    view.update(_label_parts(label))
    membership = look_cgroups.Membership(host.read_text(base + "cgroup"))
    view.update(look_cgroups.limits(host, membership))
    view.update(_namespace_view(_namespaces(host, pid), reference))
    view.update(_mount_view(host, pid, reference))
    return view


def read_status(host: Host, pid: int) -> dict[str, str]:
    """Return the fields of /proc/<pid>/status. Raises OSError, also for a process that is gone."""
    fields = {}
    for line in host.read_text("/proc/%d/status" % pid).splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.strip()
    if "Uid" not in fields:
        raise ProcessLookupError(3, "No such process")
    return fields


def _optional(host: Host, path: str) -> str | None:
    try:
        return host.read_text(path)
    except OSError:
        return None


def _id_map(content: str) -> list[list[int]]:
    return [
        [int(part) for part in line.split()]
        for line in content.splitlines()
        if len(line.split()) == 3
    ]


def inside(uid_map: list[list[int]], outside: int) -> int | None:
    """Return what a user of the host is in a user namespace; None when it is nobody there."""
    for start, first, count in uid_map:
        if first <= outside < first + count:
            return start + outside - first
    return None


def _label(host: Host, pid: int) -> str | None:
    """Return the security module's label: ``docker-default (enforce)``; None without one."""
    for name in ("apparmor/current", "current"):
        try:
            label = host.read_text("/proc/%d/attr/%s" % (pid, name)).strip("\0\n ")
        except OSError:  # EINVAL: no security module keeps labels here
            continue
        if label:
            return label
    return None


def _label_parts(label: str | None) -> Mapping:
    """Take a label apart: AppArmor writes ``profile (mode)``, SELinux ``user:role:type:level``."""
    found: Mapping = {"apparmor_profile": None, "apparmor_mode": None, "selinux_label": None}
    if not label:
        return found
    match = re.match(r"(.+) \((\w+)\)\Z", label)
    if match:
        found["apparmor_profile"], found["apparmor_mode"] = match.groups()
    elif label.count(":") >= 2 and "//" not in label:
        found["selinux_label"] = label
    else:
        found["apparmor_profile"] = label
    return found


def _limit(limits: str, name: str) -> dict[str, int | None]:
    for line in limits.splitlines():
        if line.startswith(name + " "):
            soft, hard = line[len(name) :].split()[:2]
            return {"soft": number(soft), "hard": number(hard)}
    return {"soft": None, "hard": None}


# -- namespaces --------------------------------------------------------------------------------
def _namespaces(host: Host, pid: int) -> dict[str, str]:
    """Return the kinds and inodes of a process's namespaces; empty when they cannot be read."""
    found = {}
    for kind in NAMESPACES:
        try:
            link = host.readlink("/proc/%d/ns/%s" % (pid, kind))
        except OSError:  # older kernels have no time namespaces; the links are root's to read
            continue
        match = re.match(r"\w+:\[(\d+)\]\Z", link)
        if match:
            found[kind] = match.group(1)
    return found


def _namespace_view(own: dict[str, str], reference: Reference) -> Mapping:
    if not own or not reference.namespaces:
        return {"namespaces": None, "host_namespaces": None}
    rows = [
        {"type": kind, "inode": int(inode), "host": reference.namespaces.get(kind) == inode}
        for kind, inode in own.items()
    ]
    shared = [kind for kind in own if reference.namespaces.get(kind) == own[kind]]
    return {"namespaces": rows, "host_namespaces": shared}


# -- mounts ------------------------------------------------------------------------------------
class Mount(typing.NamedTuple):
    """One mount: where it is, whether it is read-only, its peer group if it is shared."""

    path: str
    readonly: bool
    shared: str | None
    device: str
    filesystem: str


def parse_mounts(content: str) -> list[Mount]:
    """Return the mounts of a /proc/<pid>/mountinfo; later ones hide earlier ones of that path."""
    found = []
    for line in content.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split()
        kind = after.split()
        if not separator or len(fields) < 6 or not kind:
            continue
        shared = next((item[7:] for item in fields[6:] if item.startswith("shared:")), None)
        options = fields[5].split(",") + (kind[2].split(",") if len(kind) > 2 else [])
        path = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[4])
        found.append(Mount(path, "ro" in options, shared, fields[2], kind[0]))
    return found


def _mount_view(host: Host, pid: int, reference: Reference) -> Mapping:
    try:
        mounts = parse_mounts(host.read_text("/proc/%d/mountinfo" % pid))
    except OSError:
        mounts = []
    if not mounts:
        names = ("rootfs_readonly", "shared_mounts", "unmasked_paths", "writable_paths")
        return dict.fromkeys(names)
    table = {mount.path: mount for mount in mounts}
    shared = [mount.path for mount in mounts if mount.shared and mount.shared in reference.shared]
    unmasked = [
        path
        for path in reference.present(MASKED)
        if path not in table and "/" + path.split("/")[1] in table
    ]
    writable = [
        path
        for path in reference.present(READONLY)
        if "/proc" in table and not table.get(path, table["/proc"]).readonly
    ]
    return {
        "rootfs_readonly": table["/"].readonly if "/" in table else None,
        "shared_mounts": sorted(set(shared)),
        "unmasked_paths": unmasked,
        "writable_paths": writable,
    }
