# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Runtime detection as a look sees it: whether Falco is there and runs, and what it needs of the kernel."""

from __future__ import annotations

from ansible_collections.bulkhead.hardening.plugins.module_utils import falco, look_systemd
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    Notes,
    UnreadableError,
    names_in,
    os_reason,
    placed_file,
)

#: Types of the running kernel, without which no program of eBPF fits every kernel.
_BTF = "/sys/kernel/btf/vmlinux"


def section(host: Host, notes: Notes, timeout: float) -> Mapping:
    """Return the section ``falco``.

    ``units``: by name, of the package's units that run Falco, those that are there; None when systemd
    does not answer. ``rules_files``: what Falco reads by default, with the number of rules.
    ``files``: what we would place.
    """
    installed = host.lstat(falco.PROGRAM) is not None
    return {
        "installed": installed,
        "container_plugin": host.lstat(falco.CONTAINER_PLUGIN) is not None,
        "btf": host.lstat(_BTF) is not None,
        "units": _units(host, notes, timeout) if installed else {},
        "rules_files": _rules_files(host, notes) if installed else [],
        "files": [placed_file(host, path) for path in (falco.CONFIG, falco.RULES, falco.DROPIN)],
    }


def _units(host: Host, notes: Notes, timeout: float) -> Mapping | None:
    found = {}
    try:
        for name in (falco.UNIT, *falco.OTHER_UNITS):
            states = look_systemd.unit_states(host, name, timeout)
            if states["load_state"] not in (None, "not-found"):
                found[name] = states
    except UnreadableError as exc:
        notes.add("falco", "units", str(exc))
        return None
    return found


def _rules_files(host: Host, notes: Notes) -> list[Mapping]:
    names = names_in(host, notes, "falco", falco.RULES_DIRECTORY)
    paths = list(falco.PACKAGED_RULES)
    paths += [falco.RULES_DIRECTORY + name for name in names if name.endswith((".yaml", ".yml"))]
    rows = []
    for path in paths:
        try:
            rows.append({"path": path, "rules": falco.count_rules(host.read_bytes(path))})
        except FileNotFoundError:
            continue
        except OSError as exc:
            notes.add("falco", path, os_reason(exc))
    return rows
