"""
title: Only the container's own processes are seen
topic: kernel
why: Names and arguments of all programs of the host are where an intruder begins, and often hold passwords.
stopped_by: the process id namespace
checks: ["5.16"]
variables: [docker_daemon_userns_remap]
weakened: {pid: host, userns_mode: host}
"""

import os

from proof import BREACHED, HELD, Try, read


def attack():
    """Look for processes of other control groups: the container's own are all in one."""
    own = read("/proc/self/cgroup")
    seen = foreign = 0
    for name in os.listdir("/proc"):
        groups = read("/proc/%s/cgroup" % name) if name.isdigit() else None
        state = (read("/proc/%s/status" % name) or "") if groups else ""
        # One that ended has left its group already in version 1.
        if groups and "State:\tZ" not in state:
            seen += 1
            foreign += groups != own
    detail = "%d of %d processes are others'" % (foreign, seen)
    return [Try("see processes of the host", BREACHED if foreign else HELD, detail)]
