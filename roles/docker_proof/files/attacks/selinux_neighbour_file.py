"""
title: A container does not touch the files of another one
topic: selinux
why: All containers have the same type; without a level of its own each could read what the others keep.
stopped_by: the pair of categories that each container has to itself (MCS)
checks: ["5.3"]
variables: [docker_selinux_enabled]
unnoticed: To whom a file of the host's belongs that is mounted into a container, Falco does not know.
options: {volumes: ["{scratch}/other:/other"]}
weakened: {security_opt: ["label=disable"]}
unshown: hosts whose kernel runs without SELinux
"""

import os

from proof import NOT_APPLICABLE, Try, attempt, selinux_label


def attack():
    """Open a file of mode 0666 that bears another container's categories."""
    path, what = "/other/file", "%s a file of another container"
    if selinux_label() is None:
        return [Try(what % "open", NOT_APPLICABLE, "the kernel runs without SELinux")]
    return [
        attempt(what % "read", lambda: os.open(path, os.O_RDONLY)),
        attempt(what % "open for writing", lambda: os.open(path, os.O_WRONLY)),
    ]
