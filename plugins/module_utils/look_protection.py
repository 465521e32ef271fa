# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""How the kernel protects itself: its parameters, how it was booted, which modules it may load.

Source: sysctl.d(5), modprobe.d(5), the kernel's admin-guide/kernel-parameters.
"""

from __future__ import annotations

import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import sysctls
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    Notes,
    os_reason,
    placed_file,
)

#: Modules that hosts of containers hardly ever need, as the kernel writes their names.
MODULES: typing.Final = (
    "dccp", "sctp", "rds", "tipc", "n_hdlc", "ax25", "netrom", "x25", "rose", "decnet", "econet",
    "af_802154", "ieee802154_socket", "ipx", "appletalk", "psnap", "p8023", "p8022", "can", "atm",
    "cramfs", "freevxfs", "jffs2", "hfs", "hfsplus", "udf",
)  # fmt: skip

#: Parameters at boot that are looked for. Others may hold a secret, and stay on the host.
BOOT_PARAMETERS: typing.Final = (
    "debugfs", "init_on_alloc", "init_on_free", "lockdown", "page_alloc.shuffle",
    "randomize_kstack_offset", "slab_nomerge", "vsyscall",
)  # fmt: skip

MODULES_FILE: typing.Final = "/etc/modprobe.d/bulkhead-docker.conf"
BOOT_DIRECTORY: typing.Final = "/etc/default/grub.d"
BOOT_FILE: typing.Final = BOOT_DIRECTORY + "/60-bulkhead-docker.cfg"

#: Where modprobe looks, the strongest first.
_MODPROBE_DIRECTORIES = (
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)
_WORD = re.compile(r"[A-Za-z0-9_.,:-]{0,40}\Z")


def section(host: Host, notes: Notes) -> Mapping:
    """Return the section ``kernel``.

    ``sysctls``: by name ``{value, set_by, overruled_by}``, those that this kernel lacks left out;
    ``boot``: parameters by name, of those that are looked for; ``modules_loaded``; ``modules_blocked``:
    by name, where a file of somebody else's blocks it; ``files``: what we would place.
    """
    return {
        "sysctls": _sysctls(host, notes),
        "boot": _boot(host, notes),
        "lockdown": _lockdown(host),
        "modules_loaded": _loaded(host, notes),
        "modules_blocked": _blocked(host, notes),
        "boot_directory": host.lstat(BOOT_DIRECTORY) is not None,
        "files": [placed_file(host, path) for path in (sysctls.FILE, MODULES_FILE, BOOT_FILE)],
    }


def _sysctls(host: Host, notes: Notes) -> Mapping:
    lines = sysctls.assignments(host, notes)
    found: Mapping = {}
    for name in sysctls.NAMES:
        try:
            value = sysctls.running(host, name)
        except OSError as exc:
            notes.add("kernel", name, os_reason(exc))
            continue
        if value is not None:
            theirs = sysctls.others(lines, name)
            found[name] = {"value": value, **{k: _place(v) for k, v in theirs._asdict().items()}}
    return found


def _place(line: sysctls.Assignment | None) -> Mapping | None:
    if line is None:
        return None
    return {"value": line.value, "path": line.path, "line": line.line}


def _boot(host: Host, notes: Notes) -> Mapping | None:
    try:
        words = host.read_text("/proc/cmdline").split()
    except OSError as exc:
        notes.add("kernel", "/proc/cmdline", os_reason(exc))
        return None
    found: Mapping = {}
    for word in words:
        name, _, value = word.partition("=")
        if name in BOOT_PARAMETERS and _WORD.match(value):
            found[name] = value
    return found


def _lockdown(host: Host) -> str | None:
    """Return how far the kernel is locked against root; None: it cannot be."""
    try:
        match = re.search(r"\[(\w+)\]", host.read_text("/sys/kernel/security/lockdown"))
    except OSError:
        return None
    return match.group(1) if match else None


def _loaded(host: Host, notes: Notes) -> list[str]:
    try:
        lines = host.read_text("/proc/modules").splitlines()
    except FileNotFoundError:  # a kernel without modules
        return []
    except OSError as exc:
        notes.add("kernel", "/proc/modules", os_reason(exc))
        return []
    names = {line.split(" ", 1)[0] for line in lines}
    return sorted(names.intersection(MODULES))


def _blocked(host: Host, notes: Notes) -> Mapping:
    """Return what files of others keep from being loaded, by module: path and line.

    Only an ``install`` that runs nothing: a mere ``blacklist`` keeps aliases away, not the name.
    """
    found: Mapping = {}
    for path, content in sysctls.configuration(host, notes, _MODPROBE_DIRECTORIES):
        if path == MODULES_FILE:
            continue
        try:
            lines = host.read_text(content).splitlines()
        except OSError as exc:
            notes.add("kernel", path, os_reason(exc))
            continue
        for number, line in enumerate(lines, 1):
            match = re.match(r"\s*install\s+(\S+)\s+(?:/usr)?/bin/(?:false|true)\s*\Z", line)
            name = match.group(1).replace("-", "_") if match else ""
            if name in MODULES:
                found.setdefault(name, "%s:%d" % (path, number))
    return found
