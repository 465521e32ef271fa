# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The transactions that are kept on a host: what they changed, and which of them still hold.

Reads journals (see transaction_journal.py) and changes nothing; both doors use it. An undo is a
transaction of its own, whose first record names the one that it undoes.
"""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import ledger as ledger_module
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host

Json = dict[str, typing.Any]

#: What a transaction changed, for comparing: a kind, and what tells the thing apart.
Subject = tuple[typing.Any, ...]

#: Most texts about one transaction that leave a host.
_MOST_SUBJECTS = 200


class Entry:
    """One kept transaction, as its journal tells it."""

    def __init__(self, kept: ledger_module.Kept) -> None:
        self.identifier = kept.identifier
        self.state = kept.state
        self.reason = kept.reason
        self.records = kept.records
        self.begin: Json = kept.records[0] if kept.records else {}
        ends = [r for r in kept.records if r.get("record") in ledger_module.END_RECORDS]
        self.end: Json = ends[-1] if ends else {}

    @property
    def committed(self) -> bool:
        """Whether it took effect."""
        return self.end.get("record") == "committed"

    @property
    def undoes(self) -> str | None:
        """The id of the transaction that this one undoes."""
        value = self.begin.get("undoes")
        return value if isinstance(value, str) else None

    def effects(self, *kinds: str) -> list[Json]:
        """Return the effects of some kinds, the first one first."""
        return [r for r in self.records if r.get("record") == "effect" and r.get("kind") in kinds]

    @property
    def keys(self) -> list[Json]:
        """What it changed in daemon.json: ``[{"key", "member"?, "before", "after"}]``, digests."""
        return list(self.end.get("keys") or [])

    @property
    def files(self) -> list[str]:
        """The paths of files that it changed, apart from daemon.json and the ledger."""
        own = (ledger_module.LEDGER, self.begin.get("config"))
        paths = [str(effect["path"]) for effect in self.effects("file")]
        return sorted({path for path in paths if path not in own})

    def subjects(self) -> set[Subject]:
        """Return everything that it changed, what is owned included."""
        config = self.begin.get("config")
        found: set[Subject] = {("path", path) for path in self.files}
        found |= {("path", str(effect["path"])) for effect in self.effects("mode")}
        found |= {("key", config, item["key"], item.get("member")) for item in self.keys}
        for kind in ("user", "group", "subids"):
            changed = self.effects(kind, kind + "_removed")
            found |= {(kind, str(e["user" if kind == "subids" else "name"])) for e in changed}
        found |= {("sysctl", str(effect["name"])) for effect in self.effects("sysctl")}
        found |= {("service", str(effect["name"])) for effect in self.effects("service")}
        for effect in self.effects("selinux_module", "selinux_boolean"):
            found |= {(str(effect["kind"]), name) for name in effect["after"]}
        for item in self.end.get("touched") or []:
            kind = item.get("kind")
            if kind == "json_key":
                found.add(("key", item["path"], item["key"], item.get("member")))
            elif kind in ("file", "mode"):
                found.add(("path", item["path"]))
            else:
                found.add((kind, item["user" if kind == "subids" else "name"]))
        return found

    def told(self) -> list[str]:
        """Return what it changed as texts without values, for people."""
        config = str(self.begin.get("config"))
        keys = ", ".join(sorted(shown_key(item) for item in self.keys))
        lines = ["%s: %s" % (config, keys)] if keys else []
        if not keys and any(e["path"] == config for e in self.effects("file")):
            lines.append(config)
        lines += self.files
        lines += sorted({"mode of %s" % effect["path"] for effect in self.effects("mode")})
        for kind, name, word in (
            ("group", "name", "group"),
            ("user", "name", "user"),
            ("subids", "user", "subordinate ids of"),
        ):
            named = {str(e[name]) for e in self.effects(kind, kind + "_removed")}
            lines += ["%s %s" % (word, value) for value in sorted(named)]
        lines += sorted({str(effect["name"]) for effect in self.effects("sysctl")})
        lines += sorted({"service %s" % effect["name"] for effect in self.effects("service")})
        for effect in self.effects("selinux_module", "selinux_boolean"):
            word = str(effect["kind"]).replace("selinux_", "SELinux ")
            lines += ["%s %s" % (word, name) for name in sorted(effect["after"])]
        lines += ["labels below %s" % e["path"] for e in self.effects("selinux_relabel")]
        lines += [
            "SELinux enforcing, which an undo leaves" for _ in self.effects("selinux_enforcing")
        ]
        for effect in self.effects("audit_rules"):
            counts = (len(effect["added"]), len(effect["removed"]))
            lines.append("audit rules in the kernel: %d loaded, %d taken out" % counts)
        return lines[:_MOST_SUBJECTS]


def shown_key(item: Json) -> str:
    """Return how a key is called in messages: ``log-opts.max-size``."""
    member = item.get("member")
    return "%s.%s" % (item["key"], member) if member else str(item["key"])


def entries(host: Host) -> list[Entry]:
    """Return the transactions that are kept and that began, the oldest first."""
    found = (
        Entry(ledger_module.read_transaction(host, identifier))
        for identifier in ledger_module.transaction_ids(host)
    )
    return [entry for entry in found if entry.state != "empty"]


def undone(known: typing.Sequence[Entry]) -> dict[str, str]:
    """Return the transactions that were undone, each with the one that did it."""
    return {e.undoes: e.identifier for e in known if e.committed and e.undoes is not None}


def holding(known: typing.Sequence[Entry]) -> list[Entry]:
    """Return those that took effect and still hold: neither undone nor an undo themselves."""
    gone = undone(known)
    return [e for e in known if e.committed and e.undoes is None and e.identifier not in gone]


def shared(left: set[Subject], right: set[Subject]) -> list[Subject]:
    """Return what of ``left`` is also in ``right``; a map holds each of its members."""
    return sorted((a for a in left if any(_overlap(a, b) for b in right)), key=repr)


def _overlap(a: Subject, b: Subject) -> bool:
    if a[0] != "key" or b[0] != "key":
        return a == b
    return a[:3] == b[:3] and (a[3] == b[3] or None in (a[3], b[3]))


def subject_text(subject: Subject) -> str:
    """Return a subject in words."""
    if subject[0] == "key":
        return "%s: %s" % (subject[1], shown_key({"key": subject[2], "member": subject[3]}))
    if subject[0] in ("path", "sysctl"):
        return str(subject[1])
    return "%s %s" % ({"subids": "subordinate ids of"}.get(subject[0], subject[0]), subject[1])


def listing(host: Host) -> list[Json]:
    """Return the transactions of a host for the observation, the oldest first; never raises.

    ``[{"id", "outcome", "at", "profile", "undoes", "undone_by", "changes": [text, ...], "reason"}]``
    with the outcomes ``committed``, ``undone``, ``rolled_back``, ``open``, and ``newer``,
    ``unreadable`` and ``foreign`` for those that this release cannot read. No values.
    """
    known = entries(host)
    gone = undone(known)
    return [_row(entry, gone.get(entry.identifier)) for entry in known]


def _row(entry: Entry, undone_by: str | None) -> Json:
    outcome = entry.state
    if entry.state == "ok":
        outcome = str(entry.end.get("record") or "open")
    profile, at = entry.begin.get("profile"), entry.begin.get("at")
    return {
        "id": entry.identifier,
        "outcome": "undone" if undone_by else outcome,
        "at": at if isinstance(at, (int, float)) else None,
        "profile": profile if profile in ("strict", "compatible") else None,
        "undoes": entry.undoes,
        "undone_by": undone_by,
        "changes": _changes(entry),
        "reason": entry.reason,
    }


def _changes(entry: Entry) -> list[str]:
    try:
        return entry.told()
    except (KeyError, TypeError, AttributeError):  # a journal that was tampered with
        return []
