# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What all collectors of a look share: reading hostile input, and saying what could not be read.

Everything that a host answers is hostile input to the controller. The small readers below return
the type that they promise whatever comes in, and :func:`capped` bounds every text.
"""

from __future__ import annotations

import calendar
import hashlib
import ipaddress
import re
import time
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host

#: Where auditd writes what the kernel reports, and how much of its end is read, in bytes.
AUDIT_LOG = "/var/log/audit/audit.log"
LOG_BYTES = 4 * 1024 * 1024

#: Longest text that leaves the host, in characters.
MAX_TEXT = 4096

Mapping = dict[str, typing.Any]


#: Why units cannot be read where something else runs the host.
NO_SYSTEMD = "systemd does not run this host"


class UnreadableError(Exception):
    """A section, or one thing of it, could not be read. The message is the reason, for the user."""


class Notes:
    """The rows of ``unread``: what a look could not see, and why."""

    def __init__(self) -> None:
        self.rows: list[Mapping] = []

    def add(self, section: str, item: str | None, reason: str) -> None:
        """Note that ``item`` of ``section`` (None: all of it) could not be read."""
        row = {"section": section, "item": item, "reason": reason}
        if row not in self.rows:
            self.rows.append(row)


def os_reason(exc: OSError) -> str:
    """Return the system's own words for an error: ``Permission denied``."""
    return exc.strerror or type(exc).__name__


def reason_of(exc: Exception) -> str:
    """Return why something could not be read: the system's words, or those of our own error."""
    return os_reason(exc) if isinstance(exc, OSError) else str(exc)


def run_path(path: str) -> str:
    """Return a path below /run for one below /var/run, which is a link to it."""
    return re.sub(r"\A/var/run/", "/run/", path)


def placed_file(host: Host, path: str) -> Mapping:
    """Return path, version and SHA-256 of a file that a plan may place, whose text is no secret."""
    try:
        digest: str | None = hashlib.sha256(host.read_bytes(path)).hexdigest()
    except OSError:
        digest = None
    return {"path": path, "version": host.version(path), "sha256": digest}


def names_in(host: Host, notes: Notes, section: str, directory: str) -> list[str]:
    """Return the names in a directory, none where there is no such."""
    try:
        return host.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as exc:
        notes.add(section, directory, os_reason(exc))
        return []


def conf_files(host: Host, notes: Notes, section: str, directory: str) -> list[str]:
    """Return the paths of the files ``*.conf`` in a directory, none where there is no such."""
    names = names_in(host, notes, section, directory)
    return ["%s/%s" % (directory, name) for name in names if name.endswith(".conf")]


def audit_log(host: Host, notes: Notes, section: str) -> list[str] | None:
    """Return the last lines of auditd's log; None where there is no such."""
    try:
        return host.read_tail(AUDIT_LOG, LOG_BYTES).splitlines()
    except FileNotFoundError:
        return None
    except OSError as exc:
        notes.add(section, AUDIT_LOG, os_reason(exc))
        return []


def mapping(value: typing.Any) -> Mapping:
    """Return a JSON object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def sequence(value: typing.Any) -> list[typing.Any]:
    """Return a JSON array, or an empty one for anything else."""
    return value if isinstance(value, list) else []


def text(value: typing.Any) -> str:
    """Return a JSON string, or an empty one for anything else."""
    return value if isinstance(value, str) else ""


def texts(value: typing.Any) -> list[str]:
    """Return the strings of a JSON array; other members are left out."""
    return [item for item in sequence(value) if isinstance(item, str)]


def integer(value: typing.Any) -> int | None:
    """Return a whole number, or None for anything else (booleans too)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return None
    return int(value) if abs(value) < 2**64 else None


def number(value: str | None) -> int | None:
    """Return the whole number that a text holds, or None. systemd's 2^64-1 (infinity) is None."""
    if value is None or not re.match(r"-?\d{1,20}\Z", value):
        return None
    found = int(value)
    return None if found == 2**64 - 1 else found


_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(\.\d+)?(?:[Zz]|([+-])(\d\d):(\d\d))?\Z"
)


def timestamp(value: typing.Any) -> float | None:
    """Return an RFC 3339 time as seconds since the epoch; None for Go's zero time or no time."""
    match = _RFC3339.match(text(value))
    if not match or match.group(1) == "0001":
        return None
    fields = [int(match.group(i)) for i in range(1, 7)]
    try:
        seconds = calendar.timegm(time.struct_time((*fields, 0, 1, 0)))
    except (ValueError, OverflowError):
        return None
    offset = 0
    if match.group(8):
        offset = int(match.group(9)) * 3600 + int(match.group(10)) * 60
        offset = -offset if match.group(8) == "-" else offset
    return round(seconds - offset + float(match.group(7) or 0), 6)


def address_class(address: str) -> str | None:
    """Return what an IP address reaches: wildcard, loopback, link_local, private or public.

    None for what is no IP address. An IPv4 address in IPv6 clothes counts as what it is.
    """
    try:
        found = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped if mapped is not None else found
    if found.is_unspecified:
        return "wildcard"
    if found.is_loopback:
        return "loopback"
    if found.is_link_local:
        return "link_local"
    return "public" if found.is_global else "private"


def reference(name: str) -> Mapping:
    """Return an image's name taken apart as the engine does: registry, repository, tag, digest.

    ``by_id`` is for an image that was named by its identifier, which has none of them. Source:
    github.com/distribution/reference, ParseDockerRef and splitDockerDomain.
    """
    if re.match(r"(?:sha256:)?[0-9a-f]{64}\Z", name) or not name:
        return {"registry": None, "repository": None, "tag": None, "digest": None, "by_id": True}
    rest, _, digest = name.partition("@")
    tag = None
    match = re.match(r"(.+):([\w.-]+)\Z", rest)
    if match:
        rest, tag = match.groups()
    registry, slash, repository = rest.partition("/")
    named = re.search(r"[.:]", registry) or registry == "localhost" or registry != registry.lower()
    if not slash or not named:
        registry, repository = "docker.io", rest
    if registry in ("docker.io", "index.docker.io"):
        registry = "docker.io"
        repository = repository if "/" in repository else "library/" + repository
    found: Mapping = {"registry": registry, "repository": repository, "tag": tag}
    return {**found, "digest": digest or None, "by_id": False}


def capped(value: typing.Any) -> typing.Any:
    """Return a document with every text bounded to MAX_TEXT and free of lone surrogates."""
    if isinstance(value, str):
        return value[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {capped(str(key)): capped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [capped(item) for item in value]
    return value
