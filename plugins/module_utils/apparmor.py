# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""AppArmor on a host: which policy the kernel holds, who is confined by it, and the parser.

Source: apparmor_parser(8), apparmor(7), and security/apparmor/apparmorfs.c of the kernel.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import (
    Completed,
    Host,
    HostError,
)

Json = dict[str, typing.Any]

#: Profiles lie at its top: what is in a directory below is not loaded at boot.
DIRECTORY = "/etc/apparmor.d"

#: The profile of every container that names no other.
DEFAULT_PROFILE = "docker-default"

#: A profile's name, which is also its file's: none that the parser skips (README, x~, x.dpkg-new).
NAME = re.compile(r"\A[a-z0-9][a-z0-9_-]{0,62}\Z")

_KERNEL = "/sys/kernel/security/apparmor/policy/profiles"
_PARSERS = ("/usr/sbin/apparmor_parser", "/sbin/apparmor_parser")
_CACHE = "/var/cache/apparmor"
_DIGESTS = ("sha256", "sha1")
_LABEL_ENDS = re.compile(r" \(\w+\)\Z")


class Policy(typing.NamedTuple):
    """What the kernel holds under a name.

    ``digest``: of the compiled profile, None on kernels that do not tell. ``directory``: where the
    kernel shows it.
    """

    digest: str | None
    directory: str


def path_of(profile: str) -> str:
    """Return where a profile's file lies."""
    return "%s/%s" % (DIRECTORY, profile)


def parser(host: Host) -> str | None:
    """Return the path of the parser, or None when it is not installed."""
    return next((path for path in _PARSERS if host.lstat(path) is not None), None)


def loaded(host: Host, profile: str) -> Policy | None:
    """Return what the kernel holds under a name, or None when it holds nothing."""
    try:
        names = host.listdir(_KERNEL)
    except OSError:
        return None
    for name in names:
        # A directory is named after the profile and a number: docker-default.12
        directory = "%s/%s" % (_KERNEL, name)
        if name.rpartition(".")[0] == profile and _line(host, directory + "/name") == profile:
            digests = (_line(host, "%s/%s" % (directory, kind)) for kind in _DIGESTS)
            return Policy(next(filter(None, digests), None), directory)
    return None


def compiled(host: Host, policy: Policy | None) -> bytes | None:
    """Return a policy in the form in which it was loaded; None on kernels that do not export it."""
    with contextlib.suppress(OSError):
        # Links within the kernel's own file system lead there.
        return host.read_bytes(policy.directory + "/raw_data") if policy else None
    return None


def _line(host: Host, path: str) -> str | None:
    try:
        return host.read_text(path).strip()
    except OSError:
        return None


def users(containers: typing.Iterable[Json], profile: str) -> list[str]:
    """Return the names of the containers that run under a profile, or would when they start.

    :param containers: rows of the observation. One that could not be inspected may use any.
    """
    found = []
    for container in containers:
        config, kernel = container.get("config"), container.get("kernel") or {}
        options = [] if config is None else config.get("security_opt") or []
        names = {None if config is None else config.get("apparmor_profile")}
        names.add(kernel.get("apparmor_profile"))
        names |= {option.partition("apparmor")[2][1:] for option in options}
        if config is None or profile in names:
            found.append(str(container["name"]))
    return sorted(found)


def confines(host: Host, profile: str) -> bool:
    """Tell whether any process of now is confined by a profile, or by a part of it."""
    for name in host.listdir("/proc"):
        if not name.isdigit():
            continue
        label = _line(host, "/proc/%s/attr/apparmor/current" % name)
        label = label or _line(host, "/proc/%s/attr/current" % name) or ""
        if profile in re.split(r"//&?", _LABEL_ENDS.sub("", label.strip("\0"))):
            return True
    return False


# -- the parser --------------------------------------------------------------------------------------
def problem(host: Host, text: bytes) -> str | None:
    """Return what the parser says against a text, with the line; None when it is well.

    It compiles the text and loads nothing.
    """
    done = _parse(host, ["--skip-kernel-load", "--skip-cache"], text)
    return None if done.rc == 0 else _said(done)


def load(host: Host, path: str) -> None:
    """Load or replace the profile of a file, and keep the compiled form for the next boot.

    :raises HostError: the parser, or the kernel, refuses.
    """
    done = _parse(host, ["--replace", "--write-cache", path])
    if done.rc != 0:
        raise HostError("%s was not loaded: %s" % (path, _said(done)))


def load_compiled(host: Host, path: str) -> None:
    """Load or replace a profile from a file that holds the compiled form.

    :raises HostError: the parser, or the kernel, refuses.
    """
    done = _parse(host, ["--replace", "--binary", host.path(path)])
    if done.rc != 0:
        raise HostError("the profile of before was not loaded: " + _said(done))


def unload(host: Host, profile: str) -> None:
    """Take a profile out of the kernel.

    :raises HostError: the parser, or the kernel, refuses.
    """
    # The parser wants a text to know the name from; the profile's own may be gone.
    text = b"profile %s {}\n" % profile.encode("ascii")
    done = _parse(host, ["--remove", "--skip-cache"], text)
    if done.rc != 0:
        raise HostError("%s was not unloaded: %s" % (profile, _said(done)))


def _parse(host: Host, arguments: list[str], text: bytes | None = None) -> Completed:
    program = parser(host)
    if program is None:
        raise HostError("apparmor_parser is not on this host; install the package apparmor")
    return host.run([program, *arguments], timeout=120.0, stdin=text)


def _said(done: Completed) -> str:
    lines = [line.strip() for line in (done.err + "\n" + done.out).splitlines()]
    # Warnings, of a cache that is missing for example, are not why it failed.
    told = [line for line in lines if line and not line.startswith("Warning")]
    return "; ".join(told)[:600] or "status %d" % done.rc


def follow(host: Host, profile: str, compiled: str | None, unloaded: bool) -> str | None:
    """Let the kernel hold what a profile's file says now; return what could not be done, if anything.

    :param compiled: the path of what the kernel held when there was no file, for the processes that
        are confined by it; None when there is nothing of the kind.
    :param unloaded: the file is not to be loaded (it was not, before).
    :raises HostError: the parser or the kernel refuses.
    """
    path = path_of(profile)
    # A file that is put back is older than what was compiled from its successor, and the parser goes
    # by age.
    forget(host, profile)
    if not unloaded and files.status(host, path) is not None:
        load(host, path)
    elif not confines(host, profile):
        if loaded(host, profile) is not None:
            unload(host, profile)
    elif compiled is not None:
        load_compiled(host, compiled)
    else:
        # Unloading would leave these processes without any confinement.
        return "%s stays in the kernel: there are processes under it" % profile
    return None


def forget(host: Host, profile: str) -> None:
    """Remove what the parser compiled from a profile's file."""
    with contextlib.suppress(OSError):
        for name in host.listdir(_CACHE):
            with contextlib.suppress(OSError, HostError):
                files.remove(host, posixpath.join(_CACHE, name, profile))
