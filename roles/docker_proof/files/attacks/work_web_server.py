"""
title: A web server binds port 80 as root, drops its rights and answers
topic: work
why: It is what most containers are for.
stopped_by: a missing CAP_NET_BIND_SERVICE, CAP_SETUID or CAP_SETGID, or rules between a container and itself
"""

import os
import socket

from proof import USER, become_user, connect, fork, works


def attack():
    """Serve one request over loopback from a process of an ordinary user."""
    listener = socket.socket()

    def bind():
        listener.bind(("0.0.0.0", 80))
        listener.listen(1)

    tries = [works("bind port 80", bind)]

    def serve():
        become_user()
        client = listener.accept()[0]
        client.recv(1000)
        client.sendall(b"HTTP/1.0 200 OK\r\n\r\n%d" % os.getuid())

    fork(serve)
    return [*tries, works("get a page from the user's process", fetch)]


def fetch():
    """Ask for a page and see that the right user sent it."""
    with connect("127.0.0.1", 80) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        said = client.makefile("rb").read()
    if said != b"HTTP/1.0 200 OK\r\n\r\n%d" % USER:
        raise ValueError("it said %r" % said)
