"""Starting QEMU and waiting until the host inside is ready for work."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from . import hosts, processes, tools
from .errors import LabError

#: How often another port is tried when somebody else took the one we chose.
PORT_ATTEMPTS = 8

#: Default time for a host to become ready, in seconds. Emulated, on two busy cores, 60 is normal.
DEADLINE = 300.0

_PORT_TAKEN = "Could not set up host forwarding rule"

# Waits for the end of the boot and prints: system state, docker's state, failed units.
_READINESS = (
    "state=$(systemctl is-system-running --wait 2>/dev/null || true);"
    "echo $state $(systemctl is-active docker.service || true)"
    " $(systemctl list-units --state=failed --plain --no-legend | cut -d' ' -f1)"
)


class Interrupted(BaseException):
    """A signal asked us to stop. Not an Exception: nothing but the clean-up may catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Turn SIGINT, SIGTERM and SIGHUP into :class:`Interrupted`.

    Gives a function that makes later ones be ignored: call it before cleaning up.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    def ignore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def up(specs: Sequence[hosts.Spec], deadline: float = DEADLINE) -> list[hosts.Host]:
    """Create and boot hosts in parallel; all are ready when this returns.

    When one fails, or a signal comes, all of them are removed again.
    """
    tools.find("qemu-system-x86_64", "qemu-img", "ssh")
    created: list[hosts.Host] = []
    with interruptible() as ignore_signals:
        try:
            hosts.sweep()
            created += hosts.create(specs)
            boot(created, deadline)
        except BaseException:
            ignore_signals()
            for host in created:
                hosts.remove(host)
            raise
    return created


def start(host: hosts.Host, deadline: float = DEADLINE) -> None:
    """Boot a host that is stopped, from the disk it had. It is stopped again when that fails."""
    if host.running:
        raise LabError(f"host {host.name} runs already")
    with interruptible() as ignore_signals:
        try:
            boot([host], deadline)
        except BaseException:
            ignore_signals()
            hosts.stop(host)
            raise


def boot(wanted: Sequence[hosts.Host], deadline: float) -> None:
    """Boot hosts in parallel and wait until all are ready.

    Raises the first failure. No thread of ours is left when this ends, however it ends.
    """
    stop = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(wanted)))
    futures = [pool.submit(_boot_one, host, time.monotonic() + deadline, stop) for host in wanted]
    try:
        # Short waits: a signal is handled between them, not inside one.
        pending = set(futures)
        while pending:
            done, pending = concurrent.futures.wait(
                pending, timeout=0.2, return_when=concurrent.futures.FIRST_EXCEPTION
            )
            for future in done:
                future.result()
    finally:
        stop.set()
        pool.shutdown(wait=True)


class _Stopped(Exception):
    """Another host failed, or a signal came: no need to go on."""


def _boot_one(host: hosts.Host, until: float, stop: threading.Event) -> None:
    started = time.monotonic()
    tools.say(f"{host.name}: booting {host.kind} ({host.memory} MiB, {host.cpus} cpus)")
    if not host.disk.exists():
        _create_disk(host)
    process = _launch(host)
    failed_units = _wait_until_ready(host, process, until, stop)
    host.ready = True
    host.save()
    note = f", failed units: {' '.join(failed_units)}" if failed_units else ""
    seconds = time.monotonic() - started
    tools.say(f"{host.name}: ready after {seconds:.0f} s on port {host.port}{note}")


def _create_disk(host: hosts.Host) -> None:
    (qemu_img,) = tools.find("qemu-img")
    base = str(Path(host.image) / "disk.raw")
    tools.run(
        [qemu_img, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, str(host.disk)],
        host.qemu_log,
    )


def free_port() -> int:
    """Return a TCP port of this machine that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind((hosts.ADDRESS, 0))
        return int(probe.getsockname()[1])


@functools.cache
def accelerator() -> tuple[str, ...]:
    """Return QEMU's options for the processor: the real one when it can be had.

    /dev/kvm alone proves nothing: inside another virtual machine it may open and then fail to
    run a kernel. Only a processor that shows vmx or svm is trusted with it.
    """
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
        if flags & {"vmx", "svm"}:
            os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
            return ("-accel", "kvm", "-cpu", "host")
    except OSError:
        pass
    return ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max")


def qemu_command(host: hosts.Host, qemu: str) -> list[str]:
    """Return QEMU's command line for a host."""
    image = Path(host.image)
    append = [*host.append, f"systemd.hostname={host.name}"]
    return [
        qemu,
        *("-name", f"guest={host.name},process={host.marker}"),
        *("-machine", "q35"),
        *accelerator(),
        *("-m", str(host.memory)),
        *("-smp", str(host.cpus)),
        "-nodefaults",
        *("-display", "none"),
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
    ]


def _escape(path: Path) -> str:
    """Write a path inside a comma-separated QEMU option."""
    return str(path).replace(",", ",,")


def _launch(host: hosts.Host) -> subprocess.Popen[bytes]:
    """Start QEMU for a host, record it, and return it once its port is really ours."""
    (qemu,) = tools.find("qemu-system-x86_64")
    for _attempt in range(PORT_ATTEMPTS):
        host.port = host.port or free_port()
        with host.qemu_log.open("wb") as log:
            # A session of its own: closing the caller's terminal must not end the host.
            process = subprocess.Popen(
                qemu_command(host, qemu),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        host.process = processes.identify(process.pid, host.marker)
        host.started_at, host.ready = time.time(), False
        host.save()
        if _listens(host, process):
            return process
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


def _wait_until_ready(
    host: hosts.Host, process: subprocess.Popen[bytes], until: float, stop: threading.Event
) -> list[str]:
    """Wait for SSH, the end of the boot and docker. Returns the units that failed."""
    while True:
        _check_boot(host, process, until, stop)
        if not _greets(host):
            stop.wait(0.3)
            continue
        answer = _ask(host, process, until, stop)
        if answer is None:
            stop.wait(0.5)
            continue
        state, docker, *failed = answer
        if state in ("running", "degraded") and docker == "active":
            return failed
        raise _failure(
            host, f"booted into state {state!r} with docker {docker!r}", f"failed: {failed}"
        )


def _check_boot(
    host: hosts.Host, process: subprocess.Popen[bytes], until: float, stop: threading.Event
) -> None:
    """Raise when there is nothing left to wait for."""
    if stop.is_set():
        raise _Stopped
    if process.poll() is not None:
        raise _failure(
            host, f"QEMU ended with code {process.returncode}", tools.tail(host.qemu_log, 10)
        )
    if "Kernel panic - not syncing" in tools.tail(host.console):
        raise _failure(host, "its kernel panicked")
    if time.monotonic() > until:
        raise _failure(host, "was not ready in time (see --timeout)")


def _failure(host: hosts.Host, what: str, detail: str = "") -> LabError:
    """Return the error for a host that did not come up, with the end of its console."""
    lines = [f"host {host.name}: {what}"]
    lines += [detail] if detail else []
    lines += ["the end of its console:", tools.tail(host.console)]
    return LabError("\n".join(lines))


def _greets(host: hosts.Host) -> bool:
    """Tell whether an SSH server answers. QEMU itself accepts long before the host listens."""
    try:
        with socket.create_connection((hosts.ADDRESS, host.port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _ask(
    host: hosts.Host, process: subprocess.Popen[bytes], until: float, stop: threading.Event
) -> list[str] | None:
    """Wait inside the host for the end of its boot; None when the connection failed."""
    command = [*hosts.ssh_command(host, connect_timeout=30), _READINESS]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as ssh:
        try:
            while True:
                try:
                    output, _ = ssh.communicate(timeout=0.5)
                except subprocess.TimeoutExpired:
                    _check_boot(host, process, until, stop)
                else:
                    break
        except BaseException:
            ssh.kill()
            raise
    words = output.decode("utf-8", "replace").split()
    return words if ssh.returncode == 0 and len(words) >= 2 else None
