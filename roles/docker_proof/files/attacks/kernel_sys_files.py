"""
title: Devices and kernel objects are not changed through /sys
topic: kernel
why: >-
  uevent_helper names a program that the kernel starts as root of the host; the others change memory
  management and power for everybody.
stopped_by: the read-only mount of /sys, and AppArmor
checks: ["5.5"]
variables: [docker_daemon_userns_remap]
falco: Bulkhead kernel settings opened for writing in a container
weakened: {privileged: true, userns_mode: host}
"""

from proof import open_for_writing

FILES = (
    *("kernel/uevent_helper", "kernel/profiling", "kernel/kexec_crash_size", "kernel/rcu_normal"),
    *("kernel/mm/ksm/run", "kernel/mm/transparent_hugepage/enabled", "power/state"),
    *("module/kernel/parameters/crash_kexec_post_notifiers", "bus/pci/rescan"),
)


def attack():
    """Open files of the whole host for writing; nothing is written."""
    return [open_for_writing("/sys/" + name) for name in FILES]
