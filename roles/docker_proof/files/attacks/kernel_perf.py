"""
title: Performance counters are not used without privileges
topic: kernel
why: They are a large and often broken part of the kernel, and they measure what other programs do.
stopped_by: the seccomp filter; without it kernel.perf_event_paranoid
checks: ["5.22", BH-20]
variables: [docker_daemon_seccomp_profile, docker_kernel_sysctls]
unnoticed: The stable set has no rule about these calls, and ordinary programs make them too.
weakened: {security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]}
unshown: Debian's kernels set perf_event_paranoid to 3; it breaches where a host has set it to 2 or less.
"""

import ctypes
import errno
import struct

from proof import attempt, syscall

PERF_TYPE_SOFTWARE = 1
#: Bits of the field of flags in struct perf_event_attr (perf_event_open(2)).
DISABLED, EXCLUDE_KERNEL, EXCLUDE_HV = 1 << 0, 1 << 5, 1 << 6


def attack():
    """Open a counter of this very process that is never switched on, with and without the kernel."""
    return [
        counter("count in this process", DISABLED | EXCLUDE_KERNEL | EXCLUDE_HV),
        counter("count in the kernel", DISABLED),
    ]


def counter(what, flags):
    """Open one counter of the clock in software, and close it."""
    attributes = struct.pack("=IIQQQQQ16x", PERF_TYPE_SOFTWARE, 64, 0, 0, 0, 0, flags)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return attempt(
        what, lambda: syscall("perf_event_open", buffer, 0, -1, -1, 0), absent=(errno.ENOSYS,)
    )
