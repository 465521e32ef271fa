"""
title: The kernel's debugging file systems stay closed
topic: kernel
why: They show and change the kernel's inner state, and were made for its developers only.
stopped_by: the seccomp filter, the missing CAP_SYS_ADMIN, and that they are not mounted in a container
checks: ["5.5", "5.22"]
variables: [docker_daemon_seccomp_profile, docker_daemon_userns_remap]
falco: Bulkhead mount in a container
weakened: {privileged: true, userns_mode: host}
"""

import errno
import os

from proof import BREACHED, HELD, Try, attempt, name_of, syscall

FOLDERS = ("/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security")
TYPES = (b"debugfs", b"tracefs", b"securityfs")


def attack():
    """List them where they would be mounted, and begin to mount them (fsopen, which mounts nothing)."""
    return [of_folder(path) for path in FOLDERS] + [
        attempt(
            "begin to mount " + name.decode(),
            lambda name=name: syscall("fsopen", name, 0),
            absent=(errno.ENODEV, errno.ENOSYS),
        )
        for name in TYPES
    ]


def of_folder(path):
    """Where it is not mounted its directory is empty, or not there."""
    what = "list " + path
    try:
        names = os.listdir(path)
    except OSError as exc:
        return Try(what, HELD, name_of(exc.errno))
    return Try(what, BREACHED if names else HELD, "%d entries" % len(names))
