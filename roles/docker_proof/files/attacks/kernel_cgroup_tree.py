"""
title: A container does not lift its own limits
topic: kernel
why: >-
  A container without limits uses up the host. With version 1 of control groups the kernel moreover starts the
  program that release_agent names, as root of the host.
stopped_by: the read-only mount of /sys/fs/cgroup, and in a user namespace the owner of these files
checks: ["5.5"]
variables: [docker_daemon_userns_remap]
falco: Bulkhead kernel settings opened for writing in a container
weakened: {privileged: true, userns_mode: host}
"""

import os

from proof import open_for_writing

TREE = "/sys/fs/cgroup/"

#: Not cgroup.procs and the like: with user namespaces runc hands those over to the container, as
#: /sys/kernel/cgroup/delegate lists them, and all limits above still hold.
UNIFIED = ("pids.max", "memory.max", "memory.swap.max", "cpu.max", "cgroup.max.descendants")

VERSION_1 = ("release_agent", "devices.allow", "pids.max", "memory.limit_in_bytes")


def attack():
    """Open limits of the container's own group, or what names a program, for writing."""
    names = UNIFIED
    if not os.path.exists(TREE + "cgroup.controllers"):
        folders = sorted(name for name in os.listdir(TREE) if os.path.isdir(TREE + name))
        names = [os.path.join(folder, name) for folder in folders for name in VERSION_1]
    return [open_for_writing(TREE + name) for name in names]
