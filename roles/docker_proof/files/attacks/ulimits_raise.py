"""
title: A container does not raise its own limits
topic: ulimits
why: Limits that those can lift who are kept by them are none.
stopped_by: the missing capability SYS_RESOURCE
checks: ["5.4", "5.19"]
unnoticed: The stable set has no rule about these calls, and ordinary programs make them too.
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import functools
import resource

from proof import NOT_APPLICABLE, Try, attempt

#: Limits that the kernel sets for everybody, in the order in which they are looked at.
LIMITS = ("RLIMIT_MSGQUEUE", "RLIMIT_MEMLOCK", "RLIMIT_SIGPENDING")


def attack():
    """Raise one hard limit of this process by one."""
    for name in LIMITS:
        kind = getattr(resource, name)
        soft, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            call = functools.partial(resource.prlimit, 0, kind, (soft, hard + 1))
            return [attempt("raise the hard limit %s" % name, call)]
    return [Try("raise a hard limit", NOT_APPLICABLE, "there is none")]
