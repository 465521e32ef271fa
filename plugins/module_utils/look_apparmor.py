# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""AppArmor as a look sees it: profiles and modes, the parser, files, and what complain mode reported.

Paths that processes used do not leave the host; the directory of the system that they lie below does.
"""

from __future__ import annotations

import collections
import re
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import apparmor, ledger
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    LOG_BYTES,
    Mapping,
    Notes,
    audit_log,
    os_reason,
)

_PROFILES = "/sys/kernel/security/apparmor/profiles"
_UNIT = "sysinit.target.wants/apparmor.service"
_UNIT_DIRECTORIES = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")

_MOST_REPORTS = 200

#: What a path is called outside of the host: the longest of these that it begins with.
_CLASSES = (
    "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc",
    "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local",
    "/usr/sbin", "/usr/share", "/var", "/var/cache", "/var/lib", "/var/log", "/var/run",
    "/var/spool", "/var/tmp", "/var/www",
)  # fmt: skip
_WORD = re.compile(r"\A[a-z0-9_]{1,32}\Z")
_FIELD = re.compile(r'\b([a-z_]+)=(?:"([^"]*)"|([^\s"]+))')
_MOMENT = re.compile(r"audit\((\d+)\.\d+:\d+\)")


def section(host: Host, notes: Notes, daemon: int | None) -> Mapping:
    """Return what the section ``lsm`` says of AppArmor.

    :param daemon: process id of dockerd, None when it does not run.
    """
    enabled = _line(host, "/sys/module/apparmor/parameters/enabled") == "Y"
    profiles = _profiles(host, notes) if enabled else None
    rows = [{"name": name, "mode": mode} for name, mode in sorted((profiles or {}).items())]
    found: Mapping = {
        "enabled": enabled,
        "profiles": profiles,
        "profile_list": rows if profiles is not None else None,
    }
    if enabled:
        found.update(
            parser=_parser(host),
            abi=_names(host, apparmor.DIRECTORY + "/abi"),
            files=_names(host, apparmor.DIRECTORY),
            at_boot=any(host.lstat("%s/%s" % (d, _UNIT)) is not None for d in _UNIT_DIRECTORIES),
            daemon_profile=_label(host, daemon) if daemon else None,
            reports=_reports(host, notes, profiles or {}),
        )
    return found


def _line(host: Host, path: str) -> str:
    try:
        return host.read_text(path).strip("\0\n ")
    except OSError:
        return ""


def _profiles(host: Host, notes: Notes) -> dict[str, str] | None:
    found = {}
    try:
        for line in host.read_text(_PROFILES).splitlines():
            match = re.match(r"(.*) \((\w+)\)\Z", line)
            if match:
                found[match.group(1)] = match.group(2)
    except OSError as exc:
        notes.add("lsm", _PROFILES, os_reason(exc))
        return None
    return found


def _parser(host: Host) -> Mapping | None:
    path = apparmor.parser(host)
    if path is None:
        return None
    match = re.search(r"version (\d+(\.\d+)*)", host.run([path, "--version"], timeout=10.0).out)
    return {"path": path, "version": match.group(1) if match else None}


def _names(host: Host, directory: str) -> list[str]:
    """Return the names of the files in a directory, those in directories below it left out."""
    try:
        names = host.listdir(directory)
    except OSError:
        return []
    stats = ((name, host.lstat("%s/%s" % (directory, name))) for name in names)
    return [name for name, st in stats if st is not None and not stat_module.S_ISDIR(st.st_mode)]


def _label(host: Host, pid: int) -> str | None:
    """Return the profile that a process is confined by, None when it is not."""
    label = _line(host, "/proc/%d/attr/apparmor/current" % pid)
    name = re.sub(r" \(\w+\)\Z", "", label or _line(host, "/proc/%d/attr/current" % pid))
    return None if name in ("", "unconfined") else name


# -- what complain mode reported ---------------------------------------------------------------------
def _reports(host: Host, notes: Notes, profiles: dict[str, str]) -> list[Mapping]:
    """Return what profiles of ours in complain mode let pass, counted since each was loaded.

    Nothing is read where there is no such profile.
    """
    since = {
        str(item["profile"]): float(item.get("loaded_at") or 0.0)
        for items in ((ledger.read_ledger(host)[0] or {}).get("owned") or {}).values()
        for item in items
        if profiles.get(str(item.get("profile"))) == "complain"
    }
    if not since:
        return []
    counts: collections.Counter[tuple[str, ...]] = collections.Counter()
    for line in _log(host, notes, min(since.values())):
        fields = {name: quoted or bare for name, quoted, bare in _FIELD.findall(line)}
        profile = fields.get("profile", "").partition("//")[0]
        moment = _MOMENT.search(line)
        if fields.get("apparmor") not in ("ALLOWED", "AUDIT") or profile not in since or not moment:
            continue
        # The kernel writes milliseconds, and a load takes longer than that.
        if int(moment.group(1)) >= int(since[profile]):
            counts[(profile, *_what(fields))] += 1
    return [
        {"profile": profile, "operation": operation, "what": what, "access": access, "count": count}
        for (profile, operation, what, access), count in sorted(counts.items())[:_MOST_REPORTS]
    ]


def _log(host: Host, notes: Notes, since: float) -> list[str]:
    """Return the lines of the log that the kernel's reports go to: auditd's, or else its own."""
    lines = audit_log(host, notes, "lsm")
    if lines is not None:
        return lines
    arguments = ["--dmesg", "--quiet", "--no-pager", "--output=cat", "--since=@%d" % since]
    done = host.run(["journalctl", *arguments], timeout=30.0)
    if done.rc != 0:
        notes.add("lsm", "journalctl", "status %d" % done.rc)
    return done.out[-LOG_BYTES:].splitlines()


def _what(fields: typing.Mapping[str, str]) -> tuple[str, str, str]:
    """Return operation, what it was about and the access, in words from closed lists alone."""
    operation = _word(fields.get("operation"))
    if "capname" in fields:
        return operation, _word(fields["capname"]), ""
    if "family" in fields:
        words = (_word(fields["family"]), _word(fields.get("sock_type")))
        return operation, " ".join(word for word in words if word), ""
    if "name" in fields:
        access = _word(fields.get("requested_mask"))
        return operation, path_class(fields["name"]), access
    return operation, "", _word(fields.get("requested_mask"))


def _word(value: str | None) -> str:
    return value if value is not None and _WORD.match(value) else ""


def path_class(path: str) -> str:
    """Return the directory of the system that a path lies in; ``other`` for any other path.

    The kernel writes a path with blanks or quotes in hexadecimal digits.
    """
    if re.match(r"\A(?:[0-9A-F]{2})+\Z", path):
        path = bytes.fromhex(path).decode("utf-8", "replace")
    below = [name for name in _CLASSES if path == name or path.startswith(name + "/")]
    return max(below, key=len, default="/" if path.count("/") == 1 and path[:1] == "/" else "other")
