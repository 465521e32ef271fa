"""
title: The kernel's log is not read
topic: kernel
why: It holds addresses, device names and messages about other containers.
stopped_by: the seccomp filter; without it kernel.dmesg_restrict
checks: ["5.22", BH-18]
variables: [docker_daemon_seccomp_profile, docker_kernel_sysctls]
unnoticed: The stable set has no rule about these calls, and ordinary programs make them too.
weakened: {security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]}
unshown: Debian's kernels set dmesg_restrict to 1; it breaches where a host has set it to 0.
"""

import errno
import os

from proof import HELD, Try, attempt, syscall

SYSLOG_ACTION_SIZE_BUFFER = 10


def attack():
    """Ask for the size of the log, which the kernel allows to whoever may read all of it."""
    if os.path.exists("/dev/kmsg"):
        device = attempt("open /dev/kmsg", lambda: os.open("/dev/kmsg", os.O_RDONLY))
    else:
        device = Try("open /dev/kmsg", HELD, "ENOENT: the container has no such device")
    call = attempt(
        "syslog(2)",
        lambda: syscall("syslog", SYSLOG_ACTION_SIZE_BUFFER, None, 0) and None,
        absent=(errno.ENOSYS,),
    )
    return [call, device]
