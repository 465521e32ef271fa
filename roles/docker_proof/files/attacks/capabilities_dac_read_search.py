"""
title: Files of the host are not opened by their number
topic: capabilities
why: With CAP_DAC_READ_SEARCH a container opens any file of the disk that its own files lie on.
stopped_by: the missing capability DAC_READ_SEARCH, and the system call filter
checks: ["5.4"]
variables: [docker_daemon_seccomp_profile]
falco: Bulkhead file opened by its number in a container
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import errno
import os
import struct

from proof import attempt, syscall


def attack():
    """Open a handle of length 0, which no file has; the permission is looked at first."""
    handle = struct.pack("Ii", 0, 1)
    root = os.open("/", os.O_RDONLY)
    try:
        return [
            attempt(
                "open a file by its handle",
                lambda: syscall("open_by_handle_at", root, handle, os.O_RDONLY),
                past=(errno.EINVAL, errno.ESTALE),
            )
        ]
    finally:
        os.close(root)
