"""
title: A program with the setuid bit leaves no memory behind
topic: kernel
why: The core dump of a program that ran as root holds what only root may read, and belongs to who started it.
stopped_by: fs.suid_dumpable; earlier still no-new-privileges
checks: ["2.15", BH-23]
variables: [docker_daemon_no_new_privileges, docker_kernel_sysctls]
unnoticed: A program that ends with a dump is an accident far more often than an attack.
unshown: Only the host's setting decides, and kernels start with 0. With 1 it breaches in every container.
"""

import subprocess

from proof import BREACHED, HELD, SETUID_PYTHON, Try, as_user, read

ASK = "import ctypes, os; print(os.geteuid(), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"


def attack():
    """Start such a program as a user and ask what the kernel would do if it died; it does not die.

    A real dump could end in a handler of the host's.
    """
    return as_user(lambda: [ask()])


def ask():
    """PR_GET_DUMPABLE: 0 never, 1 for the user, 2 for root alone."""
    command = [SETUID_PYTHON, "-I", "-S", "-B", "-c", ASK]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=15).stdout
    identity, dumpable = (int(text) for text in said.split())
    what = "have the memory of a setuid program written to a file"
    if identity != 0:
        return Try(what, HELD, "it did not become root")
    pattern = (read("/proc/sys/kernel/core_pattern") or "?").strip()
    detail = "dumpable %d, core_pattern %s" % (dumpable, pattern)
    return Try(what, BREACHED if dumpable == 1 else HELD, detail)
