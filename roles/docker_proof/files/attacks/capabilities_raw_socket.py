"""
title: A container opens no raw socket
topic: capabilities
why: With it a container forges packets of any sender; ping and scanners need it, services do not.
stopped_by: CAP_NET_RAW being dropped, or an AppArmor profile that denies it; the default has it
checks: ["5.4"]
unnoticed: A raw socket is what ping opens.
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import socket

from proof import attempt


def attack():
    """Open a raw socket, and send nothing."""
    return [
        attempt(
            "open a raw socket for ICMP",
            lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        )
    ]
