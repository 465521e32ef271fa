"""
title: A container does not set the clock
topic: capabilities
why: The clock is the host's and everybody's; who sets it revives expired certificates and blurs logs.
stopped_by: the missing capability SYS_TIME, and for some calls the system call filter
checks: ["5.4"]
unnoticed: The stable set has no rule about these calls, and a refusal of them is all that there is to see.
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import ctypes
import errno
import struct

from proof import attempt, syscall

ADJ_TICK = 0x4000
CLOCK_REALTIME = 0


def attack():
    """Ask for a tick of 0, which the kernel refuses only to those who may set one.

    Setting the time itself cannot be shown without doing it: its arguments are checked first.
    """
    # struct timex of 64-bit systems: modes at 0, tick at 88, 208 bytes (include/uapi/linux/timex.h)
    wanted = ctypes.create_string_buffer(struct.pack("I204x", ADJ_TICK))
    past = (errno.EINVAL,)
    return [
        attempt("adjust the clock (adjtimex)", lambda: syscall("adjtimex", wanted), past),
        attempt(
            "adjust the clock (clock_adjtime)",
            lambda: syscall("clock_adjtime", CLOCK_REALTIME, wanted),
            past,
        ),
    ]
