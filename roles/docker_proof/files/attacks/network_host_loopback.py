"""
title: What listens on the host's own address is out of reach
topic: network
why: Services that listen on 127.0.0.1 or in the abstract socket namespace trust whoever can connect.
stopped_by: the network namespace
checks: ["5.10"]
variables: [docker_daemon_userns_remap]
unnoticed: Which containers may reach each other, Falco does not know.
weakened: {network: host, userns_mode: host}
"""

from proof import BREACHED, HELD, UNREACHED, Try, attempt, connect, read

LISTEN = "0A"
LOOPBACK = "0100007F"


def attack():
    """Connect to what the kernel's lists say listens on 127.0.0.1, and look for abstract sockets."""
    # Lines of proc_net_tcp(5): number, local address, remote address, state.
    fields = [line.split() for line in (read("/proc/net/tcp") or "").splitlines()[1:]]
    ports = [
        int(row[1].split(":")[1], 16)
        for row in fields
        if row[3] == LISTEN and row[1].split(":")[0] == LOOPBACK
    ]
    tries = [
        attempt(
            "connect to 127.0.0.1:%d" % port,
            lambda port=port: connect("127.0.0.1", port).detach(),
            guards=UNREACHED,
        )
        for port in ports[:5]
    ]
    what = "find a service on 127.0.0.1"
    return [*(tries or [Try(what, HELD, "nothing listens there")]), abstract()]


def abstract():
    """Abstract sockets belong to a network namespace, whatever the file system."""
    lines = [line.split() for line in (read("/proc/net/unix") or "").splitlines()[1:]]
    names = [row[7] for row in lines if len(row) > 7 and row[7].startswith("@")]
    what = "find an abstract socket of another's"
    return Try(what, BREACHED if names else HELD, "%d of them" % len(names))
