"""
title: System calls that no service needs are refused
topic: seccomp
why: Each of these calls is code of the kernel where container escapes were found, or changes the host.
stopped_by: the default system call filter; where a call needs a capability, its absence as well
checks: ["2.18", "5.22"]
variables: [docker_daemon_seccomp_profile]
falco: Bulkhead kernel interface asked for in a container
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import errno
import functools
import signal

from proof import GUARDS, attempt, syscall

CLONE_FS, CLONE_NEWUSER = 0x200, 0x10000000
USER_MODE_ONLY = 1
ADDR_NO_RANDOMIZE = 0x0040000

#: An address where nothing is, for calls to which no address at all means something.
NOWHERE = 1
#: Bits, a number and an open file that no call here knows.
BITS, NUMBER, NO_FILE = 0x8000, 9999, -1

#: Calls that the default profile of moby allows to no container without further capabilities, with
#: arguments of which nothing can come, and the errno with which the kernel tells so. Most are refused
#: for their arguments before the kernel looks at capabilities: what stops these is the filter alone.
CALLS = (
    ("acct", (NOWHERE,), errno.EFAULT),
    ("add_key", (None, None, None, 0, 0), errno.EFAULT),
    ("bpf", (NUMBER, None, 0), errno.EINVAL),
    ("clock_settime", (NUMBER, None), errno.EINVAL),
    # Whoever makes a user namespace shares no directories with it (copy_process in kernel/fork.c).
    ("clone", (CLONE_NEWUSER | CLONE_FS | signal.SIGCHLD, 0, 0, 0, 0), errno.EINVAL),
    ("clone3", (None, 0), errno.EINVAL),
    ("delete_module", (None, 0), errno.EFAULT),
    ("fanotify_init", (0xFFFF0000, 0), errno.EINVAL),
    ("finit_module", (NO_FILE, b"", 0xFFFF), errno.EINVAL),
    ("fsconfig", (NO_FILE, 0, None, None, 0), errno.EINVAL),
    ("fsmount", (NO_FILE, BITS, 0), errno.EINVAL),
    ("fsopen", (None, BITS), errno.EINVAL),
    ("fspick", (NO_FILE, None, BITS), errno.EINVAL),
    ("get_mempolicy", (None, None, 0, 0, BITS), errno.EINVAL),
    ("init_module", (None, 0, None), errno.ENOEXEC),
    ("ioperm", (NO_FILE, 1, 1), errno.EINVAL),
    ("iopl", (NUMBER,), errno.EINVAL),
    ("kcmp", (-1, -1, 0, 0, 0), errno.ESRCH),
    ("kexec_file_load", (NO_FILE, NO_FILE, 0, None, 0xFFFF), errno.EINVAL),
    ("kexec_load", (0, 0xFFFF, None, 0xFF00), errno.EINVAL),
    ("keyctl", (NUMBER, 0, 0, 0, 0), errno.EOPNOTSUPP),
    ("lookup_dcookie", (0, None, 0), errno.EINVAL),
    ("mbind", (0, 0, NUMBER, None, 0, 0), errno.EINVAL),
    ("migrate_pages", (0, 64, NOWHERE, NOWHERE), errno.EFAULT),
    ("mount", (None, None, None, 0, None), errno.EFAULT),
    ("mount_setattr", (NO_FILE, None, 0x8, None, 0), errno.EINVAL),
    ("move_mount", (NO_FILE, None, NO_FILE, None, BITS), errno.EINVAL),
    ("move_pages", (0, 0, None, None, None, BITS), errno.EINVAL),
    ("open_by_handle_at", (NO_FILE, None, 0), errno.EBADF),
    ("open_tree", (NO_FILE, None, 0x8), errno.EINVAL),
    ("perf_event_open", (None, 0, -1, -1, BITS), errno.EINVAL),
    # Succeeds, for this process alone.
    ("personality", (ADDR_NO_RANDOMIZE,), 0),
    ("pidfd_getfd", (NO_FILE, NO_FILE, 1), errno.EINVAL),
    ("pivot_root", (None, None), errno.EFAULT),
    ("process_madvise", (NO_FILE, None, 0, 0, 1), errno.EINVAL),
    ("quotactl", (0xFFFF, None, 0, None), errno.EINVAL),
    ("quotactl_fd", (NO_FILE, 0xFFFF, 0, None), errno.EBADF),
    ("reboot", (0, 0, 0, None), errno.EINVAL),
    ("request_key", (None, None, None, 0), errno.EFAULT),
    ("set_mempolicy", (NUMBER, None, 0), errno.EINVAL),
    ("set_mempolicy_home_node", (0, 0, 0, 1), errno.EINVAL),
    ("setdomainname", (None, -1), errno.EINVAL),
    ("sethostname", (None, -1), errno.EINVAL),
    ("setns", (NO_FILE, 0), errno.EBADF),
    ("settimeofday", (NOWHERE, None), errno.EFAULT),
    ("swapoff", (NOWHERE,), errno.EFAULT),
    ("swapon", (NOWHERE, 0x100000), errno.EINVAL),
    ("sysfs", (NUMBER,), errno.EINVAL),
    ("syslog", (NUMBER, None, 0), errno.EINVAL),
    ("umount2", (None, BITS), errno.EINVAL),
    ("unshare", (CLONE_NEWUSER | 1,), errno.EINVAL),
    ("uselib", (None,), errno.EFAULT),
    ("userfaultfd", (USER_MODE_ONLY | BITS,), errno.EINVAL),
    ("ustat", (0, None), errno.EINVAL),
)

#: Answered with ENOSYS by the filter, which cannot see the flags of the call, so that libraries use
#: clone instead. Elsewhere ENOSYS says that the kernel has no such call.
ANSWERED_ENOSYS = ("clone3",)


def attack():
    """Make each call once."""
    tries = []
    for name, arguments, past in CALLS:
        guards, absent = GUARDS, (errno.ENOSYS,)
        if name in ANSWERED_ENOSYS:
            guards, absent = (*GUARDS, errno.ENOSYS), ()
        call = functools.partial(_call, name, arguments)
        tries.append(attempt(name, call, (past, errno.EFAULT), guards, absent))
    return tries


def _call(name, arguments):
    """Make a call whose result is no file to close."""
    syscall(name, *arguments)
