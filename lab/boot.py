"""Bringing hosts up: in parallel, until each is ready for work or has failed."""

from __future__ import annotations

import concurrent.futures
import subprocess
import threading
import time
from collections.abc import Sequence

from . import hosts, qemu, tools
from .errors import LabError

#: Default time for a host to become ready, in seconds. A boot takes 60 on two idle cores.
DEADLINE = 300.0

#: Time for a host to answer after it was resumed, in seconds. Three are normal.
RESUME_DEADLINE = 60.0

#: How often to try and connect though the console does not say that it makes sense, in seconds.
UNINVITED_INTERVAL = 20.0

# Waits for the end of the boot. Prints boot id, system state, docker's state, failed units.
_READINESS = (
    "cat /proc/sys/kernel/random/boot_id;"
    "systemctl is-system-running --wait;"
    "systemctl is-active docker.service;"
    "systemctl list-units --state=failed --plain --no-legend | cut -d' ' -f1"
)

# A resumed host believes that no time went by, bears the name of the one that was saved, and would
# draw the same random numbers as every other one. RNDRESEEDCRNG: linux/random.h.
_WAKE = """python3 -c '
import fcntl, os, socket, sys, time
time.clock_settime(time.CLOCK_REALTIME, float(sys.argv[1]))
socket.sethostname(sys.argv[2])
with open("/dev/urandom", "wb", buffering=0) as pool:
    pool.write(bytes.fromhex(sys.argv[3]))
    fcntl.ioctl(pool, 0x5207)
' {now} {name} {seed} &&"""


def boot(wanted: Sequence[hosts.Host], deadline: float) -> None:
    """Start hosts in parallel and wait until all are ready.

    Raises the first failure as LabError. However it ends, none of its threads is left.
    """
    stop = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(wanted)))
    futures = [pool.submit(_start, host, time.monotonic() + deadline, stop) for host in wanted]
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


def wait_for_reboot(host: hosts.Host, boot_id: str, deadline: float) -> None:
    """Wait until a host that was told to reboot is ready again.

    :param boot_id: the boot that it was in.
    """
    _wait(host, time.monotonic() + deadline, threading.Event(), boot_id)


class _Stopped(Exception):
    """Another host failed, or a signal came: no need to go on."""


def _start(host: hosts.Host, until: float, stop: threading.Event) -> None:
    """Start one host: resume it from its checkpoint where it has one, else boot it."""
    if not host.disk.exists():
        qemu.create_disk(host)
    if host.resumes:
        try:
            qemu.launch(host)
            _wait(host, min(until, time.monotonic() + RESUME_DEADLINE), stop)
        except LabError as error:
            tools.say(f"{host.name}: cannot be resumed, so it boots: {error}")
            hosts.stop(host)
            host.checkpoint, host.resumes = None, False
            qemu.create_disk(host)
        else:
            return
    tools.say(f"{host.name}: booting {host.kind} ({host.memory} MiB, {host.cpus} cpus)")
    qemu.launch(host)
    _wait(host, until, stop)


def _wait(host: hosts.Host, until: float, stop: threading.Event, old_boot: str = "") -> None:
    """Wait for SSH, the end of the boot and docker, then record the host as ready."""
    started = asked = time.monotonic()
    while True:
        check(host, until, stop)
        if _may_answer(host, asked):
            answer = _ask(host, until, stop)
            if answer is not None and answer[0] != old_boot:
                break
            asked = time.monotonic()
        stop.wait(0.5)
    state, docker, *failed = answer[1:]
    if state not in ("running", "degraded") or docker != "active":
        reason = f"booted into state {state!r} with docker {docker!r}"
        raise _failure(host, reason, f"failed units: {' '.join(failed) or 'none'}")
    host.failed_units, host.ready, host.resumes = failed, True, False
    host.save()
    note = f", failed units: {' '.join(failed)}" if failed else ""
    seconds = time.monotonic() - started
    tools.say(f"{host.name}: ready after {seconds:.0f} s on port {host.port}{note}")


def check(host: hosts.Host, until: float, stop: threading.Event) -> None:
    """Raise when there is nothing left to wait for."""
    if stop.is_set():
        raise _Stopped
    if not host.running:
        raise _failure(host, "QEMU ended", tools.tail(host.qemu_log, 10))
    if "Kernel panic - not syncing" in tools.tail(host.console, since=host.console_offset):
        raise _failure(host, "its kernel panicked")
    if time.monotonic() > until:
        raise _failure(host, "was not ready in time (see --timeout)")


def _failure(host: hosts.Host, what: str, detail: str = "") -> LabError:
    """Return the error for a host that did not come up, with the end of its console."""
    lines = [f"host {host.name}: {what}"]
    lines += [detail] if detail else []
    lines += ["the end of its console:", tools.tail(host.console)]
    return LabError("\n".join(lines))


def _may_answer(host: hosts.Host, asked: float) -> bool:
    """Tell whether it makes sense to connect now.

    QEMU accepts connections long before the host listens and delivers them all once it does.
    OpenSSH from 9.8 on then takes us for an attacker (PerSourcePenalties) and hangs up for a while,
    so we wait for systemd's word on the console, and hardly ever ask without it.

    :param asked: when we asked last, in monotonic seconds.
    """
    return (
        host.resumes
        or "Started ssh.service" in tools.tail(host.console, 1_000, since=host.console_offset)
        or time.monotonic() - asked > UNINVITED_INTERVAL
    )


def _ask(host: hosts.Host, until: float, stop: threading.Event) -> list[str] | None:
    """Wait inside the host for the end of its boot.

    Returns boot id, system state, docker's state and failed units; None when the connection
    failed.
    """
    script = _READINESS
    if host.resumes:
        seed = tools.random_hex(64)
        script = _WAKE.format(now=f"{time.time():.3f}", name=host.name, seed=seed) + script
    command = [*hosts.ssh_command(host, connect_timeout=15), script]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as ssh:
        try:
            while True:
                try:
                    output, _ = ssh.communicate(timeout=0.5)
                except subprocess.TimeoutExpired:
                    check(host, until, stop)
                else:
                    break
        except BaseException:
            ssh.kill()
            raise
    words = output.decode("utf-8", "replace").split()
    return words if ssh.returncode == 0 and len(words) >= 3 else None
