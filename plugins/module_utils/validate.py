# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Is this daemon.json one with which the engine will start, and its containers too?

``dockerd --validate`` knows best where it exists (23.0 and later), given the flags of the unit: an
option that is both a flag and a key stops the daemon, even with equal values. It misses what only
shows at start or in the first container; that, and what older engines would say, is in
:mod:`option_checks`. See :func:`problems`.
"""

from __future__ import annotations

import codecs
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    daemon_options,
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.option_checks import (
    CHECKS,
    VALIDATE_SINCE,
    Facts,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.redact import redact, secrets_of
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_accounts import (
    Accounts,
)

_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "string": (str,),
    "list": (list,),
    "integer": (int,),
    "map": (dict,),
}


def problems(host: Host, document: dict[str, typing.Any], facts: Facts) -> list[str]:
    """Return what would keep the engine from starting, or all containers; empty when nothing."""
    found: list[str] = []
    for key, value in document.items():
        found.extend(_key_problems(key, value, facts))
    for key in sorted(facts.planned & set(document)):
        check = CHECKS.get(key)
        option = daemon_options.OPTIONS.get(key)
        # What has the wrong type was reported above.
        if check and option and _is_type(document[key], option.kind):
            reason = check(host, document, facts)
            if reason:
                found.append("%s: %s" % (key, reason))
    return found


def mark_problem(version: str | None, content: bytes | None) -> str | None:
    """Return why a byte order mark keeps the engine from starting, or None.

    It is skipped from 24.0 on (moby daemon/config/config.go).
    """
    marked = content is not None and content.startswith(codecs.BOM_UTF8)
    if not marked or version is None or daemon_options.release(version) >= (24, 0, 0):
        return None
    return (
        "it begins with a byte order mark, with which Docker Engine %s does not start; save it "
        "without one" % version
    )


def _key_problems(key: str, value: typing.Any, facts: Facts) -> list[str]:
    found = []
    option = daemon_options.OPTIONS.get(key)
    if not _known(key, facts):
        engine = "Docker Engine " + facts.version if facts.version else "no supported engine"
        hint = "%s: %s does not know this key and would not start; remove it from the policy"
        found.append(hint % (key, engine))
    elif option is not None and not _is_type(value, option.kind):
        found.append("%s: the engine wants a JSON %s" % (key, option.kind))
    # The one option for which flags and file are merged (daemon/config/config.go).
    if key in facts.flags and key != "runtimes":
        found.append(
            "%s: it is also set as a flag in %s, with which the engine refuses to start; "
            "remove one of the two" % (key, facts.flags[key])
        )
    return found


def _known(key: str, facts: Facts) -> bool:
    if facts.version is None:
        return key in daemon_options.OPTIONS or key not in facts.planned
    if daemon_options.knows(facts.version, key):
        return True
    # A key that was there before may be younger than our table; --validate has the last word.
    return key not in facts.planned and daemon_options.release(facts.version) >= VALIDATE_SINCE


def _is_type(value: typing.Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _JSON_TYPES[kind])


# -- --validate ------------------------------------------------------------------------------------
def ask_engine(
    host: Host,
    command: typing.Sequence[str],
    version: str | None,
    staged: str,
    document: dict[str, typing.Any],
) -> str:
    """Let the engine itself check a staged daemon.json; return what was done, for the report.

    :param command: the daemon's program and arguments as its unit runs it. Values that must not be
        shown are taken out of what it says.
    :raises HostError: the engine refuses the file; with its own words.
    """
    if version is None or not command:
        return "there is no engine to ask yet"
    if daemon_options.release(version) < VALIDATE_SINCE:
        return "Docker Engine %s has no --validate" % version
    if document.get("userns-remap") == "default" and Accounts(host).uid("dockremap") is None:
        # It would create that user, also when it only validates (daemon/config, 23.0 to 29).
        return "not asked: with userns-remap 'default' the engine would create a user"
    argv = [*_without_config_file(command), "--validate", "--config-file=" + host.path(staged)]
    done = host.run(argv, timeout=60.0)
    if done.rc != 0:
        lines = [line for line in (done.err + "\n" + done.out).split("\n") if line.strip()]
        said = " | ".join(lines[-5:]) or "exit status %d" % done.rc
        said = said.replace(host.path(staged), "daemon.json")
        raise HostError(
            "dockerd --validate: " + redact(said, secrets_of(host, staged, command[1:]))
        )
    return "dockerd --validate accepts it"


def _without_config_file(command: typing.Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in command:
        if skip:
            skip = False
        elif word == "--config-file":
            skip = True
        elif not word.startswith("--config-file="):
            kept.append(word)
    return kept


def files_problem(host: Host, path: str) -> str | None:
    """Return why a file cannot be placed or replaced at a path, or None.

    :raises HostError: a link lies on the way.
    """
    st = files.status(host, path)
    for candidate in (path, path.rpartition("/")[0] or "/"):
        attributes = host.attributes(candidate)
        if attributes:
            return "%s is %s; take that off with chattr first" % (
                candidate,
                " and ".join(attributes).replace("_", " "),
            )
    if st is not None and not _regular(st.st_mode):
        return "%s is a link or no regular file" % path
    if files.free_space(host, path)[2]:
        return "%s lies on a file system that is mounted read-only" % path
    return None


def _regular(mode: int) -> bool:
    return (mode & 0o170000) == 0o100000
