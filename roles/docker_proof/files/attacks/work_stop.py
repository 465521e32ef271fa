"""
title: A container that is stopped ends in order
topic: work
why: Databases lose data when they are killed instead.
stopped_by: an AppArmor profile that keeps signals of the daemon's runtime from containers
neighbour: {}
seconds: 40
options:
  volumes: ["/var/run/docker.sock:/run/docker.sock"]
  userns_mode: host
  security_opt: ["label=disable"]
"""

import os
import signal
import socket

from proof import CONTEXT, works


def neighbour(ready):
    """End with 7 at SIGTERM; SIGKILL would show as 137."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    ready()


def attack():
    """Have the daemon stop the neighbour, as `docker stop` does, and see how it ended."""
    return [works("stop the neighbour", stop)]


def stop():
    """Wait for at most 20 seconds until it has ended."""
    place = "/containers/%s" % CONTEXT["neighbour"]["name"]
    ask("POST", place + "/stop?t=20")
    details = ask("GET", place + "/json")
    if '"ExitCode":7,' not in details:
        at = details.find('"ExitCode"')
        raise ValueError("it ended with %s" % details[at : at + 16])


def ask(method, path):
    """Return what the daemon answers to a question without a body."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(35)
        stream.connect("/run/docker.sock")
        question = "%s %s HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\n\r\n" % (method, path)
        stream.sendall(question.encode())
        said = stream.makefile("rb").read().decode("latin-1")
    if not said.startswith(("HTTP/1.0 20", "HTTP/1.1 20")):
        raise ValueError("the daemon said %s" % said[:80])
    return said
