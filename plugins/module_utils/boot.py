# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Two units that undo at boot what a power loss left of a transaction.

The first puts files back before anything reads them: kernel parameters, profiles and audit rules are
loaded, and Docker started, from those of before. The second does the rest, with Docker there.

They are there only while a transaction is open: written before the first change, removed after the
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
EARLY_UNIT = "bulkhead-recover-files.service"
_UNITS = "/etc/systemd/system"
PATH = _UNITS + "/" + UNIT
EARLY_PATH = _UNITS + "/" + EARLY_UNIT
WANTS = _UNITS + "/multi-user.target.wants"
LINK = WANTS + "/" + UNIT

_META = files.Meta(mode=0o644, uid=0, gid=0, mtime_ns=0, atime_ns=0, xattrs={})

_EARLY_TEXT = """\
# Puts back files of what was cut off by a loss of power. Bulkhead removes this file when it is done.
[Unit]
Description=Put back files of an interrupted hardening of Docker
DefaultDependencies=no
After=local-fs.target
Before=systemd-sysctl.service apparmor.service audit-rules.service auditd.service sysinit.target
Conflicts=shutdown.target
Before=shutdown.target
RequiresMountsFor=%(state)s

[Service]
Type=oneshot
ExecStart=%(command)s files
"""

# After Docker's start, whatever became of it: the undo may have to restart it.
_TEXT = """\
# Undoes what was cut off by a loss of power. Bulkhead removes this file when it is done.
[Unit]
Description=Undo an interrupted hardening of Docker
Wants=%(early)s
After=%(early)s docker.service docker.socket containerd.service local-fs.target
RequiresMountsFor=%(state)s

[Service]
Type=oneshot
ExecStart=%(command)s recover
"""


def arm(host: Host, command: list[str]) -> None:
    """Have the verbs ``files`` and ``recover`` of a program run at the next boot."""
    values = {
        "state": ledger_module.STATE_DIRECTORY,
        "command": " ".join(command),
        "early": EARLY_UNIT,
    }
    for path, text in ((EARLY_PATH, _EARLY_TEXT), (PATH, _TEXT)):
        files.place(host, path, (text % values).encode("ascii"), _META)
    if files.status(host, WANTS) is None:
        files.make_directory(host, WANTS, 0o755)
    if files.status(host, LINK) is None:
        files.make_link(host, PATH, LINK)


def disarm(host: Host) -> None:
    """Remove the units again, unless a transaction is still open."""
    if ledger_module.open_transaction(host) is not None:
        return
    with contextlib.suppress(OSError):
        for path in (LINK, PATH, EARLY_PATH):
            files.remove(host, path)
