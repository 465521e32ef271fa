"""
title: A fork bomb ends at a limit that a container sets for itself
topic: pids
why: A service that needs few tasks is best kept to few; a default must not take its place.
stopped_by: the PIDs controller of the container's control group
checks: ["5.29"]
variables: [docker_daemon_pids_limit]
unnoticed: Falco looks at single events; it counts no processes, files or tasks.
options: {pids_limit: 64}
weakened: {pids_limit: 4000}
"""

from proof import BREACHED, HELD, Try, name_of, start_tasks

#: What the options of this attack allow.
LIMIT = 64


def attack():
    """Start more tasks than the limit."""
    what = "have more than %d tasks" % LIMIT
    started, refused = start_tasks(2 * LIMIT)
    if started <= LIMIT:
        return [Try(what, HELD, "%s after %d tasks" % (name_of(refused), started))]
    return [Try(what, BREACHED, "%d tasks ran at once" % started)]
