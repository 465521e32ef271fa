"""
title: Addresses of the kernel are not shown
topic: kernel
why: Whoever knows where the kernel lies in memory needs one bug less to take it over.
stopped_by: kernel.kptr_restrict, kernel.perf_event_paranoid and the missing CAP_SYSLOG
checks: [BH-18]
variables: [docker_kernel_sysctls]
unnoticed: It opens files that everybody may open.
weakened: {cap_add: [SYSLOG], userns_mode: host}
unshown: With kernel.kptr_restrict 2 no container sees addresses, whatever it may do.
"""

from proof import BREACHED, HELD, NOT_APPLICABLE, Try


def attack():
    """Look for an address that is not 0 in the lists of the kernel's symbols and modules."""
    return [of_list("/proc/kallsyms", 0), of_list("/proc/modules", 5)]


def of_list(path, column):
    """Look at a column of a list, and tell only whether there is an address."""
    what = "find an address in " + path
    try:
        with open(path) as stream:
            fields = [line.split() for _, line in zip(range(1000), stream)]
    except OSError as exc:
        return Try(what, HELD, str(exc.strerror))
    addresses = [row[column] for row in fields if len(row) > column]
    if not addresses:
        return Try(what, NOT_APPLICABLE, "the list is empty")
    shown = sum(bool(int(text, 16)) for text in addresses)
    return Try(what, BREACHED if shown else HELD, "%d of %d" % (shown, len(addresses)))
