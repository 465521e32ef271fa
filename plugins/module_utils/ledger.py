# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What Bulkhead remembers on a host: who owns what, and which transaction is still open.

Only reading happens here; both doors use it. The door to act writes these files
(see transaction.py), always below a directory that root alone may enter:

- ``ledger.json``: ``{"schema": "bulkhead.ledger/1", "profile": "strict"|"compatible"|None,
  "owned": {ROLE: [ITEM, ...]}, "directories": [PATH, ...], "loaded": None | {"sha256", "pid",
  "start_ticks"}, "last_transaction": None | {"id", "outcome", "ended_at"}}``
- ``lock``: held with flock(2) while a transaction runs
- ``transactions/<id>/journal.jsonl``: the write-ahead journal, one JSON object per line
- ``transactions/<id>/before/``: what was there before
- ``transactions/<id>/answer.json``: an answer that nobody has fetched yet (see runs.py)

An ITEM is one of
``{"kind": "json_key", "path", "key", "member"?, "had_before", "before": value, "created_file",
"created_map", "sha256"}`` (with ``member`` it is that one member of the map under ``key``),
``{"kind": "file", "path", "had_before", "before": None | {"image", "mode", "uid", "gid"},
"sha256"}`` (with ``profile`` it is an AppArmor profile of that name: ``policy`` is the digest of what
the kernel took, None where it does not tell; ``compiled``, None or the image of what it held under
that name before; ``loaded_at``, in seconds since the epoch),
``{"kind": "mode", "path", "before": {"mode", "uid", "gid"}, "mode", "uid", "gid"}``,
``{"kind": "subids", "user", "subuid": None | {"start", "count"}, "subgid": (likewise),
"created": [PATH, ...]}`` (``created``: which of both files were not there before),
``{"kind": "user", "name"}``, ``{"kind": "group", "name"}``,
``{"kind": "selinux_module", "name", "sha256"}``, ``{"kind": "selinux_boolean", "name", "value",
"before": bool}``, ``{"kind": "selinux_equivalence", "name", "like", "before": None | PATH}`` (the
path ``name`` is labelled like the path ``like``), ``{"kind": "sysctl", "name", "before",
"value"}`` (texts: what the running kernel had, and has), and ``{"kind": "service", "name", "before":
{"loaded", "enabled", "active"}}`` (which is to be enabled and active).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    apparmor,
    selinux,
    services,
    sysctls,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import (
    MAX_FILE_BYTES,
    Host,
    HostError,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import shown

STATE_DIRECTORY = "/var/lib/bulkhead"
LEDGER = STATE_DIRECTORY + "/ledger.json"
LOCK = STATE_DIRECTORY + "/lock"
TRANSACTIONS = STATE_DIRECTORY + "/transactions"
JOURNAL_NAME = "journal.jsonl"
IMAGES_NAME = "before"
ANSWER_NAME = "answer.json"

LEDGER_SCHEMA = "bulkhead.ledger/1"
JOURNAL_SCHEMA = "bulkhead.journal/1"

#: Records that close a journal. One without them is that of an open transaction.
END_RECORDS = frozenset({"committed", "rolled_back"})

#: What the ledger's ``loaded`` has in place of a digest when the daemon runs without a daemon.json.
NO_CONFIG = "absent"

#: A transaction's id: UTC time, then microseconds, so that names sort by age.
TRANSACTION_ID = re.compile(r"\A\d{8}T\d{6}Z-\d{6}\Z")

#: Of PBKDF2: some 50 ms on a processor of today.
_GUESS_ROUNDS = 200_000

_SHOWN_FIELDS = (
    "kind",
    "path",
    "key",
    "member",
    "user",
    "name",
    "flags",
    "profile",
    "value",
    "like",
)
_SCHEMA = re.compile(r"\Abulkhead\.ledger/(\d+)\Z")
_ANY_JOURNAL = re.compile(r"\Abulkhead\.journal/\d+\Z")


class Kept(typing.NamedTuple):
    """What is kept of one transaction.

    ``state``: ``ok``; ``empty`` (it died before it began, or is nearly removed: nothing follows from
    it); ``newer`` (written by a later release); ``unreadable`` (damaged); ``foreign`` (a link, or not root's
    alone: not trusted). Only one that is ``ok`` has ``records``; ``reason`` says what is wrong with
    the others.
    """

    identifier: str
    records: list[dict[str, typing.Any]]
    state: str
    reason: str | None


def empty_ledger() -> dict[str, typing.Any]:
    """Return the ledger of a host on which nothing was done yet."""
    return {
        "schema": LEDGER_SCHEMA,
        "profile": None,
        "owned": {},
        "directories": [],
        "loaded": None,
        "last_transaction": None,
    }


def read_ledger(host: Host) -> tuple[dict[str, typing.Any] | None, str, str | None]:
    """Read the ledger: ``(ledger or None, state, reason or None)``. Never raises.

    States: ``ok``; ``absent`` (nothing was done here); ``unreadable`` (damaged, or not permitted);
    ``newer`` (written by a later release); ``foreign`` (a link, or not root's alone: not trusted).
    """
    try:
        directory = _open_state_directory(host)
    except FileNotFoundError:
        return None, "absent", None
    except _ForeignError as exc:
        return None, "foreign", str(exc)
    except OSError as exc:
        return None, "unreadable", "%s: %s" % (STATE_DIRECTORY, exc.strerror)
    try:
        text = _read_private(directory, os.path.basename(LEDGER), LEDGER)
    except FileNotFoundError:
        return None, "absent", None
    except _ForeignError as exc:
        return None, "foreign", str(exc)
    except OSError as exc:
        return None, "unreadable", "%s: %s" % (LEDGER, exc.strerror)
    finally:
        os.close(directory)
    return _parse_ledger(text)


def open_transaction(host: Host) -> dict[str, typing.Any] | None:
    """Return the transaction that a crash left open, or None.

    ``{"id", "step": str | None, "started_at": float}``; the oldest one, should there be several.
    Trusts nothing that is not root's alone, and never raises.
    """
    for identifier in transaction_ids(host):
        records = read_journal(host, identifier)
        if not is_open(records):
            continue
        steps = [record.get("step") for record in records if record.get("record") == "step"]
        return {
            "id": identifier,
            "step": steps[-1] if steps else None,
            "started_at": records[0].get("at"),
        }
    return None


def is_open(records: list[dict[str, typing.Any]]) -> bool:
    """Tell whether a journal is that of a transaction that has not ended."""
    return bool(records) and not any(r.get("record") in END_RECORDS for r in records)


def transaction_ids(host: Host) -> list[str]:
    """Return the ids of all transactions of which something is kept, oldest first."""
    try:
        directory = _open_transactions(host)
    except (OSError, _ForeignError):
        return []
    try:
        return sorted(name for name in os.listdir(directory) if TRANSACTION_ID.match(name))
    except OSError:
        return []
    finally:
        os.close(directory)


def read_journal(host: Host, identifier: str) -> list[dict[str, typing.Any]]:
    """Return the records of one journal; ``[]`` when there is none that this release can read."""
    return read_transaction(host, identifier).records


def problem(host: Host) -> str | None:
    """Return why nothing may be changed on this host, with what to do about it; None when it may.

    Something that Bulkhead noted here cannot be read, so nobody can tell what is ours and whether a
    transaction is open. Never raises.
    """
    _, state, reason = read_ledger(host)
    if state in ("ok", "absent"):
        found = journal_problem(host)
        if found is None:
            return None
        state, reason = found
        if state == "unreadable":
            return "%s; %s" % (reason, _DAMAGED_JOURNAL)
    return "what earlier runs noted on this host is %s: %s; %s" % (state, reason, _FIXES[state])


_FIXES = {
    "newer": "use the release that wrote it, or a later one",
    "foreign": "find out who did that, and give it back to root with the modes 0700 and 0600",
    "unreadable": "put it back from a backup, or move "
    + STATE_DIRECTORY
    + " away: what is set then "
    "stays, and counts as somebody else's",
}


_DAMAGED_JOURNAL = (
    "nobody can tell whether that transaction ended: compare the host with its before-images, then "
    "move its directory away"
)


def journal_problem(host: Host) -> tuple[str, str] | None:
    """Return state and reason of the first transaction that cannot be read; None when all can.

    States as in :class:`Kept`. Nobody can tell whether such a transaction has ended, so nothing may
    be changed before it is sorted out. Never raises.
    """
    try:
        os.close(_open_transactions(host))
    except FileNotFoundError:
        return None
    except _ForeignError as exc:
        return "foreign", str(exc)
    except OSError as exc:
        return "unreadable", "%s: %s" % (TRANSACTIONS, exc.strerror)
    for identifier in transaction_ids(host):
        kept = read_transaction(host, identifier)
        if kept.reason is not None:
            return kept.state, kept.reason
    return None


def read_transaction(host: Host, identifier: str) -> Kept:
    """Read what is kept of one transaction. Never raises for what a host has there.

    :param identifier: as :func:`transaction_ids` lists it.
    """
    directory = "%s/%s" % (TRANSACTIONS, identifier)
    path = "%s/%s" % (directory, JOURNAL_NAME)
    descriptors: list[int] = []
    try:
        descriptors.append(_open_transactions(host))
        descriptors.append(_open_private(identifier, directory, descriptors[-1]))
        text = _read_private(descriptors[-1], JOURNAL_NAME, path)
    except FileNotFoundError:
        return Kept(identifier, [], "empty", None)
    except _ForeignError as exc:
        return Kept(identifier, [], "foreign", str(exc))
    except OSError as exc:
        return Kept(identifier, [], "unreadable", "%s: %s" % (path, exc.strerror))
    finally:
        for descriptor in reversed(descriptors):
            os.close(descriptor)
    return _parse_journal(identifier, path, text)


def unfetched_answers(host: Host) -> list[str]:
    """Return the ids of runs that ended without a controller to tell, oldest first."""
    found = []
    for identifier in transaction_ids(host):
        path = "%s/%s/%s" % (TRANSACTIONS, identifier, ANSWER_NAME)
        if host.lstat(path) is not None:
            found.append(identifier)
    return found


def value_digest(value: typing.Any) -> str:
    """Return the SHA-256 of a JSON value, independent of layout and of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def verifier(key: str, member: str | None, digest: str) -> str:
    """Return what leaves the host in place of the value of a key that must not.

    Who would send a value can tell by it whether that is the one here; who guesses a weak secret pays
    for each guess, as with a password. PBKDF2 (RFC 8018), hexadecimal.

    :param digest: of the value, by :func:`value_digest`.
    """
    salt = "daemon.json %s %s" % (key, member or "")
    found = hashlib.pbkdf2_hmac("sha256", digest.encode("ascii"), salt.encode(), _GUESS_ROUNDS)
    return found.hex()


def loaded_into(
    ledger: dict[str, typing.Any] | None, pid: int, start_ticks: int | None
) -> str | None:
    """Return the digest of the daemon.json that a process is known to have read, or NO_CONFIG; None: unknown.

    :param pid: of the running daemon.
    :param start_ticks: field 22 of ``/proc/<pid>/stat``; a reused pid has another one.
    """
    loaded = (ledger or {}).get("loaded")
    if not isinstance(loaded, dict) or start_ticks is None:
        return None
    if (loaded.get("pid"), loaded.get("start_ticks")) != (pid, start_ticks):
        return None
    return str(loaded.get("sha256"))


def start_ticks(host: Host, pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot (proc(5), field 22), or None."""
    try:
        text = host.read_text("/proc/%d/stat" % pid)
        # The second field is a name in parentheses, which may itself hold blanks and parentheses.
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def owned_items(
    host: Host, ledger: dict[str, typing.Any] | None
) -> dict[str, list[dict[str, typing.Any]]]:
    """Return what each role owns, for the observation: no values, only whether they are intact.

    ``{ROLE: [{"kind", "path"?, "key"?, "member"?, "user"?, "name"?, "flags"?, "version"?, "intact"}]}``;
    ``version`` is that of the file at ``path``; ``intact`` is false when somebody changed or removed
    the thing since. A key whose value the look does not show whole has ``verifier`` (see there). An
    AppArmor profile also has ``profile``, ``sha256`` (of its text as it is now, which everybody may read
    and which holds no secret), ``in_kernel`` (the kernel holds what was loaded) and ``can_restore``
    (what the kernel held before is kept). Reads the files it names; never raises.
    """
    documents: dict[str, typing.Any] = {}
    answer: dict[str, list[dict[str, typing.Any]]] = {}
    owned = (ledger or {}).get("owned")
    for role, items in sorted((owned if isinstance(owned, dict) else {}).items()):
        rows = []
        for item in items if isinstance(items, list) else []:
            if not isinstance(item, dict):
                continue
            row = {name: item[name] for name in _SHOWN_FIELDS if name in item}
            if "path" in row:
                row["version"] = host.version(str(row["path"]))
            row["intact"] = item_intact(host, item, documents)
            if item.get("kind") == "selinux_module":  # its text is no secret
                row["sha256"] = item.get("sha256")
            if row["intact"] and item.get("kind") == "json_key":
                row.update(_verifier_row(item, documents))
            if "profile" in item:
                row.update(_profile_row(host, item))
            rows.append(row)
        answer[str(role)] = rows
    return answer


def _verifier_row(
    item: dict[str, typing.Any], documents: dict[str, typing.Any]
) -> dict[str, typing.Any]:
    key, member = str(item["key"]), item.get("member")
    value = documents[item["path"]][key]
    if not shown(key, value if member is None else {member: value[member]}).redacted:
        return {}
    return {"verifier": verifier(key, member, str(item["sha256"]))}


def _profile_row(host: Host, item: dict[str, typing.Any]) -> dict[str, typing.Any]:
    sha256 = None
    with contextlib.suppress(OSError):
        sha256 = hashlib.sha256(host.read_bytes(str(item.get("path")))).hexdigest()
    return {
        "sha256": sha256,
        "in_kernel": in_kernel(host, item),
        "can_restore": item.get("compiled") is not None,
    }


def in_kernel(host: Host, item: dict[str, typing.Any]) -> bool:
    """Tell whether the kernel still holds the AppArmor profile that was loaded for an item."""
    policy = apparmor.loaded(host, str(item["profile"]))
    if policy is None:
        return False
    return None in (policy.digest, item.get("policy")) or policy.digest == item["policy"]


def item_intact(
    host: Host,
    item: dict[str, typing.Any],
    documents: dict[str, typing.Any] | None = None,
) -> bool:
    """Tell whether an owned item is still as it was written.

    :param documents: JSON files read so far, by path; filled here to read each only once.
    """
    check = _INTACT.get(str(item.get("kind")))
    try:
        return bool(check and check(host, item, documents if documents is not None else {}))
    except (HostError, OSError, ValueError, KeyError, TypeError):
        return False


# -- reading without trust ---------------------------------------------------------------------
class _ForeignError(Exception):
    """Something below the state directory is not root's alone."""


def _open_state_directory(host: Host) -> int:
    return _open_private(host.path(STATE_DIRECTORY), STATE_DIRECTORY)


def _open_transactions(host: Host) -> int:
    state = _open_state_directory(host)
    try:
        return _open_private(os.path.basename(TRANSACTIONS), TRANSACTIONS, state)
    finally:
        os.close(state)


def _open_private(name: str, shown: str, parent: int | None = None) -> int:
    """Open a directory that only root may enter; raise _ForeignError for any other."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            # Listing a directory would change its access time; only its owner may ask not to.
            descriptor = os.open(name, flags | os.O_NOATIME, dir_fd=parent)
        except PermissionError:
            descriptor = os.open(name, flags, dir_fd=parent)
    except OSError as exc:
        # O_DIRECTORY wins over O_NOFOLLOW on a link: ENOTDIR; either way it is none of ours.
        if exc.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _ForeignError("%s is a link or no directory" % shown) from exc
        raise
    status = os.fstat(descriptor)
    if status.st_uid != 0 or stat_module.S_IMODE(status.st_mode) & 0o077:
        os.close(descriptor)
        raise _ForeignError(
            "%s is no directory that only root may enter: it belongs to uid %d, with mode %04o"
            % (shown, status.st_uid, stat_module.S_IMODE(status.st_mode))
        )
    return descriptor


def _read_private(directory: int, name: str, shown: str) -> str:
    """Read a file of root's own below an open directory, leaving its access time alone."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags | os.O_NOATIME, dir_fd=directory)
    except PermissionError:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise _ForeignError("%s is a link" % shown) from exc
        raise
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat_module.S_ISREG(status.st_mode) or status.st_uid != 0:
            raise _ForeignError("%s is not a file of root" % shown)
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, "larger than %d bytes" % MAX_FILE_BYTES, shown)
    return data.decode("utf-8", "replace")


def _parse_ledger(text: str) -> tuple[dict[str, typing.Any] | None, str, str | None]:
    try:
        ledger = json.loads(text)
    except ValueError as exc:
        return None, "unreadable", "%s: %s" % (LEDGER, exc)
    match = _SCHEMA.match(str(ledger.get("schema"))) if isinstance(ledger, dict) else None
    if not match:
        return None, "unreadable", "%s: no schema such as %s" % (LEDGER, LEDGER_SCHEMA)
    if match.group(0) != LEDGER_SCHEMA:
        reason = "%s has schema %s; this release reads %s"
        return None, "newer", reason % (LEDGER, match.group(0), LEDGER_SCHEMA)
    ledger = dict(empty_ledger(), **ledger)
    if not _is_whole(ledger):
        return None, "unreadable", "%s: not as Bulkhead writes it" % LEDGER
    return ledger, "ok", None


def _is_whole(ledger: dict[str, typing.Any]) -> bool:
    """Tell whether a ledger has the shape that everything else relies on."""
    owned, directories = ledger["owned"], ledger["directories"]
    return (
        isinstance(owned, dict)
        and isinstance(directories, list)
        and all(isinstance(path, str) for path in directories)
        and all(
            isinstance(items, list)
            and all(isinstance(item, dict) and item.get("kind") in _INTACT for item in items)
            for items in owned.values()
        )
    )


def _parse_journal(identifier: str, path: str, text: str) -> Kept:
    """Parse a journal. A torn last line had no effect: each is synced before anything follows."""
    lines = text.split("\n")[:-1]
    records: list[dict[str, typing.Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            if number == len(lines):
                break
            return Kept(identifier, [], "unreadable", "%s: line %d is damaged" % (path, number))
        schema = str(record.get("schema"))
        if not records and (record.get("record") != "begin" or schema != JOURNAL_SCHEMA):
            if not _ANY_JOURNAL.match(schema):
                return Kept(identifier, [], "unreadable", "%s: line 1 is no beginning" % path)
            reason = "%s has schema %s; this release reads %s"
            return Kept(identifier, [], "newer", reason % (path, schema, JOURNAL_SCHEMA))
        records.append(record)
    return Kept(identifier, records, "ok" if records else "empty", None)


# -- intact? -----------------------------------------------------------------------------------
_Documents = dict[str, typing.Any]
_Item = dict[str, typing.Any]


def _key_intact(host: Host, item: _Item, documents: _Documents) -> bool:
    path = str(item["path"])
    if path not in documents:
        documents[path] = None
        status = host.lstat(path)
        if status is not None and stat_module.S_ISREG(status.st_mode):
            documents[path] = json.loads(host.read_bytes(path).decode("utf-8-sig"))
    value = documents[path]
    for name in ("key", "member"):
        if name in item:
            if not isinstance(value, dict) or item[name] not in value:
                return False
            value = value[item[name]]
    return value_digest(value) == str(item["sha256"])


def _file_intact(host: Host, item: _Item, documents: _Documents) -> bool:
    status = host.lstat(str(item["path"]))
    if status is None or not stat_module.S_ISREG(status.st_mode):
        return False
    found = hashlib.sha256(host.read_bytes(str(item["path"]))).hexdigest()
    return found == str(item["sha256"])


def _mode_intact(host: Host, item: _Item, documents: _Documents) -> bool:
    status = host.lstat(str(item["path"]))
    if status is None:
        return False
    mode = "%04o" % stat_module.S_IMODE(status.st_mode)
    return (mode, status.st_uid, status.st_gid) == (item["mode"], item["uid"], item["gid"])


def _subids_intact(host: Host, item: _Item, documents: _Documents) -> bool:
    for name in ("subuid", "subgid"):
        if item[name] is None:  # it had that one before
            continue
        wanted = "%s:%d:%d" % (item["user"], item[name]["start"], item[name]["count"])
        if wanted not in host.read_text("/etc/" + name).split("\n"):
            return False
    return True


def _has_entry(host: Host, path: str, name: str) -> bool:
    return any(line.startswith(name + ":") for line in host.read_text(path).split("\n"))


def _user_intact(host: Host, item: _Item, documents: _Documents) -> bool:
    return _has_entry(host, "/etc/passwd", str(item["name"]))


def _group_intact(host: Host, item: _Item, documents: _Documents) -> bool:
    return _has_entry(host, "/etc/group", str(item["name"]))


def _sysctl_intact(host: Host, item: _Item, documents: _Documents) -> bool:
    return sysctls.running(host, str(item["name"])) == str(item["value"])


def _service_intact(host: Host, item: _Item, documents: _Documents) -> bool:
    now = services.state(host, str(item["name"]))
    return now["enabled"] and now["active"]


def _module_intact(host: Host, item: _Item, documents: _Documents) -> bool:
    return selinux.digest(selinux.module(host, str(item["name"]))) == str(item["sha256"])


def _boolean_intact(host: Host, item: _Item, documents: _Documents) -> bool:
    return selinux.boolean(host, str(item["name"])) is item["value"]


def _equivalence_intact(host: Host, item: _Item, documents: _Documents) -> bool:
    text = host.read_text(selinux.equivalences_file(host))
    return selinux.equivalences(text).get(str(item["name"])) == str(item["like"])


_INTACT: dict[str, typing.Callable[[Host, _Item, _Documents], bool]] = {
    "json_key": _key_intact,
    "file": _file_intact,
    "mode": _mode_intact,
    "subids": _subids_intact,
    "user": _user_intact,
    "group": _group_intact,
    "sysctl": _sysctl_intact,
    "service": _service_intact,
    "selinux_module": _module_intact,
    "selinux_boolean": _boolean_intact,
    "selinux_equivalence": _equivalence_intact,
}
