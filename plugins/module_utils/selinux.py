# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""SELinux on a host: what its kernel and the store of its policy hold, and the programs that change it.

What is there is read from files, never from a program's output. Source: selinux(8), semodule(8),
setsebool(8), restorecon(8), selabel_file(5), and security/selinux/selinuxfs.c of the kernel.
"""

from __future__ import annotations

import base64
import bz2
import contextlib
import hashlib
import os
import re
import stat
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError

Json = dict[str, typing.Any]

CONFIG = "/etc/selinux/config"
KERNEL = "/sys/fs/selinux"

#: What semodule takes by itself; distributions install at lower ones.
PRIORITY = 400

#: A module's name, and the file's that it is installed from; a type begins with it.
MODULE = re.compile(r"\A[a-z][a-z0-9_]{0,47}\Z")
BOOLEAN = re.compile(r"\A[a-zA-Z][a-zA-Z0-9_]{0,63}\Z")

#: The policy is compiled anew: seconds on real processors, minutes on emulated ones.
_TIMEOUT = 600.0

_PROGRAMS = {
    "semodule": ("/usr/sbin/semodule", "/sbin/semodule"),
    "setsebool": ("/usr/sbin/setsebool", "/sbin/setsebool"),
    "restorecon": ("/usr/sbin/restorecon", "/sbin/restorecon"),
}
_MOST_BYTES = 1024 * 1024

#: What a transaction changes of SELinux, as its journal calls it, in the order of undoing it.
POLICY_EFFECTS = ("selinux_module", "selinux_boolean", "selinux_enforcing")
RELABEL = "selinux_relabel"
EFFECTS = (*POLICY_EFFECTS, RELABEL)


# -- what is there -------------------------------------------------------------------------------
def enabled(host: Host) -> bool:
    """Tell whether the kernel runs with SELinux and a policy."""
    return host.lstat(KERNEL + "/enforce") is not None


def enforcing(host: Host) -> bool:
    """Tell whether the kernel denies, and does not only report."""
    return _line(host, KERNEL + "/enforce") == "1"


def settings(host: Host) -> dict[str, str]:
    """Return what /etc/selinux/config says: ``SELINUX`` and ``SELINUXTYPE``, where it does."""
    found = {}
    for line in _text(host, CONFIG).splitlines():
        match = re.match(r"\s*(SELINUX|SELINUXTYPE)\s*=\s*(\w+)\s*\Z", line)
        if match:
            found[match.group(1)] = match.group(2)
    return found


def policy(host: Host) -> str | None:
    """Return the name of the policy: ``default`` on Debian, ``targeted`` on others."""
    return settings(host).get("SELINUXTYPE")


def knows(host: Host, context: str) -> bool | None:
    """Ask the kernel whether its policy has a context; None when it may not be asked.

    A write to that file is a question, and changes nothing.
    """
    try:
        with open(host.path(KERNEL + "/context"), "r+b", buffering=0) as stream:
            stream.write(context.encode("ascii", "replace") + b"\0")
    except PermissionError:
        return None
    except OSError:  # EINVAL: there is no such type, role or user
        return False
    return True


def booleans(host: Host) -> dict[str, bool]:
    """Return the policy's booleans as the kernel holds them."""
    found = {}
    with contextlib.suppress(OSError):
        for name in host.listdir(KERNEL + "/booleans"):
            # Two numbers: in effect, and pending until they are committed.
            value = _line(host, "%s/booleans/%s" % (KERNEL, name)).split()
            if BOOLEAN.match(name) and value:
                found[name] = value[0] == "1"
    return found


def boolean(host: Host, name: str) -> bool | None:
    """Return a boolean as the kernel holds it; None when the policy has none of that name."""
    value = _line(host, "%s/booleans/%s" % (KERNEL, name)).split()
    return value[0] == "1" if value else None


def kept_booleans(host: Host) -> dict[str, bool]:
    """Return the booleans that somebody set for good."""
    found = {}
    for line in _text(host, _store(host) + "/booleans.local").splitlines():
        name, _, value = line.partition("=")
        if BOOLEAN.match(name.strip()) and value.strip() in ("0", "1"):
            found[name.strip()] = value.strip() == "1"
    return found


def modules(host: Host) -> dict[str, int]:
    """Return the modules in the policy's store, each with the priority that counts."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        base = _store(host) + "/modules"
        for priority in host.listdir(base):
            if priority.isdigit():
                for name in host.listdir("%s/%s" % (base, priority)):
                    found[name] = max(int(priority), found.get(name, 0))
    return found


def module(host: Host, name: str) -> bytes | None:
    """Return the text of a module of ours or of somebody's at our priority; None: there is none."""
    path = "%s/modules/%d/%s/cil" % (_store(host), PRIORITY, name)
    try:
        packed = host.read_bytes(path)
    except OSError:
        return None
    if not packed.startswith(b"BZh"):  # bzip-small and its like are settings of semanage.conf
        return packed
    try:
        return bz2.BZ2Decompressor().decompress(packed, _MOST_BYTES)
    except OSError:
        return packed


def digest(content: bytes | None) -> str | None:
    """Return the SHA-256 of a module; None for none."""
    return None if content is None else hashlib.sha256(content).hexdigest()


def contexts(host: Host) -> Json | None:
    """Return the labels that engines give containers: ``{path, process, file}``; None: no such file."""
    for name in ("lxc_contexts", "container_contexts"):
        path = "%s/contexts/%s" % (_directory(host), name)
        found = dict(re.findall(r'(?m)^\s*(\w+)\s*=\s*"([\w:.,-]+)"', _text(host, path)))
        if found:
            return {"path": path, "process": found.get("process"), "file": found.get("file")}
    return None


def equivalences_file(host: Host) -> str:
    """Return the file of paths that are labelled like others; semanage fcontext --equal writes it too."""
    return _directory(host) + "/contexts/files/file_contexts.subs"


def equivalences(text: str) -> dict[str, str]:
    """Return the paths of such a file, each with the one that it is labelled like.

    Of the lines that cover a path libselinux takes the first one, not the longest: one that stands
    behind another that covers its path is never used, and left out.
    """
    found: dict[str, str] = {}
    for path, like in filter(None, map(_equivalence, text.splitlines())):
        if not any(_covers(former, path) for former in found):
            found[path] = like
    return found


def with_equivalences(text: str, wanted: typing.Mapping[str, str | None]) -> str:
    """Return the text with some lines added, changed or (None) taken out; all others as they are.

    A line goes before the first one that covers its path, or to the end.
    """
    lines = [
        line for line in text.splitlines() if (_equivalence(line) or ("", ""))[0] not in wanted
    ]
    for path, like in sorted(wanted.items()):
        if like is not None:
            rows = map(_equivalence, lines)
            covered = (at for at, row in enumerate(rows) if row and _covers(row[0], path))
            lines.insert(next(covered, len(lines)), "%s %s" % (path, like))
    return "".join(line + "\n" for line in lines)


def _equivalence(line: str) -> tuple[str, str] | None:
    row = line.split()
    return (row[0], row[1]) if len(row) == 2 and not row[0].startswith("#") else None


def _covers(path: str, other: str) -> bool:
    return other == path or other.startswith(path.rstrip("/") + "/")


def label(host: Host, path: str) -> str | None:
    """Return the label of a file; None when it has none."""
    with contextlib.suppress(OSError):
        return host.xattr(path, "security.selinux").decode("ascii", "replace").strip("\0")
    return None


def type_of(context: str | None) -> str | None:
    """Return the type of a label: its third part."""
    parts = (context or "").split(":")
    return parts[2] if len(parts) > 2 else None


def _directory(host: Host) -> str:
    return "/etc/selinux/%s" % (policy(host) or "targeted")


def _store(host: Host) -> str:
    return "/var/lib/selinux/%s/active" % (policy(host) or "targeted")


def _text(host: Host, path: str) -> str:
    try:
        return host.read_text(path)
    except OSError:
        return ""


def _line(host: Host, path: str) -> str:
    return _text(host, path).strip("\0\n ")


def different(host: Host, wanted: typing.Mapping[str, bool]) -> dict[str, bool]:
    """Return those booleans that are not set so, or not for good."""
    kept = kept_booleans(host)
    return {
        name: value
        for name, value in wanted.items()
        if boolean(host, name) is not value or kept.get(name) is not value
    }


# -- what changes it -----------------------------------------------------------------------------
def program(host: Host, name: str) -> str | None:
    """Return the path of a program, or None when it is not installed."""
    return next((path for path in _PROGRAMS[name] if host.lstat(path) is not None), None)


def change_modules(host: Host, wanted: typing.Mapping[str, bytes | None], directory: str) -> None:
    """Install modules and remove (None) others, all at once: the policy is compiled once.

    What is so already is left out. The store changes as a whole or not at all.

    :param directory: a private one of ours, for the texts; semodule takes the name from the file's.
    :raises HostError: a text does not compile, or the policy with it does not.
    """
    different = {name: text for name, text in wanted.items() if module(host, name) != text}
    arguments, staged = ["--priority=%d" % PRIORITY], []
    for name, text in sorted(different.items()):
        if text is None:
            arguments += ["--remove=%s" % name]
            continue
        path = "%s/%s.cil" % (directory, name)
        files.stage(host, path, text, files.PRIVATE)
        staged.append(path)
        arguments += ["--install=%s" % host.path(path)]
    try:
        if different:
            _run(host, "semodule", arguments)
    finally:
        for path in staged:
            files.remove(host, path)


def set_booleans(host: Host, wanted: typing.Mapping[str, bool]) -> None:
    """Set booleans in the kernel and for good.

    :raises HostError: the policy has none of a name, or refuses.
    """
    if wanted:
        values = ["%s=%d" % (name, value) for name, value in sorted(wanted.items())]
        _run(host, "setsebool", ["-P", *values])


def relabel(host: Host, path: str) -> None:
    """Give a directory and what is below the types that the policy has for them.

    Levels stay as they are: a volume that belongs to one container still does. So do nodes of devices,
    which the policy lets nobody label: dockerd makes ``volumes/backingFsBlockDev`` and removed files
    of layers are such.

    :raises HostError: something could not be labelled.
    """
    # It takes the last character of what ends without the separator for one.
    names = "".join(name + "\0" for name in _not_devices(host.path(path)))
    _run(host, "restorecon", ["-i", "-0", "-f", "-"], os.fsencode(names))


def _not_devices(top: str) -> typing.Iterator[str]:
    """Walk a tree without following links."""
    yield top
    for directory, directories, others in os.walk(top):
        for name in directories + others:
            path = os.path.join(directory, name)
            with contextlib.suppress(FileNotFoundError):
                mode = os.lstat(path).st_mode
                if not (stat.S_ISBLK(mode) or stat.S_ISCHR(mode)):
                    yield path


def enforce(host: Host, on: bool) -> None:
    """Let the kernel deny from now on, or (a rollback's part) only report as before."""
    try:
        with open(host.path(KERNEL + "/enforce"), "wb", buffering=0) as stream:
            stream.write(b"1" if on else b"0")
    except OSError as exc:
        raise HostError("%s/enforce: %s" % (KERNEL, os.strerror(exc.errno or 0))) from exc


# -- back ------------------------------------------------------------------------------------------
def put_back(host: Host, effect: Json, directory: str) -> None:
    """Undo one effect of a transaction that did not end.

    :param directory: a private one of ours, which is there.
    """
    kind = effect["kind"]
    if kind == "selinux_module":
        former = {name: unpacked(text) for name, text in effect["before"].items()}
        change_modules(host, former, directory)
    elif kind == "selinux_boolean":
        set_booleans(host, different(host, effect["before"]))
    elif kind == RELABEL:
        if host.lstat(effect["path"]) is not None:
            relabel(host, effect["path"])
    else:
        enforce(host, False)


def packed(text: bytes | None) -> str | None:
    """Return a module's text as a journal holds it."""
    return None if text is None else base64.b64encode(text).decode("ascii")


def unpacked(text: str | None) -> bytes | None:
    """Return what :func:`packed` packed."""
    return None if text is None else base64.b64decode(text)


def _run(host: Host, name: str, arguments: list[str], stdin: bytes | None = None) -> None:
    path = program(host, name)
    if path is None:
        raise HostError("%s is not on this host; install the package policycoreutils" % name)
    done = host.run([path, *arguments], timeout=_TIMEOUT, stdin=stdin)
    if done.rc != 0:
        told = [line.strip() for line in (done.err + "\n" + done.out).splitlines() if line.strip()]
        raise HostError("%s: %s" % (name, "; ".join(told)[:600] or "status %d" % done.rc))
