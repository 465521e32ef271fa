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

    def lstat(self, path: str) -> os.stat_result | None:
        """Return the stat of ``path`` itself (links are not followed), or None when absent."""
        try:
            return os.lstat(self.path(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

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
