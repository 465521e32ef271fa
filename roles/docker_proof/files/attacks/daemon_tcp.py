"""
title: The daemon's API does not answer over the network
topic: daemon
why: Whoever can ask the daemon for a container is root of the host; over plain TCP anybody can.
stopped_by: a daemon that listens on its socket alone, or asks for a client certificate
checks: ["2.8"]
variables: [docker_daemon_options]
unshown: No option of a container opens the port; it breaches on a host whose daemon listens without TLS.
"""

import socket
import struct

from proof import NOT_APPLICABLE, Try, ask_ping, connect, read

PORTS = (2375, 2376)


def attack():
    """Ask the API for /_ping at the host's address on the container's own network.

    A daemon with TLS answers a plain question with 400, or not at all.
    """
    gateway = default_gateway()
    if gateway is None:
        return [Try("ask the API", NOT_APPLICABLE, "this container has no network")]
    return [
        ask_ping(
            "ask the API at port %d of the host" % port, lambda port=port: connect(gateway, port)
        )
        for port in PORTS
    ]


def default_gateway():
    """Return the address of the default route, from /proc/net/route: little-endian hexadecimal."""
    for line in (read("/proc/net/route") or "").splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000" and fields[2] != "00000000":
            return socket.inet_ntoa(struct.pack("=I", int(fields[2], 16)))
    return None
