"""
title: The kernel's settings are not written
topic: kernel
why: core_pattern and modprobe name programs that the kernel starts as root of the host.
stopped_by: the read-only mount of /proc/sys, AppArmor, and the owner of the files in a user namespace
checks: ["5.5"]
variables: [docker_daemon_userns_remap]
falco: Bulkhead kernel settings opened for writing in a container
weakened: {privileged: true, userns_mode: host}
"""

from proof import open_for_writing

FILES = (
    *("kernel/core_pattern", "kernel/modprobe", "kernel/hotplug", "kernel/poweroff_cmd"),
    *("kernel/randomize_va_space", "kernel/kptr_restrict", "kernel/sysrq", "kernel/pid_max"),
    *("vm/overcommit_memory", "vm/drop_caches", "vm/panic_on_oom", "fs/suid_dumpable"),
    *("fs/binfmt_misc/register", "fs/protected_symlinks"),
)


def attack():
    """Open settings of the whole host for writing."""
    return [open_for_writing("/proc/sys/" + name) for name in FILES]
