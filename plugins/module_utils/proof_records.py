# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What the kernel's security modules recorded of an attack, from the audit log or the kernel's log."""

from __future__ import annotations

import os
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host

#: What attacks call their processes. The kernel keeps 15 characters.
COMM = "bulkhead-proof"

_AUDIT_LOG = "/var/log/audit/audit.log"
_KERNEL_LOG = "/dev/kmsg"

#: Most that is read of either, in bytes.
_MOST = 1024 * 1024

_STAMP = re.compile(r"audit\((\d+\.\d+):\d+\)")
_FIELD = re.compile(r'\b([a-z_]+)=(?:"([^"]*)"|(\S+))')
_DENIED = re.compile(r"denied\s+\{ ([a-z_ ]+) \}")
_KEPT = (
    *("apparmor", "operation", "class", "profile", "name", "requested_mask", "denied_mask"),
    *("capname", "family", "sock_type", "scontext", "tcontext", "tclass"),
)

Json = dict[str, typing.Any]


class Records:
    """Follows both logs from now on. Reads only."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._offset = self._size()
        self._kernel = -1
        try:
            self._kernel = os.open(host.path(_KERNEL_LOG), os.O_RDONLY | os.O_NONBLOCK)
            os.lseek(self._kernel, 0, os.SEEK_END)
        except OSError:  # no such device for this user: the audit log may do
            self.close()

    def _size(self) -> int:
        found = self._host.lstat(_AUDIT_LOG)
        return found.st_size if found else 0

    def close(self) -> None:
        """Let go of the kernel's log."""
        if self._kernel >= 0:
            os.close(self._kernel)
        self._kernel = -1

    def read(self) -> list[Json]:
        """Return what was recorded since the last call, as :func:`parse` does, the oldest first."""
        found = [parse(line) for line in [*self._audit_lines(), *self._kernel_lines()]]
        return sorted((item for item in found if item), key=lambda item: float(item["at"]))

    def _audit_lines(self) -> list[str]:
        try:
            with open(self._host.path(_AUDIT_LOG), "rb") as stream:
                if self._size() < self._offset:  # rotated
                    self._offset = 0
                stream.seek(self._offset)
                data = stream.read(_MOST)
                self._offset = stream.tell()
        except OSError:
            return []
        return data.decode("utf-8", "replace").splitlines()

    def _kernel_lines(self) -> list[str]:
        lines: list[str] = []
        while self._kernel >= 0 and len(lines) < 10000:
            try:
                lines.append(os.read(self._kernel, 8192).decode("utf-8", "replace"))
            except BlockingIOError:
                break
            except OSError:  # EPIPE: some were overwritten before they were read
                continue
        return lines


def parse(line: str) -> Json | None:
    """Return a denial of one of our processes, or None for every other line.

    ``{at, kind, ...}``: seconds since the epoch, ``apparmor`` or ``selinux``, and the fields of the
    record that say what was denied by what.
    """
    stamp = _STAMP.search(line)
    fields = {name: quoted or bare for name, quoted, bare in _FIELD.findall(line)}
    if stamp is None or fields.get("comm") != COMM:
        return None
    denied = _DENIED.search(line)
    if fields.get("apparmor") != "DENIED" and denied is None:
        return None
    kept: Json = {name: fields[name] for name in _KEPT if name in fields}
    if denied is not None:
        kept["denied"] = denied.group(1).split()
    kind = "selinux" if denied is not None else "apparmor"
    return {"at": float(stamp.group(1)), "kind": kind, **kept}
