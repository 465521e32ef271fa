"""Where the lab keeps things.

- cache: built images, downloaded packages, the SSH key, disk overlays. Safe to delete when no host
  exists; costs a minute to fill again. ``BULKHEAD_LAB_CACHE`` moves it.
- state: one small directory per host. ``BULKHEAD_LAB_STATE`` moves it, which also gives host names
  a scope of their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from .errors import LabError


def cache_dir() -> Path:
    """Return the cache directory, made if need be."""
    configured = os.environ.get("BULKHEAD_LAB_CACHE")
    if configured:
        path = Path(configured).absolute()
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        path = Path(base).absolute() / "bulkhead" / "lab"
    path.mkdir(parents=True, exist_ok=True)
    return path


def state_dir() -> Path:
    """Return the directory that holds one directory per host, made if need be.

    The default lies in a directory that others may write to, so it must be ours alone: a run
    state that somebody else can write could make us kill or log in to the wrong thing.
    Raises LabError when it is not.
    """
    configured = os.environ.get("BULKHEAD_LAB_STATE")
    if configured:
        path = Path(configured).absolute()
    else:
        base = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"
        path = Path(base).absolute() / f"bulkhead-lab-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise LabError(f"{path} is not a directory of this user; set BULKHEAD_LAB_STATE to one")
    if info.st_mode & 0o022:
        raise LabError(f"{path} can be written by others; run: chmod go-w {path}")
    return path


@contextlib.contextmanager
def locked(path: Path, waiting_for: str = "") -> Iterator[None]:
    """Hold an exclusive lock on the file at ``path`` (made if need be), waiting for it.

    :param waiting_for: what to tell the user when there is something to wait for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting_for:
                print(f"lab: waiting for {waiting_for}", file=sys.stderr, flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace the file at ``path`` in one step, so that no reader sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(temporary, path)
