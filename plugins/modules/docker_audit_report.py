#!/usr/bin/python
# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Documents the action plugin of this name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_audit_report
version_added: 0.1.0
author: The Bulkhead authors
short_description: Write the reports of an audit on the controller
description:
- Puts what M(bulkhead.hardening.docker_audit) left of each host together, one host after the other.
  A host of the play that left nothing is reported as an error.
- No host is touched. Reports are written in check mode too.
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
    description: The same as for M(bulkhead.hardening.docker_audit).
    type: dict
  report_dir:
    description: The folder with the results of the hosts; the reports are written there, mode 0600.
    type: path
    required: true
  hosts:
    description: All hosts of the play.
    type: list
    elements: str
    required: true
  result:
    description: The variable that the audit of each host was registered in, to tell why one left
      nothing.
    type: str
  formats:
    description: Which reports to write; all by default. V(json) is always written.
    type: list
    elements: str
    choices:
    - json
    - html
    - junit
    - sarif
    - markdown
    - prometheus
  reference:
    description: A V(result.json) of an earlier run to compare with. It may be the one that this run's
      takes the place of.
    type: path
  slices:
    description: Folders of the reports of other runs, each over a slice of the fleet. Their hosts are put
      together in O(report_dir); of a host that is in several the newest result counts.
    type: list
    elements: path
  docker_bench:
    description: Files of docker-bench-security (V(.log.json)) to set beside the results, by host.
    type: dict
  started_at:
    description: When the run began.
    type: str
"""

EXAMPLES = r"""
- name: Write the reports
  bulkhead.hardening.docker_audit_report:
    report_dir: reports/audit
    hosts: "{{ ansible_play_hosts_all }}"
  run_once: true
"""

RETURN = r"""
summary:
  description: Lines that fit on a screen.
  returned: success
  type: list
  elements: str
paths:
  description: The reports.
  returned: success
  type: list
  elements: str
failed_on:
  description: Entries of C(docker_audit_fail_on) that there are findings for.
  returned: success
  type: list
  elements: str
comparison:
  description: How many findings are new, fixed, gone, waived, unchanged, or were not compared.
  returned: when O(reference) was given
  type: dict
docker_bench:
  description: How many checks stand how to those of docker-bench-security.
  returned: when O(docker_bench) was given
  type: dict
"""
