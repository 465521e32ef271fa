"""Checkpoints: a host of a kind that has just finished booting, saved with its memory.

A boot under emulation takes a minute, waking a saved machine three seconds. A checkpoint is part of
its image: it belongs to one image, one QEMU and one size of machine, and never changes.

A host that was woken differs from one that booted in this: it has in common with its siblings the
machine id, the boot id (until it reboots) and docker's engine id. Clock, host name and random
numbers are set right before anybody may use it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import boot, emulator, hosts, images, qemu, tools
from .errors import LabError

#: Raise it when QEMU's command line changes, so that it no longer fits what was saved.
FORMAT_VERSION = 1

# Puts into the page cache what nearly every test uses, and everything dirty on disk.
_PREPARE = "docker info >/dev/null && python3 -c 'import json, ssl, http.client' && sync && sleep 5"


def ensure(image: images.Image, memory: int, cpus: int) -> Path | None:
    """Return the checkpoint of an image for that size of machine, made first if need be.

    None where booting is quick enough: with a real processor. Raises LabError when the host to
    save does not come up.
    """
    if emulator.kvm():
        return None
    append = " ".join(image.kind.append)
    identity = f"{FORMAT_VERSION} {emulator.version()} {memory} {cpus} {append}"
    name = f"checkpoint-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    directory = image.directory / name
    with images.locked(image):
        if not directory.exists():
            _make(image, directory, memory, cpus)
    return directory


def _make(image: images.Image, directory: Path, memory: int, cpus: int) -> None:
    """Boot a host, save it, and put what was saved in place in one step."""
    tools.say(f"{image.kind.name}: booting once, to save a host that has booted")
    spec = hosts.Spec(f"checkpoint-{image.kind.name}", image.kind.name, memory, cpus)
    for leftover in [host for host in hosts.load_all() if host.name == spec.name]:
        hosts.remove(leftover)  # of a build that was killed; nobody else holds the lock
    (host,) = hosts.create([(spec, image, None)])
    scratch = Path(tempfile.mkdtemp(prefix=".checkpoint-", dir=directory.parent))
    try:
        boot.boot([host], boot.DEADLINE)
        if host.failed_units:
            raise LabError(f"failed units in {image.kind.name}: {' '.join(host.failed_units)}")
        subprocess.run([*hosts.ssh_command(host), _PREPARE], check=True, stdin=subprocess.DEVNULL)
        control = qemu.Control(host)
        control.save_memory(scratch / "memory")
        control.close()
        hosts.stop(host)
        os.replace(host.disk, scratch / "disk.qcow2")
        os.replace(scratch, directory)
    except subprocess.CalledProcessError as error:
        raise LabError(f"{host.name}: could not be prepared: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        hosts.remove(host)
