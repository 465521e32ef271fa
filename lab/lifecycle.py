"""What the commands do to hosts, and what happens when they are interrupted."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from . import boot, checkpoints, hosts, images, tools
from .errors import LabError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked us to stop. Not an Exception: nothing but the clean-up may catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into :class:`Interrupted`; ignore what follows.

    Gives a function that ignores all of them from now on: call it before cleaning up.
    """

    def ignore() -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def interrupt(number: int, _frame: FrameType | None) -> None:
        ignore()
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def build(kind: str, *, force: bool, memory: int, cpus: int) -> images.Image:
    """Put the image of a kind and its checkpoint into the cache, unless they are there."""
    with interruptible():
        image = images.ensure(kind, force=force)
        checkpoints.ensure(image, memory, cpus)
    return image


def up(specs: Sequence[hosts.Spec], *, cold: bool, deadline: float) -> list[hosts.Host]:
    """Create and start hosts in parallel; all are ready when this returns.

    When one fails, or a signal comes, all of them are removed again.

    :param cold: let them boot, even where there could be a checkpoint.
    """
    for spec in specs:
        spec.check()
    tools.find("ssh")
    created: list[hosts.Host] = []
    with interruptible() as ignore_signals:
        try:
            hosts.sweep()
            built = {kind: images.ensure(kind) for kind in sorted({spec.kind for spec in specs})}
            sizes = sorted({(spec.kind, spec.memory, spec.cpus) for spec in specs})
            saved = {
                size: None if cold else checkpoints.ensure(built[size[0]], *size[1:])
                for size in sizes
            }
            created += hosts.create(
                [
                    (spec, built[spec.kind], saved[spec.kind, spec.memory, spec.cpus])
                    for spec in specs
                ]
            )
            boot.boot(created, deadline)
        except BaseException:
            ignore_signals()
            for host in created:
                hosts.remove(host)
            raise
    return created


def power_cut(host: hosts.Host) -> None:
    """End a host as a power failure would. Its disk stays as it was at that moment."""
    if not hosts.stop(host):
        raise LabError(f"host {host.name} is off already")
    host.save()
    tools.say(f"{host.name}: power cut")


def start(host: hosts.Host, deadline: float) -> None:
    """Boot a host that is off, from the disk it had. It is off again when that fails."""
    if host.running:
        raise LabError(f"host {host.name} runs already")
    with interruptible() as ignore_signals:
        try:
            boot.boot([host], deadline)
        except BaseException:
            ignore_signals()
            hosts.stop(host)
            host.save()
            raise


def reboot(host: hosts.Host, deadline: float) -> None:
    """Reboot a host from inside and wait until it is ready again. It stays as it is on failure."""
    if not host.running:
        raise LabError(f"host {host.name} is off; run: python3 -m lab start {host.id}")
    host.new_boot()
    before = subprocess.run(
        [*hosts.ssh_command(host), "cat /proc/sys/kernel/random/boot_id && systemctl reboot"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if not before.stdout.strip():
        raise LabError(f"host {host.name} does not answer: {before.stderr.strip()}")
    host.save()
    tools.say(f"{host.name}: rebooting")
    with interruptible():
        boot.wait_for_reboot(host, before.stdout.split()[0], deadline)
