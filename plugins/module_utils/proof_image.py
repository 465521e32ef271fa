# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The image that attacks run in: the host's own Python, its libraries, and the programs.

Nothing is pulled and nothing is compiled: a Python that runs Ansible's modules is on every host. What
it needs is asked of itself, in a process of its own: the files of the modules that the programs import,
and what the dynamic linker mapped.
"""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import tarfile
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError

#: Where the programs lie in the image.
PROGRAMS = "/proof"

#: A copy of the interpreter that belongs to root and has the setuid bit.
SETUID_PYTHON = PROGRAMS + "/setuid-python"

#: Modules that programs may import. What these need comes along.
MODULES = (
    *("__future__", "array", "contextlib", "ctypes", "errno", "fcntl", "functools", "json", "mmap"),
    *("importlib.util", "os", "platform", "random", "resource", "select", "signal", "socket"),
    *(
        "stat",
        "struct",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "traceback",
        "typing",
    ),
    *("encodings.ascii", "encodings.utf_8", "encodings.idna", "encodings.latin_1", "stringprep"),
)

_ASK = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
files = set()
for module in list(sys.modules.values()):
    for name in ("__file__", "__cached__"):
        path = getattr(module, name, None)
        if isinstance(path, str):
            files.add(path)
maps = set()
for line in open("/proc/self/maps"):
    fields = line.rstrip("\\n").split(None, 5)
    if len(fields) == 6 and fields[5].startswith("/"):
        maps.add(fields[5])
print(json.dumps([sorted(files), sorted(maps)]))
"""

#: Directories that lead to others on a merged system.
_TOP_LINKS = ("bin", "lib", "lib64", "lib32", "sbin")


class Interpreter(typing.NamedTuple):
    """A Python and all that it needs.

    :param path: the executable, no link.
    :param files: absolute paths of regular files, without the executable.
    """

    path: str
    files: list[str]


def find(host: Host, executable: str | None = None) -> Interpreter:
    """Ask a Python what it is made of.

    :param executable: default: the one that runs this.
    :raises HostError: it does not answer.
    """
    path = os.path.realpath(executable or sys.executable)
    # Without -B it would leave what it compiled on the host.
    done = host.run([path, "-I", "-S", "-B", "-c", _ASK, json.dumps(MODULES)])
    if done.rc != 0:
        raise HostError("%s cannot be asked what it needs: %s" % (path, done.err.strip()[-300:]))
    modules, mapped = json.loads(done.out)
    wanted = {os.path.abspath(name) for name in [*modules, *mapped]}
    files = sorted(name for name in wanted if name != path and os.path.isfile(name))
    return Interpreter(path, files)


def archive(python: Interpreter, programs: typing.Iterable[tuple[str, str]]) -> bytes:
    """Return a tar archive of the image's root directory.

    :param programs: name and text of each file to put into ``/proof``.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tree = _Tree(tar)
        for name in ("tmp", "proc", "sys", "dev", "etc", "root", "run"):
            tree.directory("/" + name, 0o1777 if name == "tmp" else 0o755)
        for top in _TOP_LINKS:
            if os.path.islink("/" + top):
                tree.link("/" + top, os.readlink("/" + top))
        tree.content("/etc/passwd", b"root:x:0:0:root:/root:/\nuser:x:4242:4242::/tmp:/\n")
        tree.content("/etc/group", b"root:x:0:\nuser:x:4242:\n")
        tree.copy(python.path, python.path, 0o755)
        tree.copy(python.path, SETUID_PYTHON, 0o4755)
        for path in python.files:
            tree.copy(path, path, 0o755 if ".so" in os.path.basename(path) else 0o644)
        for link, target in _links(python):
            tree.link(link, target)
        for name, text in programs:
            tree.content("%s/%s" % (PROGRAMS, name), text.encode())
    return stream.getvalue()


def command(python: Interpreter) -> list[str]:
    """Return the image's entry point: the interpreter, isolated, and the program that runs attacks."""
    return [python.path, "-I", "-S", "-B", PROGRAMS + "/run.py"]


def _links(python: Interpreter) -> list[tuple[str, str]]:
    """Return the links by which the linker finds libraries: in their directories, to one of them."""
    wanted = set(python.files)
    found = []
    for folder in sorted({os.path.dirname(path) for path in python.files if ".so" in path}):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink() and os.path.realpath(entry.path) in wanted:
                    found.append((entry.path, os.path.realpath(entry.path)))
    # What executables name as their interpreter (PT_INTERP).
    linkers = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
    found += [(path, os.path.realpath(path)) for path in linkers if os.path.islink(path)]
    return sorted(set(found))


class _Tree:
    """Writes entries whose directories exist, below a root, by paths without links."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._known: set[str] = {"/"}

    def _entry(self, path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.type, entry.mode = kind, mode
        return entry

    def directory(self, path: str, mode: int = 0o755) -> None:
        if path in self._known:
            return
        self.directory(os.path.dirname(path))
        self._known.add(path)
        self._tar.addfile(self._entry(path, tarfile.DIRTYPE, mode))

    def _place(self, path: str) -> str | None:
        """Return where a path goes once the links above it are followed; None when it is there."""
        folder = os.path.realpath(os.path.dirname(path))
        path = os.path.join(folder, os.path.basename(path))
        if path in self._known:
            return None
        self.directory(folder)
        self._known.add(path)
        return path

    def link(self, path: str, target: str) -> None:
        place = self._place(path)
        if place is not None:
            entry = self._entry(place, tarfile.SYMTYPE, 0o777)
            entry.linkname = target
            self._tar.addfile(entry)

    def content(self, path: str, data: bytes) -> None:
        place = self._place(path)
        if place is not None:
            entry = self._entry(place, tarfile.REGTYPE, 0o644)
            entry.size = len(data)
            self._tar.addfile(entry, io.BytesIO(data))

    def copy(self, source: str, path: str, mode: int) -> None:
        place = self._place(path)
        if place is None:
            return
        with open(source, "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                return
            entry = self._entry(place, tarfile.REGTYPE, mode)
            # Compiled modules count only beside sources of the same age.
            entry.size, entry.mtime = status.st_size, int(status.st_mtime)
            self._tar.addfile(entry, stream)
