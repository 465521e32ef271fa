"""
title: A container does not configure its network
topic: capabilities
why: With CAP_NET_ADMIN a container takes addresses and routes of others, and reaches much kernel code.
stopped_by: the missing capability NET_ADMIN
checks: ["5.4"]
unnoticed: VPNs and proxies configure the network of their container too.
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import fcntl
import socket
import struct

from proof import attempt

SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
SO_RCVBUFFORCE = 33


def attack():
    """Give the loopback interface the flags that it has, and one socket a small buffer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        flags = fcntl.ioctl(plain, SIOCGIFFLAGS, struct.pack("16s24x", b"lo"))

        def set_flags():
            fcntl.ioctl(plain, SIOCSIFFLAGS, flags)

        return [
            attempt("set the flags of an interface", set_flags),
            attempt(
                "exceed the limit of a socket's buffer",
                lambda: plain.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4096),
            ),
        ]
