# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The last step that changes something: accounts, directories and labels of ours that nothing needs now.

It comes after the health gate: a daemon that does not do without them has them again at once.
"""

from __future__ import annotations

import os
import stat as stat_module

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_accounts import (
    SUBID_FILES,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_context import (
    Json,
    Skipped,
    Transaction,
    removed_account,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_selinux import (
    labels_of_left,
)


def tidy(tx: Transaction) -> str | Skipped:
    """Remove accounts that the plan takes away, directories of ours that became empty, and labels."""
    removals = {"subids": _remove_ranges, "user": _remove_user, "group": _remove_group}
    gone = []
    # A user's ranges go first, and its group last.
    for operation in tx.plan.of("subid_absent", "user_absent", "group_absent"):
        kind, name = removed_account(operation)
        gone.append((list(removals).index(kind), kind, name))
    for _, kind, name in sorted(gone):
        removals[kind](tx, name)
    told = ["removed %s %s" % (kind, name) for _, kind, name in sorted(gone)]
    for target in [*tx.targets, tx.config]:
        if target.content is None and target.old is not None:
            parent = files.split(target.path)[0]
            told += ["removed " + path for path in _remove_directories(tx, parent)]
    told += labels_of_left(tx)
    tx.changed = tx.changed or bool(told)
    return ", ".join(told) if told else Skipped("nothing of ours is left over")


def _remove_ranges(tx: Transaction, user: str) -> None:
    item = tx.ownership.find("subids", user=user) or {}
    spans: Json = {name: item.get(name) for name in ("subuid", "subgid")}
    before = {path: tx.images[path] for path in SUBID_FILES}
    with tx.writer().effect("subids_removed", user=user, before=before, **spans):
        tx.accounts.remove_ranges(user, spans["subuid"], spans["subgid"])
        for path in item.get("created") or []:
            if path in SUBID_FILES and not tx.accounts.ranges(path):
                files.remove(tx.host, path)
    tx.ownership.drop("subids", user=user)


def _remove_user(tx: Transaction, name: str) -> None:
    found = tx.accounts.user(name)
    if found is not None:
        with tx.writer().effect("user_removed", name=name, **found):
            tx.accounts.remove_user(name)
    tx.ownership.drop("user", name=name)


def _remove_group(tx: Transaction, name: str) -> None:
    # userdel takes a user's own group along.
    gid = tx.accounts.gid(name)
    if gid is not None:
        with tx.writer().effect("group_removed", name=name, gid=gid):
            tx.accounts.remove_group(name)
    tx.ownership.drop("group", name=name)


def _remove_directories(tx: Transaction, path: str) -> list[str]:
    """Remove a directory of ours and those above it, as far as they are empty."""
    gone = []
    while path in [*tx.ledger["directories"], *tx.directories]:
        st = files.status(tx.host, path)
        if st is None or not _is_empty(tx.host, path):
            break
        mode = stat_module.S_IMODE(st.st_mode)
        with tx.writer().effect(
            "directory_removed", path=path, mode=mode, uid=st.st_uid, gid=st.st_gid
        ):
            files.remove_directory(tx.host, path)
        gone.append(path)
        path = files.split(path)[0]
    return gone


def _is_empty(host: Host, path: str) -> bool:
    with files.directory(host, path) as opened:
        return not os.listdir(opened)
