# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""A fleet on loopback: real SSH connections to one sshd of our own, where each name is a fake Docker host.

What arrives there is what arrives at any host, Ansible's modules, and they run in a Python of their own
(see ``target/sitecustomize.py``). They look at one directory tree and ask one engine, for all names.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import typing

from tests.unit.fake_engine import FakeHost, fake_host, inspection

ROOT = pathlib.Path(__file__).parents[2]
HERE = pathlib.Path(__file__).parent

#: How long sshd may take to listen, in seconds.
_START = 10.0

_SSHD = """\
ListenAddress 127.0.0.1:{port}
HostKey {place}/host_key
AuthorizedKeysFile {place}/key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
MaxStartups 1000
UseDNS no
LogLevel ERROR
"""

#: A look at one tree by many at once must not find it changed.
_PYTHON = """\
#!/bin/sh
export BULKHEAD_TARGET_ROOT='{root}' PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH='{target}:{checkout}:{checkout}/playbooks/collections'
exec '{python}' "$@"
"""


class NoSshd(Exception):
    """There is no sshd on this machine; the message says what to install."""


class Fleet(typing.NamedTuple):
    """Where it can be reached."""

    place: pathlib.Path
    port: int

    def inventory(self, hosts: int) -> pathlib.Path:
        """Write the inventory of some hosts and return its path."""
        own = {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": getpass.getuser(),
            "ansible_become": False,
            "ansible_ssh_private_key_file": str(self.place / "key"),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.place}/known_hosts",
            # All have one address: without this they would share one connection.
            "ansible_control_path": f"{self.place}/cp/{{{{ inventory_hostname }}}}",
            "ansible_remote_tmp": f"{self.place}/tmp/{{{{ inventory_hostname }}}}",
            "ansible_python_interpreter": str(self.place / "python"),
        }
        names = {f"host{number:04d}": {} for number in range(hosts)}
        path = self.place / f"hosts-{hosts}.json"
        path.write_text(json.dumps({"docker_hosts": {"hosts": names, "vars": own}}))
        return path


def _sshd() -> str:
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise NoSshd(
            "this benchmark needs sshd: install the Debian package openssh-server (its service need "
            "not run)"
        )
    return found


def _keys(place: pathlib.Path, port: int) -> None:
    for name in ("host_key", "key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)]
        subprocess.run(command, check=True)
    public = (place / "host_key.pub").read_text()
    (place / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"sshd does not listen on 127.0.0.1:{port}, return code {server.poll()}")


@contextlib.contextmanager
def running(containers: int) -> typing.Iterator[Fleet]:
    """Let the fleet be there.

    :param containers: how many each of its hosts has.
    :raises NoSshd: in words that help.
    """
    sshd = _sshd()
    with contextlib.ExitStack() as stack:
        host: FakeHost = stack.enter_context(fake_host())
        for number in range(containers):
            host.container_process(6000 + number, f"c{number}")
            host.engine.add(inspection(f"c{number}", pid=6000 + number))
        # Short: below it are sockets, whose paths end at 107 bytes.
        place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet")))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        _keys(place, port)
        (place / "cp").mkdir()
        (place / "sshd_config").write_text(_SSHD.format(port=port, place=place))
        python = place / "python"
        python.write_text(
            _PYTHON.format(
                root=host.base, target=HERE / "target", checkout=ROOT, python=sys.executable
            )
        )
        python.chmod(0o755)
        if os.geteuid() == 0:  # what the service's RuntimeDirectory= makes
            pathlib.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        server = subprocess.Popen([sshd, "-D", "-e", "-f", str(place / "sshd_config")])
        try:
            _wait(port, server)
            yield Fleet(place, port)
        finally:
            for control in (place / "cp").iterdir():
                end = ["ssh", "-O", "exit", "-o", f"ControlPath={control}", "127.0.0.1"]
                subprocess.run(end, check=False, capture_output=True)
            server.terminate()
            server.wait()
