#!/usr/bin/python
# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The door to act."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_host_apply
short_description: Apply a hardening plan to a Docker host as one transaction
version_added: 1.0.0
author:
  - Bulkhead authors (@bulkhead)
description:
  - Applies a plan, as the filters of this collection make it from an observation and a policy, as
    one transaction on the host. Everything takes effect, or everything is as before.
  - Saves what it is about to change, writes new contents beside their targets, has the engine
    validate them, swaps them atomically, lets the daemon take them up with at most one restart, and
    then looks whether the containers of before run again and whether a throw-away container starts
    and ends well. If anything fails, all of it is undone on the host itself, byte for byte, and the
    module says why.
  - Refuses, before anything is changed, a plan for a host that changed since it was looked at, a
    restart that would end running containers, and files that are links, immutable or outside of a
    closed list of paths.
  - Runs in a transient unit of systemd, from a copy of this code in C(/var/lib/bulkhead/runner), and
    so comes to its end when the connection or the controller is lost. The next run is told of it in
    RV(earlier).
  - When that unit's process is killed, systemd starts the undo at once; after a loss of power the
    unit C(bulkhead-recover.service), which exists only while a transaction is open, does it at boot.
    Whatever they leave, the next run undoes first. What was done is kept in C(/var/lib/bulkhead).
  - Where systemd does not run the host it runs by itself, and only plans that leave the daemon alone
    are accepted.
attributes:
  check_mode:
    description: Validates the plan against the host and returns the differences. Writes nothing.
    support: full
  diff_mode:
    description: Shows what changes in each file. Values that are not Bulkhead's own are hidden.
    support: full
  platform:
    description: Target operating systems. A running daemon is reloaded through systemd.
    platforms: linux
    support: full
options:
  plan:
    description:
      - The plan. Its shape is described in C(docs/schemas/plan.schema.json).
    type: dict
  recover:
    description:
      - Undo what an earlier run left half done, and nothing else. Does nothing where nothing is left.
      - A O(plan) that changes something does this first by itself, but it was made from a look at
        the half done state and is then refused. So recover first, and plan from the new look.
    type: bool
    default: false
  health_timeout:
    description:
      - Seconds within which the containers that ran before must run again.
    type: int
    default: 120
  daemon_timeout:
    description:
      - Seconds within which the daemon must answer after a restart.
    type: int
    default: 180
  document:
    description:
      - A file on the controller to which the whole answer is written, as JSON with mode 0600. The
        answer then has its C(path) and its C(digest), the SHA-256 of the file.
      - Without it the answer lacks those parts of the containers that no plan needs.
    type: path
seealso:
  - module: bulkhead.hardening.docker_host_info
"""

EXAMPLES = r"""
- name: Look at the host
  bulkhead.hardening.docker_host_info:
  register: look

- name: Rotate container logs and keep containers running while the daemon restarts
  bulkhead.hardening.docker_host_apply:
    plan:
      schema: bulkhead.plan/1
      profile: compatible
      operations:
        - op: json_set
          path: /etc/docker/daemon.json
          key: live-restore
          value: true
          observed: "{{ look.observation.daemon_config.version }}"
          role: docker_daemon
          undo: live
          why: containers outlive the daemon (CIS 2.15)
        - op: json_set
          path: /etc/docker/daemon.json
          key: log-opts
          member: max-size
          value: 10m
          observed: "{{ look.observation.daemon_config.version }}"
          role: docker_daemon
          undo: live
          why: a container cannot fill the disk with its log
      daemon:
        effect: restart
        why: [log-opts]
        live_restore_first: true
        allow_container_restart: false
"""

RETURN = r"""
transaction:
  description: What was done, step by step.
  returned: always
  type: dict
  contains:
    id:
      description:
        - Name of the transaction, by which it can be undone. Null when there was nothing to do.
      type: str
    outcome:
      description:
        - V(committed), V(rolled_back), V(refused), V(nothing), or V(checked) in check mode.
        - V(recovered) when all that was done was to undo what an earlier run had left.
        - V(rollback_failed) when it could not be undone completely; the next run tries again first.
      type: str
    failed_step:
      description: The step that failed.
      type: str
    reason:
      description: Why it failed, with the last lines of the daemon where it is to blame.
      type: str
    steps:
      description:
        - Each step with C(step), C(status) (done, skipped, failed or undone), C(detail) and
          C(seconds).
      type: list
      elements: dict
    daemon_restarts:
      description: How often the daemon was restarted, those of a rollback included.
      type: int
    daemon_reloads:
      description: How often the daemon was reloaded, those of a rollback included.
      type: int
earlier:
  description:
    - What became of earlier runs whose controller was gone at their end, the oldest first, each like
      RV(transaction).
  returned: always, apart from check mode
  type: list
  elements: dict
running_containers:
  description:
    - The containers that ran before, with C(name), C(pid_before), C(pid_after),
      C(pids_max_before) and C(pids_max_after) as measured. A PIDs limit of null means unlimited, a
      process id of null not running.
  returned: always
  type: list
  elements: dict
observation:
  description:
    - A new look at the host, in the shape that M(bulkhead.hardening.docker_host_info) returns.
    - It has C(witness) in addition, which says what a container without any options really gets on
      this host. Null when no such container was made.
  returned: always
  type: dict
"""

import signal

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.bulkhead.hardening.plugins.module_utils.detach import perform
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict"},
            "recover": {"type": "bool", "default": False},
            "health_timeout": {"type": "int", "default": 120},
            "daemon_timeout": {"type": "int", "default": 180},
            "document": {"type": "path"},
        },
        required_one_of=[("plan", "recover")],
        supports_check_mode=True,
    )
    if (module.params["plan"] is not None) == module.params["recover"]:
        module.fail_json(msg="hand in either a plan, or recover: true")
    # Where no unit carries it on (without systemd), a lost connection must not stop it half way.
    for name in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(name, signal.SIG_IGN)
    answer = perform(
        Host(),
        {
            "action": "recover" if module.params["recover"] else "apply",
            "plan": module.params["plan"],
            "check_mode": module.check_mode,
            "health_timeout": module.params["health_timeout"],
            "daemon_timeout": module.params["daemon_timeout"],
        },
    )
    if answer.get("failed"):
        module.fail_json(**answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
