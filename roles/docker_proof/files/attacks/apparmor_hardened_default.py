"""
title: What --cap-add gives a container by mistake is still refused
topic: apparmor
why: >-
  Loading modules, using ports and reading the kernel's log and symbols are ways into the kernel that hardly
  any service needs, and that Docker's own profile leaves to capabilities.
stopped_by: the hardened docker-default, which is off unless it is asked for
checks: ["5.2", "5.4"]
variables: [docker_apparmor_default_profile]
falco: Packet socket created in container
options: {cap_add: [NET_RAW, SYS_BOOT, SYS_MODULE, SYS_RAWIO, SYSLOG]}
weakened: {security_opt: [apparmor=unconfined, label=disable], userns_mode: host}
"""

import errno
import os
import socket

from proof import attempt, lacks_apparmor, syscall

#: The port that firmware shows its progress at: it belongs to no device.
PORT = 0x80


def attack():
    """Use what the added capabilities are for, with arguments of which nothing can come."""
    packet = (socket.AF_PACKET, socket.SOCK_RAW, 0)
    past = (errno.EINVAL, errno.EFAULT, errno.ENOEXEC)
    return lacks_apparmor() or [
        attempt("open /proc/kallsyms", lambda: os.open("/proc/kallsyms", os.O_RDONLY)),
        attempt("open /proc/kmsg", lambda: os.open("/proc/kmsg", os.O_RDONLY | os.O_NONBLOCK)),
        attempt("open a packet socket", lambda: socket.socket(*packet)),
        attempt("load a module", lambda: syscall("init_module", None, 0, None), past),
        attempt("restart the host", lambda: syscall("reboot", 0, 0, 0, None), past),
        attempt("use an I/O port", lambda: syscall("ioperm", PORT, 1, 1)),
    ]
