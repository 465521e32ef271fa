"""
title: A container does not talk to devices through I/O ports
topic: capabilities
why: Ports reach disks and firmware past every file permission.
stopped_by: the missing capability SYS_RAWIO, and the system call filter
checks: ["5.4"]
variables: [docker_daemon_seccomp_profile]
unnoticed: The stable set has no rule about these calls, and a refusal of them is all that there is to see.
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

from proof import attempt, syscall

#: The port that firmware shows its progress at: it belongs to no device.
PORT = 0x80


def attack():
    """Ask for the permission for this process, which uses it for nothing and ends."""
    return [
        attempt("use one port (ioperm)", lambda: syscall("ioperm", PORT, 1, 1)),
        attempt("use all ports (iopl)", lambda: syscall("iopl", 3)),
    ]
