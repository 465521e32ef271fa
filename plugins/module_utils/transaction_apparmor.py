# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""AppArmor profiles in a transaction: read by the parser first, then placed, then loaded.

The file is a file like any other (see transaction_steps.units). What the kernel holds follows it,
and follows it back when the transaction is undone.
"""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    apparmor,
    ledger as ledger_module,
    transaction_diff as diffs,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_context import (
    Json,
    Profile,
    Skipped,
    Target,
    Transaction,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import Operation


def resolve(operation: Operation) -> Operation:
    """Return the placing of a file that the operation on a profile stands for."""
    if operation["op"] != "apparmor_profile":
        return operation
    return dict(operation, op="file_present", mode="0644", owner="root", group="root")


def of_operation(tx: Transaction, operation: Operation) -> Profile | None:
    """Return the profile that an operation on a file is about; None when it is about none."""
    if "profile" in operation:
        return Profile(operation["profile"])
    item = tx.ownership.find("file", path=operation["path"]) or {}
    if operation["op"] != "file_absent" or "profile" not in item:
        return None
    kept, ours = item.get("compiled"), ledger_module.in_kernel(tx.host, item)
    # What somebody else has put in its place since, as a newer engine does at its start, stays.
    path = "%s/%s" % (ledger_module.TRANSACTIONS, kept["image"]) if kept and ours else None
    return Profile(item["profile"], compiled=path, theirs=kept is not None and not ours)


def check_profiles(tx: Transaction) -> None:
    """Refuse a text that the parser refuses, and the unloading of a profile that is in use.

    :raises HostError: with the profile, and the parser's line or the containers.
    """
    targets = {target.path: target for target in tx.targets}
    for profile in tx.profiles:
        path = apparmor.path_of(profile.name)
        target = targets.get(path)
        if target is not None and target.content is not None:
            _check_text(tx, profile, target)
        elif profile.unloaded or (profile.compiled is None and not profile.theirs):
            _check_unused(tx, profile)


def _check_text(tx: Transaction, profile: Profile, target: Target) -> None:
    if not _enabled(tx):
        raise HostError("this kernel runs without AppArmor, so %s cannot be loaded" % profile.name)
    reason = apparmor.problem(tx.host, target.content or b"")
    if reason:
        raise HostError("the profile %s is not valid: %s" % (profile.name, reason))


def _check_unused(tx: Transaction, profile: Profile) -> None:
    if profile.name == apparmor.DEFAULT_PROFILE:
        return  # the engine loads its own when a container needs it
    names = apparmor.users(tx.before.get("containers") or [], profile.name)
    if names:
        raise HostError(
            "the profile %s is used by these containers: %s; start them under another one first"
            % (profile.name, ", ".join(names))
        )


def _enabled(tx: Transaction) -> bool:
    return bool(((tx.before.get("lsm") or {}).get("apparmor") or {}).get("enabled"))


def profiles(tx: Transaction) -> str | Skipped:
    """Let the kernel hold what the files of the profiles say now."""
    if not tx.profiles:
        return Skipped("no profile changes")
    if not _enabled(tx):
        return Skipped("this kernel runs without AppArmor")
    told = []
    for profile in tx.profiles:
        before = apparmor.loaded(tx.host, profile.name)
        content = apparmor.compiled(tx.host, before)
        image = tx.writer().keep(content) if content is not None else None
        tx.compiled[profile.name] = image
        with tx.writer().effect(
            "apparmor", profile=profile.name, loaded=before is not None, before=image
        ):
            note = None
            if profile.theirs:
                apparmor.forget(tx.host, profile.name)
            else:
                note = apparmor.follow(
                    tx.host, profile.name, profile.compiled, unloaded=profile.unloaded
                )
        told.append(note or profile.name)
    tx.changed = True
    return "the kernel follows the files of " + ", ".join(told)


def rows(tx: Transaction) -> list[Json]:
    """Return what changes in the kernel, for --diff."""
    found = []
    for profile in tx.profiles:
        now = apparmor.loaded(tx.host, profile.name) is not None
        targets = [t for t in tx.targets if t.path == apparmor.path_of(profile.name)]
        after = not profile.unloaded and any(t.content is not None for t in targets)
        after = after or profile.compiled is not None or profile.theirs
        words = ("%s\n" % profile.name if there else "" for there in (now, after))
        found.append(diffs.row("profiles in the kernel", *words))
    return [row for row in found if row["before"] != row["after"]]


def owned(tx: Transaction, operation: Operation, item: Json) -> Json:
    """Return what the ledger notes of a profile that was loaded.

    :param item: what it notes of the profile's file.
    """
    if "profile" not in operation:
        return {}
    name = operation["profile"]
    policy = apparmor.loaded(tx.host, name)
    compiled = item.get("compiled")
    if "profile" not in item:  # it is ours from now on
        compiled = _reference(tx.compiled.get(name))
    return {
        "profile": name,
        "policy": policy.digest if policy else None,
        "compiled": compiled,
        "loaded_at": tx.host.now(),
    }


def _reference(image: typing.Mapping[str, typing.Any] | None) -> Json | None:
    """Return where an image is kept, relative to the transactions."""
    if image is None:
        return None
    return {"image": str(image["image"])[len(ledger_module.TRANSACTIONS) + 1 :]}
