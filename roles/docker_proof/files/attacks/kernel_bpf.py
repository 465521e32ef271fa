"""
title: BPF is not used without privileges
topic: kernel
why: The checker of BPF programs had many bugs through which ordinary users took over the kernel.
stopped_by: the seccomp filter; without it kernel.unprivileged_bpf_disabled
checks: ["5.22", BH-19]
variables: [docker_daemon_seccomp_profile, docker_kernel_sysctls]
falco: Bulkhead kernel interface asked for in a container
weakened: {security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]}
unshown: Debian's kernels set unprivileged_bpf_disabled to 2; it breaches where a host has set it to 0.
"""

import ctypes
import errno
import struct

from proof import attempt, syscall

BPF_MAP_CREATE = 0
BPF_MAP_TYPE_ARRAY = 2


def attack():
    """Make an array of one number, and close it."""
    attributes = struct.pack("=5I", BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return [
        attempt(
            "make a map with bpf(2)",
            lambda: syscall("bpf", BPF_MAP_CREATE, buffer, len(buffer)),
            absent=(errno.ENOSYS,),
        )
    ]
