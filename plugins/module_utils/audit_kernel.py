# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The audit rules that the kernel has loaded: listed, and one changed at a time.

By netlink, so that what is loaded is what was planned, and what is taken out is the very rule that the
kernel listed; auditctl(8) is neither needed nor its output read.
"""

from __future__ import annotations

import errno
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    audit_rules as rules,
    look_auditd,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import (
    AUDIT_LIST_RULES,
    Host,
    HostError,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import Mapping

#: What tells two rules apart; see audit_rules.identity.
Identity = tuple[typing.Any, ...]


def loaded(host: Host) -> dict[Identity, list[bytes]]:
    """Return the kernel's rules by what tells them apart; one that differs in form alone is a second.

    :raises OSError: the kernel has no audit, or does not answer.
    """
    found: dict[Identity, list[bytes]] = {}
    for raw in host.audit(AUDIT_LIST_RULES):
        found.setdefault(rules.identity(rules.decode(raw)), []).append(raw)
    return found


def known(texts: typing.Sequence[str]) -> dict[Identity, bytes]:
    """Return rules in the kernel's form, noted as hexadecimal digits, by what tells them apart."""
    raw = [bytes.fromhex(text) for text in texts]
    return {rules.identity(rules.decode(item)): item for item in raw}


def change_rule(host: Host, raw: bytes, add: bool) -> None:
    """Load one rule or take one out; that it is there or gone already is as good.

    :raises HostError: naming the rule.
    """
    try:
        host.change_audit(raw, add)
    except OSError as exc:
        if exc.errno != (errno.EEXIST if add else errno.ENOENT):
            raise HostError("audit rule %s: %s" % (shown(raw), exc.strerror)) from exc


def put_back(host: Host, effect: Mapping) -> list[str]:
    """Undo an effect ``audit_rules``; return what could not be, as texts."""
    try:
        now = loaded(host)
    except OSError:
        return []
    added, removed = known(effect["added"]), known(effect["removed"])
    changes = [(raw, False) for i in added for raw in now.get(i, [])]
    changes += [(raw, True) for i, raw in removed.items() if i not in now]
    if changes and look_auditd.status(host).get("enabled") == look_auditd.LOCKED:
        return ["%d audit rules stay until the next boot: they are locked" % len(changes)]
    for raw, add in changes:
        change_rule(host, raw, add)
    return []


def shown(raw: bytes) -> str:
    """Return a rule as a line."""
    rule = rules.decode(raw)
    words = ["%s,%s" % (rule["action"], rule["list"]), "%s=%s" % (rule["kind"], rule["path"])]
    words += ["perm=%s" % rule["perm"]] if rule["perm"] else []
    words += ["%(field)s%(op)s%(value)s" % item for item in rule["fields"]]
    return " ".join(words + ["key=%s" % key for key in rule["keys"]])
