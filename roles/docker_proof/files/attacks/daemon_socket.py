"""
title: The daemon's socket is not in the container
topic: daemon
why: Whoever can ask the daemon for a container is root of the host.
stopped_by: that nobody mounts it there; in a user namespace also its owner
checks: ["5.32"]
variables: [docker_daemon_userns_remap]
falco: Bulkhead container asks the engine
weakened:
  volumes: ["/var/run/docker.sock:/run/docker.sock"]
  userns_mode: host
  security_opt: ["label=disable"]
"""

import errno
import socket

from proof import GUARDS, ask_ping, attempt

API = ("/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock")
OTHERS = ("/run/containerd/containerd.sock", "/run/docker/containerd/containerd.sock")

GUARD = (*GUARDS, errno.ENOENT, errno.ECONNREFUSED)


def attack():
    """Ask the API for /_ping where its socket usually is, and connect to those of containerd."""
    tries = [ask_ping("ask the API at " + path, lambda path=path: connected(path)) for path in API]
    return tries + [
        attempt("connect to " + path, lambda path=path: connected(path).detach(), guards=GUARD)
        for path in OTHERS
    ]


def connected(path):
    """Return a socket that is connected to a path."""
    stream = socket.socket(socket.AF_UNIX)
    try:
        stream.connect(path)
    except OSError:
        stream.close()
        raise
    return stream
