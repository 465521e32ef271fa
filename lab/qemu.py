"""Starting QEMU for a host, and talking to it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import emulator, hosts, processes, tools
from .errors import LabError

#: How often another port is tried when somebody else took the one we chose.
PORT_ATTEMPTS = 8

#: QEMU's control socket, in the host's directory.
QMP_SOCKET = "qmp.sock"

_PORT_TAKEN = "Could not set up host forwarding rule"


def free_port() -> int:
    """Return a TCP port of this machine that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind((hosts.ADDRESS, 0))
        return int(probe.getsockname()[1])


def command(host: hosts.Host) -> list[str]:
    """Return QEMU's command line for a host."""
    image = Path(host.image)
    append = [*host.append, f"systemd.hostname={host.name}"]
    return [
        *emulator.command("qemu-system-x86_64"),
        *("-name", f"guest={host.name},process={host.marker}"),
        *("-machine", "q35"),
        *emulator.accelerator(),
        *("-m", str(host.memory)),
        *("-smp", str(host.cpus)),
        "-nodefaults",
        *("-display", "none"),
        # Relative to the host's directory, where QEMU runs: a socket's path must be short.
        *("-qmp", f"unix:{QMP_SOCKET},server=on,wait=off"),
        # Appended to: after a power cut the first boot's messages are still there.
        *("-chardev", f"file,id=console,path={_escape(host.console)},append=on"),
        *("-serial", "chardev:console"),
        *("-kernel", str(image / "vmlinuz")),
        *("-initrd", str(image / "initrd")),
        *("-append", " ".join(append)),
        # writeback: what the guest synced is on disk even when QEMU is killed.
        *("-drive", f"file={_escape(host.disk)},if=virtio,format=qcow2,cache=writeback"),
        *("-netdev", f"user,id=net,hostfwd=tcp:{hosts.ADDRESS}:{host.port}-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *(("-incoming", f"file:{_escape(host.memory_state)}") if host.resumes else ()),
    ]


def _escape(path: Path) -> str:
    """Write a path inside a comma-separated QEMU option."""
    return str(path).replace(",", ",,")


def create_disk(host: hosts.Host) -> None:
    """Give a host a disk of its own, on top of its checkpoint's or its image's."""
    if host.checkpoint:
        base, form = Path(host.checkpoint) / "disk.qcow2", "qcow2"
    else:
        base, form = Path(host.image) / "disk.raw", "raw"
    tools.run(
        [*emulator.command("qemu-img"), "create", "-q", "-f", "qcow2", "-F", form]
        + ["-b", str(base), str(host.disk)],
        host.qemu_log,
    )


def launch(host: hosts.Host) -> None:
    """Start QEMU for a host and record it. Returns once its port is really ours.

    The host's port is kept when it has one that is still free. Raises LabError.
    """
    for _attempt in range(PORT_ATTEMPTS):
        host.port = host.port or free_port()
        host.new_boot()
        (host.directory / QMP_SOCKET).unlink(missing_ok=True)
        with host.qemu_log.open("wb") as log:
            # A session of its own: closing the caller's terminal must not end the host.
            process = subprocess.Popen(
                command(host),
                cwd=host.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        host.process = processes.identify(process.pid, host.marker)
        host.started_at = time.time()
        host.save()
        if _listens(host, process):
            return
        if _PORT_TAKEN not in tools.tail(host.qemu_log):
            break
        host.port = 0
    raise LabError(f"host {host.name}: QEMU did not start:\n{tools.tail(host.qemu_log)}")


def _listens(host: hosts.Host, process: subprocess.Popen[bytes]) -> bool:
    """Wait until QEMU has bound the host's port; False when it ended instead."""
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((hosts.ADDRESS, host.port)) == 0 and process.poll() is None:
                return True
        time.sleep(0.05)
    return False


class Control:
    """A connection to a host's QEMU (the QEMU Machine Protocol: a line of JSON each way)."""

    def __init__(self, host: hosts.Host) -> None:
        self._host = host
        self._socket = socket.socket(socket.AF_UNIX)
        directory = os.open(host.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # By descriptor: the path itself may be longer than a socket's address can be.
            self._socket.connect(f"/proc/self/fd/{directory}/{QMP_SOCKET}")
        except OSError as error:
            raise LabError(f"host {host.name}: QEMU does not answer: {error}") from error
        finally:
            os.close(directory)
        self._lines = self._socket.makefile("rb")
        self._lines.readline()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Run one command and return its answer. Raises LabError with QEMU's reason."""
        request = {"execute": name, "arguments": dict(arguments or {})}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        for line in self._lines:
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                reason = answer["error"].get("desc", "no reason given")
                raise LabError(f"host {self._host.name}: QEMU refused {name}: {reason}")
            # anything else is an event
        raise LabError(f"host {self._host.name}: QEMU ended during {name}")

    def save_memory(self, path: Path) -> None:
        """Write the running machine's memory and devices to a file; the machine then stands."""
        # One pass without any politeness: nobody misses the machine while it stands.
        limits = {"max-bandwidth": 16 << 30, "downtime-limit": 2_000_000}
        self.execute("migrate-set-parameters", limits)
        self.execute("migrate", {"uri": f"file:{path}"})
        while (progress := self.execute("query-migrate")).get("status") != "completed":
            if progress.get("status") in ("failed", "cancelled"):
                reason = progress.get("error-desc", "no reason given")
                raise LabError(f"host {self._host.name}: its memory cannot be saved: {reason}")
            time.sleep(0.2)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()
