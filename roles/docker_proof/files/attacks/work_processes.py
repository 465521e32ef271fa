"""
title: Programs start, signal, thread, compile and drop their rights
topic: work
why: Runtimes of every language do.
stopped_by: a seccomp filter, a limit or a mandatory access control that goes too far
seconds: 60
"""

import ctypes
import mmap
import os
import platform
import signal
import subprocess
import sys
import threading
import time

from proof import USER, fork, works

#: A function that returns 42, by architecture: mov eax, 42; ret, and mov w0, #42; ret.
CODE = {"x86_64": "b82a000000c3", "aarch64": "40058052c0035fd6"}


def attack():
    """Do each once."""
    return [
        works("start a program and read what it says", start),
        works("end a process by SIGTERM", terminate),
        works("run threads", thread),
        works("run code that was made a moment ago", compile_code),
        works("drop to a user with further groups", drop),
    ]


def start():
    """Start the interpreter."""
    command = [sys.executable, "-I", "-S", "-B", "-c", "print(6 * 7)"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if said != "42\n":
        raise ValueError("it said %r" % said)


def expect_seven(process):
    """Wait for a process and see that it ended as it should."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code != 7:
        raise ValueError("it ended with %d" % code)


def terminate():
    """A handler runs, as with `docker stop`."""
    reader, writer = os.pipe()

    def child():
        signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
        os.write(writer, b".")
        # Not pause(2): a signal that comes just before it would be waited for in vain.
        while True:
            time.sleep(0.05)

    process = fork(child)
    os.close(writer)
    os.read(reader, 1)
    os.kill(process, signal.SIGTERM)
    expect_seven(process)


def thread():
    """As many as a small application server has."""
    done = []
    threads = [threading.Thread(target=done.append, args=(number,)) for number in range(32)]
    try:
        for item in threads:
            item.start()
    except RuntimeError as exc:
        raise ValueError(str(exc)) from exc
    for item in threads:
        item.join()


def compile_code():
    """As a just-in-time compiler does: memory that is written, then run."""
    code = bytes.fromhex(CODE[platform.machine()])
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as memory:
        memory.write(code)
        place = ctypes.c_char.from_buffer(memory)
        answer = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(place))()
        del place
    if answer != 42:
        raise ValueError("it returned %d" % answer)


def drop():
    """As su and every service manager do."""

    def child():
        os.setgroups([USER, 50, 100])
        os.setgid(USER)
        os.setuid(USER)
        os._exit(7 if (os.getuid(), sorted(os.getgroups())) == (USER, [50, 100, USER]) else 8)

    expect_seven(fork(child))
