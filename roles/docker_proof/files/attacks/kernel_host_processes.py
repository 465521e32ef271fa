"""
title: Processes of the host are neither seen nor looked into
topic: kernel
why: >-
  Names and arguments of programs are where an intruder begins; whoever reads the memory of one, or goes
  through its root directory, has the host.
stopped_by: the process id namespace; in one that shares the host's, the missing CAP_SYS_PTRACE and AppArmor
checks: ["5.4", "5.16"]
variables: [docker_daemon_userns_remap]
unnoticed: Monitoring looks at processes all the time, and the stable set has no rule about it.
weakened:
  pid: host
  cap_add: [SYS_PTRACE]
  security_opt: [apparmor=unconfined, label=disable]
  userns_mode: host
"""

import ctypes
import errno
import os
import struct

from proof import BREACHED, HELD, Try, attempt, read, syscall


def attack():
    """Look for processes of other control groups, the container's own are all in one, and into the first."""
    seen, foreign = processes()
    detail = "%d of %d processes are others'" % (len(foreign), seen)
    tries = [Try("see processes of the host", BREACHED if foreign else HELD, detail)]
    return tries + [item for pid in foreign[:1] for item in look_into("/proc/%d/" % pid, pid)]


def processes():
    """Return how many processes there are, and the numbers of those that are others'."""
    own = read("/proc/self/cgroup")
    seen, foreign = 0, []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        groups = read("/proc/%d/cgroup" % pid)
        state = (read("/proc/%d/status" % pid) or "") if groups else ""
        # One that ended has left its group already in version 1.
        if groups and "State:\tZ" not in state:
            seen += 1
            foreign += [pid] if groups != own else []
    return seen, foreign


def look_into(place, pid):
    """Open what only the owner of a process may; nothing is read."""
    flags = os.O_RDONLY | os.O_DIRECTORY
    return [
        attempt("open the root directory of one", lambda: os.open(place + "root", flags)),
        attempt("open the environment of one", lambda: os.open(place + "environ", os.O_RDONLY)),
        attempt("read the memory of one", lambda: peek(pid), past=(errno.EFAULT,)),
    ]


def peek(pid):
    """Read one byte of a process at address 0, where nothing is."""
    byte = ctypes.create_string_buffer(1)
    local, remote = struct.pack("QQ", ctypes.addressof(byte), 1), struct.pack("QQ", 0, 1)
    syscall("process_vm_readv", pid, local, 1, remote, 1, 0)
