"""
title: A container does not put itself before others
topic: capabilities
why: Work with a higher priority than the host's own starves it; real-time work stops it.
stopped_by: the missing capability SYS_NICE
checks: ["5.4"]
unnoticed: The stable set has no rule about these calls, and ordinary programs make them too.
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import os

from proof import attempt


def attack():
    """Raise the priority of this process by one."""
    return [
        attempt(
            "raise the own priority",
            lambda: os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) - 1),
        )
    ]
