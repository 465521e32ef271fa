# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The Docker Engine API over its unix socket, with the standard library alone.

Source: the Engine API reference (https://docs.docker.com/reference/api/engine/). Paths go out
without a version prefix, which the daemon answers with its own newest version.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import typing
from urllib.parse import urlencode

#: Largest answer that is read, in bytes. ``/containers/json`` of 1,000 containers is about 2 MiB.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_OK = 200


class ApiError(Exception):
    """The daemon could not be asked, or refused.

    :param status: the HTTP status, below 400 of an answer that is none; 0 when there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class DockerApi:
    """A client of one daemon.

    :param path: the unix socket.
    :param timeout: seconds to wait for each answer.
    """

    def __init__(self, path: str, timeout: float = 60.0) -> None:
        self.path = path
        self.timeout = timeout
        #: how many requests this client has made
        self.calls = 0

    def request(
        self,
        method: str,
        path: str,
        query: dict[str, typing.Any] | None = None,
        body: typing.Any = None,
        raw: bytes | None = None,
        timeout: float | None = None,
    ) -> typing.Any:
        """Make one request and return its decoded JSON, its text, or None when it is empty.

        :param body: sent as JSON.
        :param raw: sent as a tar archive, instead of ``body``.
        :raises ApiError: no daemon, no answer in time, one that is too large, or a status from 400.
        """
        data = self._exchange(method, path, query, body, raw, timeout)
        text = data.decode("utf-8", "replace")
        try:
            return json.loads(text) if text.strip() else None
        except ValueError:
            return text

    def read(self, path: str, **query: typing.Any) -> bytes:
        """Read one resource that is no JSON, as it comes."""
        return self._exchange("GET", path, query, None, None, None)

    def _exchange(
        self,
        method: str,
        path: str,
        query: dict[str, typing.Any] | None,
        body: typing.Any,
        raw: bytes | None,
        timeout: float | None,
    ) -> bytes:
        self.calls += 1
        if query:
            path = path + "?" + urlencode(query)
        headers = {}
        payload: bytes | None = None
        if raw is not None:
            payload, headers["Content-Type"] = raw, "application/x-tar"
        elif body is not None:
            payload, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        connection = _UnixConnection(self.path, timeout or self.timeout)
        try:
            connection.request(method, path, body=payload, headers=headers)
            response = connection.getresponse()
            # In pieces: Python 3.9 first clears a buffer as large as what is asked for.
            data = b""
            while len(data) <= MAX_ANSWER_BYTES:
                piece = response.read(_PIECE_BYTES)
                if not piece:
                    break
                data += piece
        except (OSError, http.client.HTTPException) as exc:
            raise ApiError("%s: %s" % (self.path, exc or type(exc).__name__)) from exc
        finally:
            connection.close()
        if len(data) > MAX_ANSWER_BYTES:
            raise ApiError("%s %s: answer larger than %d bytes" % (method, path, MAX_ANSWER_BYTES))
        if response.length:  # http.client says nothing when the daemon ends in the middle of it
            raise ApiError("%s %s: the answer is cut off" % (method, path), response.status)
        if response.status >= 400:
            message = _parsed(data.decode("utf-8", "replace")).get("message")
            if message is None:
                message = data.decode("utf-8", "replace")
            raise ApiError(
                "%s %s: %s %s" % (method, path, response.status, message), response.status
            )
        return data

    def get(self, path: str, **query: typing.Any) -> typing.Any:
        """Read one resource."""
        return self.request("GET", path, query=query or None)

    def document(self, path: str, **query: typing.Any) -> dict[str, typing.Any]:
        """Read one resource that is a JSON object. Raises ApiError, also for anything else."""
        answer = self._json(path, query)
        if not isinstance(answer, dict):
            raise ApiError("GET %s: no JSON object" % path, _OK)
        return answer

    def rows(self, path: str, **query: typing.Any) -> list[dict[str, typing.Any]]:
        """Read one resource that is a list of JSON objects. Raises ApiError, also for anything else."""
        answer = self._json(path, query)
        if answer is None:  # as Go writes a list without an element
            return []
        if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
            raise ApiError("GET %s: no list of JSON objects" % path, _OK)
        return answer

    def _json(self, path: str, query: dict[str, typing.Any]) -> typing.Any:
        try:
            return json.loads(self._exchange("GET", path, query, None, None, None))
        except ValueError as exc:
            raise ApiError("GET %s: no JSON" % path, _OK) from exc

    def import_image(self, repository: str, tag: str, label: str, root: bytes) -> str:
        """Make an image of a tar archive of its root directory; return its reference.

        :param label: ``name=value``.
        :raises ApiError: also when the daemon says only within its answer that it failed.
        """
        query = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": "LABEL " + label}
        answer = self.request("POST", "/images/create", query=query, raw=root)
        # The answer is a stream of JSON lines, sent with status 200 before anything can go wrong.
        for line in [answer] if isinstance(answer, dict) else str(answer).split("\n"):
            message = line if isinstance(line, dict) else _parsed(line)
            if message.get("error"):
                raise ApiError("import of %s: %s" % (repository, message["error"]))
        return "%s:%s" % (repository, tag)

    def has_default_network(self) -> bool:
        """Tell whether there is a default bridge; ``"bridge": "none"`` in daemon.json takes it away."""
        try:
            self.get("/networks/bridge")
        except ApiError as exc:
            return exc.status != 404
        return True

    def peer_pid(self) -> int:
        """Return the process id behind the socket (who called listen), from SO_PEERCRED."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(self.timeout)
            try:
                sock.connect(self.path)
                raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            except OSError as exc:
                raise ApiError("%s: %s" % (self.path, exc)) from exc
        return int(struct.unpack("3i", raw)[0])


def _parsed(line: str) -> dict[str, typing.Any]:
    with contextlib.suppress(ValueError):
        message = json.loads(line)
        if isinstance(message, dict):
            return message
    return {}
