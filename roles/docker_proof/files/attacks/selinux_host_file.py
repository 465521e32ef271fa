"""
title: A container does not open a file of the host's that is mounted into it
topic: selinux
why: A directory mounted by mistake, or by somebody who may only start containers, hands out the host's files.
stopped_by: the label of the file, whose type is none of containers'
checks: ["5.3", "5.6"]
variables: [docker_selinux_enabled]
unnoticed: To whom a file of the host's belongs that is mounted into a container, Falco does not know.
options: {volumes: ["{scratch}/host:/host"]}
weakened: {security_opt: ["label=disable"]}
unshown: hosts whose kernel runs without SELinux
"""

import os

from proof import NOT_APPLICABLE, Try, attempt, selinux_label


def attack():
    """Open a file that everybody may read: only its label is in the way."""
    what = "read a file of the host that everybody may read"
    if selinux_label() is None:
        return [Try(what, NOT_APPLICABLE, "the kernel runs without SELinux")]
    return [attempt(what, lambda: os.open("/host/readable", os.O_RDONLY))]
