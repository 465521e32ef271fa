"""
title: A container opens no packet socket
topic: capabilities
why: With it a container reads and forges whole frames on its network, to pose as its neighbours.
stopped_by: CAP_NET_RAW being dropped, or an AppArmor profile that denies it; the default has it
checks: ["5.4"]
falco: Packet socket created in container
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import socket

from proof import attempt


def attack():
    """Open a packet socket for no protocol: nothing arrives at it."""
    return [
        attempt(
            "open a packet socket (AF_PACKET)",
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0),
        )
    ]
