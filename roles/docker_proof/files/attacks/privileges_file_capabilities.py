"""
title: A program with file capabilities gives no rights
topic: privileges
why: Such programs (ping, for one) give an intruder with no rights the capabilities of their files.
stopped_by: no_new_privs
checks: ["2.15", "5.26"]
variables: [docker_daemon_no_new_privileges]
unnoticed: Programs with file capabilities are part of ordinary images.
seconds: 60
weakened: {security_opt: [no-new-privileges=false]}
"""

import os
import struct
import subprocess
import sys

from proof import BREACHED, ERROR, HELD, USER, Try

PROGRAM = "/tmp/with-capabilities"

#: Revision 2, effective, CAP_NET_BIND_SERVICE (10) permitted (include/uapi/linux/capability.h).
CAPABILITIES = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)

SHOW = "print([line.split()[1] for line in open('/proc/self/status') if line[:6] == 'CapEff'][0])"


def attack():
    """Run, as an ordinary user, a program whose file has a capability."""
    what = "gain a capability from a file"
    with open(sys.executable, "rb") as source, open(PROGRAM, "wb") as target:
        target.write(source.read())
    os.chmod(PROGRAM, 0o755)
    os.setxattr(PROGRAM, "security.capability", CAPABILITIES)
    command = [PROGRAM, "-I", "-S", "-B", "-c", SHOW]
    done = subprocess.run(
        command, capture_output=True, text=True, user=USER, group=USER, extra_groups=[]
    )
    if done.returncode != 0:
        return [Try(what, ERROR, "it ended with %d: %s" % (done.returncode, done.stderr[-200:]))]
    mask = done.stdout.strip()
    return [Try(what, BREACHED if int(mask, 16) else HELD, "its capabilities are " + mask)]
