# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The host as both doors see it: a file tree, a way to run programs, and a clock.

Everything that looks at or acts on a host goes through :class:`Host`, so that tests can hand in
another root directory and another runner. Standard library only, Python 3.9.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat as stat_module
import struct
import subprocess
import time

#: Longest text that a look reads from one file, in bytes. Configuration files are far smaller.
MAX_FILE_BYTES = 4 * 1024 * 1024

_PIECE_BYTES = 256 * 1024

# linux/fs.h: FS_IOC_GETFLAGS is _IOR('f', 1, long); its size field follows the word size.
_FS_IOC_GETFLAGS = 0x80086601 if struct.calcsize("l") == 8 else 0x80046601
_FS_IMMUTABLE_FL = 0x00000010
_FS_APPEND_FL = 0x00000020

# linux/netlink.h and linux/audit.h
_NETLINK_AUDIT = 9
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NETLINK_BYTES = 64 * 1024
AUDIT_GET, AUDIT_LIST_RULES = 1000, 1013
_AUDIT_ADD_RULE, _AUDIT_DEL_RULE = 1011, 1012
_AUDIT_READS = (AUDIT_GET, AUDIT_LIST_RULES)

ABSENT = "absent"


class HostError(Exception):
    """A host could not do what was asked. The message is meant for the user."""


class Completed:
    """What a program left behind: return code and its decoded output."""

    def __init__(self, rc: int, out: str, err: str) -> None:
        self.rc = rc
        self.out = out
        self.err = err


class Host:
    """Access to a host's files and programs.

    :param root: directory that stands for ``/``; tests give a temporary one.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root

    # -- files ---------------------------------------------------------------------------------
    def path(self, path: str) -> str:
        """Return where ``path`` (absolute on the host) lies below this host's root."""
        if self.root == "/":
            return path
        return os.path.join(self.root, path.lstrip("/"))

    def _open_quietly(self, path: str, flags: int = 0) -> int:
        """Open a path for reading and return the descriptor. Raises OSError.

        Quietly: a look must not change so much as a timestamp (O_NOATIME, which only the owner and
        root may ask for), and must not wait for the other end of a FIFO (O_NONBLOCK).
        """
        flags |= os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            return os.open(self.path(path), flags | os.O_NOATIME)
        except PermissionError:
            return os.open(self.path(path), flags)

    def read_bytes(self, path: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """Read a whole file. Raises OSError, also when it is larger than ``limit`` bytes."""
        fd = self._open_quietly(path)
        data = b""
        try:
            # In pieces: /proc/sys refuses a read of 4 MiB at once (ENOMEM).
            while len(data) <= limit:
                piece = os.read(fd, min(_PIECE_BYTES, limit + 1 - len(data)))
                if not piece:
                    return data
                data += piece
        finally:
            os.close(fd)
        raise OSError(errno.EFBIG, "larger than %d bytes" % limit, path)

    def listdir(self, path: str) -> list[str]:
        """Return the sorted names in a directory. Raises OSError."""
        fd = self._open_quietly(path, os.O_DIRECTORY)
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def read_text(self, path: str, limit: int = MAX_FILE_BYTES) -> str:
        """Read a file as UTF-8, replacing what does not decode. Raises OSError."""
        return self.read_bytes(path, limit).decode("utf-8", "replace")

    def read_tail(self, path: str, limit: int) -> str:
        """Read the last ``limit`` bytes of a file as :meth:`read_text` does. Raises OSError."""
        fd = self._open_quietly(path)
        try:
            size = os.fstat(fd).st_size
            return os.pread(fd, limit, max(0, size - limit)).decode("utf-8", "replace")
        finally:
            os.close(fd)

    def lstat(self, path: str) -> os.stat_result | None:
        """Return the stat of ``path`` itself (links are not followed), or None when absent."""
        try:
            return os.lstat(self.path(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def readlink(self, path: str) -> str:
        """Return where a link points, also one of /proc. Raises OSError."""
        return os.readlink(self.path(path))

    def resolve(self, path: str) -> str | None:
        """Return an absolute path with all its links followed; what does not exist stays as it is.

        Links are followed as the host would, never out of its tree. None: they run in a circle.
        """
        done = ""
        waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        links = 0
        while waiting:
            part = waiting.pop()
            if part == "..":
                done = os.path.dirname(done)
                continue
            try:
                target = os.readlink(self.path(done + "/" + part))
            except OSError:
                done += "/" + part
                continue
            links += 1
            if links > 40:  # as many as the kernel follows
                return None
            if target.startswith("/"):
                done = ""
            waiting.extend(part for part in reversed(target.split("/")) if part not in ("", "."))
        return done or "/"

    def version(self, path: str) -> str:
        """Return an opaque token that changes whenever the file at ``path`` changes.

        Made of inode and times rather than content: it leaves the host, and a hash of a file that
        may hold a short secret would let the reader guess it.
        """
        st = self.lstat(path)
        if st is None:
            return ABSENT
        return "%x-%x-%x-%x-%x" % (st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)

    def attributes(self, path: str) -> list[str]:
        """Return those of ``immutable`` and ``append_only`` that are set on a file or directory."""
        st = self.lstat(path)
        if st is None or not (stat_module.S_ISREG(st.st_mode) or stat_module.S_ISDIR(st.st_mode)):
            return []
        try:
            fd = self._open_quietly(path, os.O_NOFOLLOW)
        except OSError:
            return []
        try:
            raw = fcntl.ioctl(fd, _FS_IOC_GETFLAGS, struct.pack("l", 0))
        except OSError:
            return []
        finally:
            os.close(fd)
        value = struct.unpack("l", raw)[0]
        found = []
        if value & _FS_IMMUTABLE_FL:
            found.append("immutable")
        if value & _FS_APPEND_FL:
            found.append("append_only")
        return found

    def xattr(self, path: str, name: str) -> bytes:
        """Return an extended attribute of a path itself. Raises OSError."""
        return os.getxattr(self.path(path), name, follow_symlinks=False)

    def write_sysctl(self, path: str, value: str) -> None:
        """Write a parameter of the kernel that is there. Raises OSError, also when it is refused."""
        fd = os.open(self.path(path), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.write(fd, (value + "\n").encode("ascii"))
        finally:
            os.close(fd)

    # -- the kernel's audit ---------------------------------------------------------------------
    def audit(self, kind: int, timeout: float = 5.0) -> list[bytes]:
        """Ask the kernel's audit subsystem and return the answers of that kind, without headers.

        :param kind: a number of a netlink message that reads: AUDIT_GET or AUDIT_LIST_RULES.
        :raises OSError: the kernel has no audit, root is needed, or no answer came in time.
        """
        if kind not in _AUDIT_READS:
            raise ValueError("audit message %d does not read" % kind)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_AUDIT) as sock:
            sock.settimeout(timeout)
            sock.bind((0, 0))
            sock.send(struct.pack("=IHHII", 16, kind, _NLM_F_REQUEST, 1, 0))
            found: list[bytes] = []
            while True:
                data = sock.recv(_NETLINK_BYTES)
                while len(data) >= 16:
                    length, answer, _, _, _ = struct.unpack_from("=IHHII", data)
                    if answer == _NLMSG_ERROR:
                        code = -struct.unpack_from("=i", data, 16)[0]
                        if code:
                            raise OSError(code, os.strerror(code))
                    elif answer == _NLMSG_DONE:
                        return found
                    elif answer == kind:
                        found.append(data[16:length])
                        if kind == AUDIT_GET:
                            return found
                    data = data[max((length + 3) & ~3, 16) :]

    def change_audit(self, rule: bytes, add: bool, timeout: float = 5.0) -> None:
        """Load one rule into the kernel's audit, or take one out.

        :param rule: a ``struct audit_rule_data``.
        :raises OSError: EEXIST and ENOENT when there was nothing to change; EPERM when the rules are
            locked; ENOENT also when the path's directory is not there.
        """
        kind = _AUDIT_ADD_RULE if add else _AUDIT_DEL_RULE
        header = struct.pack("=IHHII", 16 + len(rule), kind, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_AUDIT) as sock:
            sock.settimeout(timeout)
            sock.bind((0, 0))
            sock.send(header + rule + b"\0" * (-len(rule) % 4))
            while True:
                data = sock.recv(_NETLINK_BYTES)
                _, answer, _, sequence, _ = struct.unpack_from("=IHHII", data)
                if answer == _NLMSG_ERROR and sequence == 1:
                    code = -struct.unpack_from("=i", data, 16)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return

    # -- programs ------------------------------------------------------------------------------
    def run(self, argv: list[str], timeout: float = 60.0, stdin: bytes | None = None) -> Completed:
        """Run a program without a shell and with a fixed environment; never raises for its result.

        :param timeout: seconds after which it is killed; the return code is then 124.
        """
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
        }
        try:
            done = subprocess.run(
                argv,
                input=stdin if stdin is not None else b"",
                capture_output=True,
                timeout=timeout,
                env=environment,
                cwd="/",
                check=False,
            )
        except FileNotFoundError:
            return Completed(127, "", "%s: not found" % argv[0])
        except PermissionError:
            return Completed(126, "", "%s: not executable" % argv[0])
        except subprocess.TimeoutExpired:
            return Completed(124, "", "%s: no answer within %g s" % (argv[0], timeout))
        return Completed(
            done.returncode,
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )

    # -- time ----------------------------------------------------------------------------------
    def now(self) -> float:
        """Return the host's wall clock, in seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return a clock for durations, in seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
