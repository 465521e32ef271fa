"""The lab's own QEMU, from Debian 13, kept in the cache.

Why not the system's: QEMU 7.2, which Debian 12 has, runs two emulated processors with a race. A
processor may keep executing an instruction that another one has just rewritten; Linux rewrites its
own code at boot and whenever it flips a static key, and then dies of a stray ``int3``. Seen here
in one boot of nine, and within two seconds of flipping ``kernel.sched_schedstats`` in a loop; with
10.0 3,000 flips on two busy processors did no harm. Its safe mode (``thread=single``) takes twice
as long. Unpacking the newer one takes 15 seconds, needs no root, changes nothing on the machine
and gives everybody the same emulator, which a resumed host needs anyway.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import paths, tools
from .errors import LabError
from .kinds import MIRROR

SUITE = "trixie"
_PACKAGES = ("qemu-system-x86", "qemu-utils")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = f"{_LIBRARIES}/ld-linux-x86-64.so.2"
_DATA = ("usr/share/qemu", "usr/share/seabios")


def ensure() -> Path:
    """Return the directory QEMU was unpacked to, fetching it first when the cache lacks it."""
    if platform.machine() != "x86_64":
        raise LabError(f"the lab needs an x86_64 machine, this one is {platform.machine()}")
    tree = paths.cache_dir() / "emulator" / SUITE
    with paths.locked(tree.parent / ".lock", "another fetch of QEMU"):
        if not tree.exists():
            (mmdebstrap,) = tools.find("mmdebstrap")
            tools.say(f"fetching QEMU of {SUITE}")
            with tempfile.TemporaryDirectory(prefix=".build-", dir=tree.parent) as name:
                scratch = Path(name)
                tools.run(
                    [mmdebstrap, "--variant=extract", "--format=tar"]
                    + [f"--include={','.join(_PACKAGES)}"]
                    + ['--aptopt=Acquire::Languages "none"', '--aptopt=Acquire::Retries "3"']
                    + [SUITE, str(scratch / "tree.tar")]
                    + [os.environ.get("BULKHEAD_LAB_MIRROR") or MIRROR],
                    scratch / "log",
                )
                (scratch / "tree").mkdir()
                tools.run(
                    ["tar", "-x", "--no-same-owner", "--exclude=./dev/*"]
                    + ["-f", str(scratch / "tree.tar"), "-C", str(scratch / "tree")],
                    scratch / "log",
                )
                shutil.move(scratch / "tree", tree)
    return tree


def command(program: str) -> list[str]:
    """Return how to call one of QEMU's programs: with the C library it came with."""
    tree = ensure()
    call = [str(tree / _LOADER), "--library-path", str(tree / _LIBRARIES)]
    call += [str(tree / "usr/bin" / program)]
    if program.startswith("qemu-system"):
        for directory in _DATA:
            call += ["-L", str(tree / directory)]
    return call


@functools.cache
def version() -> str:
    """Return QEMU's own version line; a saved machine state belongs to exactly one."""
    call = [*command("qemu-system-x86_64"), "--version"]
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()[0]


@functools.cache
def kvm() -> bool:
    """Tell whether the real processor can run the guest.

    /dev/kvm alone proves nothing: inside another virtual machine it may open and then fail to
    run a kernel. Only a processor that shows vmx or svm is trusted with it.
    """
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
        if not flags & {"vmx", "svm"}:
            return False
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def accelerator() -> list[str]:
    """Return QEMU's options for the processor."""
    if kvm():
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]
