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
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_kernel import (
    inside,
    read_status,
)

#: How many processes of one container are looked at, and how many different ones are told.
MAX_PROCESSES = 2000
MAX_ROWS = 200

_SERVERS = ("sshd", "dropbear")


def processes(
    host: Host, pids: typing.Sequence[int], kernel: Mapping
) -> tuple[list[Mapping], str | None]:
    """Return the processes of a container, those alike as one row with their count.

    ``comm`` is the name that a process gives itself, ``exe`` the name of its program file (None when
    it cannot be read), ``uid`` its user inside of the container and ``host_uid`` outside.
    ``more_caps``: it has capabilities that the container's first process cannot gain, as a
    privileged exec has.

    :param pids: its processes. ``kernel``: the view of its first one.
    :returns: also why some are missing; None when they are all there.
    """
    counts: dict[tuple[typing.Any, ...], int] = {}
    limit = int(kernel["cap_bnd"] or "0", 16)
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
    rows = [{**dict(zip(names, row)), "count": counts[row]} for row in sorted(counts, key=repr)]
    for found in rows:
        found["uid"] = inside(kernel["uid_map"], found["host_uid"])
        found["more_caps"] = _more(found["cap_eff"], limit)
    rows.sort(key=_plain)
    return rows[:MAX_ROWS], _missing(len(pids), len(rows))


def _plain(row: Mapping) -> tuple[bool, ...]:
    """Order rows: what must not be lost behind others comes first."""
    return (
        not row["more_caps"],
        row["exe"] not in _SERVERS and row["comm"] not in _SERVERS,
        0 not in (row["uid"], row["host_uid"]),
    )


def _missing(pids: int, rows: int) -> str | None:
    if pids > MAX_PROCESSES:
        return "%d of its %d processes were not looked at" % (pids - MAX_PROCESSES, pids)
    if rows > MAX_ROWS:
        return "%d of its %d different processes are not listed" % (rows - MAX_ROWS, rows)
    return None


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
