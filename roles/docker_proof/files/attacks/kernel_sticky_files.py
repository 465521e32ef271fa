"""
title: Files in a shared directory are no trap
topic: kernel
why: A file or pipe that somebody else laid ready in /tmp takes in what a program of root writes.
stopped_by: fs.protected_regular and fs.protected_fifos
checks: [BH-22]
variables: [docker_kernel_sysctls]
unnoticed: Links and files in a shared directory are everybody's; which are traps the kernel alone knows.
weakened: {security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]}
unshown: Only the host's settings decide. With 0 it breaches in every container, else it holds in all.
"""

import os

from proof import as_user, attempt

FOLDER = "/tmp/sticky"


def attack():
    """Let root open, as if to create it, what a user laid ready in a sticky directory."""
    os.mkdir(FOLDER)
    os.chmod(FOLDER, 0o1777)
    regular, fifo = FOLDER + "/regular", FOLDER + "/fifo"

    def as_other():
        os.close(os.open(regular, os.O_WRONLY | os.O_CREAT, 0o666))
        os.mkfifo(fifo, 0o666)
        return []

    as_user(as_other)
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK
    return [
        attempt("open a user's file", lambda: os.open(regular, flags)),
        attempt("open a user's pipe", lambda: os.open(fifo, flags)),
    ]
