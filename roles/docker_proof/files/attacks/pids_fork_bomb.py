"""
title: A fork bomb ends at the container's own limit
topic: pids
why: Without a limit one container uses up the process ids of the host, and nobody can log in any more.
stopped_by: the PIDs controller of the container's control group
checks: ["5.29"]
variables: [docker_daemon_pids_limit]
seconds: 60
weakened: {pids_limit: 4000}
"""

import ctypes

from proof import BREACHED, HELD, Try, name_of, read

#: A host on which a container may have more tasks than this is open to a fork bomb.
MOST = 2048

#: Bytes: as small as pthread_attr_setstacksize(3) allows. Memory is not what this is about.
STACK = 16384


def attack():
    """Start tasks that wait until the process is killed, up to a number that no service needs.

    The controller counts threads like processes, and they take less of the machine.
    """
    libc = ctypes.CDLL(None)
    attributes = ctypes.create_string_buffer(64)
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(STACK))
    identity, refused, started = ctypes.c_ulong(), 0, 1
    while started <= MOST and not refused:
        refused = libc.pthread_create(ctypes.byref(identity), attributes, libc.pause, None)
        started += not refused
    what = "have more than %d tasks" % MOST
    if refused:
        events = (read("/sys/fs/cgroup/pids.events") or "").strip() or "no events"
        detail = "%s after %d tasks; pids.events: %s" % (name_of(refused), started, events)
        return [Try(what, HELD, detail)]
    return [Try(what, BREACHED, "%d tasks ran at once" % started)]
