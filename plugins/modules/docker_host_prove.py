#!/usr/bin/python
# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Runs attacks on a Docker host, in throw-away containers."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_host_prove
version_added: 0.1.0
author: The Bulkhead authors
short_description: Attack a Docker host from throw-away containers, to see what holds
description:
- Makes an image of the host's own Python, runs attacks in containers of it, tells what each of
  them was able to do, and removes all that it made. Nothing is pulled and nothing is compiled.
- An attack shows a permission and never uses it. No attack reboots, sets a clock, writes a trigger
  or loads a module; each is bounded in time, processes and memory.
- Meant to be called by the role P(bulkhead.hardening.docker_proof#role), which refuses hosts that
  are not named for it.
attributes:
  check_mode:
    description: Runs nothing and says which attacks would run.
    support: full
  diff_mode:
    description: Changes nothing that stays, so there is no difference to show.
    support: none
  platform:
    description: Target operating systems.
    platforms: linux
    support: full
options:
  attacks:
    description: Ids of attacks, or of topics. Empty is all.
    type: list
    elements: str
    default: []
  attack_dirs:
    description: Directories on the controller with attacks of your own, a file each.
    type: list
    elements: path
    default: []
  variants:
    description:
    - V(default) attacks from a container as this host makes it for everybody. V(weakened) gives
      each attack a container in which it must succeed, to show that it can.
    type: list
    elements: str
    choices: [default, weakened]
    default: [default]
  document:
    description: A file on the controller to which the whole result is written, as JSON with mode 0600.
    type: path
"""

EXAMPLES = r"""
- name: See whether the fork bomb is stopped
  bulkhead.hardening.docker_host_prove:
    attacks: [pids_fork_bomb]
"""

RETURN = r"""
attacks:
  description: A row for each attack and variant, see C(docs/schemas/proof.schema.json).
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The attack.
      type: str
      returned: always
    variant:
      description: V(default) or V(weakened).
      type: str
      returned: always
    outcome:
      description: V(held), V(breached), V(not_applicable), V(error); V(works) or V(broken) of work.
      type: str
      returned: always
counts:
  description: How many attacks of the default variant have each outcome.
  returned: success
  type: dict
path:
  description: Where the result was written.
  returned: when O(document) was given
  type: str
digest:
  description: Its SHA-256.
  returned: when O(document) was given
  type: str
"""

# The documentation comes first, as ansible-test wants it.
from ansible.module_utils.basic import AnsibleModule

from ansible_collections.bulkhead.hardening.plugins.module_utils import proof_run
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import ApiError
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError


def main() -> None:
    """Run the jobs that the action plugin made of the attacks."""
    module = AnsibleModule(
        argument_spec={
            "jobs": {"type": "list", "elements": "dict", "required": True},
            "programs": {"type": "dict", "required": True},
            "run": {"type": "str", "required": True},
        },
    )
    try:
        answer = proof_run.run(
            Host(),
            module.params["jobs"],
            sorted(module.params["programs"].items()),
            module.params["run"],
        )
    except (ApiError, HostError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
