# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Image trust: what is placed for it, which policy is in force, and what was pulled under it."""

from __future__ import annotations

import json
import re
import time
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    Notes,
    mapping,
    names_in,
    os_reason,
    placed_file,
    text,
)

SCHEMA: typing.Final = "bulkhead.trust/1"
DIRECTORY: typing.Final = "/etc/bulkhead/trust"
POLICY: typing.Final = DIRECTORY + "/policy.json"
KEYS: typing.Final = DIRECTORY + "/keys"
PROGRAM: typing.Final = "/usr/local/sbin/bulkhead-pull"
#: What asks for content trust: login shells, sudo, and what systemd starts.
SHELLS: typing.Final = "/etc/profile.d/bulkhead-content-trust.sh"
SUDO: typing.Final = "/etc/sudoers.d/bulkhead-content-trust"
SYSTEMD: typing.Final = "/etc/systemd/system.conf.d/60-bulkhead-content-trust.conf"
FILES: typing.Final = (POLICY, PROGRAM, SHELLS, SUDO, SYSTEMD)

_AUTHORITIES = "/etc/docker/certs.d"
_MOST_AUTHORITIES = 200

#: Written by bulkhead-pull, a line for each name and digest.
RECORDS: typing.Final = "/var/lib/bulkhead/trust/verifications.jsonl"
_RECORDS_BYTES = 2 * 1024 * 1024

_HEX = r"[0-9a-f]{64}\Z"
_PROGRAM_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")


def authority(registry: str) -> str:
    """Return where the daemon looks for the authority of a registry."""
    return "%s/%s/ca.crt" % (_AUTHORITIES, registry)


def section(host: Host, notes: Notes) -> Mapping:
    """Return the section ``trust``.

    ``policy``: ``{default, rules, revoked, expired}`` of the one in force, with the number of its rules
    and the fingerprints of its keys that are revoked, and of those whose last day is over; None without
    one, or when ``policy_state`` is ``unreadable`` (otherwise ``absent`` or ``read``). ``records``: what
    bulkhead-pull pulled, the oldest first, ``revoked`` and ``expired`` telling that the key is one of
    those, None without a policy that says so; None when they cannot be read. ``files``: what we would
    place.
    """
    policy, state = _policy(host, notes)
    return {
        "policy": policy,
        "policy_state": state,
        "cosign": any(host.lstat(path + "/cosign") for path in _PROGRAM_DIRECTORIES),
        "sudo": host.lstat("/etc/sudoers.d") is not None,
        "records": _records(host, notes, policy),
        "files": [placed_file(host, path) for path in [*FILES, *_other_files(host, notes)]],
    }


def _policy(host: Host, notes: Notes) -> tuple[Mapping | None, str]:
    try:
        document = mapping(json.loads(host.read_text(POLICY)))
    except FileNotFoundError:
        return None, "absent"
    except OSError as exc:
        notes.add("trust", POLICY, os_reason(exc))
        return None, "unreadable"
    except (ValueError, RecursionError):
        document = {}
    lists = [document.get(name, []) for name in ("rules", "revoked", "expiring")]
    if document.get("schema") != SCHEMA or not all(isinstance(one, list) for one in lists):
        notes.add("trust", POLICY, "not a policy of schema %s" % SCHEMA)
        return None, "unreadable"
    rules, revoked, expiring = lists
    today = time.strftime("%Y-%m-%d", time.gmtime(host.now()))
    expired = [key for key in map(mapping, expiring) if text(key.get("expires")) < today]
    found = {
        "default": text(document.get("default")),
        "rules": len(rules),
        "revoked": _fingerprints(list(map(mapping, revoked))),
        "expired": _fingerprints(expired),
    }
    return found, "read"


def _fingerprints(keys: typing.Sequence[Mapping]) -> list[str]:
    return sorted({text(key.get("sha256")) for key in keys})


def _records(host: Host, notes: Notes, policy: Mapping | None) -> list[Mapping] | None:
    try:
        lines = host.read_tail(RECORDS, _RECORDS_BYTES).splitlines()
    except FileNotFoundError:
        return []
    except OSError as exc:
        notes.add("trust", RECORDS, os_reason(exc))
        return None
    found = []
    for line in lines:
        try:
            row = _record(mapping(json.loads(line)), policy)
        except (ValueError, RecursionError):
            row = None
        if row is None:
            notes.add("trust", RECORDS, "a line is no record")
        else:
            found.append(row)
    return found


def _record(row: Mapping, policy: Mapping | None) -> Mapping | None:
    digest, key = text(row.get("digest")), text(row.get("key_sha256"))
    at = row.get("at")
    valid = re.match("sha256:" + _HEX, digest) and (not key or re.match(_HEX, key))
    if not valid or isinstance(at, bool) or not isinstance(at, (int, float)):
        return None
    return {
        "repository": text(row.get("repository")),
        "tag": text(row.get("tag")) or None,
        "digest": digest,
        "at": float(at),
        "rule": text(row.get("rule")),
        "require": text(row.get("require")),
        "key": text(row.get("key")) or None,
        "key_sha256": key or None,
        "identity": text(row.get("identity")) or None,
        **{
            name: None if policy is None else bool(key) and key in policy[name]
            for name in ("revoked", "expired")
        },
    }


def _other_files(host: Host, notes: Notes) -> list[str]:
    """Return the paths of keys and of registries' authorities that are there."""
    names = names_in(host, notes, "trust", KEYS)
    keys = ["%s/%s" % (KEYS, name) for name in names if name.endswith(".pub")]
    found = [authority(name) for name in names_in(host, notes, "trust", _AUTHORITIES)]
    if len(found) > _MOST_AUTHORITIES:
        notes.add("trust", _AUTHORITIES, "more than %d registries" % _MOST_AUTHORITIES)
    return keys + [path for path in found[:_MOST_AUTHORITIES] if host.lstat(path) is not None]
