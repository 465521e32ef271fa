"""
title: A device node that a container makes opens no device
topic: capabilities
why: CAP_MKNOD is in the default set; with a node for its disk the host can be read and written.
stopped_by: the device control group; with user namespaces, the missing capability
checks: ["5.5", "5.18"]
unnoticed: Package managers and builds make device nodes in containers too.
weakened: {privileged: true, userns_mode: host}
"""

import contextlib
import errno
import functools
import os
import stat

from proof import attempt, read


def disks():
    """Return the numbers of up to two disks that the kernel knows, by name."""
    rows = [line.split() for line in (read("/proc/partitions") or "").splitlines()[2:]]
    found = {row[3]: os.makedev(int(row[0]), int(row[1])) for row in rows if row}
    return dict(list(found.items())[:2])


def use(kind, number):
    """Make a node, open it for reading, read nothing, and remove it."""
    path = "/tmp/node-%d" % os.getpid()
    os.mknod(path, kind | 0o600, number)
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def attack():
    """Make and open nodes of disks and of physical memory (character device 1:1)."""
    nodes = {name: (stat.S_IFBLK, number) for name, number in disks().items()}
    nodes["physical memory"] = (stat.S_IFCHR, os.makedev(1, 1))
    absent = (errno.ENXIO, errno.ENODEV)
    return [
        attempt(
            "make a device node for %s and open it" % name,
            functools.partial(use, *node),
            absent=absent,
        )
        for name, node in nodes.items()
    ]
