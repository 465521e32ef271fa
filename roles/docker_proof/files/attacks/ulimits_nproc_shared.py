"""
title: Tasks of one container do not use up those of another
topic: ulimits
why: The limit nproc counts the tasks of a user on the whole host, so one container starves all others.
stopped_by: no ulimit nproc; the PIDs limit counts for each container by itself
checks: ["5.19", "5.29"]
variables: [docker_daemon_ulimits, docker_daemon_pids_limit]
unnoticed: Falco looks at single events; it counts no processes, files or tasks.
neighbour: {userns_mode: host}
weakened: {ulimits: {nproc: {Soft: 50, Hard: 50}}, userns_mode: host}
"""

import resource

from proof import BREACHED, HELD, Try, become_user, name_of, start_tasks

#: Tasks of the neighbour, and those that this container wants.
OTHERS, WANTED = 100, 10


def neighbour(ready):
    """Have many tasks as an ordinary user, which images of one maker share: root is exempt."""
    become_user()
    start_tasks(OTHERS)
    ready()


def attack():
    """Start a few tasks beside a neighbour of the same user that has many."""
    become_user()
    started, refused = start_tasks(WANTED)
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    told = "none" if limit == resource.RLIM_INFINITY else str(limit)
    what = "starve a container by the tasks of its neighbour"
    if refused:
        said = "%s after %d of %d tasks, with nproc %s"
        return [Try(what, BREACHED, said % (name_of(refused), started, WANTED, told))]
    said = "%d tasks beside %d of the neighbour, nproc %s"
    return [Try(what, HELD, said % (started, OTHERS, told))]
