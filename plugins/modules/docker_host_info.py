#!/usr/bin/python
# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The door to look: answers with the observation of a Docker host, and changes nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_host_info
short_description: Look at a Docker host without changing anything
version_added: 0.1.0
author:
  - Bulkhead authors (@bulkhead)
description:
  - Answers with the observation of a host, one document about its Docker daemon, its containers and
    what of the system below matters to their security.
  - Reads the Docker API over the daemon's unix socket, C(/proc), C(/sys), files and
    C(systemctl show). Needs neither the Docker CLI nor a Docker library on the host.
  - Read-only to the letter. It does not connect to a socket that would start the daemon, creates
    and repairs nothing, and leaves the access times of files alone where the kernel allows that.
  - Secrets stay on the host. Values of environment variables, labels (a few well-known ones
    apart), command lines, health checks, volume options and of options that it does not know are
    never part of the answer.
  - Works on hosts whose daemon is stopped, masked, broken or absent, and without root privileges.
    What it could not read is named in C(observation.unread) with the reason.
attributes:
  check_mode:
    description: Can run in check mode and return the same as without, since it changes nothing.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: none
  platform:
    description: Target operating systems.
    platforms: linux
    support: full
options:
  gather_subset:
    description:
      - The sections of the observation to gather. Sections left out are absent from the answer.
      - V(all) stands for every section and V(details); V(hardening) for the sections that plans need.
      - V(details) is no section. With it C(engine) tells what is in effect of every option that an
        audit judges, C(containers) has processes and listening sockets, and C(images) configuration
        and history.
    type: list
    elements: str
    default: [all]
    choices:
      - all
      - hardening
      - details
      - os
      - engine
      - daemon_config
      - containers
      - images
      - volumes
      - networks
      - files
      - tls_files
      - units
      - scope_dropins
      - slice
      - seccomp_profiles
      - subids
      - users
      - lsm
      - sysctls
      - modules
      - kernel
      - client
      - trust
      - falco
      - bulkhead
      - unit_list
      - swarm
      - services
      - containerd
      - listeners
      - storage
      - audit
      - docker_group
      - daemons
  volume_sizes:
    description:
      - Also ask for the size of each volume.
      - The daemon walks the whole content of every volume for the answer, which can take minutes.
    type: bool
    default: false
  writable_layers:
    description:
      - Also ask what each running container wrote outside of its mounts, as counts and directories.
      - The daemon compares the container's files with those of its image for the answer.
    type: bool
    default: false
  timeout:
    description: How many seconds to wait for each answer of the Docker daemon and of systemd.
    type: int
    default: 60
  rootless_user:
    description:
      - Look at the rootless daemon of this user instead of the system's own. Everything that belongs
        to a daemon (options, files, containers, images) is then of that one.
      - It is found by the program of its process. Without one its sections are V(null), and C(unread)
        says so.
    type: str
  tls_files:
    description:
      - Files on the host that a policy names for the TLS of the API, to be looked at beside those that
        the daemon uses now; a mapping as C(docker_daemon_tls) is. Members that are no path are not
        looked at.
      - Of a private key nothing is read but whether it belongs to the certificate.
    type: dict
    default: {}
  document:
    description:
      - A file on the controller to which the whole observation is written, as JSON with mode 0600.
        The answer then has its C(path) and its C(digest), the SHA-256 of the file.
      - Without it the answer lacks those parts of the containers that no plan needs.
    type: path
"""

EXAMPLES = r"""
- name: Look at everything
  bulkhead.hardening.docker_host_info:
  register: look

- name: Refuse hosts whose daemon does not run
  ansible.builtin.assert:
    that: look.observation.engine.state == 'running'
    fail_msg: "Docker is {{ look.observation.engine.state }}: {{ look.observation.engine.reason }}"

- name: Look at the daemon alone, and do not wait long
  bulkhead.hardening.docker_host_info:
    gather_subset:
      - engine
      - daemon_config
    timeout: 10
"""

RETURN = r"""
observation:
  description:
    - What was seen. A section that could not be read is V(null) and has rows in C(unread); one that
      was not asked for is absent.
    - The whole document is described by C(docs/schemas/observation.schema.json) of the collection.
  returned: success
  type: dict
  contains:
    schema:
      description: Name and version of the document's format.
      type: str
      returned: always
      sample: bulkhead.observation/1
    collected_at:
      description: When the look began, in seconds since the epoch by the host's clock.
      type: float
      returned: always
      sample: 1790000000.0
    unread:
      description: What could not be read, by section and item (V(null) for all of it), and why.
      type: list
      elements: dict
      returned: always
      sample:
        - section: containers
          item: null
          reason: docker.service is inactive; docker.socket would start it
    api_calls:
      description: How many requests were made to the Docker API.
      type: int
      returned: always
      sample: 9
    os:
      description: The operating system, its kernel, systemd and the version of the control groups.
      type: dict
      returned: when gathered
    engine:
      description:
        - The Docker daemon. Its C(state) is one of V(running), V(stopped), V(masked), V(broken) and
          V(absent).
        - Its C(options) are those that flags, environment or file set or that the API confirms,
          each with what is configured, where, and what is in effect.
      type: dict
      returned: when gathered
    daemon_config:
      description: The daemon's configuration file, its state and its keys.
      type: dict
      returned: when gathered
    containers:
      description:
        - All containers, running or not, with their security-relevant configuration.
        - C(kernel) is what the kernel enforces on the main process of a running container.
      type: list
      elements: dict
      returned: when gathered
    images:
      description: The images.
      type: list
      elements: dict
      returned: when gathered
    volumes:
      description: The volumes. C(size) is V(null) unless O(volume_sizes=true).
      type: list
      elements: dict
      returned: when gathered
    networks:
      description: The networks.
      type: list
      elements: dict
      returned: when gathered
    files:
      description: Type, mode and owner of the files and sockets that Docker's security rests on.
      type: list
      elements: dict
      returned: when gathered
    units:
      description: The state of docker.service, docker.socket and containerd.service.
      type: dict
      returned: when gathered
    scope_dropins:
      description: The drop-ins for the systemd scopes of containers.
      type: list
      elements: dict
      returned: when gathered
    seccomp_profiles:
      description: The files in C(/etc/docker/seccomp).
      type: list
      elements: dict
      returned: when gathered
    subids:
      description: The ranges of subordinate user and group ids.
      type: dict
      returned: when gathered
    users:
      description: Names and ids of the local users and groups.
      type: dict
      returned: when gathered
    lsm:
      description: The security modules of the kernel.
      type: dict
      returned: when gathered
    sysctls:
      description: Kernel parameters that matter to containers, as text.
      type: dict
      returned: when gathered
    modules:
      description: Whether C(br_netfilter) is V(loaded), V(available) or V(absent).
      type: dict
      returned: when gathered
    kernel:
      description:
        - How the kernel protects itself - parameters and which file sets them at boot, parameters of
          the command line, lockdown, rare modules.
      type: dict
      returned: when gathered
    trust:
      description: The policy of image trust in force, what was pulled under it, and the files for it.
      type: dict
      returned: when gathered
    falco:
      description: Whether Falco is there and runs, with how many rules, and what it needs of the kernel.
      type: dict
      returned: when gathered
    bulkhead:
      description: What an earlier transaction of Bulkhead left on the host.
      type: dict
      returned: when gathered
path:
  description: The file that the observation was written to.
  returned: when O(document) was given
  type: str
digest:
  description: Its SHA-256.
  returned: when O(document) was given
  type: str
"""

# The documentation comes first, as ansible-test wants it.
from ansible.module_utils.basic import AnsibleModule

from ansible_collections.bulkhead.hardening.plugins.module_utils import look, look_tls
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "gather_subset": {
                "type": "list",
                "elements": "str",
                "default": ["all"],
                "choices": [*look.GROUPS, look.DETAILS, *look.SECTIONS],
            },
            "volume_sizes": {"type": "bool", "default": False},
            "writable_layers": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 60},
            "rootless_user": {"type": "str"},
            "tls_files": {"type": "dict", "default": {}},
            "document": {"type": "path"},  # kept for the controller's side, which takes it out
        },
        supports_check_mode=True,
    )
    timeout = module.params["timeout"]
    if timeout < 1:
        module.fail_json(msg="timeout: %d is too short; give at least 1 second" % timeout)
    observation = look.observe(
        Host(),
        module.params["gather_subset"],
        volume_sizes=module.params["volume_sizes"],
        writable_layers=module.params["writable_layers"],
        timeout=float(timeout),
        rootless_user=module.params["rootless_user"],
        tls_files=look_tls.by_keys(module.params["tls_files"]),
    )
    module.exit_json(changed=False, observation=observation)


if __name__ == "__main__":
    main()
