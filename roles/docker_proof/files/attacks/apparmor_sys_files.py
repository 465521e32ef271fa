"""
title: A container that gets the host's /sys still does not write to it
topic: apparmor
why: >-
  Agents for monitoring are often given /sys; uevent_helper in it names a program that the kernel starts as
  root of the host.
stopped_by: docker-default, which allows writing below /sys/fs/cgroup only
checks: ["5.2", "5.6"]
falco: Bulkhead kernel settings opened for writing in a container
options: {volumes: ["/sys:/sys"]}
weakened: {security_opt: [apparmor=unconfined, label=disable], userns_mode: host}
"""

from proof import lacks_apparmor, open_for_writing

FILES = ("kernel/uevent_helper", "kernel/mm/ksm/run", "kernel/profiling", "power/state")


def attack():
    """Open files of the whole host for writing; nothing is written."""
    return lacks_apparmor() or [open_for_writing("/sys/" + name) for name in FILES]
