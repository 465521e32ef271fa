# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The drop-in that takes options over from dockerd's command line, so that daemon.json can set them.

dockerd does not start when an option is both a flag and a key. A flag may stand in a unit that a
package owns, or come from an environment file; neither is ours to change. So the drop-in empties
ExecStart= and gives it again without the flags that are taken. Values of the others may be secret:
the text is made on the host, and only root can read it.

Source: systemd.service(5) "Command lines", systemd.unit(5) on drop-ins; moby daemon/config,
getConflictFreeConfiguration.
"""

from __future__ import annotations

import posixpath
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import OPTIONS
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    UnreadableError,
    reason_of,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import (
    COMMANDS,
    flags_of,
    key_of,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_systemd import (
    Service,
    assignments,
)

#: Drop-ins are read in the order of their names, and the last ExecStart= is the one that counts.
FLAGS_DROPIN: typing.Final = "/etc/systemd/system/docker.service.d/zz-bulkhead-flags.conf"

_HEADER = """\
# Written by Bulkhead (docker_daemon_take_over_flags). The daemon's command line as it was on the day
# of the run, without: %s. What the unit or its environment files
# say of the daemon's arguments from then on has no effect; remove keys from the variable to change that.
[Service]
ExecStart=
ExecStart=%s
"""


def dropin(host: Host, unit: Mapping | None, keys: typing.Collection[str]) -> tuple[str, list[str]]:
    """Return the drop-in's text, and the arguments that the daemon then gets.

    :param unit: docker.service as the look shows it; our own drop-in is left out of account.
    :param keys: the keys of daemon.json whose flags are taken; none gives the unit's own arguments.
    :raises HostError: the command line cannot be written again with certainty.
    """
    service = _service(host, unit)
    program = service.words[0].text
    kept: list[str] = []
    for name, value, word in flags_of(service.words[1:]):
        key = key_of(name)
        if name not in COMMANDS and key not in OPTIONS:
            raise HostError(
                "docker_daemon_take_over_flags: %s gives dockerd the flag --%s, which Bulkhead does "
                "not know, so it does not write that command line again; take the option out of "
                "there by hand" % (word.where, name)
            )
        if key not in keys:
            kept.append("--%s=%s" % (name, value))
    line = " ".join(_quoted(word) for word in [program, *kept])
    return _HEADER % (", ".join(sorted(keys)), line), kept


def _service(host: Host, unit: Mapping | None) -> Service:
    if not unit or not unit.get("fragment"):
        raise HostError("docker_daemon_take_over_flags: the unit docker.service could not be read")
    paths = [unit["fragment"], *unit.get("dropins", [])]
    paths = [path for path in paths if path != FLAGS_DROPIN]
    try:
        service = Service(host, paths)
        later = [
            path
            for path in paths[1:]
            if posixpath.basename(path) > posixpath.basename(FLAGS_DROPIN)
            and any(name == "ExecStart" for name, _ in assignments(host.read_text(path), "Service"))
        ]
    except (OSError, UnreadableError) as exc:
        raise HostError("docker_daemon_take_over_flags: %s" % reason_of(exc)) from exc
    if later:
        raise HostError(
            "docker_daemon_take_over_flags: %s is read after our drop-in and sets ExecStart= itself; "
            "rename it, or take the option out of there by hand" % later[-1]
        )
    if service.prefix or not service.words[0].text.startswith("/"):
        raise HostError(
            "docker_daemon_take_over_flags: ExecStart= does not begin with the plain path of a "
            "program, so Bulkhead does not write it again"
        )
    return service


def _quoted(word: str) -> str:
    """Return one word as a unit file holds it (specifiers and variables are doubled)."""
    if any(ord(char) < 32 or ord(char) == 127 for char in word):
        raise HostError(
            "docker_daemon_take_over_flags: an argument of dockerd holds a control character"
        )
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(plain, escaped)
    return '"%s"' % word
