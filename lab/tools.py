"""Programs that the lab calls, and the Debian packages that bring them."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import LabError

#: Program -> Debian package that has it. Those outside the package list serve single features.
PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "tar": "tar",
    "fakeroot": "fakeroot",
}

# ECMA-48 control sequences, and the two-character escapes of terminals.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[ -/]*[0-~])")

# Administrators' programs are not on every user's PATH.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def find(*names: str) -> list[str]:
    """Return the path of each program. Raises LabError that names all missing ones at once."""
    found = {name: shutil.which(name, path=_SEARCH_PATH) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        packages = sorted({PACKAGES.get(name, name) for name in missing})
        raise LabError(
            f"not installed: {', '.join(missing)}. On Debian: apt-get install {' '.join(packages)}"
        )
    return [path for path in found.values() if path is not None]


def say(message: str) -> None:
    """Tell the user how far we are, on stderr: stdout is for answers."""
    print(f"lab: {message}", file=sys.stderr, flush=True)


def random_hex(size: int) -> str:
    """Return ``size`` random bytes in hexadecimal."""
    return secrets.token_hex(size)


def tail(path: Path, lines: int = 40, since: int = 0) -> str:
    """Return the last lines of a log, or a note that there is none.

    :param since: leave out what comes before this offset in bytes.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(since, stream.tell() - 256 * 1024))
            data = stream.read()
    except OSError as error:
        return f"({path}: {error.strerror})"
    # A console speaks to a terminal: keep what is readable, drop colours and cursor movements.
    text = _ESCAPES.sub("", data.decode("utf-8", "replace").replace("\r", "\n"))
    readable = "".join(c if c == "\n" or c == "\t" or c.isprintable() else "" for c in text)
    return "\n".join([line for line in readable.splitlines() if line][-lines:]) or "(empty)"


def run(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run a program to its end, its output appended to ``log``.

    Raises LabError with the end of the log when it fails. When this process is interrupted the
    program is ended first (politely: mmdebstrap then undoes its mounts).
    """
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": _SEARCH_PATH, "LC_ALL": "C.UTF-8", **(environment or {})},
            start_new_session=True,
        )
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
    if code != 0:
        name = Path(str(command[0])).name
        raise LabError(f"{name} failed with code {code}; the end of its output:\n{tail(log)}")
