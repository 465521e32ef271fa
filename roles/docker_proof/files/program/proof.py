# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What attacks share: tries, system calls and what the container knows of itself.

Runs inside the container with nothing but the standard library, Python 3.9 or newer. A try ends in one
of these:

``held``: a guard refused it, and nothing was done. ``breached``: the call got past the guard, which is
shown by an error that only comes behind it (EINVAL, EFAULT, ENOEXEC) or by an open that succeeded; what
it would do is not done. ``not_applicable``: this kernel or container has nothing to try it on.
``error``: neither can be said.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import socket
import typing

HELD, BREACHED, NOT_APPLICABLE, ERROR = "held", "breached", "not_applicable", "error"


class Try(typing.NamedTuple):
    """One thing that was tried.

    :param what: the try in words.
    :param outcome: one of the four.
    :param detail: what happened: the name of the errno, a number.
    """

    what: str
    outcome: str
    detail: str = ""


#: What guards answer: capabilities, LSMs and seccomp with the first two, read-only mounts with the third.
GUARDS = (errno.EPERM, errno.EACCES, errno.EROFS)

#: What the engine told the container: ``scratch`` (a directory bound from the host), ``neighbour``
#: (``{name, address}``), ``gateway``, ``limits``. See docs/reference/attacks.md.
CONTEXT = json.loads(os.environ.get("BULKHEAD_PROOF", "{}"))


def name_of(number: int | None) -> str:
    """Return the name of an errno, for people."""
    return errno.errorcode.get(number or 0, str(number))


def attempt(
    what: str,
    call: typing.Callable[[], typing.Any],
    past: typing.Container[int] = (),
    guards: typing.Container[int] = GUARDS,
    absent: typing.Container[int] = (),
) -> Try:
    """Try a call and tell how it went.

    :param call: raises OSError when it is refused. A whole number that it returns is closed as a file
        descriptor.
    :param past: errnos that come from behind the guard: the permission was there.
    :param guards: errnos with which the guard answers.
    :param absent: errnos that say that there is nothing to try it on.
    """
    try:
        result = call()
    except NotImplementedError:
        return Try(what, NOT_APPLICABLE, "this architecture has no such call")
    except OSError as exc:
        name = name_of(exc.errno)
        if exc.errno in past:
            return Try(what, BREACHED, name + ", which comes from behind the guard")
        if exc.errno in guards:
            return Try(what, HELD, name)
        if exc.errno in absent:
            return Try(what, NOT_APPLICABLE, name)
        return Try(what, ERROR, name)
    if isinstance(result, int) and not isinstance(result, bool) and result > 2:
        os.close(result)
    return Try(what, BREACHED, "it succeeded")


# -- system calls --------------------------------------------------------------------------------
# Numbers on x86_64 (arch/x86/entry/syscalls/syscall_64.tbl) and on architectures with the generic
# table (include/uapi/asm-generic/unistd.h). None: not there.
NUMBERS = {
    "ptrace": (101, 117),
    "clone": (56, 220),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "quotactl": (179, 60),
    "clock_settime": (227, 112),
    "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "acct": (163, 89),
    "iopl": (172, None),
    "ioperm": (173, None),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "get_mempolicy": (239, 236),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "lookup_dcookie": (212, 18),
    "unshare": (272, 97),
    "vmsplice": (278, 75),
    "perf_event_open": (298, 241),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "finit_module": (313, 273),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "syslog": (103, 116),
    "personality": (135, 92),
    "ustat": (136, None),
    "sysfs": (139, None),
    "uselib": (134, None),
    "vhangup": (153, 58),
    "nfsservctl": (180, 42),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "pidfd_getfd": (438, 438),
    "clone3": (435, 435),
    "process_madvise": (440, 440),
    "mount_setattr": (442, 442),
    "quotactl_fd": (443, 443),
    "set_mempolicy_home_node": (450, 450),
    "memfd_create": (319, 279),
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def syscall(name: str, *arguments: int | ctypes.Array[typing.Any] | bytes | None) -> int:
    """Make a system call by name; raise OSError with its errno.

    :raises NotImplementedError: this architecture has no such call.
    """
    column = 0 if platform.machine() == "x86_64" else 1
    number = NUMBERS[name][column]
    if number is None:
        raise NotImplementedError(name)
    whole = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    ctypes.set_errno(0)
    result: int = _libc.syscall(ctypes.c_long(number), *whole)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


# -- tasks ---------------------------------------------------------------------------------------
def start_tasks(most: int) -> tuple[int, int]:
    """Start tasks that wait until the process is killed; return how many there are, and why no more.

    Threads: the PIDs controller and RLIMIT_NPROC count them like processes, and they take less of the
    machine.

    :param most: as many as this process may have, itself included.
    :returns: the number of tasks, and the errno that refused the next one, or 0.
    """
    attributes, identity, started, refused = ctypes.create_string_buffer(64), ctypes.c_ulong(), 1, 0
    _libc.pthread_attr_init(attributes)
    # As small as pthread_attr_setstacksize(3) allows: memory is not what this is about.
    _libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(16384))
    while started < most and not refused:
        refused = _libc.pthread_create(ctypes.byref(identity), attributes, _libc.pause, None)
        started += not refused
    return started, refused


# -- the container itself ------------------------------------------------------------------------
def status() -> dict[str, str]:
    """Return the fields of /proc/self/status."""
    with open("/proc/self/status") as stream:
        return dict(line.rstrip("\n").split(":\t", 1) for line in stream if ":\t" in line)


def has_capability(bit: int) -> bool:
    """Tell whether the effective set has the capability with that number."""
    return bool(int(status()["CapEff"], 16) >> bit & 1)


def selinux_label() -> str | None:
    """Return the container's label; None where the kernel runs without SELinux."""
    label = (read("/proc/self/attr/current") or "").strip("\0\n")
    return label if label.count(":") >= 3 else None


def read(path: str) -> str | None:
    """Return the text of a file, or None when it cannot be read."""
    try:
        with open(path) as stream:
            return stream.read()
    except OSError:
        return None


def lacks_apparmor() -> list[Try]:
    """Return a try that is not applicable where the kernel has no AppArmor, else none."""
    if read("/proc/self/attr/apparmor/current") is not None:
        return []
    return [Try("be confined by AppArmor", NOT_APPLICABLE, "the kernel has no AppArmor")]


# -- pieces of attacks ---------------------------------------------------------------------------
def open_for_writing(path: str) -> Try:
    """Open a file of the kernel's for writing, and close it: nothing is written."""
    return attempt(
        "open %s for writing" % path, lambda: os.open(path, os.O_WRONLY), absent=(errno.ENOENT,)
    )


def works(what: str, call: typing.Callable[[], typing.Any]) -> Try:
    """Do a piece of ordinary work; whatever refuses it is a guard that goes too far.

    :param call: raises OSError or ValueError when the work cannot be done.
    """
    try:
        call()
    except (OSError, ValueError) as exc:
        return Try(what, HELD, str(exc))
    return Try(what, BREACHED, "done")


#: User and group id of the ordinary user of the image.
USER = 4242

#: A copy of the interpreter that belongs to root and has the setuid bit.
SETUID_PYTHON = os.path.join(os.path.dirname(os.path.abspath(__file__)), "setuid-python")


def become_user() -> None:
    """Turn this process into one of the ordinary user, as if that user had started it.

    Changing ids took away that others of the same user may look at it; PR_SET_DUMPABLE gives it back.
    """
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    _libc.prctl(4, 1, 0, 0, 0)


def fork(function: typing.Callable[[], typing.Any]) -> int:
    """Run a function in a process that ends with it, however it ends; return the process's id."""
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(0)
    return child


def as_user(function: typing.Callable[[], list[Try]]) -> list[Try]:
    """Run a function as the ordinary user, in a process of its own, and return its tries.

    :raises RuntimeError: it ended without an answer.
    """
    reader, writer = os.pipe()

    def answer() -> None:
        try:
            become_user()
            said: dict[str, typing.Any] = {"tries": function()}
        except Exception as exc:
            said = {"error": "%s: %s" % (type(exc).__name__, exc)}
        os.write(writer, json.dumps(said).encode())

    child = fork(answer)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = json.loads(stream.read() or '{"error": "it ended without an answer"}')
    os.waitpid(child, 0)
    if "error" in said:
        raise RuntimeError(said["error"])
    return [Try(*item) for item in said["tries"]]


#: What a connection ends with that gets to nobody.
UNREACHED = (errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)

#: Where neighbours listen.
PORT = 8080


def connect(address: str, port: int, seconds: float = 3.0) -> socket.socket:
    """Connect by TCP.

    :raises OSError: also when the time is over, which has an errno then.
    """
    try:
        return socket.create_connection((address, port), seconds)
    except socket.timeout:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


def listen(ready: typing.Callable[[], None]) -> None:
    """Be a neighbour: accept every connection to PORT and end it."""
    with socket.create_server(("", PORT)) as listener:
        ready()
        while True:
            listener.accept()[0].close()


def ask_ping(what: str, connected: typing.Callable[[], socket.socket]) -> Try:
    """Ask the Engine API for /_ping, which changes nothing: an answer is as good as root on the host.

    :param connected: returns a connected socket, or raises OSError.
    """
    try:
        with connected() as stream:
            stream.settimeout(5)
            stream.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            said = stream.recv(200).split(b"\r\n")[0].decode("latin-1")
    except OSError as exc:
        return Try(what, HELD, name_of(exc.errno) if exc.errno else "no answer in time")
    return Try(what, BREACHED if " 200 " in said else HELD, said or "an empty answer")
