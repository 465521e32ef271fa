# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Keep published ports reachable while the daemon restarts.

With live-restore the containers go on, but a starting dockerd empties its chains and fills them
again one container after the other (daemon/libnetwork/drivers/bridge, setupIPChains). Until then the
host refuses whoever asks for a published port. So the very rules by which Docker publishes them are
copied to a chain of ours before the restart, and removed after it.

What the copy admits is what Docker's own rules admitted: it comes last in DOCKER-USER, after all that
the host's owner has put there, and what comes from Docker's own networks is left to Docker. (From
28.0 on a chain after DOCKER-USER drops what Docker has not published yet.)

Ports published for 127.0.0.1 are served by docker-proxy, a child of the daemon, and cannot be kept.
"""

from __future__ import annotations

import re

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host

CHAIN = "BULKHEAD-PUBLISHED"

_FAMILIES = ("iptables", "ip6tables")
_DNAT = re.compile(r"\A-A DOCKER (.* -j DNAT --to-destination \S+)\Z")
_JUMP = re.compile(r"\A-A (PREROUTING|OUTPUT) (?:(.*) )?-j DOCKER\Z")
_ACCEPT = re.compile(r"\A-A DOCKER (-d \S+ ! -i (\S+) -o \2 -p .* -j ACCEPT)\Z")
_BRIDGE = re.compile(r"\A-A \S+ -o (\S+) -j DOCKER\Z")
_OURS = re.compile(r"\A-A (\S+ (?:.* )?-j %s)\Z" % CHAIN)


def keep(host: Host) -> str | None:
    """Copy the rules of published ports; return why that failed, or None. Never raises.

    Leaves a copy alone that an earlier restart left: Docker's own rules may be incomplete by then.
    """
    problems = []
    for family in _FAMILIES:
        tables = _tables(host, family)
        script = "" if _is_kept(tables) else keeping(tables)
        if script:
            problems += _restore(host, family, script)
    return "; ".join(problems) or None


def release(host: Host) -> str | None:
    """Remove the copy, if there is one; return why that failed, or None. Never raises."""
    problems = []
    for family in _FAMILIES:
        script = releasing(_tables(host, family))
        if script:
            problems += _restore(host, family, script)
    return "; ".join(problems) or None


def keeping(tables: dict[str, list[str]]) -> str:
    """Return the input of iptables-restore that copies the rules; empty when nothing is published.

    :param tables: the lines of each table, as iptables-save prints them.
    """
    nat, packets = tables.get("nat", []), tables.get("filter", [])
    targets = [match.group(1) for match in map(_DNAT.match, nat) if match]
    jumps = [match.groups() for match in map(_JUMP.match, nat) if match]
    accepted = [match.groups() for match in map(_ACCEPT.match, packets) if match]
    if not targets or not jumps:
        return ""
    lines = ["*nat", ":%s - [0:0]" % CHAIN]
    lines += ["-A %s %s" % (CHAIN, rule) for rule in targets]
    # After Docker's own jump: the copy is asked only while that has no answer.
    lines += [" ".join(filter(None, ["-A", *jump, "-j", CHAIN])) for jump in jumps]
    lines += ["COMMIT", "*filter", ":%s - [0:0]" % CHAIN]
    served = {bridge for _, bridge in accepted}
    bridges = served | {match.group(1) for match in map(_BRIDGE.match, packets) if match}
    known = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    for way in ("-i", "-o"):
        lines += ["-A %s %s %s %s" % (CHAIN, way, name, known) for name in sorted(served)]
    lines += ["-A %s -i %s -j RETURN" % (CHAIN, name) for name in sorted(bridges)]
    lines += ["-A %s %s" % (CHAIN, rule) for rule, _ in accepted]
    lines += ["-I %s %d -j %s" % (*_place(packets), CHAIN), "COMMIT"]
    return "\n".join(lines) + "\n"


def _place(packets: list[str]) -> tuple[str, int]:
    """Return the chain and the position at which the copy is asked."""
    if not any(line.startswith(":DOCKER-USER ") for line in packets):
        return "FORWARD", 1
    rules = [line for line in packets if line.startswith("-A DOCKER-USER ")]
    if rules and rules[-1] == "-A DOCKER-USER -j RETURN":  # what Docker puts there before 28.0
        return "DOCKER-USER", len(rules)
    return "DOCKER-USER", len(rules) + 1


def releasing(tables: dict[str, list[str]]) -> str:
    """Return the input of iptables-restore that removes the copy; empty when there is none."""
    lines: list[str] = []
    for name, rules in sorted(tables.items()):
        if not any(line.startswith(":%s " % CHAIN) for line in rules):
            continue
        jumps = [match.group(1) for match in map(_OURS.match, rules) if match]
        lines += ["*" + name, *("-D " + jump for jump in jumps)]
        lines += ["-F " + CHAIN, "-X " + CHAIN, "COMMIT"]
    return "".join(line + "\n" for line in lines)


def _is_kept(tables: dict[str, list[str]]) -> bool:
    return any(line.startswith(":%s " % CHAIN) for rules in tables.values() for line in rules)


def _tables(host: Host, family: str) -> dict[str, list[str]]:
    """Return the lines of each table; empty when this host has no such program."""
    done = host.run([family + "-save"])
    found: dict[str, list[str]] = {}
    rules: list[str] = []
    for line in done.out.split("\n") if done.rc == 0 else []:
        if line.startswith("*"):
            rules = found.setdefault(line[1:], [])
        elif line.startswith((":", "-A ")):
            rules.append(line)
    return found


def _restore(host: Host, family: str, script: str) -> list[str]:
    done = host.run([family + "-restore", "--noflush", "--wait=10"], stdin=script.encode("utf-8"))
    return [] if done.rc == 0 else ["%s-restore: %s" % (family, done.err.strip() or done.rc)]
