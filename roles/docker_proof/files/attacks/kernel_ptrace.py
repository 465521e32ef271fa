"""
title: A process does not take over another of the same user
topic: kernel
why: One broken program of a user reads the keys out of the memory of all others of that user.
stopped_by: kernel.yama.ptrace_scope
checks: [BH-21]
variables: [docker_kernel_sysctls]
falco: PTRACE attached to process
weakened: {security_opt: [seccomp=unconfined, apparmor=unconfined, label=disable]}
unshown: Only the host's setting decides. With 0 it breaches in every container, else it holds in all.
"""

import os
import signal

from proof import as_user, attempt, become_user, fork, syscall

PTRACE_SEIZE = 0x4206


def attack():
    """Start two processes of one user, neither the other's parent, and let one seize the other."""
    reader, writer = os.pipe()

    def wait():
        become_user()
        os.write(writer, b".")
        signal.pause()

    victim = fork(wait)
    os.close(writer)
    os.read(reader, 1)
    try:
        return as_user(
            lambda: [
                attempt("open its memory", lambda: os.open("/proc/%d/mem" % victim, os.O_RDWR)),
                attempt("trace it", lambda: syscall("ptrace", PTRACE_SEIZE, victim, None, None)),
            ]
        )
    finally:
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
