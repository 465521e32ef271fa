"""
title: Devices of the host are not there
topic: capabilities
why: Who opens a disk or the memory of the host reads and writes everything, past all permissions.
stopped_by: a /dev of the container's own; privileged containers get that of the host
checks: ["5.5", "5.18"]
unnoticed: Containers that are given devices open them; which ones a container was given, Falco does not know.
weakened: {privileged: true, userns_mode: host}
"""

import errno
import functools
import os

from proof import GUARDS, attempt, read

#: Physical memory, I/O ports and the kernel's log. Others do something when they are opened.
DEVICES = ("mem", "port", "kmsg")


def disks():
    """Return the names of up to four disks that the kernel knows."""
    lines = (read("/proc/partitions") or "").splitlines()[2:]
    names = [line.split()[3] for line in lines if line.strip()]
    return [name for name in names if not name.startswith(("loop", "ram", "sr", "zram"))][:4]


def attack():
    """Open devices for reading, and read nothing."""
    return [
        attempt(
            "open /dev/%s" % name,
            functools.partial(os.open, "/dev/" + name, os.O_RDONLY | os.O_NONBLOCK),
            guards=(*GUARDS, errno.ENOENT),
            absent=(errno.ENXIO, errno.ENODEV),
        )
        for name in (*DEVICES, *disks())
    ]
