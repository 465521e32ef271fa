"""
title: Containers of one network find and reach each other by name
topic: work
why: Every Compose project relies on it.
stopped_by: rules that go too far for a network of its own, or a missing embedded resolver
network: own
neighbour: {}
"""

import random
import socket
import struct

from proof import CONTEXT, PORT, connect, listen, read, works


def neighbour(ready):
    """Accept connections."""
    listen(ready)


def attack():
    """Ask the resolver for the neighbour's name, and connect to what it answers."""
    return [
        works("resolve a neighbour's name", resolve),
        works(
            "connect to the neighbour",
            lambda: connect(CONTEXT["neighbour"]["address"], PORT).close(),
        ),
    ]


def resolve():
    """Send one question for an IPv4 address to the first resolver (RFC 1035, section 4)."""
    words = (read("/etc/resolv.conf") or "").split()
    if "nameserver" not in words:
        raise ValueError("/etc/resolv.conf names no resolver")
    name = CONTEXT["neighbour"]["name"].encode()
    head = struct.pack(">6H", random.randrange(65536), 0x0100, 1, 0, 0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as question:
        question.settimeout(10)
        question.connect((words[words.index("nameserver") + 1], 53))
        question.send(head + bytes([len(name)]) + name + b"\0" + struct.pack(">2H", 1, 1))
        answer = question.recv(512)
    if answer[:2] != head[:2] or socket.inet_aton(CONTEXT["neighbour"]["address"]) not in answer:
        raise ValueError("another answer, flags %s" % answer[2:4].hex())
