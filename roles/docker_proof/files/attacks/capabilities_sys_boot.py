"""
title: A container does not restart the host or load another kernel
topic: capabilities
why: It would stop everybody, or go on with a kernel of the attacker's choice.
stopped_by: the missing capability SYS_BOOT, and the system call filter
checks: ["5.4"]
variables: [docker_daemon_seccomp_profile]
unnoticed: The stable set has no rule about these calls, and a refusal of them is all that there is to see.
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import errno

from proof import attempt, syscall


def attack():
    """Call with arguments that nothing can come of: no magic numbers, no segments, unknown flags.

    The kernel looks at the permission first and at those afterwards.
    """
    past = (errno.EINVAL,)
    return [
        attempt("restart the host", lambda: syscall("reboot", 0, 0, 0, None), past),
        attempt(
            "load a kernel (kexec_load)",
            lambda: syscall("kexec_load", 0, 0xFFFF, None, 0xFF00),
            past,
        ),
        attempt(
            "load a kernel (kexec_file_load)",
            lambda: syscall("kexec_file_load", -1, -1, 0, None, 0xFFFF),
            past,
        ),
    ]
