# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What the kernel says about one process: the truth behind a container's configuration.

Source: proc(5), user_namespaces(7), Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import re

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    number,
)

# The scope (systemd driver) or directory (cgroupfs driver) that Docker made for a container.
_CONTAINER_CGROUP = re.compile(r"(?:\A|-)[0-9a-f]{64}(?:\.scope)?\Z")


def kernel_view(host: Host, pid: int) -> Mapping:
    """Return what the kernel enforces on the process ``pid``.

    ``uid`` is the effective user id inside the process's user namespace and ``host_uid`` the same
    outside (None when unmapped); ``uid_map`` rows are inside, outside, count. Capability sets are
    16 hexadecimal digits. Limits are whole numbers, None meaning unlimited. ``pids_max`` and
    ``pids_current`` are those of the container's cgroup when the process sits in one (or below
    it), otherwise of its own; ``pids_max`` is None when nothing limits it there.

    :raises OSError: the process is gone, or may not be read.
    """
    base = "/proc/%d/" % pid
    status = _status(host.read_text(base + "status"))
    uid_map = [
        [int(part) for part in line.split()]
        for line in host.read_text(base + "uid_map").splitlines()
        if len(line.split()) == 3
    ]
    host_uid = int(status["Uid"].split()[1])
    limits = host.read_text(base + "limits")
    view: Mapping = {
        "uid": _inside(uid_map, host_uid),
        "host_uid": host_uid,
        "uid_map": uid_map,
        "seccomp": int(status.get("Seccomp", "0")),
        "no_new_privs": status.get("NoNewPrivs") == "1",
        "lsm_label": _label(host, pid),
        "nofile": _limit(limits, "Max open files"),
        "nproc": _limit(limits, "Max processes"),
    }
    for name in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        view["cap_" + name.lower()] = status.get("Cap" + name, "")
    view.update(_pids(host, host.read_text(base + "cgroup")))
    return view


def _status(content: str) -> dict[str, str]:
    fields = {}
    for line in content.splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.strip()
    if "Uid" not in fields:
        raise ProcessLookupError(3, "No such process")
    return fields


def _inside(uid_map: list[list[int]], outside: int) -> int | None:
    for inside, first, count in uid_map:
        if first <= outside < first + count:
            return inside + outside - first
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


def _limit(limits: str, name: str) -> dict[str, int | None]:
    for line in limits.splitlines():
        if line.startswith(name + " "):
            soft, hard = line[len(name) :].split()[:2]
            return {"soft": number(soft), "hard": number(hard)}
    return {"soft": None, "hard": None}


def _pids(host: Host, membership: str) -> Mapping:
    """Return ``cgroup``, ``pids_max`` and ``pids_current`` from a process's cgroup membership."""
    hierarchies = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            hierarchies[controller] = path
    if "pids" in hierarchies:
        mount, cgroup = "/sys/fs/cgroup/pids", hierarchies["pids"]
    else:  # the unified hierarchy has no controller names
        mount, cgroup = "/sys/fs/cgroup", hierarchies.get("", "/")
    # A container that moved its processes into a child cgroup (systemd or Docker inside) is still
    # bound by the limit of the cgroup that Docker made, and by the child's if it is tighter.
    chain = [cgroup]
    parts = cgroup.split("/")
    for length in range(len(parts), 1, -1):
        if _CONTAINER_CGROUP.search(parts[length - 1]):
            chain = ["/".join(parts[:n]) for n in range(len(parts), length - 1, -1)]
            break
    found: Mapping = {"cgroup": chain[-1], "pids_max": None, "pids_current": None}
    maxima = [number(_read(host, mount + path + "/pids.max")) for path in chain]
    finite = [value for value in maxima if value is not None]
    if finite:
        found["pids_max"] = min(finite)
    found["pids_current"] = number(_read(host, mount + chain[-1] + "/pids.current"))
    return found


def _read(host: Host, path: str) -> str | None:
    """Return a control file's text; None where there is no such limit (as in the root cgroup)."""
    try:
        return host.read_text(path).strip()
    except FileNotFoundError:
        return None
