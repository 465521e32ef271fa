# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""SELinux as a look sees it: mode, policy, booleans, modules, labels of Docker's data, and denials.

Denials leave the host as types, classes and permissions, without names of files or programs.
"""

from __future__ import annotations

import collections
import re

from ansible_collections.bulkhead.hardening.plugins.module_utils import selinux
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    Notes,
    audit_log,
    os_reason,
)

_MOST_DENIALS = 200
_MOST_ENTRIES = 50

_AVC = re.compile(
    r"audit\((\d+)\.\d+:\d+\): avc:  denied  \{ ([a-z_ ]+) \}"
    r".* scontext=([\w.-]+:[\w.-]+:[\w.-]+)\S* tcontext=([\w.-]+:[\w.-]+:[\w.-]+)\S* tclass=(\w+)"
)


def section(host: Host, notes: Notes, data_root: str | None) -> Mapping:
    """Return what the section ``lsm`` says of SELinux.

    :param data_root: where the daemon keeps its data; None when that is not known.
    """
    config = selinux.settings(host)
    found: Mapping = {
        "enabled": selinux.enabled(host),
        "enforcing": selinux.enforcing(host),
        "policy": config.get("SELINUXTYPE"),
    }
    if found["enabled"]:
        contexts = selinux.contexts(host)
        names = [contexts[name] for name in ("process", "file")] if contexts else []
        subs = selinux.equivalences_file(host)
        found.update(
            configured=config.get("SELINUX"),
            contexts=contexts,
            types_known=all(name and selinux.knows(host, name) for name in names) and bool(names),
            booleans=selinux.booleans(host),
            kept_booleans=selinux.kept_booleans(host),
            modules=selinux.modules(host),
            equivalences=selinux.equivalences(_text(host, subs)),
            equivalences_version=host.version(subs),
            programs=[name for name in ("restorecon", "semodule", "setsebool")
                      if selinux.program(host, name)],
            labels=_labels(host, notes, data_root),
            denials=_denials(host, notes),
        )  # fmt: skip
    return found


def _text(host: Host, path: str) -> str:
    try:
        return host.read_text(path)
    except OSError:
        return ""


def _labels(host: Host, notes: Notes, data_root: str | None) -> Mapping | None:
    """Return the types of a data root and of the directories at its top."""
    if data_root is None or host.lstat(data_root) is None:
        return None
    try:
        names = host.listdir(data_root)[:_MOST_ENTRIES]
    except OSError as exc:
        notes.add("lsm", data_root, os_reason(exc))
        return None
    types = {name: selinux.type_of(selinux.label(host, data_root + "/" + name)) for name in names}
    own = selinux.type_of(selinux.label(host, data_root))
    return {"path": data_root, "type": own, "entries": types}


def _denials(host: Host, notes: Notes) -> list[Mapping]:
    """Return what was denied since the boot, or would have been: counted, the most frequent first."""
    booted = re.search(r"(?m)^btime (\d+)$", _text(host, "/proc/stat"))
    since = int(booted.group(1)) if booted else 0
    counts: collections.Counter[tuple[str, ...]] = collections.Counter()
    for line in audit_log(host, notes, "lsm") or []:
        match = _AVC.search(line) if "avc:  denied" in line else None
        if match and int(match.group(1)) >= since:
            source, target = (selinux.type_of(match.group(n)) or "" for n in (3, 4))
            counts[(source, target, match.group(5), match.group(2))] += 1
    fields = ("source", "target", "class", "permissions")
    return [
        {**dict(zip(fields, row)), "count": count}
        for row, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ][:_MOST_DENIALS]
