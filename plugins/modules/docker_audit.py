#!/usr/bin/python
# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Documents the action plugin of this name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_audit
version_added: 0.1.0
author: The Bulkhead authors
short_description: Audit one Docker host by the CIS benchmark, and keep the result on the controller
description:
- Looks at the host once, as M(bulkhead.hardening.docker_host_info) does, and judges what it sees
  on the controller. Changes nothing on the host, in check mode or not.
- Writes C(hosts/HOST.json) below O(report_dir), mode 0600; the answer holds counts alone.
- M(bulkhead.hardening.docker_audit_report) makes the reports of all hosts.
attributes:
  check_mode:
    description: Changes nothing on a host in either mode; results and reports are written in both.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: none
  platform:
    description: Target operating systems.
    platforms: linux
    support: full
options:
  settings:
    description:
    - What is judged and how, as the role P(bulkhead.hardening.docker_audit#role) hands it in.
    type: dict
  report_dir:
    description: A folder on the controller.
    type: path
    required: true
  prepare:
    description: Only check the settings and the folder, and forget the hosts of an earlier run.
      No host is touched.
    type: bool
    default: false
  reference:
    description: With O(prepare), a V(result.json) of an earlier run that the reports will be compared
      with.
    type: path
  docker_bench:
    description: With O(prepare), files of docker-bench-security that the reports will be set beside,
      by host.
    type: dict
  hosts:
    description: With O(prepare), all hosts of the play, to which O(docker_bench) must belong.
    type: list
    elements: str
  checks:
    description: Ids of the checks that O(prepare) answered with. A host for which variables choose
      others is refused.
    type: list
    elements: str
  rootless_user:
    description: Judge the rootless daemon of this user instead of the system's own.
    type: str
  timeout:
    description: How many seconds to wait for each answer of the Docker daemon.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Audit a host by level 1 of the benchmark
  bulkhead.hardening.docker_audit:
    report_dir: reports/audit
    settings:
      levels: [1]
"""

RETURN = r"""
checks:
  description: Ids of the checks that are selected.
  returned: with O(prepare)
  type: list
  elements: str
counts:
  description: How many checks have each verdict.
  returned: success
  type: dict
item_counts:
  description: How many objects have each verdict.
  returned: success
  type: dict
path:
  description: Where the host's result is.
  returned: success
  type: str
digest:
  description: SHA-256 of that file.
  returned: success
  type: str
"""
