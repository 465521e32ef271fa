#!/usr/bin/python
# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The door to act."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_host_apply
short_description: Apply a hardening plan to a Docker host as one transaction
version_added: 0.1.0
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
  undo:
    description:
      - Undo a committed transaction, by its id or V(last) for the newest one that still holds. The
        look lists those that are kept, C(observation.bulkhead.transactions).
      - This is a transaction of its own, with the same checks, before-images and health gate. It puts
        back what that transaction changed, key by key in daemon.json, and leaves what came later.
      - Refused when a later transaction changed the same things, or somebody else did since.
    type: str
  purge:
    description:
      - Remove what Bulkhead keeps on the host for itself, C(/var/lib/bulkhead), and the directories
        that it made, as far as they are empty. Refused while it owns something there, or while a
        transaction is open. Afterwards nothing can be undone any more.
    type: bool
    default: false
  undo_stops_containers:
    description:
      - Accept that an O(undo) ends running containers, where live-restore does not keep them.
    type: bool
    default: false
  undo_hides_data:
    description:
      - Accept that an O(undo) that changes C(userns-remap) hides the containers, images and volumes
        of now. They are not deleted.
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
  tls_files:
    description:
      - Files that the policy names for the TLS of the API, for the new look, as for
        M(bulkhead.hardening.docker_host_info).
    type: dict
    default: {}
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

- name: Say what undoing the last transaction would do
  bulkhead.hardening.docker_host_apply:
    undo: last
  check_mode: true
  diff: true

- name: Undo one transaction
  bulkhead.hardening.docker_host_apply:
    undo: 20260131T120000Z-000000
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
        - V(purged) when what Bulkhead kept for itself is gone.
        - V(rollback_failed) when it could not be undone completely; the next run tries again first.
      type: str
    undid:
      description: The transaction that was undone, or in check mode would be. With O(undo) only.
      type: str
    changes:
      description:
        - What that transaction had changed, in words and without values. With O(undo) only.
      type: list
      elements: str
    daemon_effect:
      description: What the daemon has to do for it, V(none), V(reload) or V(restart). With O(undo) only.
      type: str
    affected:
      description: The containers that run while the daemon restarts for it. With O(undo) only.
      type: list
      elements: str
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
    stays:
      description: What the kernel does not take back before the next boot, as texts.
      type: list
      elements: str
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
            "undo": {"type": "str"},
            "purge": {"type": "bool", "default": False},
            "undo_stops_containers": {"type": "bool", "default": False},
            "undo_hides_data": {"type": "bool", "default": False},
            "health_timeout": {"type": "int", "default": 120},
            "daemon_timeout": {"type": "int", "default": 180},
            "tls_files": {"type": "dict", "default": {}},
            "document": {"type": "path"},
        },
        required_one_of=[("plan", "recover", "undo", "purge")],
        supports_check_mode=True,
    )
    wanted = [name for name in ("plan", "undo") if module.params[name] is not None]
    wanted += [name for name in ("recover", "purge") if module.params[name]]
    if len(wanted) != 1:
        module.fail_json(msg="hand in one of: a plan, recover: true, undo or purge: true")
    # Where no unit carries it on (without systemd), a lost connection must not stop it half way.
    for name in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(name, signal.SIG_IGN)
    fields = (
        "tls_files",
        "undo",
        "undo_stops_containers",
        "undo_hides_data",
        "health_timeout",
        "daemon_timeout",
    )
    answer = perform(
        Host(),
        {
            "action": "apply" if wanted == ["plan"] else wanted[0],
            "plan": module.params["plan"],
            "check_mode": module.check_mode,
            **{name: module.params[name] for name in fields},
        },
    )
    if answer.get("failed"):
        module.fail_json(**answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
