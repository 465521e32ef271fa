# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Which sockets processes listen on, as the kernel has them.

Source: proc(5) on /proc/<pid>/net/tcp and unix, the kernel's include/net/tcp_states.h and
include/uapi/linux/net.h.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import struct
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    address_class,
)

_PROTOCOLS = ("tcp", "tcp6", "udp", "udp6")
_TCP_LISTEN = "0A"
_UDP_UNCONNECTED = "07"
_ACCEPTS = 0x10000  # __SO_ACCEPTCON

# A row of /proc/net/unix (net/unix/af_unix.c unix_seq_show): flags, inode, and a name that anybody
# chooses, in which the kernel escapes nothing.
_UNIX_ROW = re.compile(
    r"[0-9a-f]{8,16}: [0-9A-F]{8} [0-9A-F]{8} ([0-9A-F]{8}) [0-9A-F]{4} [0-9A-F]{2} +(\d+)(?: (.*))?\Z",
    re.S,
)

#: How many descriptors of all processes together are looked at.
MAX_DESCRIPTORS = 200000


class Listening:
    """The listening sockets of one network namespace, by inode.

    :param pid: a process in that namespace.
    :raises OSError: its tables cannot be read.
    """

    def __init__(self, host: Host, pid: int) -> None:
        self._host = host
        self.rows: dict[str, Mapping] = {}
        # Inodes with several rows, of which the name of another socket made all but one.
        self._doubtful: set[str] = set()
        for protocol in _PROTOCOLS:
            try:
                content = host.read_text("/proc/%d/net/%s" % (pid, protocol), 64 * 1024 * 1024)
            except FileNotFoundError:  # a kernel without IPv6
                continue
            self._read_table(protocol, content)
        self._read_unix(host.read_text("/proc/%d/net/unix" % pid, 64 * 1024 * 1024))

    def _read_table(self, protocol: str, content: str) -> None:
        wanted = _TCP_LISTEN if protocol.startswith("tcp") else _UDP_UNCONNECTED
        for line in content.split("\n")[1:]:
            fields = line.split()
            if len(fields) < 10 or fields[3] != wanted:
                continue
            raw, _, port = fields[1].partition(":")
            address = _address(raw)
            row: Mapping = {"protocol": protocol, "address": address, "port": int(port, 16)}
            row.update(path=None, address_class=address_class(address), abstract=False)
            self.rows[fields[9]] = row

    def _read_unix(self, content: str) -> None:
        """Read the rows, and what pretends to be one: the name of a socket may hold whole lines."""
        for line in content.split("\n")[1:]:
            match = _UNIX_ROW.match(line)
            if not match or not int(match.group(1), 16) & _ACCEPTS:
                continue
            path, inode = match.group(3) or "", match.group(2)
            row: Mapping = {"protocol": "unix", "address": None, "port": None, "path": path}
            row.update(address_class=None, abstract=path.startswith("@"))
            before = self.rows.setdefault(inode, row)
            if before is not row and before["protocol"] == "unix":
                self._doubtful.add(inode)

    def of(self, pids: typing.Sequence[int]) -> list[Mapping]:
        """Return the sockets that these processes have open, each once, without order.

        :raises OSError: the descriptors of none of them can be read, they are too many, or the kernel's
            table says two things of one of their sockets.
        """
        found: dict[str, Mapping] = {}
        left = MAX_DESCRIPTORS
        failure: OSError | None = None
        readable = False
        for pid in pids:
            base = "/proc/%d/fd" % pid
            try:
                names = self._host.listdir(base)
                readable = True
            except OSError as exc:
                failure = exc
                continue
            if len(names) > left:
                raise OSError(errno.E2BIG, "more than %d open files" % MAX_DESCRIPTORS)
            left -= len(names)
            for name in names:
                inode = self._inode("%s/%s" % (base, name))
                if inode in self._doubtful:
                    raise OSError(errno.EBADMSG, "/proc/net/unix has two rows of one socket")
                if inode in self.rows:
                    found.setdefault(inode, {"pid": pid, **self.rows[inode]})
        if failure is not None and not readable:
            raise failure
        return list(found.values())

    def _inode(self, path: str) -> str:
        try:
            match = re.match(r"socket:\[(\d+)\]\Z", self._host.readlink(path))
        except OSError:  # closed meanwhile
            return ""
        return match.group(1) if match else ""


def _address(raw: str) -> str:
    """Return an address from hexadecimal words in the byte order of the machine."""
    words = [int(raw[i : i + 8], 16) for i in range(0, len(raw), 8)]
    return str(ipaddress.ip_address(struct.pack("=%dI" % len(words), *words)))
