"""
title: The kernel's emergency commands are out of reach
topic: kernel
why: One letter written to this file ends the host at once, without its disks being written.
stopped_by: the read-only mount of /proc/sysrq-trigger, and AppArmor
checks: ["5.5"]
variables: [docker_daemon_userns_remap]
falco: Bulkhead kernel settings opened for writing in a container
weakened: {privileged: true, userns_mode: host}
"""

from proof import open_for_writing


def attack():
    """Open the file for writing; nothing is written."""
    return [open_for_writing("/proc/sysrq-trigger")]
