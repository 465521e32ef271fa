"""
title: A container pings
topic: work
why: Health checks and people in trouble do.
stopped_by: net.ipv4.ping_group_range without a group of the container's, together with a missing CAP_NET_RAW
"""

import os
import socket
import struct

from proof import BREACHED, HELD, Try

ECHO, REPLY = 8, 0


def attack():
    """Ping the container's own address by a socket for echoes, else by a raw one; one is enough."""
    told = []
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            ping(kind)
        except OSError as exc:
            told.append("%s: %s" % (kind.name, exc))
        else:
            return [Try("ping 127.0.0.1", BREACHED, kind.name)]
    return [Try("ping 127.0.0.1", HELD, "; ".join(told))]


def ping(kind):
    """Send an echo request and wait for its reply (RFC 792)."""
    with socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP) as echo:
        echo.settimeout(5)
        number, mark = os.getpid() & 0xFFFF, os.urandom(8)
        parts = [ECHO << 8, 0, number, 1, *struct.unpack(">4H", mark)]
        total = sum(parts)
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        parts[1] = ~total & 0xFFFF
        echo.sendto(struct.pack(">8H", *parts), ("127.0.0.1", 0))
        while True:
            said = echo.recv(200)[20 if kind == socket.SOCK_RAW else 0 :]
            if said[0] == REPLY and said.endswith(mark):
                return
