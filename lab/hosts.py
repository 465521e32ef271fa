"""What is known about each host, kept on disk: ``<state>/<id>/meta.json`` and logs beside it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import images, paths, processes, tools
from .errors import LabError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")

#: What the user-mode network forwards from, and what hosts listen on there.
ADDRESS = "127.0.0.1"


@dataclasses.dataclass(frozen=True)
class Spec:
    """A host that is wanted. ``memory`` in MiB."""

    name: str
    kind: str = "trixie"
    memory: int = 1536
    cpus: int = 2

    def check(self) -> None:
        """Raise LabError for a name or a size that cannot work."""
        if not _NAME.fullmatch(self.name) or self.name.endswith("-"):
            raise LabError(
                f"host name {self.name!r}: use lower case letters, digits and '-', "
                "a letter first, at most 40"
            )
        if self.memory < 256:
            raise LabError(f"host {self.name}: {self.memory} MiB of memory is too little (256)")
        if self.cpus < 1:
            raise LabError(f"host {self.name}: needs at least one cpu")


@dataclasses.dataclass
class Host:
    """A host that exists, running or not."""

    id: str
    name: str
    kind: str
    memory: int
    cpus: int
    image: str
    append: list[str]
    created_at: float
    port: int = 0
    started_at: float | None = None
    process: processes.Identity | None = None
    ready: bool = False

    # -- where its things are -------------------------------------------------------------------
    @property
    def directory(self) -> Path:
        return paths.state_dir() / self.id

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def qemu_log(self) -> Path:
        return self.directory / "qemu.log"

    @property
    def storage(self) -> Path:
        return images.overlays_dir() / self.id

    @property
    def disk(self) -> Path:
        return self.storage / "disk.qcow2"

    @property
    def marker(self) -> str:
        """What is found on the command line of this host's QEMU and on no other's."""
        return f"bulkhead-lab/{self.id}"

    # -- what it is doing -------------------------------------------------------------------------
    @property
    def running(self) -> bool:
        return self.process is not None and processes.alive(self.process)

    @property
    def state(self) -> str:
        if not self.running:
            return "stopped"
        return "running" if self.ready else "starting"

    def save(self) -> None:
        document = json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)
        paths.write_atomically(self.directory / "meta.json", document + "\n")

    def summary(self) -> dict[str, Any]:
        """Return what others need to know: shape of ``up --json`` and ``list --json``."""
        state = self.state
        started = self.started_at if state != "stopped" else None
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "state": state,
            "address": ADDRESS,
            "port": self.port,
            "user": "root",
            "key": str(images.key_path()),
            "memory": self.memory,
            "cpus": self.cpus,
            "uptime": None if started is None else round(time.time() - started),
            "console": str(self.console),
        }


def load_all() -> list[Host]:
    """Return every host of this state directory, oldest first."""
    found = []
    for meta in paths.state_dir().glob("*/meta.json"):
        try:
            document = json.loads(meta.read_text(encoding="utf-8"))
        except FileNotFoundError:  # removed by a concurrent `down`
            continue
        except ValueError as error:
            raise LabError(f"{meta} is damaged: {error}") from error
        process = document.pop("process")
        identity = processes.Identity(**process) if process else None
        found.append(Host(**document, process=identity))
    return sorted(found, key=lambda host: (host.created_at, host.name))


def find(wanted: str, hosts: Iterable[Host] | None = None) -> Host:
    """Return the host of that id or name. Raises LabError that lists those that exist."""
    known = load_all() if hosts is None else list(hosts)
    for host in known:
        if wanted in (host.id, host.name):
            return host
    names = ", ".join(host.name for host in known) or "none"
    raise LabError(f"no host {wanted!r}; existing: {names}")


def create(specs: Iterable[Spec]) -> list[Host]:
    """Claim the names of new hosts, all or none, and record the hosts as stopped.

    Raises LabError when a name is taken in this state directory or given twice.
    """
    wanted = list(specs)
    for spec in wanted:
        spec.check()
    built = {kind: images.ensure(kind) for kind in {spec.kind for spec in wanted}}
    created: list[Host] = []
    with paths.locked(paths.state_dir() / ".lock"), paths.locked(images.overlays_dir() / ".lock"):
        existing = {host.name: host for host in load_all()}
        for spec in wanted:
            taken = existing.get(spec.name)
            if taken is not None:
                raise LabError(
                    f"host {spec.name} exists already ({taken.id}, {taken.state}); "
                    f"run: python3 -m lab down {taken.id}"
                )
        doubled = {spec.name for spec in wanted if [s.name for s in wanted].count(spec.name) > 1}
        if doubled:
            raise LabError(f"host {min(doubled)} is named twice")
        for spec in wanted:
            image = built[spec.kind]
            host = Host(
                id=f"{spec.name}-{secrets.token_hex(3)}",
                name=spec.name,
                kind=spec.kind,
                memory=spec.memory,
                cpus=spec.cpus,
                image=str(image.directory),
                append=list(image.kind.append),
                created_at=time.time(),
            )
            created.append(host)
            host.directory.mkdir(mode=0o700)
            host.storage.mkdir()
            (host.storage / "image").symlink_to(host.image)
            (host.storage / "state").symlink_to(host.directory)
            host.save()
    return created


def remove(host: Host) -> None:
    """Stop a host if it runs and delete all that is left of it. Harmless when done twice."""
    stop(host)
    shutil.rmtree(host.storage, ignore_errors=True)
    shutil.rmtree(host.directory, ignore_errors=True)


def stop(host: Host) -> bool:
    """Cut the power of a host. Its disk stays. Returns False when it was off already.

    Raises LabError when a QEMU was started but never recorded and cannot be told for sure.
    """
    host.ready = False
    return host.process is not None and processes.kill(host.process)


def sweep() -> None:
    """Delete disks whose host's state is gone, as after a reboot that emptied /tmp."""
    with paths.locked(images.overlays_dir() / ".lock"):
        for storage in images.overlays_dir().iterdir():
            link = storage / "state"
            if link.is_symlink() and not link.exists():
                tools.say(f"removing the disk of {storage.name}, whose state is gone")
                shutil.rmtree(storage, ignore_errors=True)


def ssh_command(host: Host, *, connect_timeout: int = 10) -> list[str]:
    """Return the ssh invocation that logs in to a host as root; append a remote command.

    Host keys are not checked: the other end is a port of this machine, and it changes each time.
    """
    (ssh,) = tools.find("ssh")
    options = [
        "StrictHostKeyChecking=no",
        f"UserKnownHostsFile={os.devnull}",
        f"GlobalKnownHostsFile={os.devnull}",
        "IdentitiesOnly=yes",
        "BatchMode=yes",
        "LogLevel=ERROR",
        f"ConnectTimeout={connect_timeout}",
        "ServerAliveInterval=15",
    ]
    command = [ssh, "-F", "none", "-i", str(images.key_path()), "-p", str(host.port)]
    for option in options:
        command += ["-o", option]
    return [*command, f"root@{ADDRESS}"]
