"""Knowing a process again, so that nothing but our own QEMU is ever killed.

A process id alone says little: it may have been given to somebody else since. A process counts as
the one that was recorded only with the same boot of this machine, the same start time and a
command line that holds the host's marker.
"""

from __future__ import annotations

import dataclasses
import os
import select
import signal
from pathlib import Path

from .errors import LabError

_PROC = Path("/proc")


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a process was when it was recorded.

    :param start_ticks: when it started, in clock ticks since the machine booted (proc(5), stat).
    :param boot_id: the machine's boot, because ticks begin anew with each.
    :param marker: a string that one argument of its command line holds.
    """

    pid: int
    start_ticks: int
    boot_id: str
    marker: str


def identify(pid: int, marker: str, proc: Path = _PROC) -> Identity | None:
    """Record a process that was just started; None when it is already gone."""
    start_ticks = _start_ticks(pid, proc)
    return None if start_ticks is None else Identity(pid, start_ticks, _boot_id(proc), marker)


def find(marker: str, proc: Path = _PROC) -> Identity | None:
    """Find the process of this user whose command line holds the marker.

    For one that was started by a caller who died before writing it down.
    """
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            ours = entry.stat().st_uid == os.getuid()
        except OSError:
            continue
        identity = identify(int(entry.name), marker, proc) if ours else None
        if identity is not None and alive(identity, proc):
            return identity
    return None


def alive(identity: Identity, proc: Path = _PROC) -> bool:
    """Tell whether exactly the recorded process still runs."""
    if _boot_id(proc) != identity.boot_id:
        return False
    if _start_ticks(identity.pid, proc) != identity.start_ticks:
        return False
    try:
        arguments = (proc / str(identity.pid) / "cmdline").read_bytes()
    except OSError:
        return False
    return identity.marker in arguments.decode("utf-8", "replace")


def kill(identity: Identity, *, seconds: float = 20.0) -> bool:
    """End the recorded process at once and wait until it is gone.

    Returns False when it was gone already. A process that merely has its number is left alone.
    Raises LabError when it does not end in time.
    """
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        # Looked at only after the descriptor is held: from here on it means one process for sure.
        if not alive(identity):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        if not poller.poll(seconds * 1000):
            raise LabError(f"process {identity.pid} did not end within {seconds:.0f} s of SIGKILL")
    finally:
        os.close(descriptor)
    return True


def _boot_id(proc: Path) -> str:
    try:
        return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _start_ticks(pid: int, proc: Path) -> int | None:
    """Return the start time, or None for a process that is gone or only waits to be reaped."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the name in brackets and may itself hold spaces and brackets.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])
