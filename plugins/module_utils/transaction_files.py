# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Files that a transaction reads and writes: never through a link, always whole or not at all.

Every path is walked from the root with directory descriptors and O_NOFOLLOW, so that no component
can be swapped for a link between a check and its use. New contents are written beside their target
and renamed over it. Paths are absolute, as seen on the host.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import (
    MAX_FILE_BYTES,
    Host,
    HostError,
)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_PATH opens any kind of file, sockets too, without touching it. Linux: asm-generic/fcntl.h.
_O_PATH = 0o10000000


class Meta(typing.NamedTuple):
    """What belongs to a file besides its content. Times in nanoseconds, xattrs in base64."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int
    xattrs: dict[str, str]

    def as_json(self) -> dict[str, typing.Any]:
        """Return it as a JSON object, for the journal."""
        return self._asdict()

    @classmethod
    def from_json(cls, value: dict[str, typing.Any]) -> Meta:
        """Return what :meth:`as_json` described."""
        return cls(**{name: value[name] for name in cls._fields})


#: Metadata of what only root may read.
PRIVATE = Meta(mode=0o600, uid=0, gid=0, mtime_ns=0, atime_ns=0, xattrs={})


def split(path: str) -> tuple[str, str]:
    """Return directory and name of a path."""
    return os.path.dirname(path), os.path.basename(path)


@contextlib.contextmanager
def directory(host: Host, path: str) -> typing.Iterator[int]:
    """Open a directory without following links.

    :raises HostError: a component is a link or no directory.
    :raises FileNotFoundError: a component is absent.
    """
    descriptor = os.open(host.path("/"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        done = ""
        for component in [part for part in path.split("/") if part]:
            done += "/" + component
            try:
                inner = os.open(component, _DIRECTORY, dir_fd=descriptor)
            except OSError as exc:
                if exc.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise HostError(
                        "%s is a link or no directory; Bulkhead writes through neither" % done
                    ) from exc
                raise
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def status(host: Host, path: str) -> os.stat_result | None:
    """Return the stat of a path itself, or None when it or a directory above it is absent."""
    parent, name = split(path)
    try:
        with directory(host, parent) as descriptor:
            return os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return None


def read(host: Host, path: str, limit: int = MAX_FILE_BYTES) -> tuple[bytes, Meta]:
    """Return content and metadata of a regular file, leaving its access time alone.

    :raises HostError: it is not a regular file, or larger than ``limit`` bytes.
    :raises FileNotFoundError: it is absent.
    """
    parent, name = split(path)
    with directory(host, parent) as descriptor:
        return _read_at(descriptor, name, path, limit)


def _read_at(descriptor: int, name: str, shown: str, limit: int) -> tuple[bytes, Meta]:
    kind = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    if not stat_module.S_ISREG(kind.st_mode):
        raise HostError("%s is not a regular file" % shown)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        opened = os.open(name, flags | os.O_NOATIME, dir_fd=descriptor)
    except PermissionError:
        opened = os.open(name, flags, dir_fd=descriptor)
    with os.fdopen(opened, "rb") as stream:
        st = os.fstat(stream.fileno())
        data = stream.read(limit + 1)
        if len(data) > limit:
            raise HostError("%s is larger than %d bytes" % (shown, limit))
        xattrs = _read_xattrs(stream.fileno())
    mode = stat_module.S_IMODE(st.st_mode)
    return data, Meta(mode, st.st_uid, st.st_gid, st.st_mtime_ns, st.st_atime_ns, xattrs)


def _read_xattrs(descriptor: int) -> dict[str, str]:
    """Return the extended attributes (SELinux label, access control list, ...) in base64."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listxattr(descriptor):
            with contextlib.suppress(OSError):
                found[name] = base64.b64encode(os.getxattr(descriptor, name)).decode("ascii")
    return found


def _write_xattrs(descriptor: int, xattrs: dict[str, str]) -> None:
    for name, value in sorted(xattrs.items()):
        # A label that the policy of now refuses is no reason to lose the file.
        with contextlib.suppress(OSError):
            if os.getxattr(descriptor, name) == base64.b64decode(value):
                continue
        with contextlib.suppress(OSError):
            os.setxattr(descriptor, name, base64.b64decode(value))


def _directory_label(descriptor: int) -> dict[str, str]:
    """Return the SELinux label of a directory in base64, by its attribute's name; nothing without one.

    The kernel would give a new file another one in some directories: on Debian 13 one in /etc/sysctl.d
    becomes etc_runtime_t, which systemd-sysctl may not read.
    """
    found = _read_xattrs(descriptor)
    return {name: found[name] for name in ("security.selinux",) if name in found}


def stage(host: Host, path: str, content: bytes, meta: Meta, keep_times: bool = False) -> None:
    """Write a whole new file and sync it, replacing a left-over of the same name.

    A file without recorded xattrs gets the SELinux label of its directory.
    """
    parent, name = split(path)
    with directory(host, parent) as descriptor:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=descriptor)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(name, flags, 0o600, dir_fd=descriptor), "wb") as stream:
                stream.write(content)
                stream.flush()
                opened = stream.fileno()
                os.fchown(opened, meta.uid, meta.gid)
                _write_xattrs(opened, meta.xattrs or _directory_label(descriptor))
                os.fchmod(opened, meta.mode)
                if keep_times:
                    os.utime(opened, ns=(meta.atime_ns, meta.mtime_ns))
                os.fsync(opened)
        except OSError as exc:  # a full disk: leave nothing half written, and say where
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=descriptor)
            raise OSError(exc.errno, exc.strerror, path) from exc
        os.fsync(descriptor)


def swap(host: Host, staged: str, path: str) -> None:
    """Rename a staged file over its target, in the same directory, and sync the directory."""
    parent, name = split(path)
    with directory(host, parent) as descriptor:
        os.rename(os.path.basename(staged), name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        os.fsync(descriptor)


def place(host: Host, path: str, content: bytes, meta: Meta) -> None:
    """Write a whole file, and only then put it in the place of the one that is there."""
    parent, name = split(path)
    staged = "%s/.%s.new" % (parent, name)
    stage(host, staged, content, meta)
    swap(host, staged, path)


def make_link(host: Host, target: str, path: str) -> None:
    """Make a symbolic link to a target, and sync its directory."""
    parent, name = split(path)
    with directory(host, parent) as descriptor:
        os.symlink(target, name, dir_fd=descriptor)
        os.fsync(descriptor)


def remove(host: Host, path: str) -> bool:
    """Remove a file or link; tell whether there was one."""
    parent, name = split(path)
    try:
        with directory(host, parent) as descriptor:
            os.unlink(name, dir_fd=descriptor)
            os.fsync(descriptor)
    except FileNotFoundError:
        return False
    return True


def make_directory(host: Host, path: str, mode: int) -> None:
    """Create one directory of root's; its parent must be there."""
    parent, name = split(path)
    with directory(host, parent) as descriptor:
        os.mkdir(name, 0o700, dir_fd=descriptor)
        with directory(host, path) as made:
            os.fchmod(made, mode)
            os.fsync(made)
        os.fsync(descriptor)


def remove_directory(host: Host, path: str) -> bool:
    """Remove a directory if it is empty; tell whether it is gone."""
    parent, name = split(path)
    try:
        with directory(host, parent) as descriptor:
            os.rmdir(name, dir_fd=descriptor)
            os.fsync(descriptor)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def missing_directories(host: Host, path: str) -> list[str]:
    """Return those directories above a path that are absent, the outermost first."""
    missing: list[str] = []
    parent = os.path.dirname(path)
    while parent != "/" and status(host, parent) is None:
        missing.insert(0, parent)
        parent = os.path.dirname(parent)
    return missing


def set_mode(host: Host, path: str, mode: int, uid: int, gid: int) -> None:
    """Set mode and owner of a file of any kind, a live socket too.

    :raises HostError: it is a link.
    """
    parent, name = split(path)
    with directory(host, parent) as descriptor:
        opened = os.open(name, _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        try:
            st = os.fstat(opened)
            if stat_module.S_ISLNK(st.st_mode):
                raise HostError("%s is a link; Bulkhead does not write through one" % path)
            # fchmod refuses O_PATH descriptors; their entry in /proc leads to the same inode.
            link = "/proc/self/fd/%d" % opened
            if (st.st_uid, st.st_gid) != (uid, gid):
                os.chown(link, uid, gid)
            os.chmod(link, mode)
        finally:
            os.close(opened)


def free_space(host: Host, path: str) -> tuple[int, int, bool]:
    """Return free bytes, free inodes and whether it is mounted read-only, where a path lies.

    The nearest existing directory counts. Inodes are -1 where the file system does not limit them.
    """
    while path != "/" and status(host, path) is None:
        path = os.path.dirname(path)
    with directory(host, path if _is_directory(host, path) else os.path.dirname(path)) as opened:
        vfs = os.fstatvfs(opened)
    inodes = vfs.f_favail if vfs.f_files else -1
    return vfs.f_bavail * vfs.f_frsize, inodes, bool(vfs.f_flag & os.ST_RDONLY)


def _is_directory(host: Host, path: str) -> bool:
    st = status(host, path)
    return st is not None and stat_module.S_ISDIR(st.st_mode)
