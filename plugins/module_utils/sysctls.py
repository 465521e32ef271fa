# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Kernel parameters: those that Bulkhead knows, their running values, and what sysctl.d says of them.

Source: sysctl.d(5), and systemd's src/sysctl/sysctl.c for how it reads its files.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Notes,
    conf_files,
    os_reason,
)

#: Everything that a plan may set. Values are numbers, so that none can name a program to run.
NAMES: typing.Final = (
    "dev.tty.ldisc_autoload",
    "dev.tty.legacy_tiocsti",
    "fs.protected_fifos",
    "fs.protected_hardlinks",
    "fs.protected_regular",
    "fs.protected_symlinks",
    "fs.suid_dumpable",
    "kernel.dmesg_restrict",
    "kernel.io_uring_disabled",
    "kernel.kexec_load_disabled",
    "kernel.kptr_restrict",
    "kernel.oops_limit",
    "kernel.perf_event_paranoid",
    "kernel.randomize_va_space",
    "kernel.sysrq",
    "kernel.unprivileged_bpf_disabled",
    "kernel.warn_limit",
    "kernel.yama.ptrace_scope",
    "net.core.bpf_jit_harden",
    "net.ipv4.conf.all.accept_redirects",
    "net.ipv4.conf.all.accept_source_route",
    "net.ipv4.conf.all.send_redirects",
    "net.ipv4.conf.default.accept_redirects",
    "net.ipv4.conf.default.accept_source_route",
    "net.ipv4.conf.default.send_redirects",
    "net.ipv4.icmp_echo_ignore_broadcasts",
    "net.ipv4.icmp_ignore_bogus_error_responses",
    "net.ipv4.tcp_rfc1337",
    "net.ipv4.tcp_syncookies",
    "net.ipv6.conf.all.accept_redirects",
    "net.ipv6.conf.all.accept_source_route",
    "net.ipv6.conf.default.accept_redirects",
    "net.ipv6.conf.default.accept_source_route",
    "vm.mmap_min_addr",
    "vm.mmap_rnd_bits",
    "vm.mmap_rnd_compat_bits",
    "vm.unprivileged_userfaultfd",
)

#: After what distributions ship (10 to 50), before what is placed by hand (sysctl.d(5) says 60 to 90).
FILE: typing.Final = "/etc/sysctl.d/60-bulkhead-docker.conf"

#: Where systemd-sysctl looks, the strongest first: a name that is in one hides the same in the others.
DIRECTORIES: typing.Final = (
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
)

#: How many files there are read.
_MAX_FILES = 200
#: How much of a value in somebody's file leaves the host, in characters.
_MAX_VALUE = 64


class Assignment(typing.NamedTuple):
    """One line of a file. ``glob``: it stands for every parameter that fits it.

    ``value`` None: the line only keeps a glob of any file away from the parameter (``-KEY``).
    """

    key: str
    value: str | None
    path: str
    line: int
    glob: bool


# -- running values ------------------------------------------------------------------------------
def running(host: Host, name: str) -> str | None:
    """Return a parameter's value, blanks between its numbers made one; None: there is no such."""
    try:
        return " ".join(host.read_text(path_of(name)).split())
    except (FileNotFoundError, NotADirectoryError):
        return None


def path_of(name: str) -> str:
    """Return where the kernel shows a parameter."""
    return "/proc/sys/" + name.replace(".", "/")


def change(host: Host, name: str, value: str) -> None:
    """Give a parameter a value, and see that the kernel took it.

    :raises OSError: the kernel refuses it: EINVAL or EPERM also for what only a boot takes back.
    :raises HostError: it shows another value afterwards.
    """
    host.write_sysctl(path_of(name), value)
    found = running(host, name)
    if found != value:
        raise HostError("%s is %s after %s was written" % (name, found, value))


def put_back(host: Host, name: str, before: str, after: str) -> str | None:
    """Give a parameter the value of before; return what is to be noted, as a text.

    :param after: what was set; a parameter that has another value by now is somebody else's.
    """
    now = running(host, name)
    if now in (None, before):
        return None
    if now != after:
        return "%s was changed by somebody else, and is left alone" % name
    try:
        change(host, name, before)
    except OSError:
        return stays(name, after)
    return None


def stays(name: str, value: str) -> str:
    """Return what to say of a parameter that the kernel does not let go."""
    return "%s stays %s until the next boot: the kernel does not take it back" % (name, value)


def forwarding(host: Host) -> dict[str, str]:
    """Return everything that decides whether packets of containers are passed on, by its name.

    Interfaces included; those of containers come and go. A value may be empty: it cannot be read.
    """
    names = ["net.ipv4.ip_forward"]
    names += [
        "net.bridge.bridge-nf-call-" + kind for kind in ("iptables", "ip6tables", "arptables")
    ]
    found = {name: running(host, name) or "" for name in names}
    for family in ("ipv4", "ipv6"):
        base = "/proc/sys/net/%s/conf" % family
        try:
            interfaces = host.listdir(base)
        except OSError:  # a kernel without IPv6
            continue
        for interface in interfaces:
            # An interface's name may have a dot in it, so it is no part of a name here.
            path = "%s/%s/forwarding" % (base, interface)
            try:
                found[path] = host.read_text(path).strip()
            except OSError:
                continue
    return found


def lost(before: typing.Mapping[str, str], after: typing.Mapping[str, str]) -> list[str]:
    """Return what of :func:`forwarding` changed, as texts; what is only in one of both came or went."""
    return [
        "%s is %s instead of %s" % (name, after[name], value)
        for name, value in sorted(before.items())
        if name in after and after[name] != value
    ]


# -- files -----------------------------------------------------------------------------------------
class Place(typing.NamedTuple):
    """A file of configuration: how it is called, and where its content is."""

    shown: str
    content: str


def configuration(host: Host, notes: Notes, directories: typing.Sequence[str]) -> list[Place]:
    """Return the files ``*.conf`` of some directories, in the order of their names.

    :param directories: the strongest first: a name that is in one hides the same in the others. A
        link to /dev/null hides it in all.
    """
    chosen: dict[str, str] = {}
    for directory in directories:
        for path in conf_files(host, notes, "kernel", directory):
            chosen.setdefault(path.rpartition("/")[2], path)
    if len(chosen) > _MAX_FILES:
        notes.add("kernel", directories[0], "more than %d files" % _MAX_FILES)
    paths = [path for _, path in sorted(chosen.items())[:_MAX_FILES]]
    resolved = [(path, host.resolve(path)) for path in paths]
    return [Place(path, to) for path, to in resolved if to is not None and to != "/dev/null"]


def assignments(host: Host, notes: Notes) -> list[Assignment]:
    """Return every line that sets something, in the order in which systemd-sysctl takes them.

    ``/etc/sysctl.conf`` counts where a link makes it a file of these directories (99-sysctl.conf), as
    on Debian 12; systemd does not read it otherwise.
    """
    found: list[Assignment] = []
    for path in configuration(host, notes, DIRECTORIES):
        try:
            found += parse(host.read_text(path.content), path.shown)
        except OSError as exc:
            notes.add("kernel", path.shown, os_reason(exc))
    return found


def parse(text: str, path: str) -> list[Assignment]:
    """Return the lines of one file; what is no assignment is left out, as systemd-sysctl does."""
    found = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        key, separator, value = line.partition("=")
        key = key.strip()
        minus = key.startswith("-")
        key = _dotted(key.lstrip("-").strip())
        if not key or (not separator and not minus):
            continue
        shown = " ".join(value.split())[:_MAX_VALUE] if separator else None
        glob = any(character in key for character in "*?[")
        found.append(Assignment(key, shown, path, number, glob))
    return found


def _dotted(key: str) -> str:
    """Return a key with dots; one whose first separator is a slash has them the other way round."""
    dot, slash = key.find("."), key.find("/")
    if slash >= 0 and (dot < 0 or slash < dot):
        return key.translate(str.maketrans("/.", "./"))
    return key


class Others(typing.NamedTuple):
    """What files of others say of one parameter.

    ``set_by`` is what decides without our file; ``overruled_by`` what decides in spite of it.
    """

    set_by: Assignment | None
    overruled_by: Assignment | None


def others(lines: typing.Sequence[Assignment], name: str) -> Others:
    """Return what files of others say of a parameter.

    The last line that names it wins; globs count where none does, and a bare ``-KEY`` keeps them off.
    """
    theirs = [line for line in lines if line.path != FILE]
    named = [line for line in theirs if not line.glob and line.key == name]
    globs = [line for line in theirs if line.glob and _fits(line.key, name)]
    last = named[-1] if named else (globs[-1] if globs else None)
    if last is None or last.value is None:
        return Others(None, None)
    after = not last.glob and posixpath.basename(last.path) > os.path.basename(FILE)
    return Others(last, last if after else None)


def _fits(pattern: str, name: str) -> bool:
    """Tell whether a glob stands for a name; a star does not reach over a dot."""
    parts, wanted = pattern.split("."), name.split(".")
    return len(parts) == len(wanted) and all(
        fnmatch.fnmatchcase(part, glob) for part, glob in zip(wanted, parts)
    )
