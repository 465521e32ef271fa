"""
title: Root of a container is not root of the host
topic: userns
why: Whatever gets out of the container acts on the host as the user that it is there.
stopped_by: a user namespace in which root is an ordinary user of the host
checks: ["2.10", "5.31"]
variables: [docker_daemon_userns_remap]
unnoticed: It looks at what its own process has, as every program may.
weakened: {userns_mode: host}
"""

from proof import BREACHED, ERROR, HELD, Try, read


def attack():
    """Ask the kernel which user of the host this container's root is."""
    what = "be user 0 of the host"
    for line in (read("/proc/self/uid_map") or "").splitlines():
        inside, outside = [int(word) for word in line.split()[:2]]
        if inside == 0:
            return [Try(what, HELD if outside else BREACHED, "it is user %d there" % outside)]
    return [Try(what, ERROR, "root is mapped to nobody")]
