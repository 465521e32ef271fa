"""
title: A container that has CAP_SYS_ADMIN still mounts nothing
topic: apparmor
why: With a mount a container uncovers what Docker hides of /proc, and gets at disks of the host.
stopped_by: docker-default, which denies mount and allows no pivot_root
checks: ["5.2"]
falco: Bulkhead mount in a container
options:
  cap_add: [SYS_ADMIN]
  security_opt: [seccomp=unconfined]
weakened:
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import errno

from proof import attempt, lacks_apparmor, syscall

#: A directory of the image that no mount is at.
PLACE = b"/proof"


def attack():
    """Mount without a type, and change to a root that is no mount: neither can be."""
    past = (errno.EINVAL, errno.EBUSY)
    return lacks_apparmor() or [
        attempt("mount a file system", lambda: syscall("mount", None, PLACE, None, 0, None), past),
        attempt("change the root of mounts", lambda: syscall("pivot_root", PLACE, PLACE), past),
    ]
