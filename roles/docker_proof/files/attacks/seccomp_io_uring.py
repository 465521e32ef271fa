"""
title: A container uses no io_uring
topic: seccomp
why: Many exploits of the kernel went through io_uring, and what it does passes other filters unseen.
stopped_by: the default system call filter of engines from 25.0 on
checks: ["2.18", "5.22"]
variables: [docker_daemon_seccomp_profile]
falco: Bulkhead kernel interface asked for in a container
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import errno

from proof import attempt, syscall


def attack():
    """Ask for a ring without saying what it should be like."""
    return [
        attempt(
            "set up a ring",
            lambda: syscall("io_uring_setup", 0, None),
            past=(errno.EFAULT, errno.EINVAL),
            absent=(errno.ENOSYS,),
        )
    ]
