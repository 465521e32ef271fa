"""The host on which things go wrong: its state, and the playbooks that are run against it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import typing

import yaml

Json = dict[str, typing.Any]

ROOT = pathlib.Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
NOTES = pathlib.Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
STATE = (pathlib.Path(__file__).parent.parent / "files" / "state.py").read_text()

#: Containers that come and go by themselves, so that their processes are not compared.
RESTLESS = ("looping", "brief")
#: Containers that must outlive all that goes wrong.
AT_REST = ("limited", "roomy", "unlimited", "web")
#: After a restart of the stock daemon, which keeps no container.
START = f"docker start {' '.join(AT_REST)}"


class Done(typing.NamedTuple):
    """How a playbook ended."""

    rc: int
    out: str

    @property
    def changed(self) -> bool:
        return " changed=0 " not in self.out.rpartition("PLAY RECAP")[2]


def descendants(pid: int) -> list[int]:
    """Return all processes that a process started, and those that they did."""
    parents = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


class Run:
    """A playbook that runs."""

    def __init__(self, process: subprocess.Popen[str], log: pathlib.Path) -> None:
        self._process = process
        self._log = log

    def kill(self) -> None:
        """Kill it and all that it started, as a crash of the controller does, unless it has ended.

        Ansible's workers are in sessions of their own and would outlive its process group.
        """
        if self._process.poll() is None:
            for pid in [self._process.pid, *descendants(self._process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def end(self) -> Done:
        """Wait for its end."""
        try:
            self._process.wait(timeout=1200)
        finally:
            self.kill()
        return Done(self._process.returncode, self._log.read_text())


class Target:
    """The host, by SSH, and the playbooks that are run against it."""

    def __init__(self) -> None:
        (row,) = yaml.safe_load(pathlib.Path(os.environ["MOLECULE_INSTANCE_CONFIG"]).read_text())
        self._ssh = [
            "ssh", "-q", "-i", str(row["identity_file"]), "-p", str(row["port"]),
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", f"{row['user']}@{row['address']}",
        ]  # fmt: skip
        self._environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks" / "collections"),
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_NOCOLOR": "1",
            "BULKHEAD_LAB_STATE": str(NOTES / "lab"),
        }

    def run(self, command: str, stdin: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            [*self._ssh, command], input=stdin or "", capture_output=True, text=True, timeout=600
        )
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def state(self) -> Json:
        """Return what state.py sees, without the containers that never rest."""
        seen = json.loads(self.run("python3 -", STATE))
        seen["pids"] = {k: v for k, v in seen["pids"].items() if k not in RESTLESS}
        return typing.cast(Json, seen)

    def whole_state(self) -> Json:
        """Return the state of a host on which all that can be lost is there."""
        seen = self.state()
        assert sorted(seen["pids"]) == list(AT_REST)
        return seen

    def lab(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "lab", *arguments], cwd=ROOT, env=self._environment, check=True
        )

    def begin(self, playbook: str = "harden", **variables: typing.Any) -> Run:
        """Start a playbook in a process group of its own."""
        values = {"bulkhead_hosts": "used", **variables}
        # Into a file: SSH's shared connection would keep a pipe open for its 60 seconds.
        log = NOTES / f"{playbook}.{time.monotonic_ns()}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [
                    str(pathlib.Path(sys.executable).parent / "ansible-playbook"),
                    "-i", os.environ.get("MOLECULE_INVENTORY_FILE", str(NOTES / "inventory")),
                    "-e", json.dumps(values), str(ROOT / "playbooks" / f"{playbook}.yml"),
                ],
                cwd=ROOT, env=self._environment, text=True, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return Run(process, log)

    def play(self, playbook: str = "harden", **variables: typing.Any) -> Done:
        """Run a playbook to its end."""
        return self.begin(playbook, **variables).end()

    def settle(self) -> None:
        """Wait until no unit of ours runs and the daemon answers."""
        # A oneshot is "activating" for as long as it runs.
        units = "systemctl list-units --no-legend --state=activating,active,deactivating"
        self.run(
            f"for i in $(seq 300); do {units} 'bulkhead-2*' | grep -q . || break; sleep 1; done;"
            "for i in $(seq 120); do docker version >/dev/null 2>&1 && break; sleep 1; done"
        )
