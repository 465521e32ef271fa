# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Falco on a host: where it keeps what, and its own opinion of a file of rules.

Source: https://falco.org/docs/setup/packages and https://falco.org/docs/concepts/rules/default-custom.
"""

from __future__ import annotations

import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError

PROGRAM: typing.Final = "/usr/bin/falco"
#: Since Falco 0.41 names and images of containers come from this plugin.
CONTAINER_PLUGIN: typing.Final = "/usr/share/falco/plugins/libcontainer.so"

#: The unit of the package that runs Falco with the modern eBPF engine, and those of other engines.
UNIT: typing.Final = "falco-modern-bpf.service"
OTHER_UNITS: typing.Final = ("falco-kmod.service", "falco-bpf.service", "falco-custom.service")

#: What Bulkhead places. Files of these directories are read after those that the package brings.
CONFIG_DIRECTORY: typing.Final = "/etc/falco/config.d/"
RULES_DIRECTORY: typing.Final = "/etc/falco/rules.d/"
DROPIN_DIRECTORY: typing.Final = "/etc/systemd/system/%s.d/" % UNIT
CONFIG: typing.Final = CONFIG_DIRECTORY + "50-bulkhead.yaml"
RULES: typing.Final = RULES_DIRECTORY + "50-bulkhead.yaml"
DROPIN: typing.Final = DROPIN_DIRECTORY + "50-bulkhead.conf"

#: Where events go as one JSON object a line, when a file is asked for.
EVENTS: typing.Final = "/var/log/falco-events.json"

#: Rules that are there before ours, which may speak of them.
PACKAGED_RULES: typing.Final = (
    "/etc/falco/falco_rules.yaml",
    "/etc/falco/falco_rules.local.yaml",
)

#: Where the program reads what is handed to it.
_HANDED: typing.Final = "/dev/stdin"
_RULE = re.compile(rb"^-\s+rule\s*:", re.MULTILINE)


def count_rules(content: bytes) -> int:
    """Return how many rules a file holds, by the lines that begin one."""
    return len(_RULE.findall(content))


def problem(host: Host, text: bytes) -> str | None:
    """Return what Falco says against a file of rules, its last line; None when it is well.

    It is asked with the rules of the package before ours, as it reads them. Nothing is written.

    :raises HostError: Falco is not installed.
    """
    if host.lstat(PROGRAM) is None:
        raise HostError("Falco is not installed (%s is absent)" % PROGRAM)
    before = [path for path in PACKAGED_RULES if host.lstat(path) is not None]
    argv = [PROGRAM]
    for path in [*before, _HANDED]:
        argv += ["-V", path]
    done = host.run(argv, stdin=text)
    if done.rc == 0:
        return None
    lines = [line.strip() for line in (done.out + "\n" + done.err).splitlines() if line.strip()]
    return (lines or ["exit status %d" % done.rc])[-1][:300]
