"""
title: A fork bomb ends at the container's own limit
topic: pids
why: Without a limit one container uses up the process ids of the host, and nobody can log in any more.
stopped_by: the PIDs controller of the container's control group
checks: ["5.29"]
variables: [docker_daemon_pids_limit]
unnoticed: Falco looks at single events; it counts no processes, files or tasks.
seconds: 120
weakened: {pids_limit: 4000}
"""

from proof import BREACHED, HELD, Try, name_of, read, start_tasks

#: A host on which a container may have more tasks than this is open to a fork bomb.
MOST = 2048


def attack():
    """Start tasks that wait until the process is killed, up to a number that no service needs."""
    what = "have more than %d tasks" % MOST
    started, refused = start_tasks(MOST + 1)
    if refused:
        events = (read("/sys/fs/cgroup/pids.events") or "").strip() or "no events"
        detail = "%s after %d tasks; pids.events: %s" % (name_of(refused), started, events)
        return [Try(what, HELD, detail)]
    return [Try(what, BREACHED, "%d tasks ran at once" % started)]
