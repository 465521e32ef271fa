"""
title: Control groups are not changed from within
topic: kernel
why: >-
  With version 1 the kernel starts the program that release_agent names, as root of the host; with version 2
  whoever writes to the tree lifts the container's own limits.
stopped_by: the read-only mount of /sys/fs/cgroup
checks: ["5.5"]
variables: [docker_daemon_userns_remap]
weakened: {privileged: true, userns_mode: host}
"""

import os

from proof import open_for_writing

TREE = "/sys/fs/cgroup/"


def attack():
    """Open files that move processes, hand out controllers or name a program, for writing."""
    names = ("cgroup.procs", "cgroup.subtree_control", "cgroup.max.descendants")
    if not os.path.exists(TREE + "cgroup.controllers"):
        folders = [name for name in os.listdir(TREE) if os.path.isdir(TREE + name)]
        files = ("release_agent", "cgroup.procs")
        names = [os.path.join(folder, name) for folder in sorted(folders) for name in files]
    return [open_for_writing(TREE + name) for name in names]
