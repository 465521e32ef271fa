"""
title: A process does not hold more files open than any service needs
topic: ulimits
why: Open files are memory of the kernel, and the table of all of them is the host's.
stopped_by: the ulimit nofile
checks: ["2.9", "5.19"]
variables: [docker_daemon_ulimits]
unnoticed: Falco looks at single events; it counts no processes, files or tasks.
weakened: {ulimits: {nofile: {Soft: 1048576, Hard: 1048576}}}
"""

import errno
import fcntl
import resource

from proof import attempt

#: More than this is no limit; it is what systemd gives services (NEWS of 240).
MOST = 524288


def attack():
    """Raise the limit as far as it goes, and ask for one descriptor with a number beyond the bound.

    The kernel refuses numbers, not how many there are, so that one shows it.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return [
        attempt(
            "hold more than %d files open (the limit is %d)" % (MOST, hard),
            lambda: fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, MOST),
            guards=(errno.EINVAL, errno.EMFILE),
        )
    ]
