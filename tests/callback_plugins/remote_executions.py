# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Counts what Ansible really sends to hosts, where the output would only show tasks.

A task may execute no module (debug), one, or several (copy runs stat, then copy). So this wraps
the two methods through which every action plugin reaches a host. It does so when the callback is
loaded, in the parent, and Ansible's workers are forked from there.

Each call appends one line of JSON to the file that BULKHEAD_REMOTE_LOG names::

    {"host": "web1", "task": "Look at the host", "kind": "module",
     "name": "bulkhead.hardening.docker_host_info", "transport": "ssh", "delegate_to": null,
     "run": 4700, "pid": 4711}

``run`` is the process of ansible-playbook, ``pid`` the worker's. ``kind`` is ``module``, or
``command`` for one shell command over the connection: executing a module takes at least one. Calls
that stay on the controller have the transport ``local``. Without the variable nothing is wrapped.
"""

from __future__ import annotations

import functools
import json
import os
import typing

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: remote_executions
type: aggregate
short_description: Counts remote module executions and commands
description:
  - Appends a line of JSON for each module or command that an action plugin executes on a host.
requirements:
  - The environment variable E(BULKHEAD_REMOTE_LOG) names the file.
author: The Bulkhead authors
"""

LOG_VARIABLE = "BULKHEAD_REMOTE_LOG"
_MARK = "_bulkhead_counts"
#: Workers are forked from the process that loads this file.
_RUN = os.getpid()


def _module_name(action: ActionBase, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    """Return the module that a call of _execute_module names; its default is the task's action."""
    return (args[0] if args else kwargs.get("module_name")) or action._task.action


def _command(action: ActionBase, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    """Return the beginning of the command that a call of _low_level_execute_command runs."""
    return str(args[0] if args else kwargs.get("cmd"))[:120]


def _record(log: str, action: ActionBase, kind: str, name: object) -> None:
    """Append one line. A single write to an O_APPEND file keeps lines of parallel workers apart."""
    entry = {
        "host": action._templar.available_variables.get("inventory_hostname"),
        "task": action._task.get_name(),
        "kind": kind,
        "name": str(name),
        "transport": action._connection.transport,
        "delegate_to": action._task.delegate_to,
        "run": _RUN,
        "pid": os.getpid(),
    }
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # The names are tagged strings of ansible-core's own: default=str writes what they say.
        os.write(descriptor, (json.dumps(entry, default=str) + "\n").encode())
    finally:
        os.close(descriptor)


def _count_calls(method: str, log: str, kind: str, name_of: typing.Callable[..., object]) -> None:
    """Replace a method of ActionBase by one that records each call before it makes it."""
    original = getattr(ActionBase, method)
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def counted(self: ActionBase, *args: object, **kwargs: object) -> object:
        _record(log, self, kind, name_of(self, args, kwargs))
        return original(self, *args, **kwargs)

    setattr(counted, _MARK, True)
    setattr(ActionBase, method, counted)


class CallbackModule(CallbackBase):
    """An aggregate callback that shows nothing: what it has to say goes into the file."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "remote_executions"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        log = os.environ.get(LOG_VARIABLE)
        if not log:
            self.disabled = True
            return
        _count_calls("_execute_module", log, "module", _module_name)
        _count_calls("_low_level_execute_command", log, "command", _command)
