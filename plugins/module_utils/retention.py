# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""How long before-images are kept, and removing what is kept no longer.

Called by transactions only, with the lock held and nothing open but the caller's own.
"""

from __future__ import annotations

import contextlib
import os
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    history,
    ledger as ledger_module,
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host

#: How many transactions are kept, to be undone by their id. Each holds what it changed, as it was.
KEPT_TRANSACTIONS = 20


def prune(host: Host, ledger: dict[str, typing.Any]) -> None:
    """Remove the oldest transactions.

    Those stay that are open, or cannot be read, and those whose before-images the ledger refers to.
    """
    kept = set(ledger_module.transaction_ids(host)[-KEPT_TRANSACTIONS:])
    kept |= {
        str((item.get(name) or {}).get("image", "")).partition("/")[0]
        for items in ledger["owned"].values()
        for item in items
        if item.get("kind") == "file"
        for name in ("before", "compiled")
    }
    known = {entry.identifier: entry for entry in history.entries(host)}
    kept |= {identifier for identifier, entry in known.items() if not entry.end}
    for identifier in ledger_module.transaction_ids(host):
        if identifier in kept:
            continue
        if identifier in known:
            _forget(host, identifier)
        else:  # what a run left that never began, unless its request is still waiting
            files.remove_directory(host, "%s/%s" % (ledger_module.TRANSACTIONS, identifier))


def _forget(host: Host, identifier: str) -> None:
    path = "%s/%s" % (ledger_module.TRANSACTIONS, identifier)
    # The journal goes last: without it nothing would tell that this transaction has ended.
    with contextlib.suppress(FileNotFoundError):
        remove_tree(host, "%s/%s" % (path, ledger_module.IMAGES_NAME))
    with contextlib.suppress(FileNotFoundError):
        remove_tree(host, path)


def remove_tree(host: Host, path: str) -> None:
    """Remove a directory with all that is in it; links in it go, what they point at stays.

    :raises HostError: the path itself is a link, or leads through one.
    :raises FileNotFoundError: it is absent.
    """
    with files.directory(host, path) as opened:
        for name in os.listdir(opened):
            st = os.stat(name, dir_fd=opened, follow_symlinks=False)
            if stat_module.S_ISDIR(st.st_mode):
                remove_tree(host, "%s/%s" % (path, name))
            else:
                os.unlink(name, dir_fd=opened)
    files.remove_directory(host, path)
