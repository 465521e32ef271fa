# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Who owns what on a host, as a plan changes it: the ledger's ``owned``, and JSON keys.

What was there before Bulkhead set something is kept with the item, so that taking the setting out
of a policy puts it back. What somebody else changed since is never put back over.
"""

from __future__ import annotations

import copy
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.history import shown_key
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.ledger import (
    item_intact,
    value_digest,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_json import (
    JsonFile,
    same,
)

Json = dict[str, typing.Any]

#: What tells items of one kind apart.
_IDENTITY = {
    "json_key": ("path", "key", "member"),
    "file": ("path",),
    "mode": ("path",),
    "subids": ("user",),
    "user": ("name",),
    "group": ("name",),
    "sysctl": ("name",),
    "service": ("name",),
    "selinux_module": ("name",),
    "selinux_boolean": ("name",),
    "selinux_equivalence": ("name",),
}


class Ownership:
    """The items of a ledger, for reading and changing; the ledger itself stays as it is."""

    def __init__(self, owned: Json) -> None:
        self.owned: dict[str, list[Json]] = copy.deepcopy(owned)

    def find(self, kind: str, **identity: typing.Any) -> Json | None:
        """Return the item of a kind for a path, key, member, user or name, whoever owns it."""
        wanted = {name: identity.get(name) for name in _IDENTITY[kind]}
        for items in self.owned.values():
            for item in items:
                names = {name: item.get(name) for name in wanted}
                if item.get("kind") == kind and names == wanted:
                    return item
        return None

    def of_kind(self, kind: str, **fields: typing.Any) -> list[Json]:
        """Return all items of a kind whose fields have these values."""
        return [
            item
            for items in self.owned.values()
            for item in items
            if item.get("kind") == kind and all(item.get(k) == v for k, v in fields.items())
        ]

    def put(self, role: str, item: Json) -> None:
        """Record an item for a role, in place of one for the same thing."""
        self.drop(**item)
        self.owned.setdefault(role, []).append(item)

    def drop(self, kind: str, **identity: typing.Any) -> bool:
        """Forget an item; tell whether there was one."""
        item = self.find(kind, **identity)
        for role, items in list(self.owned.items()):
            self.owned[role] = [other for other in items if other is not item]
            if not self.owned[role]:
                del self.owned[role]
        return item is not None


def changed_items(before: Json, after: Json) -> list[Json]:
    """Return what of a ledger's ``owned`` changed: ``[{"kind", and what tells the item apart}]``."""
    sides = [Ownership(before), Ownership(after)]
    found: list[Json] = []
    for side, other in (sides, sides[::-1]):
        for items in side.owned.values():
            for item in items:
                names = ("kind", *_IDENTITY[item["kind"]])
                identity = {name: item[name] for name in names if name in item}
                if other.find(**identity) != item and identity not in found:
                    found.append(identity)
    return found


def apply_json(
    host: Host,
    document: JsonFile,
    ownership: Ownership,
    operations: typing.Sequence[Json],
    existed: bool,
) -> bool:
    """Apply ``json_set`` and ``json_remove`` to a document and to the ownership of its keys.

    :param existed: whether the file was there before.
    :returns: whether the file should be there afterwards: one that Bulkhead created goes again with
        the last of its keys.
    :raises HostError: a key to remove is not ours, or was changed by somebody else since.
    """
    created = not existed
    for operation in operations:
        path, key, member = operation["path"], operation["key"], operation.get("member")
        owned = ownership.find("json_key", path=path, key=key, member=member)
        try:
            if operation["op"] == "json_set":
                _set(document, ownership, operation, owned, existed)
            else:
                item = _removable(host, operation, owned)
                created = created or bool(item.get("created_file"))
                ownership.drop("json_key", path=path, key=key, member=member)
                _remove(document, item)
        except ValueError as exc:
            raise HostError("%s: %s: %s" % (path, shown_key(operation), exc)) from exc
    return not (created and document.value == {})


def lookup(document: Json, key: str, member: str | None) -> tuple[bool, typing.Any]:
    """Return whether a key (or member of the map under it) is there, and its value."""
    value: typing.Any = document
    for name in (key,) if member is None else (key, member):
        if not isinstance(value, dict) or name not in value:
            return False, None
        value = value[name]
    return True, value


def _set(
    document: JsonFile, ownership: Ownership, operation: Json, owned: Json | None, existed: bool
) -> None:
    path, key, member = operation["path"], operation["key"], operation.get("member")
    had, before = lookup(document.value, key, member)
    item: Json = {"kind": "json_key", "path": path, "key": key}
    if member is not None:
        item["member"] = member
    if owned is not None:
        kept = ("had_before", "before", "created_file", "created_map")
        item.update({name: owned[name] for name in kept if name in owned})
    else:
        siblings = ownership.of_kind("json_key", path=path)
        item["had_before"], item["before"] = had, before
        item["created_file"] = not existed or any(i.get("created_file") for i in siblings)
        item["created_map"] = member is not None and (
            key not in document.value
            or any(i.get("created_map") for i in siblings if i.get("key") == key)
        )
    item["sha256"] = value_digest(operation["value"])
    if member is None:
        document.set(key, operation["value"])
    elif not had or not same(before, operation["value"]):
        document.set_member(key, member, operation["value"])
    ownership.put(operation["role"], item)


def _removable(host: Host, operation: Json, owned: Json | None) -> Json:
    if owned is None:
        raise HostError(
            "%s: %s was not set by Bulkhead, so it does not remove it"
            % (operation["path"], shown_key(operation))
        )
    if not item_intact(host, owned):
        raise HostError(
            "%s: %s was changed by somebody else since; disown it instead of removing it"
            % (operation["path"], shown_key(operation))
        )
    return owned


def _remove(document: JsonFile, item: Json) -> None:
    key, member = item["key"], item.get("member")
    if item.get("had_before"):
        if member is None:
            document.set(key, item["before"])
        else:
            document.set_member(key, member, item["before"])
    elif member is None:
        document.remove(key)
    else:
        document.remove_member(key, member)
        if item.get("created_map") and document.value.get(key) == {}:
            document.remove(key)
