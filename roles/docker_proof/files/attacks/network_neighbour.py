"""
title: Containers on the default bridge do not reach each other
topic: network
why: One container that was broken into attacks all others of the host, on ports that nobody published.
stopped_by: the daemon's rule that drops traffic between containers of the default bridge
checks: ["2.2", "5.30"]
variables: [docker_daemon_icc]
unnoticed: Which containers may reach each other, Falco does not know.
neighbour: {}
weakened: {network: own}
"""

from proof import CONTEXT, NOT_APPLICABLE, PORT, UNREACHED, Try, attempt, connect, listen


def neighbour(ready):
    """Accept connections."""
    listen(ready)


def attack():
    """Connect to a port of another container that it never published."""
    address = CONTEXT["neighbour"]["address"]
    what = "connect to a port of a neighbour"
    if not address:
        return [Try(what, NOT_APPLICABLE, "the daemon has no default bridge")]
    return [attempt(what, lambda: connect(address, PORT).detach(), guards=UNREACHED)]
