#!/usr/bin/env python3
# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Ansible inventory of the lab's running hosts: the group ``docker_hosts``, empty when none runs.

``BULKHEAD_LAB_STATE`` chooses whose hosts, as for ``python3 -m lab``.
"""

from __future__ import annotations

import json
import sys
import typing
from pathlib import Path

# Ansible runs this file on its own, from any directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab import hosts
from lab.errors import LabError


def inventory(found: typing.Iterable[hosts.Host]) -> dict[str, typing.Any]:
    """Return the hosts in the form of Ansible's script inventories, grouped by kind too."""
    running = [host for host in found if host.state == "running"]
    groups: dict[str, typing.Any] = {
        "docker_hosts": {
            "hosts": [host.name for host in running],
            "vars": {
                "ansible_user": "root",
                "ansible_python_interpreter": "/usr/bin/python3",
                "ansible_pipelining": True,
                "ansible_ssh_common_args": " ".join(hosts.SSH_ARGUMENTS),
                # Unlike a name, an id is never used again, and with it no open connection.
                "ansible_control_path": "%(directory)s/lab-{{ lab_id }}",
            },
        },
        "_meta": {"hostvars": {host.name: _variables(host) for host in running}},
    }
    for host in running:
        groups.setdefault(f"kind_{host.kind}", {"hosts": []})["hosts"].append(host.name)
    return groups


def _variables(host: hosts.Host) -> dict[str, typing.Any]:
    summary = host.summary()
    return {
        "ansible_host": summary["address"],
        "ansible_port": summary["port"],
        "ansible_ssh_private_key_file": summary["key"],
        "lab_id": summary["id"],
        "lab_kind": summary["kind"],
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--host"]:
        print("{}")  # everything is in _meta
    else:
        try:
            print(json.dumps(inventory(hosts.load_all()), indent=2))
        except LabError as error:
            sys.exit(f"lab: {error}")
