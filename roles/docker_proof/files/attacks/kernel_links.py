"""
title: Links in a shared directory are no trap
topic: kernel
why: A link that somebody else put into /tmp makes a program of root open another file than it means to.
stopped_by: fs.protected_symlinks and fs.protected_hardlinks
checks: [BH-22]
variables: [docker_kernel_sysctls]
unnoticed: Links and files in a shared directory are everybody's; which are traps the kernel alone knows.
unshown: Only the host's settings decide, and Debian's are 1. With 0 it breaches in every container.
"""

import os

from proof import as_user, attempt

FOLDER = "/tmp/links"


def attack():
    """Let a user link to a file of root's, and root follow a user's link, in a sticky directory."""
    os.mkdir(FOLDER)
    os.chmod(FOLDER, 0o1777)
    target, soft = FOLDER + "/of-root", FOLDER + "/soft"
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o600))

    def as_other():
        os.symlink(target, soft)
        hard = "give a file of root's a second name"
        return [attempt(hard, lambda: os.link(target, FOLDER + "/hard"))]

    tries = as_user(as_other)
    return [*tries, attempt("follow a user's link as root", lambda: os.open(soft, os.O_RDONLY))]
