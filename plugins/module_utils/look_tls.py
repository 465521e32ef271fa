# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The files behind the API's TLS: whether the daemon can use them, until when, and for which names.

No private key is read into an answer, nor is anything derived from one: OpenSSL, by the standard
library, is asked on the host whether a key belongs to a certificate. Source: moby daemon/command,
newAPIServerTLSConfig, and docker/go-connections tlsconfig, for what the daemon wants of them.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import time
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import certificate
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    os_reason,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_daemon import Daemon

#: The keys of daemon.json that name the files, and their names at the place where dockerd looks by itself.
DEFAULT_NAMES = {"tlscacert": "ca.pem", "tlscert": "cert.pem", "tlskey": "key.pem"}

#: A certificate with its chain has some KiB, a bundle of all public authorities 250.
_MAX_BYTES = 1024 * 1024


class UnusableError(ValueError):
    """The daemon cannot use a file; the message says why, without its content."""


def paths(daemon: Daemon) -> dict[str, str]:
    """Return the files that the daemon is told of, or looks for by itself, by their keys."""
    in_use = bool(daemon.option("tls")) or daemon.option("tlsverify") is not None
    found = {}
    for key, name in DEFAULT_NAMES.items():
        path = daemon.option(key)
        if isinstance(path, str) and path:
            found[key] = path
        elif in_use:
            found[key] = "%s/%s" % (daemon.places.tls, name)
    return found


def by_keys(files: typing.Mapping[str, typing.Any]) -> dict[str, str]:
    """Return a policy's files, named ``cacert``, ``cert`` and ``key``, by the keys of daemon.json."""
    found = {key: files.get(key[len("tls") :]) for key in DEFAULT_NAMES}
    return {key: path for key, path in found.items() if isinstance(path, str) and path}


def named(operations: typing.Iterable[Mapping]) -> dict[str, str]:
    """Return the files that a plan's settings of keys name."""
    return {
        item["key"]: item["value"]
        for item in operations
        if item["key"] in DEFAULT_NAMES and isinstance(item["value"], str)
    }


def tls_files(host: Host, daemon: Daemon, wanted: typing.Mapping[str, str]) -> list[Mapping]:
    """Return the section ``tls_files``: those of the daemon, and those that a policy names.

    :param wanted: the policy's, by their keys.
    """
    used = paths(daemon)
    rows = [{**row, "used": True} for row in examine(host, used)]
    if wanted != used:
        rows += [{**row, "used": False} for row in examine(host, wanted)]
    return rows


def examine(host: Host, named: typing.Mapping[str, str]) -> list[Mapping]:
    """Return a row for each of the files that together serve one daemon.

    ``problem`` says why the daemon, or its clients, could not use it, or is None.

    :param named: paths by the keys of daemon.json, of which some may be missing.
    """
    return [_row(host, key, named) for key in DEFAULT_NAMES if key in named]


def _row(host: Host, key: str, named: typing.Mapping[str, str]) -> Mapping:
    path = named[key]
    row: Mapping = {"key": key, "path": path, "problem": None}
    row.update(not_before=None, not_after=None, names=[])
    try:
        if not posixpath.isabs(path):
            raise UnusableError("the path is not absolute")
        real = _regular(host, path)
        if key == "tlskey":
            _check_pair(host, named.get("tlscert"), real)
            return row
        pem = host.read_text(real, _MAX_BYTES)
        found = certificate.read(pem)
        # Of authorities one that is valid does; of a server's certificate those that follow vouch for it.
        chosen = max(found, key=lambda item: item.not_after) if key == "tlscacert" else found[0]
        row.update(not_before=chosen.not_before, not_after=chosen.not_after)
        if key == "tlscacert":
            _check_authority(pem)
        else:
            row["names"] = chosen.names
            _check_server(chosen)
        _check_time(chosen, host.now())
    except OSError as exc:
        row["problem"] = os_reason(exc)
    except ImportError:
        row["problem"] = "it cannot be checked: Python on this host has no module ssl"
    except ValueError as exc:
        row["problem"] = str(exc)
    return row


def _regular(host: Host, path: str) -> str:
    """Return where a path leads, when that is a plain file of a likely size."""
    real = host.resolve(path) or path
    status = host.lstat(real)
    if status is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if not stat.S_ISREG(status.st_mode):
        raise UnusableError("it is no regular file")
    if status.st_size > _MAX_BYTES:
        raise UnusableError("it is larger than %d bytes" % _MAX_BYTES)
    return real


def _check_authority(pem: str) -> None:
    import ssl  # here: a Python without it can still look at everything else

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata="\n".join(certificate.texts(pem)))
    except ssl.SSLError as exc:
        raise UnusableError(_said(exc)) from None
    if not context.cert_store_stats()["x509_ca"]:
        raise UnusableError("none of its certificates is that of an authority")


def _check_server(found: certificate.Certificate) -> None:
    if not found.serves:
        raise UnusableError("it is not for servers (its extended key usage lacks serverAuth)")
    if not found.names:
        raise UnusableError("it names no host (subjectAltName), so that every client refuses it")


def _check_time(found: certificate.Certificate, now: float) -> None:
    if now < found.not_before:
        raise UnusableError("it is valid from %s on" % _day(found.not_before))
    if now >= found.not_after:
        raise UnusableError("it expired on %s" % _day(found.not_after))


def _check_pair(host: Host, cert: str | None, key: str) -> None:
    import ssl

    if cert is None:
        return
    try:
        real = _regular(host, cert)
    except (OSError, ValueError):  # which is what the certificate's own row says
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(host.path(real), host.path(key), password=_no_password)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise UnusableError("it does not belong to the certificate %s" % cert) from None
        raise UnusableError(_said(exc)) from None


def _no_password() -> str:
    # Without an answer of ours OpenSSL would ask at a terminal.
    raise UnusableError("it is encrypted, and the daemon has no way to ask for the password")


def _said(exc: Exception) -> str:
    """Return why OpenSSL refuses a file: the name of its reason, never what it read."""
    reason = getattr(exc, "reason", None)
    return "OpenSSL does not take it (%s)" % (reason or "it is not in PEM format")


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))
