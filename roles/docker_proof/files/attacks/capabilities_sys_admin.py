"""
title: A container mounts nothing
topic: capabilities
why: With CAP_SYS_ADMIN a container uncovers hidden paths of /proc, and mounts disks and control groups.
stopped_by: the missing capability SYS_ADMIN, the system call filter and AppArmor
checks: ["5.4"]
variables: [docker_daemon_seccomp_profile]
falco: Bulkhead mount in a container
weakened:
  cap_add: [ALL]
  security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]
  userns_mode: host
"""

import errno

from proof import attempt, syscall

#: A directory of the image that no mount is at.
PLACE = b"/proof"


def attack():
    """Mount without a type, unmount what is not mounted, change to a root that is no mount."""
    past = (errno.EINVAL, errno.EBUSY)
    return [
        attempt("mount a file system", lambda: syscall("mount", None, PLACE, None, 0, None), past),
        attempt("unmount a file system", lambda: syscall("umount2", PLACE, 0), past),
        attempt("change the root of mounts", lambda: syscall("pivot_root", PLACE, PLACE), past),
    ]
