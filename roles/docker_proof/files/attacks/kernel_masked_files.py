"""
title: Files that tell of the whole host are hidden
topic: kernel
why: They hold the kernel's memory, names of keys, addresses and the tables of the firmware.
stopped_by: Docker's masks over these paths; for some AppArmor and the capability that the file asks for
checks: ["5.5"]
variables: [docker_daemon_userns_remap]
unnoticed: It opens files that everybody may open.
weakened: {privileged: true, userns_mode: host}
"""

import errno
import os
import stat

from proof import HELD, Try, attempt

FILES = (
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/latency_stats",
)
FOLDERS = ("/proc/acpi", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap")


def attack():
    """Open each and see whether it is what its name says; nothing of it is read."""
    return [of_file(path) for path in FILES] + [of_folder(path) for path in FOLDERS]


def of_file(path):
    """A masked file is the null device."""
    what = "open " + path
    try:
        masked = stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        masked = False
    if masked:
        return Try(what, HELD, "it is the null device")
    return attempt(what, lambda: os.open(path, os.O_RDONLY), absent=(errno.ENOENT,))


def of_folder(path):
    """A masked directory is empty."""
    if os.path.isdir(path) and os.access(path, os.R_OK) and not os.listdir(path):
        return Try("list " + path, HELD, "it is empty")
    return attempt("list " + path, lambda: os.listdir(path), absent=(errno.ENOENT,))
