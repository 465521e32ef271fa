"""
title: Page faults of the kernel are not held up
topic: kernel
why: Whoever can stop the kernel in the middle of a copy wins races that are otherwise hopeless.
stopped_by: the seccomp filter; without it vm.unprivileged_userfaultfd
checks: ["5.22", BH-24]
variables: [docker_daemon_seccomp_profile, docker_kernel_sysctls]
falco: Bulkhead kernel interface asked for in a container
weakened: {security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]}
unshown: Kernels since 5.11 set unprivileged_userfaultfd to 0; it breaches where a host has set it to 1.
"""

import errno
import os

from proof import attempt, syscall


def attack():
    """Open a descriptor for faults in user and kernel mode, and close it."""
    return [
        attempt(
            "userfaultfd(2) for faults of the kernel",
            lambda: syscall("userfaultfd", os.O_CLOEXEC),
            absent=(errno.ENOSYS,),
        )
    ]
