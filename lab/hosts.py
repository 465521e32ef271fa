"""What is known about each host, kept on disk: ``<state>/<id>/meta.json`` and logs beside it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
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
    #: The host's own directory, below the state directory it was made in.
    home: str
    kind: str
    memory: int
    cpus: int
    image: str
    append: list[str]
    created_at: float
    checkpoint: str | None = None
    #: Wakes from its checkpoint at the next start, instead of booting.
    resumes: bool = False
    port: int = 0
    started_at: float | None = None
    #: Where in the console's log the present boot begins, in bytes.
    console_offset: int = 0
    process: processes.Identity | None = None
    ready: bool = False
    failed_units: list[str] = dataclasses.field(default_factory=list)

    # -- where its things are -------------------------------------------------------------------
    @property
    def directory(self) -> Path:
        return Path(self.home)

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
    def memory_state(self) -> Path:
        """What the host wakes from, where it has a checkpoint."""
        return Path(self.checkpoint or "") / "memory"

    @property
    def marker(self) -> str:
        """What is found on the command line of this host's QEMU and on no other's."""
        return _marker(self.id)

    # -- what it is doing -------------------------------------------------------------------------
    @property
    def running(self) -> bool:
        return self.process is not None and processes.alive(self.process)

    @property
    def state(self) -> str:
        if not self.running:
            return "stopped"
        return "running" if self.ready else "starting"

    def new_boot(self) -> None:
        """Note that a boot begins: what the console says from now on belongs to it."""
        self.ready = False
        self.console_offset = self.console.stat().st_size if self.console.exists() else 0

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
            "failed_units": self.failed_units,
            "uptime": None if started is None else round(time.time() - started),
            "console": str(self.console),
        }


def load_all(*, everywhere: bool = False) -> list[Host]:
    """Return every host of this state directory, oldest first.

    :param everywhere: those of other state directories too, as long as they share the cache.
    """
    homes = {meta.parent for meta in paths.state_dir().glob("*/meta.json")}
    if everywhere:
        homes |= {link.resolve() for link in images.overlays_dir().glob("*/state")}
    found = []
    for home in homes:
        meta = home / "meta.json"
        try:
            document = json.loads(meta.read_text(encoding="utf-8"))
        except FileNotFoundError:  # removed by a concurrent `down`
            continue
        except ValueError as error:
            raise LabError(f"{meta} is damaged: {error}") from error
        process = document["process"]
        identity = processes.Identity(**process) if process else None
        found.append(Host(**{**document, "home": str(home), "process": identity}))
    return sorted(found, key=lambda host: (host.created_at, host.name))


def find(wanted: str) -> Host:
    """Return the host of that id, or of that name in this state directory.

    Raises LabError that lists those that exist.
    """
    known = load_all()
    for host in known:
        if wanted in (host.id, host.name):
            return host
    for host in load_all(everywhere=True):
        if wanted == host.id:
            return host
    names = ", ".join(host.name for host in known) or "none"
    raise LabError(f"no host {wanted!r}; existing: {names}")


def create(wanted: Sequence[tuple[Spec, images.Image, Path | None]]) -> list[Host]:
    """Claim the names of new hosts, all or none, and record the hosts as stopped.

    :param wanted: what each is to be, its image, and the checkpoint that it wakes from, if any.

    Raises LabError when a name is taken in this state directory or given twice.
    """
    created: list[Host] = []
    with paths.locked(paths.state_dir() / ".lock"), paths.locked(images.overlays_dir() / ".lock"):
        _check_names([spec.name for spec, _, _ in wanted])
        for spec, image, checkpoint in wanted:
            host = Host(
                id=f"{spec.name}-{tools.random_hex(3)}",
                name=spec.name,
                home="",
                kind=spec.kind,
                memory=spec.memory,
                cpus=spec.cpus,
                image=str(image.directory),
                append=list(image.kind.append),
                created_at=time.time(),
                checkpoint=str(checkpoint) if checkpoint else None,
                resumes=checkpoint is not None,
            )
            host.home = str(paths.state_dir() / host.id)
            created.append(host)
            host.directory.mkdir(mode=0o700)
            host.storage.mkdir()
            (host.storage / "image").symlink_to(host.image)
            (host.storage / "state").symlink_to(host.directory)
            host.save()
    return created


def _check_names(names: Sequence[str]) -> None:
    """Raise LabError when one of the names is taken or given twice."""
    existing = {host.name: host for host in load_all()}
    for name in names:
        if names.count(name) > 1:
            raise LabError(f"host {name} is named twice")
        taken = existing.get(name)
        if taken is not None:
            raise LabError(
                f"host {name} exists already ({taken.id}, {taken.state}); "
                f"run: python3 -m lab down {taken.id}"
            )


def remove(host: Host) -> None:
    """Stop a host if it runs and delete all that is left of it. Harmless when done twice."""
    stop(host)
    shutil.rmtree(host.storage, ignore_errors=True)
    shutil.rmtree(host.directory, ignore_errors=True)


def stop(host: Host) -> bool:
    """Cut the power of a host. Its disk stays. Returns False when it was off already."""
    host.ready = False
    # Not recorded: whoever started it may have been killed before it could.
    identity = host.process or processes.find(_marker(host.id))
    return identity is not None and processes.kill(identity)


def sweep() -> None:
    """End and delete hosts whose directory is gone, as when somebody emptied /tmp."""
    with paths.locked(images.overlays_dir() / ".lock"):
        for storage in images.overlays_dir().iterdir():
            link = storage / "state"
            if link.is_symlink() and not link.exists():
                tools.say(f"removing {storage.name}, whose directory is gone")
                identity = processes.find(_marker(storage.name))
                if identity is not None:
                    processes.kill(identity)
                shutil.rmtree(storage, ignore_errors=True)


def _marker(host_id: str) -> str:
    return f"bulkhead-lab/{host_id}"


#: Host keys are not checked: the other end is a port of this machine, and it changes each time.
SSH_ARGUMENTS = (
    *("-o", "StrictHostKeyChecking=no"),
    *("-o", f"UserKnownHostsFile={os.devnull}"),
    *("-o", f"GlobalKnownHostsFile={os.devnull}"),
    *("-o", "IdentitiesOnly=yes"),
    *("-o", "LogLevel=ERROR"),
)


def ssh_command(host: Host, *, connect_timeout: int = 10) -> list[str]:
    """Return the ssh invocation that logs in to a host as root; append a remote command.

    :param connect_timeout: seconds.
    """
    (ssh,) = tools.find("ssh")
    return [
        *(ssh, "-F", "none", "-i", str(images.key_path()), "-p", str(host.port)),
        *SSH_ARGUMENTS,
        *("-o", "BatchMode=yes"),
        *("-o", f"ConnectTimeout={connect_timeout}"),
        *("-o", "ServerAliveInterval=15"),
        f"root@{ADDRESS}",
    ]
