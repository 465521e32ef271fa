# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The processes of a container as the host sees them: by control group, without running anything.

Names and privileges go out, command lines never.
"""

from __future__ import annotations

import posixpath
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import Mapping, number
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_kernel import read_status

#: How many processes of one container are looked at, and how many different ones are told.
MAX_PROCESSES = 2000
MAX_ROWS = 200


def processes(host: Host, pids: typing.Sequence[int], bounding: str) -> list[Mapping]:
    """Return the processes of a container, those alike as one row with their count.

    ``comm`` is the name that a process gives itself, ``exe`` the name of its program file (None when
    it cannot be read). ``more_caps``: it has capabilities that the container's first process cannot
    gain, as a privileged exec has.

    :param pids: its processes. ``bounding``: the bounding set of its first process.
    """
    counts: dict[tuple[typing.Any, ...], int] = {}
    limit = int(bounding or "0", 16)
    for pid in pids[:MAX_PROCESSES]:
        try:
            status = read_status(host, pid)
            row = (
                status.get("Name", ""),
                _program(host, pid),
                int(status["Uid"].split()[1]),
                status.get("CapEff", "0" * 16),
                number(status.get("Seccomp")) or 0,
            )
        except (OSError, ValueError, IndexError):  # it ended
            continue
        counts[row] = counts.get(row, 0) + 1
    names = ("comm", "exe", "host_uid", "cap_eff", "seccomp")
    return [
        {**dict(zip(names, row)), "count": counts[row], "more_caps": _more(row[3], limit)}
        for row in sorted(counts, key=repr)[:MAX_ROWS]
    ]


def _program(host: Host, pid: int) -> str | None:
    try:
        link = host.readlink("/proc/%d/exe" % pid)
    except OSError:
        return None
    return posixpath.basename(re.sub(r" \(deleted\)\Z", "", link)) or None


def _more(mask: str, limit: int) -> bool:
    try:
        return bool(int(mask, 16) & ~limit)
    except ValueError:
        return False
