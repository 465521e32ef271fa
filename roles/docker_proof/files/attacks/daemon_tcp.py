"""
title: The daemon's API does not answer over the network
topic: daemon
why: Whoever can ask the daemon for a container is root of the host; without client certificates anybody can.
stopped_by: a daemon that listens on its socket alone, or asks for a client certificate
checks: ["2.8"]
variables: [docker_daemon_tcp_hosts]
unnoticed: It is a connection like any other to the host.
unshown: No option of a container opens the port; it breaches on a host whose daemon listens for everybody.
"""

import os
import socket
import struct

from proof import BREACHED, ERROR, HELD, NOT_APPLICABLE, Try, ask_ping, connect, name_of, read

PORTS = (2375, 2376)

# What a client says first, in version 1.2: there the server asks for a certificate before anything is
# encrypted. The engine takes it in all releases (docker/go-connections, tlsconfig). Source: RFC 5246, 8422.
CIPHERS = bytes.fromhex("c02bc02fc02cc030cca9cca8009c002f0035")
EXTENSIONS = bytes.fromhex(
    "000a00080006001d00170018"  # curves
    "000b00020100"  # uncompressed points
    "000d00140012040308040401050308050501060308060601"  # signatures
)
ALERT, HANDSHAKE = 21, 22
CERTIFICATE_REQUEST, SERVER_DONE = 13, 14


def attack():
    """Ask the API for /_ping at the host's address on the container's own network, and for TLS.

    A daemon with TLS answers a plain question with 400, or not at all. Whether it would answer everybody
    shows in how it greets: the attack goes no further than that.
    """
    gateway = default_gateway()
    if gateway is None:
        return [Try("ask the API", NOT_APPLICABLE, "this container has no network")]
    tries = []
    for port in PORTS:
        what = "ask the API at port %d of the host" % port
        tries.append(ask_ping(what, lambda port=port: connect(gateway, port)))
        tries.append(
            greet(what + " by TLS without a certificate", lambda port=port: connect(gateway, port))
        )
    return tries


def greet(what, connected):
    """Begin TLS and tell whether the server asks for a client's certificate."""
    try:
        with connected() as stream:
            stream.settimeout(5)
            stream.sendall(hello())
            kinds = greeting(stream)
    except OSError as exc:
        return Try(what, HELD, name_of(exc.errno) if exc.errno else "no answer in time")
    if kinds is None:
        return Try(what, HELD, "no TLS")
    if CERTIFICATE_REQUEST in kinds:
        return Try(what, HELD, "it asks for a client certificate")
    if SERVER_DONE in kinds:
        return Try(what, BREACHED, "it asks for no client certificate")
    return Try(what, ERROR, "it ended the greeting")


def hello():
    """Return the first message of a client."""
    body = b"\x03\x03" + os.urandom(32) + b"\0"
    body += struct.pack(">H", len(CIPHERS)) + CIPHERS + b"\x01\0"
    body += struct.pack(">H", len(EXTENSIONS)) + EXTENSIONS
    message = b"\x01" + struct.pack(">I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack(">H", len(message)) + message


def greeting(stream):
    """Return the kinds of messages in a server's greeting; None when it speaks no TLS."""
    messages = b""
    kinds = []
    with stream.makefile("rb") as records:
        while SERVER_DONE not in kinds and len(messages) < 100000:
            header = records.read(5)
            if len(header) < 5 or header[0] == ALERT:
                return kinds if header[:1] == bytes([ALERT]) or kinds else None
            if header[0] != HANDSHAKE:
                return None
            messages += records.read(struct.unpack(">H", header[3:])[0])
            kinds = kinds_of(messages)
    return kinds


def kinds_of(messages):
    """Return the kinds of the whole messages in a stream of them."""
    kinds = []
    while len(messages) >= 4:
        length = int.from_bytes(messages[1:4], "big")
        if len(messages) < 4 + length:
            break
        kinds.append(messages[0])
        messages = messages[4 + length :]
    return kinds


def default_gateway():
    """Return the address of the default route, from /proc/net/route: little-endian hexadecimal."""
    for line in (read("/proc/net/route") or "").splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000" and fields[2] != "00000000":
            return socket.inet_ntoa(struct.pack("=I", int(fields[2], 16)))
    return None
