"""
title: The filter passes no sockets to the kernel's ciphers and to hypervisors
topic: seccomp
why: AF_ALG is kernel code with a history of exploits; AF_VSOCK reaches past all firewalls.
stopped_by: the system call filter (AF_VSOCK from engine 23.0 on, AF_ALG from 29.4.3 on)
checks: ["2.18", "5.22"]
variables: [docker_daemon_seccomp_profile]
unnoticed: The stable set has no rule about these calls, and ordinary programs make them too.
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import errno
import functools
import socket

from proof import attempt

#: No type of socket: with a real one the kernel would load the module of the family. It is refused after the
#: filter and before AppArmor, which may deny the family as well and is not asked here.
NO_TYPE = 15


def attack():
    """Ask for sockets that cannot be; the filter, which is asked first, sees the family alone."""
    return [
        attempt(
            "get past the filter with " + name,
            functools.partial(socket.socket, family, NO_TYPE),
            past=(errno.EINVAL,),
            absent=(errno.EAFNOSUPPORT,),
        )
        for name, family in (("AF_ALG", socket.AF_ALG), ("AF_VSOCK", socket.AF_VSOCK))
    ]
