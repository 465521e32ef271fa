# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""A unit that undoes at boot what a power loss left of a transaction.

It is there only while a transaction is open: written before the first change, removed after the
last record. A host at rest has no unit of ours.
"""

from __future__ import annotations

import contextlib

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    ledger as ledger_module,
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host

UNIT = "bulkhead-recover.service"
_UNITS = "/etc/systemd/system"
PATH = _UNITS + "/" + UNIT
WANTS = _UNITS + "/multi-user.target.wants"
LINK = WANTS + "/" + UNIT

_META = files.Meta(mode=0o644, uid=0, gid=0, mtime_ns=0, atime_ns=0, xattrs={})

# After Docker's start, whatever became of it: the undo may have to restart it.
_TEXT = """\
# Undoes what was cut off by a loss of power. Bulkhead removes this file when it is done.
[Unit]
Description=Undo an interrupted hardening of Docker
After=docker.service docker.socket containerd.service local-fs.target
RequiresMountsFor=%(state)s

[Service]
Type=oneshot
ExecStart=%(command)s
"""


def arm(host: Host, command: list[str]) -> None:
    """Have a command run at the next boot."""
    text = _TEXT % {"state": ledger_module.STATE_DIRECTORY, "command": " ".join(command)}
    files.place(host, PATH, text.encode("ascii"), _META)
    if files.status(host, WANTS) is None:
        files.make_directory(host, WANTS, 0o755)
    if files.status(host, LINK) is None:
        files.make_link(host, PATH, LINK)


def disarm(host: Host) -> None:
    """Remove the unit again, unless a transaction is still open."""
    if ledger_module.open_transaction(host) is not None:
        return
    with contextlib.suppress(OSError):
        files.remove(host, LINK)
        files.remove(host, PATH)
