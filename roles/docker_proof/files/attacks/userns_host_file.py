"""
title: Root of a container does not open a file of the host's root
topic: userns
why: Whoever is root in a container is root in every directory of the host that is mounted into it.
stopped_by: a user namespace in which root is an ordinary user of the host
checks: ["2.10"]
variables: [docker_daemon_userns_remap]
unnoticed: To whom a file of the host's belongs that is mounted into a container, Falco does not know.
options: {volumes: ["{scratch}/host:/host"]}
weakened: {userns_mode: host, security_opt: ["label=disable"]}
"""

import os

from proof import attempt


def attack():
    """Open, for writing, a file below a bind mount that only the host's root may write."""
    return [
        attempt(
            "open a file of mode 0600 for writing", lambda: os.open("/host/root-only", os.O_RDWR)
        ),
        attempt("read a file of mode 0600", lambda: os.open("/host/root-only", os.O_RDONLY)),
    ]
