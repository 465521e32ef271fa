"""
title: A container leaves no setuid program of root on the host
topic: userns
why: A program that root of a container leaves in a shared directory makes any user of the host root.
stopped_by: a user namespace in which root is an ordinary user of the host
checks: ["2.10", "5.31"]
variables: [docker_daemon_userns_remap]
unnoticed: Package managers set such a bit in containers too.
options: {volumes: ["{scratch}/host:/host"]}
weakened: {userns_mode: host, security_opt: ["label=disable"]}
"""

import os

from proof import attempt

#: Removed at once, and with the directory when the run ends.
PATH = "/host/planted"


def plant():
    """Make an empty file of root's with the setuid bit, and remove it."""
    os.close(os.open(PATH, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        os.chmod(PATH, 0o4755)
    finally:
        os.unlink(PATH)


def attack():
    """Leave an empty file, and give a file of the host's to the user that has it already."""
    return [
        attempt("make a setuid file", plant),
        attempt("change the owner of a file", lambda: os.chown("/host/readable", 0, 0)),
    ]
