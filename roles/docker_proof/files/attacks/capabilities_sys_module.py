"""
title: A container loads no kernel module
topic: capabilities
why: A module is part of the kernel; whoever loads one has the host and everything on it.
stopped_by: the missing capability SYS_MODULE, and the system call filter
checks: ["5.4"]
variables: [docker_daemon_seccomp_profile]
falco: Linux Kernel Module Injection Detected
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import errno

from proof import attempt, syscall

#: No set of flags that finit_module(2) knows.
FLAGS = 0xFFFF


def attack():
    """Load an empty module, one from no file, and unload one without a name."""
    past = (errno.ENOEXEC, errno.EFAULT, errno.EINVAL)
    return [
        attempt("load a module from memory", lambda: syscall("init_module", None, 0, None), past),
        attempt("load a module from a file", lambda: syscall("finit_module", -1, b"", FLAGS), past),
        attempt("unload a module", lambda: syscall("delete_module", None, 0), past),
    ]
