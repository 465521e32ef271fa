# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Requests to the door to act, and their answers, as files on the host.

A run has the directory of the transaction that it may become, ``transactions/<id>/``, and there:

- ``request.json``: ``{"schema": "bulkhead.request/1", "action", ...}``, see runner.perform. Whoever
  works on the request or waits for its answer holds a shared flock(2) on this file.
- ``answer.json``: the whole answer. Whoever waited for it removes both. An answer whose waiter died
  is collected by the next act.

All below a directory that only root may enter, and never through a link.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat as stat_module
import time
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    ledger as ledger_module,
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError

Json = dict[str, typing.Any]

REQUEST_SCHEMA = "bulkhead.request/1"
REQUEST_NAME = "request.json"

#: Largest answer, in bytes. The controller accepts no larger one either.
_MAX_BYTES = 24 * 1024 * 1024


def new_id(now: float) -> str:
    """Return the id of a run that begins now; ids sort by age, down to the microsecond."""
    seconds = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    return "%s-%06d" % (seconds, int(now % 1 * 1_000_000))


def make_private_directory(host: Host, path: str) -> None:
    """Make a directory that only root may enter, or check that it is one.

    :raises HostError: something else is there, or others may enter it.
    """
    st = files.status(host, path)
    if st is None:
        with contextlib.suppress(FileExistsError):  # another controller was faster
            files.make_directory(host, path, 0o700)
        return
    private = st.st_uid == 0 and not stat_module.S_IMODE(st.st_mode) & 0o077
    if not stat_module.S_ISDIR(st.st_mode) or not private:
        raise HostError(
            "%s is not a directory that only root may enter; it holds before-images, so look into "
            "it and then remove it" % path
        )


def make_state_directories(host: Host) -> None:
    """Make or check the directories of our state; see make_private_directory."""
    make_private_directory(host, ledger_module.STATE_DIRECTORY)
    make_private_directory(host, ledger_module.TRANSACTIONS)


class Run:
    """One request, and its answer."""

    def __init__(self, host: Host, identifier: str) -> None:
        self._host = host
        self.identifier = identifier
        self._directory = ledger_module.TRANSACTIONS + "/" + identifier

    def _path(self, name: str) -> str:
        return self._directory + "/" + name

    def ask(self, request: Json) -> None:
        """Write the request."""
        make_private_directory(self._host, self._directory)
        self._write(REQUEST_NAME, dict(request, schema=REQUEST_SCHEMA))

    def request(self) -> Json:
        """Read the request.

        :raises HostError: there is none, or none of this release's.
        """
        document = self._read(REQUEST_NAME)
        if document is None or document.get("schema") != REQUEST_SCHEMA:
            raise HostError("%s holds no request" % self._path(REQUEST_NAME))
        return document

    def reply(self, answer: Json) -> None:
        """Write the answer."""
        self._write(ledger_module.ANSWER_NAME, answer)

    def answer(self) -> Json | None:
        """Read the answer; None when there is none yet."""
        return self._read(ledger_module.ANSWER_NAME)

    def forget(self) -> None:
        """Remove request and answer, and the directory when no transaction came of it."""
        # The request goes last: without it nobody would collect the answer.
        for name in (ledger_module.ANSWER_NAME, REQUEST_NAME):
            files.remove(self._host, self._path(name))
        files.remove_directory(self._host, self._directory)

    @contextlib.contextmanager
    def held(self) -> typing.Iterator[None]:
        """Work on the request or wait for its answer: nobody else collects it meanwhile."""
        with self._locked(fcntl.LOCK_SH):
            yield

    def take(self) -> Json | None:
        """Return the answer and forget the run, if nobody works on it or waits for it any more."""
        try:
            with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
                answer = self.answer()
                self.forget()
                return answer
        except (BlockingIOError, FileNotFoundError):
            return None

    @contextlib.contextmanager
    def _locked(self, operation: int) -> typing.Iterator[None]:
        with files.directory(self._host, self._directory) as opened:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(REQUEST_NAME, flags, dir_fd=opened)
        try:
            fcntl.flock(descriptor, operation)
            yield
        finally:
            os.close(descriptor)

    def _write(self, name: str, document: Json) -> None:
        content = json.dumps(document).encode("ascii")  # the order of keys is the plan's
        files.place(self._host, self._path(name), content, files.PRIVATE)

    def _read(self, name: str) -> Json | None:
        try:
            content, _ = files.read(self._host, self._path(name), _MAX_BYTES)
            document = json.loads(content)
        except FileNotFoundError:
            return None
        except ValueError as exc:
            raise HostError("%s: %s" % (self._path(name), exc)) from exc
        return document if isinstance(document, dict) else None


def collect(host: Host) -> list[Json]:
    """Return what became of runs whose controller died, oldest first, and forget them.

    ``[{"id", "outcome", "failed_step", "reason", ...}]``, the ``transaction`` of each answer.
    """
    found = []
    for identifier in ledger_module.transaction_ids(host):
        with contextlib.suppress(OSError, HostError):
            answer = Run(host, identifier).take()
            if answer is not None:
                found.append(dict(answer.get("transaction") or {}))
    return found
